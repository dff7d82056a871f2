"""The tools of the operator's MCP servers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bot.concurrency import BackgroundTasks
from bot.domain import Finding, Json, Tool
from bot.errors import CannotStart
from bot.model.transport import certificates
from bot.proxy import proxy_for, warn_if_readable
from bot.text.sanitize import one_line, strip_controls, whole_characters
from bot.tools.questions import Answered
from bot.tools.toolset import Asked, Offered, ToolFailed, ToolResult, may_use_in
from config.mcp_servers import McpServer
from config.settings import Settings

if TYPE_CHECKING:
    from bot.tools.mcp_client import McpClient

log = logging.getLogger(__name__)

# A list of tools is asked for again behind the next question, and later before it.
_FRESH_SECONDS, _KNOWN_SECONDS = 30.0, 60.0
_LIST_SECONDS = 10.0
_NAME_LENGTH = 64
_MOST_NAMES = 500  # characters, of the names of all tools
_MOST_DESCRIPTION, _MOST_SCHEMA = 1_000, 10_000  # characters, and bytes of JSON
# Arguments that stand for the key of a call, as servers that know one name them.
_KEYS = ("idempotency_key", "idempotencyKey")
_AS_HEADER = "x-mcp-header"  # in a schema: the argument is sent as a header, too


class McpSource:
    """Offers the tools of all servers that may be used where a question was asked.

    `tasks` ask for the lists of tools.
    """

    def __init__(
        self,
        clients: Sequence[tuple[McpServer, McpClient]],
        tasks: BackgroundTasks,
        clock: Callable[[], float],
    ) -> None:
        self._lists = [_ToolList(server, client, tasks, clock) for server, client in clients]

    async def offered(self, asked: Asked) -> Sequence[Offered]:
        """Return the tools, without those of servers that do not answer for too long."""
        lists = [it for it in self._lists if may_use_in(asked.turn.key, it.server.places)]
        found = await asyncio.gather(*(one.tools(asked.patience) for one in lists))
        return [tool for tools in found for tool in tools]

    async def examine(self) -> AsyncIterator[Finding]:
        """Yield which tools each server offers, and what is wrong with it."""
        for one in self._lists:
            await one.tools(_LIST_SECONDS)
            name = one.server.name
            for problem in sorted(one.problems):
                cure = f"look at [servers.{name}] in the file MCP_SERVERS, and at that server"
                yield Finding("Tools", f"{name}: {problem}", cure, wrong=True)
            if one.offered:
                named = ", ".join(it.full_name for it in one.offered)
                yield Finding("Tools", f"{name} offers {named}")


@asynccontextmanager
async def mcp_source(
    settings: Settings, *, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[McpSource | None]:
    """Open the source of the servers in MCP_SERVERS; None if there are none. Raises CannotStart."""
    if not settings.tool_servers:
        yield None
        return
    try:
        from bot.tools.mcp_client import McpClient
    except ImportError as error:
        install = "python -m pip install --require-hashes -r requirements-tools.lock"
        raise CannotStart(f"MCP_SERVERS needs mcp: {install}") from error
    trusted = certificates()
    for server in settings.tool_servers:
        for url in (server.url, *([server.oauth.token_url] if server.oauth else ())):
            proxy_for(url)
            if server.headers or server.oauth:
                warn_if_readable(f"A secret of {server.name}", by="MCP_SERVERS", url=url)
    clients = [(server, McpClient(server, trusted)) for server in settings.tool_servers]
    async with BackgroundTasks() as tasks:
        yield McpSource(clients, tasks, clock)


class _ToolList:
    """The tools of a server that the operator has listed, as it described them last."""

    def __init__(
        self,
        server: McpServer,
        client: McpClient,
        tasks: BackgroundTasks,
        clock: Callable[[], float],
    ) -> None:
        self.server = server
        self._client = client
        self._tasks = tasks
        self.offered: Sequence[Offered] = ()
        self.problems = set[str]()
        self._clock = clock
        self._ask_at = self._old_at = -math.inf
        # Before the first question: a turn that another worker has begun may come at once.
        self._asking: asyncio.Task[None] | None = tasks.start(self._ask())

    async def tools(self, patience: float) -> Sequence[Offered]:
        if not self._asking and self._clock() >= self._ask_at:
            self._asking = self._tasks.start(self._ask())
        if self._asking and (not self.offered or self._clock() >= self._old_at):
            await asyncio.wait((self._asking,), timeout=patience)
        return self.offered

    async def _ask(self) -> None:
        tools, problems = dict[str, Offered](), set[str]()
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                described = await self._client.list_tools()
        except (ToolFailed, TimeoutError) as error:
            problems.add(str(error) or "The server does not answer.")
        else:
            has = one_line(", ".join(it[0] for it in described))[:_MOST_NAMES] or "none"
            problems |= {
                f"It has no tool {name}, but {has}."
                for name in {*self.server.tools} - {it[0] for it in described}
            }
            for name, description, schema in described:
                if name in self.server.tools:
                    try:
                        tools.setdefault(name, self._offer(name, description, schema))
                    except (ValueError, RecursionError):
                        problems.add(f"The schema of {name} is too large, or cannot be read.")
        for problem in problems - self.problems:
            log.warning("MCP server %s: %s", self.server.name, problem)
        self.offered, self.problems = tuple(tools.values()), problems
        self._ask_at, self._old_at = self._clock() + _FRESH_SECONDS, self._clock() + _KNOWN_SECONDS
        self._asking = None

    def _offer(self, name: str, description: str, schema: Mapping[str, Json]) -> Offered:
        """Return a tool. Raises ValueError or RecursionError if its schema cannot be used."""
        kind = self.server.tools[name]
        written = json.dumps(schema, allow_nan=False)
        if len(written) > _MOST_SCHEMA or schema.get("type") != "object":
            raise ValueError
        lists = _AS_HEADER in written
        key_name, plain = "", {_text(it): _plain(value) for it, value in schema.items()}
        if kind == "keyed":
            key_name, plain = _without_key(plain)

        async def go_on(
            arguments: Mapping[str, Json], key: str, answered: Answered | None
        ) -> ToolResult:
            if key_name:
                arguments = {**arguments, key_name: key}
            sent = key if kind == "keyed" else ""
            call = self._client.call
            return await call(name, arguments, key=sent, lists=lists, answered=answered)

        async def run(arguments: Mapping[str, Json], key: str) -> ToolResult:
            return await go_on(arguments, key, None)

        tool = Tool(_named(self.server.name, name), _text(description)[:_MOST_DESCRIPTION], plain)
        return Offered(tool, kind, run, server=self.server.name, own_name=name, go_on=go_on)


def _named(server: str, tool: str) -> str:
    """Return the name that the model calls. A name that is changed ends with a digest."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", tool)
    if plain != tool or len(f"{server}_{tool}") > _NAME_LENGTH:
        digest = hashlib.sha256(tool.encode(errors="surrogatepass")).hexdigest()[:6]
        plain = f"{plain[: _NAME_LENGTH - len(server) - 8]}_{digest}"
    return f"{server}_{plain}"


def _without_key(schema: dict[str, Json]) -> tuple[str, dict[str, Json]]:
    """Return the argument that is the key of a call, and the schema without it."""
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict):
        return "", schema
    name = next((it for it in _KEYS if it in properties), "")
    others: Json = {it: value for it, value in properties.items() if it != name}
    needed: Json = [it for it in required if it != name] if isinstance(required, list) else []
    return name, {**schema, "properties": others, "required": needed}


def _plain(value: Json) -> Json:
    match value:
        case str():
            return _text(value)
        case list():
            return [_plain(one) for one in value]
        case dict():
            return {_text(name): _plain(one) for name, one in value.items()}
    return value


def _text(text: str) -> str:
    """Return a text of a stranger without controls."""
    return strip_controls(whole_characters(text))
