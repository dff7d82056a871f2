"""MCP servers over HTTP: real ones of the package `mcp`, and ones written by hand."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager, closing
from typing import Any

import uvicorn
from aiohttp import web

from tests.emulators.serving import served

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Reply = Callable[[web.Request, Any], Awaitable[web.StreamResponse | Mapping[str, Any]]]

NEWER = "2026-07-28"
COMMON = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public"}


def older(app: App) -> App:
    """Return a server that knows no revision before 2025-11-25, with a handshake and sessions."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if headers.get(b"mcp-protocol-version", b"").decode() >= "2026":
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"Unsupported protocol version"})
            return
        await app(scope, receive, send)

    return answer


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application on loopback, and yield the address of `/mcp`."""
    config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            while not server.started and not running.done():
                await asyncio.sleep(0.005)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        finally:
            server.should_exit = True
            await running


class Handmade:
    """A server of the newer protocol that does what a test says; `requests` are the methods.

    `tools` are described as they are, and `call` answers calls: with a response, or the result.
    """

    def __init__(self, tools: list[Any], call: Reply) -> None:
        self.tools = tools
        self.call = call
        self.requests: list[str] = []
        self.headers: list[Mapping[str, str]] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/mcp", self._answer)
        async with served(app) as address:
            yield f"{address}/mcp"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.requests.append(body["method"])
        self.headers.append(request.headers)
        match body["method"]:
            case "server/discover":
                result: Any = {"supportedVersions": [NEWER], "capabilities": {"tools": {}}}
            case "tools/list":
                result = {"tools": self.tools}
            case _:
                result = await self.call(request, body)
        if isinstance(result, web.StreamResponse):
            return result
        return web.json_response(
            {"jsonrpc": "2.0", "id": body["id"], "result": {**COMMON, **result}}
        )


def tool(name: str, description: str = "", **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "inputSchema": {"type": "object", **schema},
    }


def said(text: str, **others: Any) -> dict[str, Any]:
    """Return a result with a text."""
    return {"content": [{"type": "text", "text": text}], **others}
