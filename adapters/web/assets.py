"""The page's own files; browsers ask each time whether they have changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

FOLDER = Path(__file__).parent / "static"


def serve(name: str) -> Callable[[web.Request], Awaitable[web.FileResponse]]:
    """Return a handler that serves one page, the same for all people."""

    async def page(_: web.Request) -> web.FileResponse:
        return web.FileResponse(FOLDER / name)

    return page
