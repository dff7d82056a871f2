"""The HTTP server of the process, with its limits: health checks, metrics, platform events."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from aiohttp import ClientConnectionResetError, web
from aiohttp.http import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bot.errors import CannotStart, StoreUnavailable
from bot.local import hardware
from bot.proxy import is_loopback
from bot.store import Store
from config.settings import Settings

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Far more than Slack's largest event; other clients have no reason to send bodies.
_LARGEST_BODY = 256 * 1024
_LONGEST_HEADER = 4096  # bytes of a name and its value; Slack and the usual proxies stay below 1 kB
_MOST_HEADERS = 64
# Bytes of one request. aiohttp 3.14 keeps without a bound what follows a request to upgrade.
_LARGEST_REQUEST = _LARGEST_BODY + (_MOST_HEADERS + 1) * _LONGEST_HEADER
# Requests of Slack end within three seconds. Many systems give a process 256 files.
_MOST_CONNECTIONS = 128
# Open pages of one process; each has a connection for its events and some for requests.
_MOST_PAGES = 4000
# Of one person: 20 pages that update themselves (adapters/web/follower.py), and requests.
_MOST_OWN = 40
# All pages reconnect when the process restarts, and are strangers until their first request.
_MOST_CALLERS = 1000
_CONNECTION_SECONDS = 15.0  # for headers, body and answer together
_SHUTDOWN_SECONDS = 1.0  # for requests under way when the process ends
# Discord and Slack have connections replaced every few hours and deliver later what was sent
# meanwhile, so a short downtime is no failure.
_RECONNECT_SECONDS = 10.0
_WARN_SECONDS = 60.0  # between two warnings of too many connections


@asynccontextmanager
async def serve(
    settings: Settings,
    *,
    store: Store,
    downtimes: Mapping[str, Callable[[], float]],
    posts: Mapping[str, Handler],
    gets: Mapping[str, Handler],
    stopping: asyncio.Event,
    refresh_metrics: Callable[[], Awaitable[None]],
    most_connections: int = _MOST_CONNECTIONS,
    connection_seconds: float = _CONNECTION_SECONDS,
) -> AsyncIterator[str]:
    """Serve /livez and /readyz, and hand POSTs and GETs to the given paths to their handlers.

    Yields the address, or "" if the port is taken: that is a warning, or CannotStart if there are
    `posts` or `gets`. /metrics is served on METRICS_PORT, beside the first two, or else on PORT if
    HOST is a loopback address. `downtimes` return for how many seconds no events of a platform
    could arrive. `refresh_metrics` is called before metrics are sent.
    A connection carries one request.

    If `stopping` is set, /readyz fails; requests are still handed over.
    """
    host, port, metrics_port = settings.host, settings.port, settings.metrics_port
    url, bounds = "", partial(_Bounds, most_connections, connection_seconds)
    reasons = partial(_reasons, store, downtimes, stopping)
    has_metrics = metrics_port is None and is_loopback(host)
    async with AsyncExitStack() as stack:
        try:
            app = _app(reasons, posts, refresh_metrics if has_metrics else None, gets)
            url = await stack.enter_async_context(_listening(app, host, port, bounds=bounds()))
            log.info("Listening on %s", url)
        except OSError as error:
            if posts or gets:
                raise CannotStart(f"PORT={port} on HOST={host} cannot be used: {error}") from error
            log.warning("No /livez and /readyz: PORT=%s cannot be used: %s", port, error)
        if metrics_port is not None:
            try:
                app = _app(reasons, {}, refresh_metrics, {})
                listening = _listening(app, settings.metrics_host, metrics_port, bounds=bounds())
                log.info("Metrics on %s/metrics", await stack.enter_async_context(listening))
            except OSError as error:
                log.warning("No /metrics: METRICS_PORT=%s on METRICS_HOST: %s", metrics_port, error)
        elif not has_metrics:
            log.info("No /metrics, for HOST=%s is no loopback address: set METRICS_PORT", host)
        yield url


@asynccontextmanager
async def serve_pages(
    app: web.Application,
    *,
    host: str,
    port: int,
    most_pages: int = _MOST_PAGES,
    most_own: int = _MOST_OWN,
    most_connections: int = _MOST_CALLERS,
    connection_seconds: float = _CONNECTION_SECONDS,
) -> AsyncIterator[str]:
    """Serve an application with long-lived connections; yields its address.

    Unauthenticated connections have the limits of `serve`, until the application calls `trust`; of
    each person at most `most_own` are kept. All together take at most half of the process's files.
    Raises OSError if the port cannot be used.
    """
    allowed = hardware.allow_files(2 * (most_pages + most_connections))
    if allowed is not None:
        most_connections = min(most_connections, allowed // 10)
        most_pages = min(most_pages, allowed // 2 - most_connections)
    bounds = _Bounds(most_connections, connection_seconds, most_pages, most_own)
    async with _listening(app, host, port, bounds=bounds) as url:
        yield url


def trust(request: web.Request, person_id: str) -> None:
    """Lift the limits of strangers from the connection of a person's request."""
    if isinstance(request.protocol, _Connection):
        request.protocol.trust(person_id)


async def _reasons(
    store: Store, downtimes: Mapping[str, Callable[[], float]], stopping: asyncio.Event
) -> list[str]:
    """Return why the process is not ready, in sentences that are safe to publish."""
    if stopping.is_set():
        return ["stopping"]
    found = [
        f"{name.capitalize()} is not connected"
        for name, downtime in downtimes.items()
        if downtime() > _RECONNECT_SECONDS
    ]
    try:
        await store.ping()
    except StoreUnavailable:
        found.insert(0, "the store is not reached")
    return found


