"""The calls of a turn, and how far each got: what survives a crash."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Protocol, get_args

from bot.domain import UNKNOWN, Consent, ToolCall, ToolKind
from bot.tools.questions import (
    Answered,
    Input,
    Question,
    ToolAsks,
    read_input,
    write_input,
    write_question,
)
from bot.tools.toolset import Found, Offered, ToolResult

log = logging.getLogger(__name__)

CONSENTS: Mapping[str, Consent] = {one: one for one in get_args(Consent)}
WITH_EFFECTS: Collection[str] = ("effects", "keyed")  # kinds
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 9  # Mistral's chat templates demand it


class Journal(Protocol):
    """Keeps the steps of a turn under its lease, as texts by name."""

    @property
    def saved(self) -> Mapping[str, str]:
        """What was saved by all attempts."""

    @property
    def effects(self) -> Collection[str]:
        """The effects that were begun for this question, also before an edit or a regeneration."""

    async def save(self, name: str, text: str, *, effect: str = "", counts: bool = False) -> None:
        """Save a text before anything else is done, and the `effect` that begins with it.

        If it `counts`, it is one of the person's calls of the day. Raises StoreUnavailable,
        LeaseLost, QuestionEdited, and QuotaUsed if no call is left.
        """

    async def settle(self, call_id: str, consent: Consent) -> None:
        """Store an answer to the question for consent, unless there is one."""


@dataclass(frozen=True, slots=True)
class Round:
    """What the model said before its calls, and these."""

    text: str
    calls: tuple[ToolCall, ...]


class Steps:
    """The rounds of a turn, each with its calls, and their results."""

    def __init__(self, journal: Journal, *, turn_id: str) -> None:
        self._journal = journal
        self._turn_id = turn_id

    def round(self, number: int) -> Round | None:
        """Return a round that an earlier attempt has saved."""
        return read_round(self._journal.saved.get(f"round:{number}", ""))

    def identified(self, call: ToolCall, *, number: int, place: int) -> ToolCall:
        """Return a call with an id of our own: a model may use one twice, or none."""
        own_id = call_id(self._turn_id, number, place, call.name, call.arguments)
        return ToolCall(own_id, call.name, call.arguments)

    async def save_round(self, number: int, done: Round) -> None:
        """Save a round before its calls are made."""
        await self._journal.save(f"round:{number}", write_round(done))

    def asked_at(self, call_id: str) -> float | None:
        """Return when a person was asked to allow a call, in seconds since the epoch."""
        asked = self._journal.saved.get(f"asked:{call_id}")
        return float(asked.partition(" ")[0]) if asked else None

    async def ask(
        self, call_id: str, offered: Offered, line: str, question: Question | None
    ) -> float:
        """Note what a person is asked now, and for which description of a tool; return when.

        `question` is that of a server; `call_id` is then the question's.
        """
        asked_at = time.time()
        text = f"{asked_at:.3f} {offered.digest} {offered.full_name}\n{line}"
        text += f"\n{write_question(question)}" if question else ""
        await self._journal.save(f"asked:{call_id}", text)
        return asked_at

    def consent(self, call_id: str) -> Consent | None:
        """Return what a person has answered for a call, or to a question of its server."""
        return CONSENTS.get(self._journal.saved.get(f"consent:{call_id}", "").partition("\n")[0])

    async def settle(self, call_id: str, consent: Consent) -> Consent:
        """Store an answer, and return the first one."""
        await self._journal.settle(call_id, consent)
        return self.consent(call_id) or consent

    def inputs(self, call: ToolCall) -> list[Input]:
        """Return what the call's server has asked so far, in this order."""
        found = list[Input]()
        while written := self._journal.saved.get(f"input:{call.id}:{len(found)}"):
            found.append(read_input(written))
        return found

    async def save_input(self, call: ToolCall, number: int, asks: ToolAsks) -> None:
        """Save what a server asks before anybody is asked."""
        named = {one.id(call.id, number, at): one for at, one in enumerate(asks.questions)}
        written = write_input(Input(asks.state, named))
        await self._journal.save(f"input:{call.id}:{number}", written)

    def open_question(self, call: ToolCall) -> tuple[str, Question] | None:
        """Return the first question of a server without the answer that it wants, and its id."""
        asked = self.inputs(call)[-1:]
        named = [each for one in asked for each in one.questions.items()]
        return next((it for it in named if self.consent(it[0]) not in ("answer", "done")), None)

    def answered(self, call: ToolCall) -> Answered:
        """Return what the server gets for its last questions."""
        last, saved = self.inputs(call)[-1], self._journal.saved
        words = {it: saved[f"consent:{it}"].partition("\n")[2] for it in last.questions}
        return Answered(
            last.state,
            {one.key: json.loads(words[it] or "null") for it, one in last.questions.items()},
        )

    def has_begun(self, call: ToolCall) -> bool:
        """Whether the first request of a call, of which most have one, may have been sent."""
        return _begun(call, 0) in self._journal.saved

    def begun_as(self, call: ToolCall) -> str:
        """Return the kind with which the next request of a call was begun; empty if it was not."""
        return _hanging(call, self._journal.saved)

    def repeats(self, effect: str) -> bool:
        """Whether this question has begun the same effect before."""
        return effect in self._journal.effects

    @property
    def has_effects_before(self) -> bool:
        """Whether an earlier answer to the same question has begun any effect."""
        return bool(effects_before(self._journal.saved, self._journal.effects))

    async def begin(self, call: ToolCall, number: int, kind: ToolKind, *, effect: str) -> None:
        """Save that a request is sent now; the first counts as a call of the day.

        Raises QuotaUsed.
        """
        text = f"{kind} {effect}".strip()
        await self._journal.save(_begun(call, number), text, effect=effect, counts=not number)

    def result(self, call: ToolCall) -> ToolResult | None:
        """Return the result of a call."""
        return read_result(self._journal.saved.get(f"result:{call.id}", ""))

    async def end(self, call: ToolCall, result: ToolResult) -> None:
        """Save a result before the model reads it."""
        await self._journal.save(f"result:{call.id}", write_result(result))


