"""The process's small HTTP door: is it alive, is it ready, what does it count."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bot.errors import CannotStart, StoreUnavailable
from bot.store import Store

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Slack's largest event is far below; nobody else has a reason to send us anything.
_LARGEST_BODY = 1024 * 1024
_POST_SECONDS = 10.0  # Slack itself gives up after three
_END_SECONDS = 1.0  # for requests under way when the process ends


@asynccontextmanager
async def serve(
    *, host: str, port: int, store: Store, posts: Mapping[str, Handler], stopping: asyncio.Event
) -> AsyncIterator[None]:
    """Serve /livez, /readyz and /metrics, and hand POSTs to the given paths to their handlers.

    Once `stopping` is set nobody is to send more; what comes all the same is handed over.
    A taken port raises CannotStart when a platform depends on it, and is a warning otherwise.
    """
    runner = web.AppRunner(
        _app(store, posts, stopping), access_log=None, shutdown_timeout=_END_SECONDS
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
            log.info("Listening on http://%s:%s", *runner.addresses[0][:2])
        except OSError as error:
            if posts:
                raise CannotStart(f"PORT={port} on HOST={host} cannot be used: {error}") from error
            log.warning("No /livez, /readyz and /metrics: PORT=%s cannot be used: %s", port, error)
        yield
    finally:
        await runner.cleanup()


def _app(store: Store, posts: Mapping[str, Handler], stopping: asyncio.Event) -> web.Application:
    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def readyz(_: web.Request) -> web.Response:
        if stopping.is_set():
            return web.Response(status=503, text="stopping\n")
        try:
            await store.ping()
        except StoreUnavailable as error:
            return web.Response(status=503, text=f"{error}\n")
        return web.Response(text="ready\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=_LARGEST_BODY)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    for path, handler in posts.items():
        app.router.add_post(path, _bounded(handler))
    return app


def _bounded(handler: Handler) -> Handler:
    async def within_time(request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(_POST_SECONDS):
                return await handler(request)
        except TimeoutError:
            return web.Response(status=408)

    return within_time
