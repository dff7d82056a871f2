"""The door of Slack's Web API: tokens, rates, what goes wrong on purpose, and who answers."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from tests.emulators.slack.arguments import SlackError, arguments, joined, text
from tests.emulators.slack.chat import Chat
from tests.emulators.slack.conversations import Conversations
from tests.emulators.slack.socket import SocketMode
from tests.emulators.slack.spec import complaints
from tests.emulators.slack.workspace import (
    APP_ID,
    BOT_ID,
    BOT_USER_ID,
    TEAM_ID,
    Payload,
    Workspace,
)

# docs: agents.sessions.setStatus, "Acceptable values".
SESSION_STATES = ("active", "processing", "suspended", "closed")
_TS = re.compile(r"\d{10}\.\d{6}")


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the bot; `at` is in monotonic seconds, `body` is without the token."""

    method: str
    body: Payload
    ok: bool
    error: str | None
    at: float


@dataclass(frozen=True, slots=True)
class Rate:
    """A bucket that holds `burst` calls and gets `calls` back every `seconds`."""

    calls: int
    seconds: float
    burst: int


@dataclass(slots=True)
class Failure:
    """What goes wrong with the next calls of a method, `times` of them after `after` good ones."""

    status: int | None
    error: str | None
    retry_after: float | None
    hang: bool
    applied: bool
    times: int
    after: int

    def due(self) -> bool:
        """Tell whether the call that comes now is one of those."""
        if self.after > 0:
            self.after -= 1
            return False
        self.times -= 1
        return True

    def answer(self) -> Payload:
        """Return what such a call is answered with."""
        if self.hang or self.status is None:
            return {"ok": False, "error": "hung" if self.hang else "dropped"}
        if self.status == 429:
            return _limited(self.retry_after or 1)
        return {"ok": False, "error": self.error or "internal_error"}


@dataclass(slots=True)
class _Bucket:
    rate: Rate
    level: float
    at: float

    def take(self) -> float:
        """Take one call and return 0, or the seconds until there is one."""
        now, speed = time.monotonic(), self.rate.calls / self.rate.seconds
        self.level = min(self.rate.burst, self.level + (now - self.at) * speed)
        self.at = now
        if self.level < 1:
            return (1 - self.level) / speed
        self.level -= 1
        return 0.0


