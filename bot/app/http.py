"""The HTTP server of the process, with its limits: health checks, metrics, platform events."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from aiohttp import ClientConnectionResetError, web
from aiohttp.http import HttpProcessingError, RawRequestMessage
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bot.concurrency import do_nothing
from bot.errors import CannotStart, StoreUnavailable
from bot.local import hardware
from bot.proxy import is_loopback
from bot.store import Store

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Trust = Callable[[web.Request, str], None]

# Far more than Slack's largest event; other clients have no reason to send bodies.
_LARGEST_BODY = 256 * 1024
_LONGEST_HEADER = 4096  # bytes of a name and its value; Slack and the usual proxies stay below 1 kB
_MOST_HEADERS = 64
# aiohttp 3.14 reads up to 32 requests of a connection, with all their headers, before the first one
# is answered.
_LARGEST_REQUEST = _LARGEST_BODY + (_MOST_HEADERS + 1) * _LONGEST_HEADER
# Bytes that are received but not read.
_READ_AHEAD = 16 * 1024
# Requests of Slack end within three seconds. Many systems give a process 256 files.
_MOST_CONNECTIONS = 128
# Open pages of one process; each has a connection for its events and some for requests.
MOST_PAGES = 4000
# Of one person: 20 pages that update themselves (adapters/web/follower.py), and requests.
_MOST_OWN = 40
# All pages reconnect when the process restarts, and are unauthenticated until their first request.
_MOST_CALLERS = 1000
_CONNECTION_SECONDS = 15.0  # for headers, body and answer together
_POST_SECONDS = 10.0  # Slack itself gives up after three
# For a body that is not read: if the connection closed at once, its sender would see no answer.
# aiohttp 3.14 waits for the body, and keeps it in memory, even if the connection is gone.
_DRAIN_SECONDS = 0.2
_SHUTDOWN_SECONDS = 1.0  # for requests under way when the process ends
_PING_VALID_SECONDS = 1.0  # for which the result of a ping of the store is cached
# Discord and Slack have connections replaced every few hours and deliver later what was sent
# meanwhile, so a short downtime is no failure.
_RECONNECT_SECONDS = 10.0
# Bytes that are parsed at once. If they are no HTTP, aiohttp 3.14 quotes all of them in its
# refusal, four times.
_CHUNK_BYTES = 4096
_DISCARDED = bytearray(256 * 1024)  # shared by all connections
_WARN_SECONDS = 60.0  # between two warnings of too many connections


async def nothing_to_refresh() -> None:
    """Refresh no metrics: all of them count events."""


@asynccontextmanager
async def serve(
    *,
    host: str,
    port: int,
    metrics_port: int | None,
    metrics_host: str = "127.0.0.1",
    store: Store,
    downtimes: Mapping[str, Callable[[], float]],
    posts: Mapping[str, Handler],
    stopping: asyncio.Event,
    refresh_metrics: Callable[[], Awaitable[None]] = nothing_to_refresh,
    most_connections: int = _MOST_CONNECTIONS,
    connection_seconds: float = _CONNECTION_SECONDS,
) -> AsyncIterator[str]:
    """Serve /livez and /readyz, and hand POSTs to the given paths to their handlers.

    Yields the address, or "" if the port is taken: that is a warning, or CannotStart if there are
    `posts`. /metrics is served on `metrics_port` of `metrics_host`, beside the first two, or else
    on `port` if `host` is a loopback address. `downtimes` return for how many seconds
    no events of a platform could arrive. `refresh_metrics` is called before metrics are sent. A
    connection carries one request.

    If `stopping` is set, /readyz fails; requests are still handed over.
    """
    url = ""
    ready = _Readiness(store, downtimes, stopping)
    listening = partial(_listening, most=most_connections, seconds=connection_seconds)
    has_metrics = metrics_port is None and is_loopback(host)
    async with AsyncExitStack() as stack:
        try:
            app = _app(ready, posts, refresh_metrics if has_metrics else None)
            address = await stack.enter_async_context(listening(app, host, port))
            url = "http://{}:{}".format(*address)
            log.info("Listening on %s", url)
        except OSError as error:
            if posts:
                raise CannotStart(f"PORT={port} on HOST={host} cannot be used: {error}") from error
            log.warning("No /livez and /readyz: PORT=%s cannot be used: %s", port, error)
        if metrics_port is not None:
            try:
                app = _app(ready, {}, refresh_metrics)
                at = await stack.enter_async_context(listening(app, metrics_host, metrics_port))
                log.info("Metrics on http://%s:%s/metrics", *at)
            except OSError as error:
                log.warning("No /metrics: METRICS_PORT=%s on METRICS_HOST: %s", metrics_port, error)
        elif not has_metrics:
            log.info("No /metrics, for HOST=%s is no loopback address: set METRICS_PORT", host)
        yield url


@asynccontextmanager
async def serve_pages(
    make_app: Callable[[Trust], web.Application],
    *,
    host: str,
    port: int,
    most_pages: int = MOST_PAGES,
    most_own: int = _MOST_OWN,
    most_connections: int = _MOST_CALLERS,
    connection_seconds: float = _CONNECTION_SECONDS,
) -> AsyncIterator[str]:
    """Serve an application with long-lived connections; yields its address.

    Unauthenticated connections have the limits of `serve`. `make_app` gets a function that lifts
    them from the connection of a person's request; of each person at most `most_own` are kept. All
    together take at most half of the process's files. Raises OSError if the port cannot be used.
    """
    opened: list[Connections] = []
    allowed = hardware.allow_files(2 * (most_pages + most_connections))
    if allowed is not None:
        most_connections = min(most_connections, allowed // 10)
        most_pages = min(most_pages, allowed // 2 - most_connections)

    def trust(request: web.Request, person_id: str) -> None:
        if request.transport:
            opened[0].trust(request.transport, person_id, most=most_pages, most_own=most_own)

    listening = _listening(
        make_app(trust),
        *(host, port),
        most=most_connections,
        seconds=connection_seconds,
        opened=opened.append,
    )
    async with listening as address:
        yield f"http://{_in_url(address[0])}:{address[1]}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@dataclass(slots=True)
class _Readiness:
    """Reports why the process is not ready, in sentences that are safe to publish."""

    _store: Store
    _downtimes: Mapping[str, Callable[[], float]]
    _stopping: asyncio.Event
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _ask_at: float = 0.0  # by the loop's clock
    _has_store: bool = False

    async def reasons(self) -> list[str]:
        """Return why the process is not ready, without any address; an empty list if it is."""
        if self._stopping.is_set():
            return ["stopping"]
        found = [
            f"{name.capitalize()} is not connected"
            for name, downtime in self._downtimes.items()
            if downtime() > _RECONNECT_SECONDS
        ]
        return found if await self._reaches_store() else ["the store is not reached", *found]

    async def _reaches_store(self) -> bool:
        # Concurrent requests share one ping, so that they cannot use up the store's connections.
        async with self._asking:
            clock = asyncio.get_running_loop().time
            if clock() >= self._ask_at:
                try:
                    await self._store.ping()
                    self._has_store = True
                except StoreUnavailable:
                    self._has_store = False
                self._ask_at = clock() + _PING_VALID_SECONDS
            return self._has_store


def _app(
    ready: _Readiness,
    posts: Mapping[str, Handler],
    refresh_metrics: Callable[[], Awaitable[None]] | None,
) -> web.Application:
    """Return the application; without `refresh_metrics` it has no metrics."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        reasons = await ready.reasons()
        text = "\n".join(reasons or ["ready"])
        return web.Response(status=503 if reasons else 200, text=f"{text}\n")

    async def metrics(_: web.Request) -> web.Response:
        if refresh_metrics:
            await refresh_metrics()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=_LARGEST_BODY)
    app.on_response_prepare.append(_end_connection)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    if refresh_metrics:
        app.router.add_get("/metrics", metrics)
    for path, handler in posts.items():
        app.router.add_post(path, _within_time(handler))
    return app


