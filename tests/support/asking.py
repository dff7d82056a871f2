"""A worker for the page whose model calls tools, and what they return."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adapters.live import LivePlatform
from bot.domain import Delta, Json, Tool, ToolKind
from bot.store import Store
from bot.tools.toolset import Asked, Found, Offered, ToolResult
from bot.turns.worker import Worker
from tests.support.at_work import POLICY, make_conversation, make_queue, working
from tests.support.tools import CallingModel, FakeTool, toolbox

Rounds = Sequence[Sequence[Delta]]
QUESTION = 'May I call `make_ticket` on `tracker` with `{"title": "Printer"}`?'


@dataclass
class Search(FakeTool):
    """Finds pages, or nothing before it `may`."""

    kind: ToolKind = "reads"
    name: str = "search"
    server: str = ""
    found: Sequence[Found] = ()

    async def offered(self, asked: Asked) -> Sequence[Offered]:
        tool = Tool(self.name, "Searches the web.", {"type": "object"})
        return [Offered(tool, "reads", self._search, sign="Searching the web")]

    async def _search(self, arguments: Mapping[str, Json], key: str) -> ToolResult:
        await self._run(arguments, key)
        return ToolResult("", found=tuple(self.found))


@asynccontextmanager
async def asking_worker(
    store: Store, *rounds: Sequence[Delta], tools: Sequence[FakeTool], seconds: float = 600.0
) -> AsyncIterator[CallingModel]:
    """Answer what is asked on the page; a call waits some seconds for the person."""
    model = CallingModel(rounds)
    conversation = make_conversation(store, model, tools=toolbox(*tools, seconds=seconds))
    conversation.patience = 60.0  # a browser takes its time
    worker = Worker(
        queue=make_queue(store, lease=30.0),
        platforms={"web": LivePlatform("web", store=store, announces=True)},
        conversation=conversation,
        capacity=8,
        lease_seconds=30.0,
        drain_seconds=5.0,
        policy=POLICY,
    )
    async with working(worker):
        yield model
