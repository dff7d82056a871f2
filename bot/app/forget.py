"""Forgets a person, or a server, for an operator."""

from __future__ import annotations

import re
from typing import TextIO

from bot.store import connect
from bot.turns.forgetting import Forgetting, named
from bot.turns.queue import QueueScript
from config.settings import Settings

_DISCORD = re.compile(r"\d{15,20}")
_SLACK_PERSON = re.compile(r"[UW][A-Z0-9]{5,}")
_SLACK_SERVER = re.compile(r"[TE][A-Z0-9]{5,}")
_WEB = re.compile(r"[0-9a-f]{32}")


async def forget(settings: Settings, written: str, output: TextIO) -> None:
    """Remove everything that the store has of an id, and say so.

    Workers may run meanwhile, and one that answers the person has to: that answer ends first.
    Raises CannotStart and StoreUnavailable.
    """
    async with connect(url=settings.redis_url, data_dir=settings.data_dir) as store:
        forgetting = Forgetting(QueueScript(store, keep_seconds=settings.keep_seconds))
        jobs = jobs_of(written)
        for who in jobs:
            await forgetting.begin(who)
        for who in jobs:
            await forgetting.carry_out(who)
    output.write(f"Nothing of {written} is left in the store.\n")


def jobs_of(written: str) -> list[str]:
    """Return who may have an id: in Discord a person and a server look alike."""
    if _DISCORD.fullmatch(written):
        return [named("person", "discord", written), named("server", "discord", written)]
    if _SLACK_PERSON.fullmatch(written):
        return [named("person", "slack", written)]
    if _SLACK_SERVER.fullmatch(written):
        return [named("server", "slack", written)]
    return [named("person", "web" if _WEB.fullmatch(written) else "console", written)]