async def _end_connection(_: web.Request, response: web.StreamResponse) -> None:
    # One request for each connection: none is idle, and the time limit of a connection is that of
    # its request.
    response.force_close()
    # aiohttp 3.14 has prepared the headers before it calls this.
    response.headers["Connection"] = "close"


def _within_time(handler: Handler) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        if not request.transport:
            # Closed before this began: aiohttp 3.14 does not notify the body, and reading it fails.
            return web.Response(status=400)
        try:
            async with asyncio.timeout(_POST_SECONDS):
                return await handler(request)
        except TimeoutError:
            return web.Response(status=408)
        except web.RequestPayloadError:
            return web.Response(status=400)
        except ConnectionError:
            if request.transport:
                raise
            # The client has disconnected, so this response is not read.
            return web.Response(status=400)

    return handle


@asynccontextmanager
async def _listening(
    app: web.Application,
    host: str,
    port: int,
    *,
    most: int,
    seconds: float,
    opened: Callable[[Connections], object] = do_nothing,
) -> AsyncIterator[tuple[str, int]]:
    """Yield the address. Raises OSError if the port cannot be used."""
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=_SHUTDOWN_SECONDS,
        lingering_time=_DRAIN_SECONDS,
        max_line_size=_LONGEST_HEADER,
        max_field_size=_LONGEST_HEADER,
        max_headers=_MOST_HEADERS,
        read_bufsize=_READ_AHEAD,
        # aiohttp 3.14 would decompress any body, also of strangers, in the event loop.
        auto_decompress=False,
        logger=_requests_log,
    )
    await runner.setup()
    try:
        protocols = cast(web.Server, runner.server)  # set by `setup`
        protocols.request_factory = _without_host(protocols.request_factory)
        connections = Connections(
            protocols, most=most, seconds=seconds, most_bytes=_LARGEST_REQUEST
        )
        opened(connections)
        server = await asyncio.get_running_loop().create_server(
            connections, host, port, backlog=most
        )
        try:
            yield server.sockets[0].getsockname()[:2]
        finally:
            server.close()
    finally:
        await runner.cleanup()