def unknown_calls(saved: Mapping[str, str]) -> list[str]:
    """Return the names of the calls of a journal of which nobody knows whether they were done.

    A call whose last request was answered by a question has not been done.
    """
    rounds = (read_round(text) for name, text in saved.items() if name.startswith("round:"))
    calls = [call for one in rounds if one for call in one.calls]
    return [one.name for one in calls if _is_unknown(one, saved)]


def _is_unknown(call: ToolCall, saved: Mapping[str, str]) -> bool:
    result = read_result(saved.get(f"result:{call.id}", ""))
    hangs = _hanging(call, saved) in WITH_EFFECTS
    return hangs and (result is None or result.outcome == UNKNOWN)


def effects_before(saved: Mapping[str, str], effects: Collection[str]) -> list[str]:
    """Return the names of the tools that were called for earlier answers to the same question."""
    begun = {text.partition(" ")[2] for name, text in saved.items() if name.startswith("begun:")}
    return sorted({one.partition(" ")[2] for one in effects if one not in begun})


def _hanging(call: ToolCall, saved: Mapping[str, str]) -> str:
    """Return the kind of the request that was begun behind all questions of its server."""
    asked = sum(name.startswith(f"input:{call.id}:") for name in saved)
    return saved.get(_begun(call, asked), "").partition(" ")[0]


def _begun(call: ToolCall, number: int) -> str:
    return f"begun:{call.id}:{number}" if number else f"begun:{call.id}"


def call_id(turn_id: str, number: int, place: int, name: str, arguments: str) -> str:
    """Return nine letters and digits, the same for the same call of a turn.

    A press on an old question, from before an edit, allows no call with other arguments.
    """
    written = json.dumps([turn_id, number, place, name, arguments])
    left = int.from_bytes(hashlib.sha256(written.encode()).digest())
    letters = []
    for _ in range(_ID_LENGTH):
        left, at = divmod(left, len(_LETTERS))
        letters.append(_LETTERS[at])
    return "".join(letters)


def write_round(one: Round) -> str:
    """Return a round as JSON."""
    return json.dumps(asdict(one), ensure_ascii=False)


def read_round(written: str) -> Round | None:
    """Read what `write_round` returned; None if it cannot be read."""
    try:
        value = json.loads(written) if written else None
        return value and Round(value["text"], tuple(ToolCall(**it) for it in value["calls"]))
    except (ValueError, LookupError, TypeError) as error:
        log.warning("A round of calls cannot be read: %s", type(error).__name__)
        return None


def write_result(result: ToolResult) -> str:
    """Return a result as JSON."""
    return json.dumps(asdict(result), ensure_ascii=False)


def read_result(written: str) -> ToolResult | None:
    """Read what `write_result` returned; None if it cannot be read."""
    try:
        if not (value := json.loads(written) if written else None):
            return None
        found = tuple(Found(**it) for it in value.pop("found"))
        return ToolResult(**value, found=found)
    except (ValueError, LookupError, TypeError) as error:
        log.warning("The result of a call cannot be read: %s", type(error).__name__)
        return None
