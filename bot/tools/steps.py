"""The calls of a turn, and how far each got: what survives a crash."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Protocol, get_args

from bot.domain import Consent, ToolCall, ToolKind
from bot.tools.toolset import Found, Offered, ToolResult

log = logging.getLogger(__name__)

CONSENTS: Mapping[str, Consent] = {one: one for one in get_args(Consent)}
UNKNOWN = "not known"  # the outcome of a call that may have been made
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

    async def settle(self, call_id: str, consent: Consent) -> Consent:
        """Store an answer to the question for consent, and return the first one."""

    async def is_always_allowed(self, offered: Offered) -> bool:
        """Whether the person has allowed a tool, as it is described now, for always."""


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

    def asked_at(self, call: ToolCall) -> float | None:
        """Return when a person was asked to allow a call, in seconds since the epoch."""
        asked = self._journal.saved.get(f"asked:{call.id}")
        return float(asked.partition(" ")[0]) if asked else None

    async def ask(self, call: ToolCall, offered: Offered, question: str) -> float:
        """Note what a person is asked now, and for which description of a tool; return when."""
        asked_at = time.time()
        text = f"{asked_at:.3f} {offered.digest} {offered.full_name}\n{question}"
        await self._journal.save(f"asked:{call.id}", text)
        return asked_at

    def consent(self, call: ToolCall) -> Consent | None:
        """Return what a person has answered."""
        return CONSENTS.get(self._journal.saved.get(f"consent:{call.id}", ""))

    async def settle(self, call: ToolCall, consent: Consent) -> Consent:
        """Store an answer, and return the first one."""
        return await self._journal.settle(call.id, consent)

    def has_begun(self, call: ToolCall) -> bool:
        """Whether a call may have been made."""
        return f"begun:{call.id}" in self._journal.saved

    def begun_as(self, call: ToolCall) -> str:
        """Return the kind that a call had when it began; empty if it has not."""
        return self._journal.saved.get(f"begun:{call.id}", "")

    def repeats(self, effect: str) -> bool:
        """Whether this question has begun the same effect before."""
        return effect in self._journal.effects

    async def begin(self, call: ToolCall, kind: ToolKind, *, effect: str) -> None:
        """Save that a call is made now, which counts as one of the day. Raises QuotaUsed."""
        await self._journal.save(f"begun:{call.id}", kind, effect=effect, counts=True)

    async def is_always_allowed(self, offered: Offered) -> bool:
        """Whether the person has allowed a tool, as it is described now, for always."""
        return await self._journal.is_always_allowed(offered)

    def result(self, call: ToolCall) -> ToolResult | None:
        """Return the result of a call."""
        return read_result(self._journal.saved.get(f"result:{call.id}", ""))

    async def end(self, call: ToolCall, result: ToolResult) -> None:
        """Save a result before the model reads it."""
        await self._journal.save(f"result:{call.id}", write_result(result))


def unknown_calls(saved: Mapping[str, str]) -> list[str]:
    """Return the names of the calls of a journal of which nobody knows whether they were done."""
    rounds = (read_round(text) for name, text in saved.items() if name.startswith("round:"))
    calls = [call for one in rounds if one for call in one.calls]
    begun = [one for one in calls if saved.get(f"begun:{one.id}") in WITH_EFFECTS]
    results = {one.id: read_result(saved.get(f"result:{one.id}", "")) for one in begun}
    return [one.name for one in begun if (it := results[one.id]) is None or it.outcome == UNKNOWN]


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