class Connections:
    """A protocol factory for `loop.create_server` that wraps the protocols of another one.

    A connection ends after `seconds`. If more than `most` are open, the oldest is closed, so that
    slow connections cannot block complete requests. Bytes beyond `most_bytes` are discarded.
    """

    def __init__(
        self,
        protocols: Callable[[], asyncio.Protocol],
        *,
        most: int,
        seconds: float,
        most_bytes: int,
    ) -> None:
        self._protocols = protocols
        self._most = most
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._ends: dict[asyncio.Transport, asyncio.TimerHandle] = {}  # the oldest first
        self._trusted: dict[asyncio.Transport, str] = {}  # with their people, the oldest first
        self._warn_at = 0.0  # by the loop's clock

    def __call__(self) -> asyncio.BufferedProtocol:
        """Return the protocol of a new connection."""
        return _Limited(self, self._protocols(), most_bytes=self._most_bytes)

    def add(self, transport: asyncio.Transport) -> None:
        """Add a new connection."""
        self._make_room(list(self._ends), self._most, "HTTP")
        loop = asyncio.get_running_loop()
        self._ends[transport] = loop.call_later(self._seconds, transport.abort)

    def _make_room(self, opened: Sequence[asyncio.Transport], most: int, whose: str) -> None:
        """Close the oldest of these connections if there are too many for another one."""
        if len(opened) < most:
            return
        now = asyncio.get_running_loop().time()
        if now >= self._warn_at:
            self._warn_at = now + _WARN_SECONDS
            log.warning("%s has %d open connections: the oldest ones are closed", whose, most)
        self.remove(opened[0])
        opened[0].abort()

    def remove(self, transport: asyncio.Transport) -> None:
        """Remove an ended connection."""
        self._trusted.pop(transport, None)
        if end := self._ends.pop(transport, None):
            end.cancel()

    def trust(
        self, transport: asyncio.BaseTransport, person_id: str, *, most: int, most_own: int
    ) -> None:
        """Lift the limits of a person's connection; the oldest ends if there are too many."""
        # A server makes a Transport; uvloop's has another base class.
        kept = cast(asyncio.Transport, transport)
        if kept not in self._ends:
            return
        self.remove(kept)
        own = [one for one, whose in self._trusted.items() if whose == person_id]
        self._make_room(own, most_own, f"Person {person_id}")
        self._make_room(list(self._trusted), most, "The page")
        self._trusted[kept] = person_id
        protocol = kept.get_protocol()
        if isinstance(protocol, _Limited):
            protocol.lift()


class _Limited(asyncio.BufferedProtocol):
    """Passes at most `most_bytes` on to another protocol."""

    def __init__(
        self, connections: Connections, protocol: asyncio.Protocol, *, most_bytes: int
    ) -> None:
        self._connections = connections
        self._protocol = protocol
        self._left: float = most_bytes
        self._chunk = bytearray(_CHUNK_BYTES)
        self._transport: asyncio.Transport  # from `connection_made` on

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A server makes a Transport; uvloop's has another base class.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self._transport)
        self._protocol.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.remove(self._transport)
        self._protocol.connection_lost(error)

    def lift(self) -> None:
        """Forward all further data without a limit."""
        self._left = math.inf

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._chunk if self._left else _DISCARDED

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._chunk[: nbytes if nbytes < self._left else int(self._left)])
        self._left -= len(data)
        if not data:
            return
        try:
            self._protocol.data_received(data)
        except IndexError:
            # yarl 1.25, at "http://a][@".
            self._transport.abort()

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


def _without_host(make: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    def make_request(message: RawRequestMessage, *others: object) -> web.BaseRequest:
        # aiohttp 3.14 decodes the host of an absolute URL and logs a failure with a traceback.
        if message.url.absolute:
            message = message._replace(url=message.url.relative())
        return make(message, *others)

    return make_request


def _is_no_client_error(record: logging.LogRecord) -> bool:
    """Log filter: False for aiohttp's tracebacks about invalid HTTP and disconnected clients."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, UnicodeEncodeError):
        return not error.object.startswith(_UNKNOWN_EXPECT)
    return not isinstance(error, _CLIENT_ERRORS)


_CLIENT_ERRORS = (HttpProcessingError, ClientConnectionResetError)
# aiohttp 3.14 quotes the header in its refusal, which fails if the header is not UTF-8.
_UNKNOWN_EXPECT = "Unknown Expect: "
_requests_log = log.getChild("requests")
_requests_log.addFilter(_is_no_client_error)
