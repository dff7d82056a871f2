"""Real servers of tools: an MCP server of tickets, and a search as SearXNG has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from mcp.server.mcpserver import MCPServer

from bot.domain import Json
from tests.emulators.model import Calls, ModelEmulator
from tests.emulators.serving import served
from tests.support.mcp_server import serving

Said = str | Calls

KINDS = {"create_ticket": "effects", "read_notes": "reads"}
STEP = "Calling `create_ticket` on `office`"
QUESTION = 'May I call `create_ticket` on `office` with `{"title": "Printer"}`?'
TICKET = Calls([("office_create_ticket", '{"title": "Printer"}')], text="Let me see.")
NOTES = Calls([("office_read_notes", "{}")])
SEARCH = Calls([("search_web", '{"query": "who won"}')])


@dataclass
class Office:
    """An MCP server of tickets and notes.

    `made` are the titles of the tickets, and `notes` is what its other tool returns, which was
    called `reads` times.
    """

    description: str = "Make a ticket."
    notes: str = "The printer is old."
    made: list[str] = field(default_factory=list)
    reads: int = 0

    @asynccontextmanager
    async def serving(self, folder: Path) -> AsyncIterator[dict[str, str]]:
        """Serve it; yield the variables of a bot that uses it."""
        server = MCPServer("office")

        @server.tool(description=self.description)
        def create_ticket(title: str) -> str:
            self.made.append(title)
            return f"Ticket {len(self.made)}: {title}"

        @server.tool()
        def read_notes() -> str:
            """Read the notes of the office."""
            self.reads += 1
            return self.notes

        async with serving(server.streamable_http_app()) as url:
            yield servers_file(folder, url, KINDS)


def servers_file(folder: Path, url: str, tools: Mapping[str, str]) -> dict[str, str]:
    """Write a file with one server, "office"; return the variable that names it."""
    path = folder / "mcp.toml"
    lines = ["[servers.office]", f'url = "{url}"', "[servers.office.tools]"]
    path.write_text("\n".join([*lines, *(f'{name} = "{kind}"' for name, kind in tools.items())]))
    return {"MCP_SERVERS": str(path)}


@dataclass
class Search:
    """A SearXNG, which finds `pages` as soon as it `may`; `queries` were searched for."""

    pages: Sequence[Mapping[str, Json]] = tuple(
        {"url": f"https://example.org/{n}", "title": f"Page {n}", "content": f"About {n}."}
        for n in (1, 2, 3)
    )
    may: asyncio.Event = field(default_factory=asyncio.Event)
    queries: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[dict[str, str]]:
        """Serve it; yield the variables of a bot that uses it."""
        app = web.Application()
        app.router.add_get("/search", self._answer)
        async with served(app) as address:
            yield {"SEARCH_URL": address}

    async def _answer(self, request: web.Request) -> web.Response:
        if request.query["format"] != "json":
            raise web.HTTPForbidden
        self.queries.append(request.query["q"])
        await self.may.wait()
        return web.json_response({"query": request.query["q"], "results": [*self.pages]})


def answers(model: ModelEmulator, *rounds: Said) -> None:
    """Let a model that takes tools say these in the rounds of each question, the last at the end.

    A text in which "{result}" stands repeats the last result.
    """
    model.calling, model.answer = model.models, in_rounds(*rounds)


def in_rounds(*rounds: Said) -> Callable[[list[dict[str, str]]], Said]:
    def answer(messages: list[dict[str, str]]) -> Said:
        done = sum("tool_calls" in one for one in messages[_question(messages) :])
        said = rounds[min(done, len(rounds) - 1)]
        return said.replace("{result}", messages[-1]["content"]) if isinstance(said, str) else said

    return answer


def results(messages: Sequence[Mapping[str, str]]) -> list[str]:
    """Return what the model has read of the calls for the last question."""
    return [it["content"] for it in messages[_question(messages) :] if it["role"] == "tool"]


def _question(messages: Sequence[Mapping[str, str]]) -> int:
    return max(at for at, one in enumerate(messages) if one["role"] == "user")