class WebApi:
    """Answers the bot's requests and keeps what they were."""

    def __init__(
        self,
        workspace: Workspace,
        chat: Chat,
        socket: SocketMode,
        *,
        tokens: Mapping[str, str],
        rates: Mapping[str, Rate],
        latency: float,
        violations: list[str],
    ) -> None:
        self.url = ""
        self.requests: list[Call] = []
        self.unknown: list[str] = []
        self.statuses: dict[tuple[str, str], list[str]] = {}
        self.sessions: dict[tuple[str, str], list[str]] = {}
        self.failures: dict[str, list[Failure]] = {}
        self.closing = asyncio.Event()
        self._violations = violations
        self._workspace = workspace
        self._chat = chat
        self._socket = socket
        self._tokens = tokens
        self._rates = rates
        self._latency = latency
        self._buckets: dict[str, _Bucket] = {}
        conversations = Conversations(workspace)
        self._methods: dict[str, Callable[[Payload], Payload]] = {
            "agents.sessions.setStatus": self._set_session,
            "apps.connections.open": self._open_connection,
            "assistant.threads.setStatus": self._set_status,
            "auth.test": self._test,
            "chat.delete": chat.delete,
            "chat.postEphemeral": chat.post_ephemeral,
            "chat.postMessage": chat.post,
            "chat.update": chat.update,
            "conversations.history": conversations.history,
            "conversations.info": conversations.info,
            "conversations.open": conversations.open,
            "conversations.replies": conversations.replies,
            "users.info": conversations.user,
        }

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one call of a method."""
        method = request.match_info["method"]
        token, args = await arguments(request)

        def work() -> tuple[int, Payload]:
            return self._call(method, token, args)

        return await self._respond(request, method, args, work)

    async def serve_response(self, request: web.Request) -> web.StreamResponse:
        """Take what is posted to a response_url, which is recorded as a method of that name."""
        body: Payload = json.loads(await request.read())

        def work() -> tuple[int, Payload]:
            try:
                self._chat.use_response(request.match_info["key"], body)
            except SlackError as error:
                return 404, {"ok": False, "error": error.code}
            return 200, {"ok": True}

        return await self._respond(request, "response_url", body, work)

    async def _respond(
        self,
        request: web.Request,
        method: str,
        args: Payload,
        work: Callable[[], tuple[int, Payload]],
    ) -> web.StreamResponse:
        at = time.monotonic()
        failure = self._failure(method)
        await asyncio.sleep(self._latency / 2)
        if failure is None:
            status, answer = work()
        else:
            if failure.applied:
                work()
            status, answer = failure.status or 0, failure.answer()
        error = None if answer["ok"] else str(answer["error"])
        self.requests.append(Call(method, args, error is None, error, at))
        if failure and failure.hang:
            await self.closing.wait()
            status = 0
        await asyncio.sleep(self._latency / 2)
        return _response(answer, status) if status else _drop(request)

    def _failure(self, method: str) -> Failure | None:
        waiting = [failure for failure in self.failures.get(method, ()) if failure.times > 0]
        return waiting[0] if waiting and waiting[0].due() else None

    def _call(self, method: str, token: str | None, args: Payload) -> tuple[int, Payload]:
        handler = self._methods.get(method)
        if handler is None:
            self.unknown.append(method)
            return 200, {"ok": False, "error": "unknown_method", "req_method": method}
        try:
            self._authenticate(method, token)
            self._violations += complaints(method, args)
            if wait := self._wait(method, args):
                return 429, _limited(wait)
            return 200, {"ok": True, **handler(args)}
        except SlackError as error:
            return 200, {"ok": False, "error": error.code, **error.details}

    def _authenticate(self, method: str, token: str | None) -> None:
        if not token:
            raise SlackError("not_authed")
        kind = self._tokens.get(token)
        if kind is None:
            raise SlackError("invalid_auth")
        if (kind == "app") != (method == "apps.connections.open"):
            raise SlackError("not_allowed_token_type")

    def _wait(self, method: str, args: Payload) -> float:
        """Return the seconds until the method may be called again; 0 takes the call."""
        rate = self._rates.get(method)
        if rate is None:
            return 0.0
        # Tiers count per workspace, posting counts per channel (docs: Rate limits).
        key = f"{method} {args.get('channel')}" if method == "chat.postMessage" else method
        bucket = self._buckets.setdefault(key, _Bucket(rate, rate.burst, time.monotonic()))
        return bucket.take()

    def _test(self, _args: Payload) -> Payload:
        return {
            "url": "https://parley.slack.test/",
            "team": "Parley",
            "user": "parley",
            "team_id": TEAM_ID,
            "user_id": BOT_USER_ID,
            "bot_id": BOT_ID,
            "is_enterprise_install": False,
        }

    def _open_connection(self, _args: Payload) -> Payload:
        address = self.url.replace("http://", "ws://")
        return {"url": f"{address}link/?ticket={self._socket.ticket()}&app_id={APP_ID}"}

    def _set_status(self, args: Payload) -> Payload:
        place = self._thread(args)
        if not isinstance(args.get("status"), str):
            raise SlackError("invalid_arguments", why="missing required field: status")
        self.statuses.setdefault(place, []).append(text(args, "status"))
        return {}

    def _set_session(self, args: Payload) -> Payload:
        place, status = self._thread(args), text(args, "status")
        if status not in SESSION_STATES:
            raise SlackError("invalid_arguments", why=f"no such status: {status}")
        self.sessions.setdefault(place, []).append(status)
        return {"status": status, "agent_status": status}

    def _thread(self, args: Payload) -> tuple[str, str]:
        channel, thread_ts = (
            joined(self._workspace, args, name="channel_id"),
            text(args, "thread_ts"),
        )
        if not _TS.fullmatch(thread_ts):
            raise SlackError("invalid_arguments", why="missing required field: thread_ts")
        return channel.id, thread_ts


def _limited(wait: float) -> Payload:
    return {"ok": False, "error": "ratelimited", "retry_after": math.ceil(wait)}


def _response(answer: Payload, status: int) -> web.Response:
    headers = {"X-OAuth-Scopes": "app_mentions:read,chat:write,commands,im:history,assistant:write"}
    if status == 429:
        headers["Retry-After"] = str(answer.pop("retry_after"))
    return web.json_response(answer, status=status, headers=headers)


def _drop(request: web.Request) -> web.Response:
    """Cut the connection instead of answering."""
    if request.transport:
        request.transport.abort()
    return web.Response()
