"""The client-server API of a Matrix homeserver: its requests, and their errors in Parley's words.

Paths and answers are those of the Matrix specification, v1.11 and later. No request is repeated
here: the core retries with the newest text.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
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

log = logging.getLogger(__name__)

Event = dict[str, Any]  # as a stranger's server sent it: no field has a type that is certain

CLIENT, MEDIA = "/_matrix/client", "/_matrix/media"
REQUEST_SECONDS = 15.0
_CHUNK = 65_536  # bytes
_MXC = re.compile(r"mxc://([A-Za-z0-9.:\[\]-]+)/([A-Za-z0-9_-]+)")  # v1.11, section 11.12
# Synapse's `rc_message`: ten at once, then 0.2 a second, if no admin has lifted it. An account
# starts with what a lifted one may do; a 429 teaches it the rest.
_BURST = 10
_LIFTED = 200, 20.0  # writes, seconds
_PATIENCE = 5.0  # seconds to wait if a 429 does not say
_LONGEST = 600.0
_REFUSED = "MATRIX_TOKEN is refused by {server}: make a new one with `python -m bot init`"
# Codes of the section "Standard error response", where a status does not say enough.
_KINDS: Mapping[str, type[SurfaceError]] = {
    "M_FORBIDDEN": PlaceGone,
    "M_GUEST_ACCESS_FORBIDDEN": PlaceGone,
    "M_UNSUPPORTED_ROOM_VERSION": PlaceGone,
    "M_INCOMPATIBLE_ROOM_VERSION": PlaceGone,
    "M_NOT_FOUND": MessageGone,
    "M_NOT_YET_UPLOADED": WriteFailed,
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
        self._slowest = 0.0  # seconds between two writes, as far as a 429 has told

    @property
    def account(self) -> EditBudget:
        """The budget of all writes of this account."""
        writes, seconds = _LIFTED
        return EditBudget(f"matrix:{self.user_id}", writes, seconds, shape="refills", for_finals=2)

    async def identify(self) -> None:
        """Learn who this is, from the token."""
        found = await self.call("GET", path_of("account", "whoami"))
        user = found.get("user_id")
        if not isinstance(user, str) or ":" not in user:
            raise WriteRefused(f"{self._homeserver} does not say whose MATRIX_TOKEN it is")
        self.user_id, self.server = user, user.partition(":")[2]

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout: float = REQUEST_SECONDS,
        counted: bool = False,
    ) -> Event:
        """Return the JSON object of the answer; a path begins with "/_matrix/" (see `path_of`).

        `counted` is a write of the account's budget.
        """
        options: dict[str, Any] = {} if body is None else {"json": body}
        async with self._request(method, path, query, timeout, counted, options) as response:
            try:
                found = await response.json(content_type=None)
            except ValueError as error:
                raise WriteFailed(f"{path}: the answer is no JSON") from error
        if not isinstance(found, dict):
            raise WriteFailed(f"{path}: the answer is no object")
        return found

    async def send(
        self, room: str, kind: str, txn: str, content: Mapping[str, Any], *, seconds: float = 15.0
    ) -> str:
        """Send an event and return its id; the same `txn` again returns the same event's.

        Synapse remembers it for 30 minutes (1.163, `CLEANUP_PERIOD` and the store's daily purge).
        """
        path = path_of("rooms", room, "send", kind, txn)
        found = await self.call("PUT", path, body=content, timeout=seconds, counted=True)
        return _event_id(found, path)

    async def redact(self, room: str, event: str, txn: str) -> None:
        """Take away an event's content, for ever."""
        path = path_of("rooms", room, "redact", event, txn)
        await self.call("PUT", path, body={}, counted=True)

    async def event(self, room: str, event: str) -> Event:
        """Return one event; raises MessageGone if it is not there, or may not be seen."""
        try:
            return await self.call("GET", path_of("rooms", room, "event", event))
        except PlaceGone as error:
            raise MessageGone(str(error)) from error

    async def relations(self, room: str, event: str, rel_type: str) -> AsyncIterator[Event]:
        """Yield the events that relate to one, the newest first."""
        path = path_of("rooms", room, "relations", event, rel_type, base=f"{CLIENT}/v1")
        query: dict[str, str | int] = {"limit": 100}
        while True:
            found = await self.call("GET", path, query=query)
            for one in objects(found.get("chunk")):
                yield one
            following = found.get("next_batch")
            if not isinstance(following, str) or following == query.get("from"):
                return
            query["from"] = following

    async def upload(self, name: str, data: bytes, media_type: str) -> str:
        """Store a file on the homeserver and return its address, mxc://..."""
        path, options = (
            f"{MEDIA}/v3/upload",
            {"data": data, "headers": {"Content-Type": media_type}},
        )
        async with self._request(
            "POST", path, {"filename": name}, 60.0, False, options
        ) as response:
            found = await response.json(content_type=None)
        address = found.get("content_uri") if isinstance(found, dict) else None
        if not isinstance(address, str):
            raise WriteFailed(f"{path}: the answer has no address")
        return address

    async def download(self, mxc: str) -> AsyncGenerator[bytes]:
        """Yield the bytes of a file. Strangers' files have any size: close the iterator early."""
        if not (found := _MXC.fullmatch(mxc)):
            raise WriteRefused("a file has no valid address")
        path = path_of("media", "download", *found.groups(), base=f"{CLIENT}/v1")
        headers = {"Accept-Encoding": "identity"}  # a small file could become a large one
        async with self._request("GET", path, None, None, False, {"headers": headers}) as response:
            async for chunk in response.content.iter_chunked(_CHUNK):
                yield chunk

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None,
        seconds: float | None,
        counted: bool,
        options: dict[str, Any],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = URL(self._homeserver + path, encoded=True)
        headers = options.pop("headers", {})
        if self._token:  # a login has none yet
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        timeout = aiohttp.ClientTimeout(total=seconds, connect=10.0, sock_read=seconds or 20.0)
        try:
            async with self._session.request(
                method,
                url.extend_query(query or {}),
                headers=headers,
                timeout=timeout,
                proxy=proxy_for(str(url)),
                allow_redirects=False,  # the token is this server's alone
                **options,
            ) as response:
                if response.status != 200:
                    raise await self._error(response, path, counted=counted)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            # Whether it was done is not known: it is done again, with the same transaction.
            raise WriteFailed(f"{path}: {str(error) or type(error).__name__}") from error

    async def _error(
        self, response: aiohttp.ClientResponse, path: str, *, counted: bool
    ) -> SurfaceError:
        try:
            body = await response.json(content_type=None)
        except ValueError:
            body = None
        body = body if isinstance(body, dict) else {}
        code, status = str(body.get("errcode") or ""), response.status
        detail = f"{path}: HTTP {status} {code} {str(body.get('error') or '')[:200]}".rstrip()
        if status == 429:
            return await self._delayed(response, body, detail, counted=counted)
        if status == 401:
            return TokenRefused(_REFUSED.format(server=self._homeserver))
        if status >= 500:
            return WriteFailed(detail)
        # A 404 without a code is of a proxy in front of the server.
        return _KINDS.get(code, WriteRefused if code else WriteFailed)(detail)

    async def _delayed(
        self, response: aiohttp.ClientResponse, body: Event, detail: str, *, counted: bool
    ) -> WriteDelayed:
        wait = _seconds(body.get("retry_after_ms"), response.headers.get("Retry-After"))
        if not counted:
            return WriteDelayed(detail, retry_after=wait)
        account = self.account
        if self._budgets:
            self._slowest = max(self._slowest, wait)
            self._budgets.learn(account.bucket, writes=_BURST, seconds=_BURST * self._slowest)
            await self._budgets.pause(account, wait)
        return WriteDelayed(detail, retry_after=wait, bucket=account.bucket)


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
            passing = isinstance(error, WriteDelayed | WriteFailed)
            kind = Unreachable if passing else CannotStart
            raise kind(f"MATRIX_HOMESERVER={homeserver}: {error}") from error
        yield client


def objects(value: object) -> list[Event]:
    """Return the JSON objects of a list, and of anything else none."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _event_id(found: Event, path: str) -> str:
    event = found.get("event_id")
    if not isinstance(event, str):
        raise WriteFailed(f"{path}: the answer names no event")
    return event


def _seconds(milliseconds: object, header: str | None) -> float:
    """Return for how long a 429 asks to wait: v1.10 moved it from the body into the header."""
    if isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool):
        wait = milliseconds / 1000
    else:
        wait = float(header) if header and header.isdecimal() else _PATIENCE
    return min(max(wait, 0.1), _LONGEST) if math.isfinite(wait) else _PATIENCE
