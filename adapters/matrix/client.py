"""The client-server API of a Matrix homeserver: its requests, and their errors in Parley's words.

Paths and answers are those of the Matrix specification, v1.11 and later.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from bot.domain import EditBudget
from bot.errors import (
    CannotStart,
    MessageGone,
    PlaceGone,
    SurfaceError,
    Unreachable,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.proxy import proxy_for
from bot.reply.edit_budget import EditBudgets

Event = dict[str, Any]  # as a stranger's server sent it: no field has a type that is certain

CLIENT = "/_matrix/client"
_REQUEST_SECONDS = 15.0
_SLOT_SECONDS = 15.0  # in which a write waits for its slot
_CHUNK = 65_536  # bytes
# v1.11, section 11.12
_MXC = re.compile(r"mxc://([A-Za-z0-9\[][A-Za-z0-9.:\]-]*)/([A-Za-z0-9_-]+)")
# Synapse's `rc_message`: ten at once, then 0.2 a second, if no admin has lifted it. An account
# starts with what a lifted one may do; a 429 teaches it the rest.
_BURST = 10
_LIFTED, _LIFTED_SECONDS = 200, 20.0
_LEARNT_SECONDS = 600.0  # an admin may have lifted it by then
_PATIENCE = 5.0  # seconds to wait if a 429 does not say
_LONGEST = 600.0
_REFUSED = "MATRIX_TOKEN is refused by {server}: make a new one with `init`"
# Codes of the section "Standard error response", where a status does not say enough.
_KINDS: Mapping[str, type[SurfaceError]] = {
    "M_FORBIDDEN": PlaceGone,
    "M_NOT_FOUND": MessageGone,
    "M_NOT_YET_UPLOADED": WriteFailed,
    "M_CONSENT_NOT_GIVEN": WriteFailed,
    "M_RESOURCE_LIMIT_EXCEEDED": WriteFailed,
}


class TokenRefused(WriteFailed):
    """The token is not valid any more: the write may wait for a process with another one."""


def path_of(*parts: str, base: str = f"{CLIENT}/v3") -> str:
    """Return a path with each part escaped: ids of strangers may have any character."""
    return "/".join((base, *(quote(part, safe="", errors="replace") for part in parts)))


class MatrixClient:
    """One account on its homeserver. Every method raises SurfaceError.

    `user_id` is its id, such as "@parley:example.org", and `server` the name behind the colon. The
    writes of the account share the budget `account`; a 429 pauses it for all processes.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        homeserver: str,
        token: str,
        budgets: EditBudgets | None,
    ) -> None:
        self.user_id = self.server = ""
        self._session, self._homeserver = session, homeserver.rstrip("/")
        self._token, self._budgets = token, budgets
        self._slowest = self._slow_until = 0.0  # seconds between writes, and on the clock

    @property
    def account(self) -> EditBudget:
        """The budget of all writes of this account."""
        bucket = f"matrix:{self.user_id}"
        if self._slowest and self._budgets and time.monotonic() > self._slow_until:
            self._slowest = 0.0
            self._budgets.learn(bucket, writes=_LIFTED, seconds=_LIFTED_SECONDS)
        return EditBudget(bucket, _LIFTED, _LIFTED_SECONDS, shape="refills", for_finals=2)

    async def identify(self) -> None:
        """Learn who this is, from the token."""
        user = (await self.call("GET", path_of("account", "whoami"))).get("user_id")
        if not isinstance(user, str) or ":" not in user:
            raise WriteRefused("the server does not say whose MATRIX_TOKEN it is")
        self.user_id, self.server = user, user.partition(":")[2]

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout: float = _REQUEST_SECONDS,
        counted: bool = False,
        **options: Any,
    ) -> Event:
        """Return the JSON object of the answer; a path begins with "/_matrix/" (see `path_of`).

        `counted` is a write of the account's budget; the `options` are those of aiohttp.
        """
        limits = aiohttp.ClientTimeout(timeout, connect=10.0)
        options |= {"params": query, "json": body, "timeout": limits}
        if counted and self._budgets:
            # One write of a reply may need several requests, and has taken one slot.
            deadline = asyncio.get_running_loop().time() + _SLOT_SECONDS
            while not self._budgets.use_booked_slot(self.account):
                await self._budgets.call(self.account, deadline=deadline)
        async with self._request(method, path, counted=counted, **options) as response:
            found = await _object(response)
        if found is None:
            raise WriteFailed(f"{path}: the answer is no JSON object")
        return found

    async def send(self, room: str, txn: str, content: Mapping[str, Any]) -> str:
        """Send a message and return its event's id; the same `txn` again returns the same one's.

        Synapse 1.163 remembers it for a day.
        """
        path = path_of("rooms", room, "send", "m.room.message", txn)
        event = (await self.call("PUT", path, body=content, counted=True)).get("event_id")
        if not isinstance(event, str):
            raise WriteFailed(f"{path}: the answer names no event")
        return event

    async def joined_rooms(self) -> list[str]:
        """Return the ids of the rooms in which the account is."""
        found = (await self.call("GET", path_of("joined_rooms"))).get("joined_rooms")
        return [str(one) for one in found] if isinstance(found, list) else []

    async def event(self, room: str, event: str) -> Event:
        """Return one event; {} if it is not there, or may not be seen."""
        with suppress(MessageGone, PlaceGone):
            return await self.call("GET", path_of("rooms", room, "event", event))
        return {}

    def relations(self, room: str, event: str, rel_type: str) -> AsyncGenerator[Event]:
        """Yield the events that relate to one, the newest first."""
        path = path_of("rooms", room, "relations", event, rel_type, base=f"{CLIENT}/v1")
        return self._pages(path, {"limit": 100}, following="next_batch")

    def messages(
        self, room: str, start: str, *, direction: str = "f", to: str = "", **wanted: Sequence[str]
    ) -> AsyncGenerator[Event]:
        """Yield a room's events from a place on, or up `to` one; `wanted` are types and senders.

        Without a `start`, from the first one.
        """
        path, chosen = path_of("rooms", room, "messages"), json.dumps(wanted)
        query: dict[str, str | int] = {"dir": direction, "filter": chosen, "limit": 100}
        query |= {name: it for name, it in (("from", start), ("to", to)) if it}
        return self._pages(path, query, following="end")

    async def _pages(
        self, path: str, query: dict[str, str | int], *, following: str
    ) -> AsyncGenerator[Event]:
        while True:
            page = await self.call("GET", path, query=query)
            for one in objects(page.get("chunk")):
                yield one
            start = page.get(following)  # also behind a page without events
            if not isinstance(start, str) or start == query.get("from"):
                return
            query["from"] = start

    async def upload(self, name: str, data: bytes, media_type: str) -> str:
        """Store a file on the homeserver and return its address, mxc://..."""
        path, headers = "/_matrix/media/v3/upload", {"Content-Type": media_type}
        query = {"filename": name}
        found = await self.call("POST", path, query=query, data=data, headers=headers, timeout=60.0)
        return str(found.get("content_uri"))

    async def download(self, mxc: str) -> AsyncGenerator[bytes]:
        """Yield the bytes of a file. Strangers' files have any size: close the iterator early."""
        if not (found := _MXC.fullmatch(mxc)):
            raise WriteRefused("a file has no valid address")
        path = path_of("media", "download", *found.groups(), base=f"{CLIENT}/v1")
        headers = {"Accept-Encoding": "identity"}  # a small file could become a large one
        timeout = aiohttp.ClientTimeout(None, connect=10.0, sock_read=20.0)
        # A server may keep its files elsewhere (MSC3916): aiohttp sends the token nowhere else.
        options: Any = {"headers": headers, "timeout": timeout, "allow_redirects": True}
        async with self._request("GET", path, **options, max_redirects=3) as response:
            async for chunk in response.content.iter_chunked(_CHUNK):
                yield chunk

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, *, counted: bool = False, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url, headers = URL(self._homeserver + path, encoded=True), options.pop("headers", {})
        if self._token:  # a login has none yet
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        options = {"allow_redirects": False, **options}
        options |= {"headers": headers, "proxy": proxy_for(str(url))}
        try:
            async with self._session.request(method, url, **options) as response:
                if response.status != 200:
                    raise await self._error(response, path, counted=counted)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # Whether it was done is not known: it is done again, with the same transaction.
            raise WriteFailed(f"{path}: {str(error) or type(error).__name__}") from error

    async def _error(
        self, response: aiohttp.ClientResponse, path: str, *, counted: bool
    ) -> SurfaceError:
        body = await _object(response) or {}
        code, status = str(body.get("errcode") or ""), response.status
        detail = f"{path}: HTTP {status} {code} {str(body.get('error') or '')[:200]}".rstrip()
        if status == 429:
            wait = _seconds(body.get("retry_after_ms"), response.headers.get("Retry-After"))
            if not counted:
                return WriteDelayed(detail, retry_after=wait)
            await self._slow_down(wait)
            return WriteDelayed(detail, retry_after=wait, bucket=self.account.bucket)
        if status == 401:
            return TokenRefused(_REFUSED.format(server=self._homeserver))
        if status >= 500:
            return WriteFailed(detail)
        # A 404 without a code is of a proxy in front of the server.
        return _KINDS.get(code, WriteRefused if code else WriteFailed)(detail)

    async def _slow_down(self, wait: float) -> None:
        account = self.account
        self._slowest = max(self._slowest, wait)
        self._slow_until = time.monotonic() + _LEARNT_SECONDS
        if self._budgets:
            self._budgets.learn(account.bucket, writes=_BURST, seconds=_BURST * self._slowest)
            await self._budgets.pause(account, wait)


