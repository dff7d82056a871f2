"""Models that call tools, and tools that note their calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bot.domain import Delta, Json, Message, Preferences, Tool, ToolCall, ToolKind, Turn
from bot.ports import OnThought
from bot.tools.questions import Answered, ToolAsks, form_question
from bot.tools.toolbox import Toolbox
from bot.tools.toolset import Asked, Offered, ToolResult
from tests.support.waiting import until

# A form and a link that a server of tools asks about.
FORM_ID, LINK_ID = "form-012345678", "link-012345678"
_SCHEMA: dict[str, Json] = {
    "properties": {
        "room": {"type": "integer", "title": "Room", "description": "Its number"},
        "colour": {"type": "string", "enum": ["red", "blue"]},
        "note": {"type": "string"},
    },
    "required": ["room", "colour"],
}
WHICH = form_question("k", "Which room?", _SCHEMA)


def call(name: str = "make_ticket", arguments: str = '{"title": "Printer"}') -> ToolCall:
    return ToolCall("", name, arguments)


@dataclass
class CallingModel:
    """Says the deltas of the round that the prompt has come to; the last ones further on.

    It says nothing before it `may`.
    """

    rounds: Sequence[Sequence[Delta]]
    name: str = "calling"
    takes: bool | None = True
    may: Callable[[], object] = lambda: True
    prompts: list[list[Message]] = field(default_factory=list)
    offered: list[list[str]] = field(default_factory=list)

    def chosen(self, preferences: Preferences) -> CallingModel:
        return self

    async def sees(self) -> bool:
        return False

    async def takes_tools(self) -> bool | None:
        return self.takes

    async def stream(
        self,
        prompt: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        on_thought: OnThought | None = None,
    ) -> AsyncGenerator[Delta]:
        self.prompts.append(list(prompt))
        self.offered.append([one.name for one in tools])
        await until(self.may)
        done = sum(bool(one.calls) for one in prompt)
        for delta in self.rounds[min(done, len(self.rounds) - 1)]:
            if not isinstance(delta, ToolCall) or tools:
                yield delta


@dataclass
class FakeTool:
    """One tool of a kind; `runs` has the arguments and the key of each call.

    A call waits for `may`, and then returns `text` or raises `error`. Each of `asks` is what its
    server asks first; `answered` has what came back.
    """

    kind: ToolKind = "effects"
    name: str = "make_ticket"
    server: str = "tracker"
    text: str = "Ticket 7."
    error: Exception | None = None
    may: Callable[[], object] = lambda: True
    foreign: bool = True
    description: str = "Makes a ticket."
    needs: Sequence[str] = ("title",)
    asks: Sequence[ToolAsks] = ()
    runs: list[tuple[dict[str, Json], str]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)

    async def offered(self, asked: Asked) -> Sequence[Offered]:
        self.asked.append(asked)
        schema: dict[str, Json] = {"type": "object", "required": [*self.needs]}
        tool = Tool(self.name, self.description, schema)
        return [Offered(tool, self.kind, self._run, server=self.server, go_on=self._go_on)]

    async def _go_on(
        self, arguments: Mapping[str, Json], key: str, answered: Answered
    ) -> ToolResult:
        self.answered.append(answered)
        return await self._run(arguments, key, int(answered.state or 0))

    async def _run(self, arguments: Mapping[str, Json], key: str, number: int = 0) -> ToolResult:
        self.runs.append((dict(arguments), key))
        await until(self.may)
        await asyncio.sleep(0)
        if number < len(self.asks):
            raise self.asks[number]
        if self.error:
            raise self.error
        return ToolResult(self.text, foreign=self.foreign)


async def never(turn: Turn, offered: Offered) -> bool:
    return False


async def always(turn: Turn, offered: Offered) -> bool:
    return True


def toolbox(
    *tools: FakeTool, seconds: float = 60.0, allowed: Callable[..., object] = never
) -> Toolbox:
    return Toolbox(tools, allowed, seconds)  # type: ignore[arg-type]
