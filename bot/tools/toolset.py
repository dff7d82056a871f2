"""The tools that are offered for one question, and what they return."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bot.domain import Exchange, FileText, Json, ThreadKey, Tool, ToolKind, Turn
from bot.languages import later
from bot.tools.questions import Answered


class ToolFailed(Exception):
    """A call that had no effect and has no result; `str` says why, for the model."""


class ToolBroken(ToolFailed):
    """A call of which nobody knows whether it had an effect: the connection broke in the middle."""


@dataclass(frozen=True, slots=True)
class Found:
    """A page that a tool has found, and what of it the model reads."""

    title: str
    address: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call returned, as words of others.

    The model reads the `text` and what was `found`, with numbers that the answer can name.
    The `outcome` is for people, in one or two words. `foreign`: somebody outside of this
    conversation may have written the text.
    """

    text: str
    found: tuple[Found, ...] = ()
    outcome: str = later("done")
    foreign: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """What a tool may know of the question for which it is called.

    `remembered` are the exchanges of its thread, oldest first, and `files` what was read of the
    question's files, by their ids. A source waits for its server for `patience` seconds; longer if
    the question has calls already, which cannot go on without their tools.
    """

    turn: Turn
    remembered: Sequence[Exchange] = ()
    files: Mapping[str, FileText] = field(default_factory=dict)
    patience: float = 1.0

    @property
    def is_foreign(self) -> bool:
        """Whether its prompt may have words of somebody else, or of a file."""
        beside = [self.turn.quote, *(self.turn.context or ())]
        people = [one.person for one in self.remembered]
        for exchange in self.remembered:
            beside += [exchange.quote, *exchange.context]
        people += [one.person for one in beside if one and one.person]
        return bool(self.files) or any(one.id != self.turn.person.id for one in people)


# Whether the person of a turn has allowed a tool, as it is described now, for always.
IsAllowed = Callable[[Turn, "Offered"], Awaitable[bool]]

# `key` is the same for each attempt at one call, and no other call has it.
Run = Callable[[Mapping[str, Json], str], Awaitable[ToolResult]]
# Sends a call again, with what its server has asked for.
GoOn = Callable[[Mapping[str, Json], str, Answered], Awaitable[ToolResult]]


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool that a question may use.

    `server` is the operator's name of an MCP server; empty for a tool of our own. `sign` says what
    is done while it runs, such as "Searching the web". `own_name` is that of its server, if the
    model knows it by another one. `run` raises ToolFailed; a tool that has `go_on` may raise
    ToolAsks from both.
    """

    tool: Tool
    kind: ToolKind
    run: Run = field(compare=False)
    server: str = ""
    sign: str = ""
    own_name: str = ""
    go_on: GoOn | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The tool's name, as people read it."""
        return self.own_name or self.tool.name

    @property
    def full_name(self) -> str:
        """The tool's name, behind that of its server."""
        return f"{self.server}/{self.name}" if self.server else self.name

    @property
    def digest(self) -> str:
        """Names the tool as it is described now: a changed description or schema has another."""
        parts = [self.server, self.tool.name, self.tool.description, self.kind]
        written = json.dumps([*parts, self.tool.schema], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(written.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A tool as people read of it: its full name, and what it `does` if that needs a word.

    It is known without asking its server. `places` are the ids of the servers, channels and threads
    in which it may be used; everywhere if there are none.
    """

    name: str
    does: str = ""
    kind: ToolKind = "reads"
    places: frozenset[str] = frozenset()


def may_use_in(thread: ThreadKey, places: Collection[str]) -> bool:
    """Whether a thread is in one of the places to which a tool is limited, if it is."""
    around = {thread.workspace, thread.channel, thread.thread}
    return not places or not around.isdisjoint(places)


class ToolSource(Protocol):
    """Offers tools for questions."""

    async def offered(self, asked: Asked) -> Sequence[Offered]:
        """Return what may be used for a question; nothing if a server cannot be reached."""


def whole_number(value: Json, *, default: int) -> int:
    """Return a number that a model has written, also as a text; the default for anything else."""
    try:
        return int(float(value)) if isinstance(value, str | int | float) else default
    except (ValueError, OverflowError):
        return default