@asynccontextmanager
async def connected(
    homeserver: str, token: str, *, budgets: EditBudgets | None = None
) -> AsyncIterator[MatrixClient]:
    """Open a client that knows who it is. Raises CannotStart, and Unreachable if it may pass."""
    # A cookie of one request would go to all others.
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        client = MatrixClient(session, homeserver=homeserver, token=token, budgets=budgets)
        try:
            await client.identify()
        except TokenRefused as error:
            raise CannotStart(str(error)) from error
        except SurfaceError as error:
            kind = Unreachable if isinstance(error, WriteDelayed | WriteFailed) else CannotStart
            raise kind(f"MATRIX_HOMESERVER={homeserver}: {error}") from error
        yield client


async def _object(response: aiohttp.ClientResponse) -> Event | None:
    """Return the JSON object of an answer; None if it is none."""
    try:
        found = await response.json(content_type=None)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def objects(value: object) -> list[Event]:
    """Return the JSON objects of a list, and of anything else none."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _seconds(milliseconds: object, header: str | None) -> float:
    """Return for how long a 429 asks to wait: v1.10 moved it from the body into the header."""
    wait = float(header) if header and header.isdecimal() else _PATIENCE
    if isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool):
        wait = min(_LONGEST * 1000, milliseconds) / 1000  # a NaN is not less
    return max(0.1, min(_LONGEST, wait))
