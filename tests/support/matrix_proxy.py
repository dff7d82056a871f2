"""The way to a homeserver: it remembers each request of the bot, and can lose or refuse one."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

WRITES = r"PUT .*/(send|redact)/.*"
_KEPT = ("Authorization", "Content-Type", "Accept")


@dataclass(frozen=True, slots=True)
class Call:
    """A request: its method and path, when it came and was answered, and how long it may wait."""

    call: str
    began: float  # monotonic seconds
    ended: float
    status: int  # 0: the server was away
    wait: float = 0.0  # seconds, of a 429


@dataclass(slots=True)
class _Fault:
    pattern: re.Pattern[str]
    times: int
    status: int = 0  # 0: the answer is lost
    wait: float = 0.0  # of a 429
    applied: bool = False


@dataclass(slots=True)
class MatrixProxy:
    """A server in front of a homeserver; `url` is its own address."""

    homeserver: str
    session: aiohttp.ClientSession
    url: str = ""
    calls: list[Call] = field(default_factory=list)
    # Called with a request that is done, its body and that of its answer, which is not sent yet.
    watch: Callable[[Call, bytes, bytes], None] | None = None
    latency: float = 0.0  # seconds
    _faults: list[_Fault] = field(default_factory=list)

    @property
    def requests(self) -> list[Call]:
        """The same as `calls`, as emulators call it."""
        return self.calls

    def lose_answer(self, pattern: str = WRITES, *, times: int = 1, applied: bool = True) -> _Fault:
        """Let a request like "PUT /path" be done, or not, and its answer never arrive."""
        return self._add(_Fault(re.compile(pattern), times, applied=applied))

    def refuse(self, seconds: float, pattern: str = WRITES, *, times: int = 1) -> _Fault:
        """Answer a request with a 429 that asks to wait."""
        return self._add(_Fault(re.compile(pattern), times, 429, seconds))

    def fail(self, status: int, pattern: str = WRITES, *, times: int = 1) -> _Fault:
        """Answer a request with an error of the server."""
        return self._add(_Fault(re.compile(pattern), times, status))

    def heal(self) -> None:
        """End what has not struck yet."""
        self._faults.clear()

    def _add(self, fault: _Fault) -> _Fault:
        self._faults.append(fault)
        return fault

    async def handle(self, request: web.Request) -> web.StreamResponse:
        began, call = time.monotonic(), f"{request.method} {request.raw_path.partition('?')[0]}"
        body = await request.read()
        fault = next((it for it in self._faults if it.times and it.pattern.fullmatch(call)), None)
        if fault:
            fault.times -= 1
            if fault.status or not fault.applied:
                self.calls.append(Call(call, began, time.monotonic(), fault.status, fault.wait))
                return _refused(fault) if fault.status else self._broken(request)
        await asyncio.sleep(self.latency)
        headers = {name: request.headers[name] for name in _KEPT if name in request.headers}
        try:
            async with self.session.request(
                request.method,
                URL(self.homeserver + request.raw_path, encoded=True),
                data=body or None,
                headers=headers,
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, OSError):
            self.calls.append(Call(call, began, time.monotonic(), 0))
            return self._broken(request)
        wait_ms = (await answer.json()).get("retry_after_ms", 0) if answer.status == 429 else 0
        ended = time.monotonic()
        done = Call(call, began, ended, answer.status, wait_ms / 1000)
        self.calls.append(done)
        if self.watch:
            self.watch(done, body, content)
        if fault:
            # aiohttp itself repeats a PUT on a kept connection, unless an answer has begun.
            begun = web.StreamResponse(headers={"Content-Length": "1000"})
            await begun.prepare(request)
            return self._broken(request, begun)
        kind = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
        return web.Response(body=content, status=answer.status, headers=kind)

    @staticmethod
    def _broken(
        request: web.Request, begun: web.StreamResponse | None = None
    ) -> web.StreamResponse:
        if request.transport:
            request.transport.abort()
        return begun or web.Response(status=502)


def _refused(fault: _Fault) -> web.Response:
    code = "M_LIMIT_EXCEEDED" if fault.status == 429 else "M_UNKNOWN"
    body: dict[str, object] = {"errcode": code, "error": "a fault of the test"}
    if fault.status == 429:
        body["retry_after_ms"] = int(1000 * fault.wait)
    return web.json_response(body, status=fault.status)


def disobeyed(calls: Iterable[Call], *, heard_within: float = 0.25) -> Iterator[tuple[Call, Call]]:
    """Yield each write of an account that came while a 429 asked all of it to wait.

    What came `heard_within` seconds was on its way already, perhaps from another process.
    """
    writes = [one for one in calls if re.fullmatch(WRITES, one.call)]
    for refused in (one for one in writes if one.status == 429):
        start, end = refused.ended + heard_within, refused.ended + refused.wait - 0.05
        yield from ((refused, other) for other in writes if start < other.began < end)


@asynccontextmanager
async def in_front_of(homeserver: str) -> AsyncIterator[MatrixProxy]:
    """Run a proxy. What is under way when it ends is broken off."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=True) as session:
        proxy = MatrixProxy(homeserver, session)
        app = web.Application(client_max_size=2**28)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        async with TestServer(app) as server:
            proxy.url = str(server.make_url("/")).rstrip("/")
            yield proxy
