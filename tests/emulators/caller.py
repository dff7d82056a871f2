"""Who called, for emulators whose callers are several processes."""

from __future__ import annotations

from aiohttp import web


def port(request: web.Request) -> int:
    """Return the port at the caller's end of the connection; 0 when the caller has left."""
    name = request.transport and request.transport.get_extra_info("peername")
    return int(name[1]) if name else 0