def _app(
    reasons: Callable[[], Awaitable[list[str]]],
    posts: Mapping[str, Handler],
    refresh_metrics: Callable[[], Awaitable[None]] | None,
    gets: Mapping[str, Handler],
) -> web.Application:
    """Return the application; without `refresh_metrics` it has no metrics."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        found = await reasons()
        text = "\n".join(found or ["ready"])
        return web.Response(status=503 if found else 200, text=f"{text}\n")

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
        app.router.add_post(path, handler)
    for path, handler in gets.items():
        # A HEAD would do what only the person's own GET may.
        app.router.add_get(path, handler, allow_head=False)
    return app


async def _end_connection(_: web.Request, response: web.StreamResponse) -> None:
    # One request for each connection: none is idle, and the time limit of a connection is that of
    # its request.
    response.force_close()
    # aiohttp 3.14 has prepared the headers before it calls this.
    response.headers["Connection"] = "close"


@asynccontextmanager
async def _listening(
    app: web.Application, host: str, port: int, *, bounds: _Bounds
) -> AsyncIterator[str]:
    """Yield the address. Raises OSError if the port cannot be used."""
    runner = web.AppRunner(app, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        manager = cast(web.Server, runner.server)  # set by `setup`
        server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(manager, bounds), host, port, backlog=bounds.most
        )
        try:
            found, number = server.sockets[0].getsockname()[:2]
            yield f"http://[{found}]:{number}" if ":" in found else f"http://{found}:{number}"
        finally:
            server.close()
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class _Bounds:
    """How many connections stay open; if there are too many of a kind, the oldest ends.

    So slow connections cannot block complete requests. Those of strangers (`most`, for `seconds`)
    do not push out those of people (`most_pages`, and `most_own` of each).
    """

    most: int
    seconds: float
    most_pages: int = 0
    most_own: int = 0
    # The oldest first, with the ids of their people; "" is a stranger.
    opened: dict[asyncio.BaseTransport, str] = field(default_factory=dict)
    _warn_at: float = 0.0  # by the loop's clock

    def keep(self, transport: asyncio.BaseTransport, person_id: str = "") -> None:
        """Keep a stranger's new connection, or a stranger's that is now a person's."""
        self.opened.pop(transport, None)
        self.opened[transport] = person_id
        if person_id:
            self._make_room(self.most_own, f"Person {person_id}", lambda one: one == person_id)
            self._make_room(self.most_pages, "The page", bool)
        else:
            self._make_room(self.most, "HTTP", lambda one: not one)

    def _make_room(self, most: int, whose: str, counts: Callable[[str], bool]) -> None:
        counted = [key for key, person_id in self.opened.items() if counts(person_id)]
        if len(counted) <= most:
            return
        now = asyncio.get_running_loop().time()
        if now >= self._warn_at:
            self._warn_at = now + _WARN_SECONDS
            log.warning("%s has %d open connections: some of them are closed", whose, most)
        del self.opened[counted[0]]
        # A server makes a Transport; uvloop's has another base class.
        cast(asyncio.Transport, counted[0]).abort()


_CLIENT_ERRORS = (HttpProcessingError, web.RequestPayloadError, ClientConnectionResetError)


class _Connection(web.RequestHandler):
    """A connection that, until it is trusted, ends in time and receives a bounded amount."""

    def __init__(self, manager: web.Server, bounds: _Bounds) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # as aiohttp itself takes it
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
            max_headers=_MOST_HEADERS,
            # aiohttp 3.14 would decompress any body, also of strangers, in the event loop.
            auto_decompress=False,
            logger=log,
        )
        self._bounds = bounds
        self._bytes_left = _LARGEST_REQUEST
        self._held = b""  # what came beyond these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._bounds.keep(transport)
        abort = cast(asyncio.Transport, transport).abort
        self._end = self._loop.call_later(self._bounds.seconds, abort)
        self._connected = transport  # aiohttp forgets it before all is sent
        super().connection_made(transport)

    def connection_lost(self, error: BaseException | None) -> None:
        self._bounds.opened.pop(self._connected, None)
        self._end.cancel()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        more = data[self._bytes_left :]
        data = data[: self._bytes_left]
        self._bytes_left -= len(data)
        super().data_received(data)
        transport = self.transport
        if more and transport and not transport.is_closing():
            # A file may be there before its sender is trusted. One read has 256 kB at most.
            self._held += more
            if len(self._held) > _LARGEST_REQUEST:
                transport.abort()
            else:
                transport.pause_reading()

    def trust(self, person_id: str) -> None:
        if self._bounds.opened.get(self._connected) == "":
            self._end.cancel()
            self._bytes_left = sys.maxsize
            self._bounds.keep(self._connected, person_id)
            if self._held:
                held, self._held = self._held, b""
                self.data_received(held)
                if self.transport and not self._reading_paused:
                    self.transport.resume_reading()

    def log_exception(self, *args: Any, **options: Any) -> None:
        error = options.get("exc_info")
        is_gone = self.transport is None and isinstance(error, ConnectionError | RuntimeError)
        # For each request that is no HTTP, aiohttp 3.14 would log a traceback.
        if not (is_gone or isinstance(error, _CLIENT_ERRORS)):
            super().log_exception(*args, **options)
