"""How Slack tells an app what happened: over its socket or by signed HTTP, and again if need be."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Collection, Coroutine
from dataclasses import dataclass, field
from urllib.parse import urlencode

import aiohttp

from tests.emulators.clock import Clock
from tests.emulators.slack.installation import VERIFICATION_TOKEN
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.socket import SocketMode

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try to tell the app of something.

    `kind` is the event's type, `slash_commands` or `block_actions`. `status` is the HTTP status,
    200 for a socket's ack, or None when there was no answer in time; `body` is the answer as text.
    `at` is in monotonic seconds, `seconds` passed until the answer. `ts` is the message's, if it
    is about one.
    """

    kind: str
    attempt: int
    status: int | None
    body: str
    at: float
    seconds: float
    event_id: str
    ts: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """Something to tell; `type` is Socket Mode's."""

    kind: str
    type: str
    payload: Payload
    ts: str = ""
    event_id: str = field(default_factory=lambda: f"Ev{secrets.token_hex(5).upper()}")

    def form(self) -> tuple[str, bytes]:
        """Return the content type and body of the HTTP request."""
        if self.type == "events_api":
            return _JSON, json.dumps(self.payload).encode()
        if self.type == "slash_commands":
            return _FORM, urlencode(self.payload).encode()
        return _FORM, urlencode({"payload": json.dumps(self.payload)}).encode()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int | None
    body: str = ""
    reason: str = ""

    @property
    def good(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Outbox:
    """Tells the app what happened, over HTTP where an address is verified, else over its socket.

    Retries and the wait for an answer go by the clock.
    """

    def __init__(
        self,
        socket: SocketMode,
        clock: Clock,
        *,
        secret: str,
        retry_after: Collection[float],
        ack_within: float,
    ) -> None:
        self.deliveries: list[Delivery] = []
        self._url: str | None = None
        self._socket = socket
        self._clock = clock
        self.secret = secret
        self._retry_after = retry_after
        self._ack_within = ack_within
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._sent: dict[str, list[Envelope]] = {}

    async def verify(self, url: str) -> None:
        """Tell the app by signed HTTP requests from now on, as when its Request URL is saved.

        ValueError when it does not return the challenge (docs: url_verification).
        """
        challenge, token = secrets.token_hex(16), VERIFICATION_TOKEN
        payload: Payload = {"token": token, "challenge": challenge, "type": "url_verification"}
        envelope = Envelope("url_verification", "events_api", payload)
        answer = await self._within(self._request(url, envelope, 0, ""))
        if not answer.good or challenge not in answer.body:
            raise ValueError(f"{url} did not return the challenge: {answer.status} {answer.body}")
        self._url = url

    async def tell(self, envelope: Envelope, *, attempt: int = 0, reason: str = "") -> Delivery:
        """Try once and return how it went."""
        delivery, _ = await self._attempt(envelope, attempt, reason)
        return delivery

    async def deliver(self, payload: Payload) -> Delivery:
        """Tell the app this once, as a payload of the Events API whatever its shape."""
        return await self.tell(Envelope(str(payload.get("type")), "events_api", payload))

    def post(self, envelope: Envelope) -> None:
        """Tell in the background, and again where there is no good answer in time."""
        self._sent.setdefault(envelope.ts, []).append(envelope)
        self._tasks.append(asyncio.create_task(self._persist(envelope)))

    async def repeat(self, ts: str) -> None:
        """Tell again of all that concerned a message, as a retry, and wait for the answer."""
        for envelope in list(self._sent[ts]):
            told = [d.attempt for d in self.deliveries if d.event_id == envelope.event_id]
            await self.tell(envelope, attempt=max(told, default=0) + 1, reason="http_timeout")

    async def close(self) -> None:
        """End what is under way; raises what went wrong in the emulator itself."""
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session:
            await self._session.close()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _persist(self, envelope: Envelope) -> None:
        """Try, then retry as Slack does (docs: Events API, "Error handling")."""
        _, answer = await self._attempt(envelope, 0, "")
        for number, pause in enumerate(self._retry_after, start=1):
            if answer.good:
                return
            await self._clock.sleep(pause)
            _, answer = await self._attempt(envelope, number, answer.reason)

    async def _attempt(
        self, envelope: Envelope, attempt: int, reason: str
    ) -> tuple[Delivery, _Answer]:
        at = time.monotonic()
        try:
            answer = await self._within(self._ask(envelope, attempt, reason))
        except TimeoutError:
            answer = _Answer(None, reason="http_timeout" if self._url else "timeout")
        delivery = Delivery(
            kind=envelope.kind,
            attempt=attempt,
            status=answer.status,
            body=answer.body,
            at=at,
            seconds=time.monotonic() - at,
            event_id=envelope.event_id,
            ts=envelope.ts,
        )
        self.deliveries.append(delivery)
        return delivery, answer

    async def _within(self, answer: Coroutine[None, None, _Answer]) -> _Answer:
        """Return the answer; TimeoutError when the time for it is over on the clock."""
        asking = asyncio.ensure_future(answer)
        over = asyncio.ensure_future(self._clock.sleep(self._ack_within))
        try:
            await asyncio.wait({asking, over}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise TimeoutError
            return asking.result()
        finally:
            asking.cancel()
            over.cancel()
            await asyncio.gather(asking, over, return_exceptions=True)

    async def _ask(self, envelope: Envelope, attempt: int, reason: str) -> _Answer:
        if self._url:
            return await self._request(self._url, envelope, attempt, reason)
        frame: Payload = {
            "type": envelope.type,
            "payload": envelope.payload,
            "accepts_response_payload": envelope.kind in ("slash_commands", "view_submission"),
        }
        if envelope.type == "events_api":
            # The first try carries them too, as 0 and "".
            frame |= {"retry_attempt": attempt, "retry_reason": reason}
        body = await self._socket.send(frame)
        if body is None:
            return _Answer(None, reason="connection_failed")
        return _Answer(200, body)

    async def _request(self, url: str, envelope: Envelope, attempt: int, reason: str) -> _Answer:
        content_type, body = envelope.form()
        headers = {"Content-Type": content_type, **self._signature(body)}
        if attempt:
            headers |= {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": reason}
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            async with self._session.post(url, data=body, headers=headers) as response:
                return _Answer(response.status, await response.text(), "http_error")
        except aiohttp.ClientError:
            return _Answer(None, reason="connection_failed")

    def _signature(self, body: bytes) -> dict[str, str]:
        """Return the two headers of docs: "Verifying requests from Slack"."""
        now = str(int(time.time()))
        base = f"v0:{now}:".encode() + body
        digest = hmac.new(self.secret.encode(), base, hashlib.sha256).hexdigest()
        return {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": f"v0={digest}"}
