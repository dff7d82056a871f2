"""Composes the queue's Lua scripts, one file for each subject, and runs their verbs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bot.access.quotas import Estimate, Quota
from bot.domain import Person, ThreadKey
from bot.errors import (
    BeingForgotten,
    HasEnded,
    LeaseLost,
    NotRemembered,
    NotTheAsker,
    NotTheLast,
    PersonBusy,
    QuestionEdited,
    QueueFull,
    QuotaUsed,
    Refused,
    ThreadBusy,
    TooFewReplicas,
)
from bot.store import Script, Store
from bot.text.sanitize import whole_characters
from bot.turns.keeping import EVERYWHERE, Keeping

_REFUSALS: dict[str, type[Refused]] = {
    "thread": ThreadBusy,
    "person": PersonBusy,
    "full": QueueFull,
    "forgetting": BeingForgotten,
    "asker": NotTheAsker,
    "older": NotTheLast,
    "gone": NotRemembered,
    "ended": HasEnded,
}


# The files whose functions each file needs, beside those of the prelude. Redis defines a script's
# functions again in each call, so a script has no more than its verb needs.
NEEDS: dict[str, tuple[str, ...]] = {
    "prelude": (),
    "quota": (),
    "people": (),
    "kept": (),
    "repairs": (),
    "take": (),
    "rate": (),
    "admit": ("people", "quota"),
    "press": ("admit",),
    "versions": ("kept", "press"),
    "stop": ("kept",),
    "edit": ("admit", "stop"),
    "forget": ("kept", "people", "quota", "repairs", "stop"),
    "renew": (),
    "lease": ("forget", "people", "renew"),
    "steps": ("lease", "quota"),
    "finish": ("kept", "lease", "people", "quota", "repairs"),
    "forgetting": ("forget", "kept", "people", "quota"),
}

# The verbs of each file.
VERBS: dict[str, tuple[str, ...]] = {
    "admit": ("admit", "check_room"),
    "edit": ("edit",),
    "finish": ("end_all", "finish", "give_up"),
    "forget": ("forget", "forget_words", "reset"),
    "forgetting": (
        "cancel_forgetting",
        "claim_forgetting",
        "erase",
        "forget_persona",
        "hide_spent",
        "release_others",
    ),
    "lease": ("release", "save", "save_context", "save_file"),
    "people": ("note_speakers",),
    "press": ("continue", "regenerate"),
    "quota": ("claim_notice", "count_use", "usage"),
    "rate": ("rate",),
    "renew": ("renew", "save_used"),
    "repairs": ("claim_repair", "complete_repair", "report_late_writes"),
    "steps": ("close_consent", "decide", "save_step", "suspend"),
    "stop": ("stop", "stop_own", "stop_thread"),
    "take": ("others_wait", "take"),
    "versions": ("branch", "open"),
}
# What has to survive the loss of a primary: what people were told is done, the fences (two workers
# with the same one would both write), calls with effects that begin, and ends. What a reply shows
# is known to its worker, and found on the platform if that dies, too.
LASTING = {
    *("admit", "branch", "continue", "decide", "edit", "finish", "forget", "forget_words"),
    *("open", "regenerate", "reset", "save_step", "stop", "stop_own", "stop_thread", "take"),
}
_FILE_OF = {verb: file for file, verbs in VERBS.items() for verb in verbs}


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of waiting turns, of the running turns of a person, and of what is stored.

    `history` and `history_bytes` limit the exchanges of a thread, which are more than a prompt
    holds; the newest exchange always stays. With a `history` of 0 there are none: a turn's texts
    expire a minute after the time for its repair. `file_bytes` limits what was read of a thread's
    files; that of the newest exchange always stays. `person_bytes` limits the ended turns of one
    person, to about 2,000 of usual length. `calls_per_day` limits the calls of tools of one person;
    None is no limit.
    """

    waiting_per_thread: int
    waiting_per_person: int
    waiting: int
    running_per_person: int
    history: int = 200
    history_bytes: int = 500_000
    file_bytes: int = 2_000_000
    person_bytes: int = 8_000_000
    calls_per_day: int | None = None


class QueueScript:
    """Runs the verbs of the scripts."""

    def __init__(
        self,
        store: Store,
        *,
        keep_seconds: float,
        remembers: bool = True,
        server_days: Mapping[str, int] = EVERYWHERE,
    ) -> None:
        self.store = store
        self.keeping = Keeping(keep_seconds, remembers, server_days)
        self.keep_ms = self.keeping.longest_ms
        self._kept = self.keeping.written()
        self._scripts: dict[str, Script] = {}

    async def run(self, verb: str, *arguments: str | int) -> str | int | list[Any] | None:
        """Run a verb and return its answer.

        Raises Refused, LeaseLost, QuestionEdited, and TooFewReplicas for what is LASTING.

        Halves of surrogate pairs, which JSON may contain, become U+FFFD.
        """
        whole = (whole_characters(it) if isinstance(it, str) else it for it in arguments)
        key = self.store.key("")
        answer: Any
        too_few = None
        try:
            answer = await self._script(verb)(keys=[key], args=[verb, self._kept, *whole])
        except TooFewReplicas as error:
            # A refusal has written nothing.
            answer, too_few = error.answer, error
        if isinstance(answer, str) and (refusal := _REFUSALS.get(answer)):
            raise refusal
        if isinstance(answer, str) and answer.startswith("used "):
            _, kind, left = answer.split()
            raise QuotaUsed(kind, int(left) / 1000)
        if answer == "lost":
            raise LeaseLost(f"{verb}: {arguments[0]}")
        if answer == "edited_since_take":
            raise QuestionEdited(f"{verb}: {arguments[0]}")
        if too_few:
            raise too_few
        return answer  # type: ignore[no-any-return]

    def _script(self, verb: str) -> Script:
        if not (script := self._scripts.get(verb)):
            script = self._scripts[verb] = self.store.script(
                source_of(verb), lasting=verb in LASTING, if_full=verb == "cancel_forgetting"
            )
        return script


def source_of(verb: str) -> str:
    """Return the script of a verb."""
    read = (_read(file) for file in files_of(_FILE_OF[verb]))
    return "\n".join([*read, f"return verbs.{verb}(unpack(ARGV, 3))"])


def files_of(file: str) -> list[str]:
    """Return the files of a script in their order: each behind those that it needs."""
    found = ["prelude"]

    def add(one: str) -> None:
        if one not in found:
            for needed in NEEDS[one]:
                add(needed)
            found.append(one)

    add(file)
    return found


def record_of(answer: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of a record, which a script returns as names and values."""
    return dict(zip(answer[::2], answer[1::2], strict=True))


def write_quota(quota: Quota, estimate: Estimate | int) -> str:
    """Return a quota and what a turn is expected to use, as JSON."""
    limits = {name: most for name, most in asdict(quota).items() if most is not None}
    tokens, money = estimate if isinstance(estimate, Estimate) else (estimate, 0)
    return json.dumps({**limits, "estimate": tokens, "money_estimate": money})


def person_key(platform: str, person: Person) -> str:
    """Return the name of a person in keys, which is written as a thread."""
    return str(ThreadKey(platform, person.workspace, "", person.id))


@cache
def _read(file: str) -> str:
    return (files("bot.turns") / "scripts" / f"{file}.lua").read_text(encoding="utf-8")
