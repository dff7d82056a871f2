"""The command that forgets a person or a server."""

from __future__ import annotations

import asyncio
import re
from typing import Literal, TextIO

from bot.app.platforms import all_specs, own_names, removing_platforms
from bot.audit import OPERATOR
from bot.errors import CannotStart
from bot.store import connect
from bot.text.sanitize import one_line, whole_characters
from bot.turns.collecting import Collector, Tally
from bot.turns.erasing import Subject
from bot.turns.forgetting import Forgetting, named
from bot.turns.script import QueueScript
from config.settings import Settings

_Kind = Literal["person", "server"]
# What neither `forget` nor `export` reaches.
ELSEWHERE = (
    "What it cannot reach: messages on the platform, answers to others that repeat what was said, "
    "the log, AUDIT_FILE, backups, and the store's own log of writes."
)
_PATIENCE = 5.0  # seconds until the operator is shown the reason for waiting
_WAITS = (
    "A reply is still being written and must end first. If no bot is running, start one. You can "
    "leave this command: a running bot finishes the work.\n"
)


async def forget(
    settings: Settings, written: str, output: TextIO, *, patience: float = _PATIENCE
) -> None:
    """Remove all data of an id from the store, and print the result.

    Workers may run meanwhile; a running answer to the person must end first.
    Raises CannotStart if the store has nothing of it, or it only looks like an id; and
    StoreUnavailable.
    """
    written = id_of(written)
    shown, kinds = one_line(written), kinds_of(written)
    async with connect(
        url=settings.redis_url, data_dir=settings.data_dir, replicas=settings.redis_replicas
    ) as store:
        script = QueueScript(store, **settings.keeping)
        removing = removing_platforms()
        forgetting = Forgetting(script, own_names=own_names(), removes_on=removing)
        jobs = [named(kind, platform, written) for kind, platform in kinds]
        tallies = [await _tally(script, who) for who in jobs]
        for who in jobs:
            await forgetting.begin(who, by=OPERATOR)
        hint = asyncio.get_running_loop().call_later(patience, _tell, output, _WAITS)
        try:
            found = sum([await forgetting.carry_out(who) for who in jobs])
        finally:
            hint.cancel()
    looked = f"{' or '.join(f'a {kind}' for kind, _ in kinds)} of {kinds[0][1]}"
    for kind, platform in kinds:
        if kind == "person" and platform in removing:
            _tell(output, f"A running bot removes its answers to {shown} on {platform}.\n")
    if not found:
        raise CannotStart(f"the store has nothing of {shown} ({looked}): is the id right?")
    for (kind, _), tally in zip(kinds, tallies, strict=True):
        if tally.others or tally.questions:
            _tell(output, f"Of this {kind} the store had {tally}.\n")
    _tell(output, f"Nothing of {shown} ({looked}) is left in the store. {ELSEWHERE}\n")


async def _tally(script: QueueScript, who: str) -> Tally:
    """Return how much there is of somebody now: workers may forget a part of it."""
    collector = Collector(script, Subject.of(who, own_names()))
    async for _ in collector.collect():
        pass
    return collector.tally


def id_of(written: str) -> str:
    """Return an id, which may be copied from a mention."""
    return re.sub(r"<@!?(\w+)(\|.*)?>", r"\1", whole_characters(written).strip())


def kinds_of(written: str) -> list[tuple[_Kind, str]]:
    """Return the possible kinds and platforms of an id; by default the terminal's."""
    kinds: tuple[_Kind, ...] = ("person", "server")
    every = [(kind, spec) for spec in all_specs() for kind in kinds if kind in spec.ids]
    found = [(it, spec.name) for it, spec in every if spec.ids[it].fits(written, around=True)]
    like_one = r"|[0-9]+|[A-Z][A-Z0-9]*|[uwte]0\w{5,}|[0-9a-f]{25,}|@.*"
    if not found and re.fullmatch(like_one, written):
        looks = ", ".join(spec.ids_help for spec in all_specs() if spec.ids_help)
        raise CannotStart(f"{written!r} is no id of a person or a server: {looks}")
    return found or [("person", next(spec.name for spec in all_specs() if spec.in_terminal))]


def _tell(output: TextIO, text: str) -> None:
    output.write(text)
    output.flush()
