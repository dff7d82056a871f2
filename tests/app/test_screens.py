"""What the docs show on a screen is what the bot shows, line by line.

A block `play` in a document has lines that a person types behind the prompt of the emulators'
play, each followed by what stands there then; `…` stands for any text, and alone in a line for any
lines. `<!-- play … -->` is such a block that readers do not see.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator

import pytest

from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.emulators.play.commands import Commands
from tests.emulators.play.discord_rooms import DiscordRooms
from tests.emulators.play.seat import Seat
from tests.emulators.play.slack_rooms import SlackRooms
from tests.emulators.play.stage import PlainStage
from tests.support.at_work import all_ended
from tests.support.process import ROOT
from tests.support.service import serving_both
from tests.support.waiting import until

_BLOCK = re.compile(r"^(?:```play\n(.*?)^```|<!-- play\n(.*?)^-->)$", re.M | re.S)
_TYPED = re.compile(r"^((?:Discord|Slack) .*, \w+> )(.+)$")
_START = re.compile(r"^(.*)make play$", re.M)


def steps(document: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield each prompt, what is typed behind it, and the lines that stand there then."""
    for block in _BLOCK.finditer(document):
        step: tuple[str, str, list[str]] | None = None
        for line in (block[1] or block[2]).splitlines():
            if typed := _TYPED.match(line):
                if step:
                    yield step
                step = typed[1], typed[2], []
            else:
                assert step, line
                step[2].append(line)
        if step:
            yield step


def pattern(lines: list[str]) -> re.Pattern[str]:
    """Return what finds the lines, one after the other."""
    written = (r"(?:.*\n)*?" if it.strip() == "…" else f"{re.escape(it)}\n" for it in lines)
    return re.compile(rf"^{''.join(written)}".replace("…", ".*"), re.M)


async def shown(seat: Seat, output: io.StringIO, lines: list[str]) -> None:
    """Return when these lines stand on the screen."""
    wanted = pattern(lines)

    def is_shown() -> bool:
        seat.look()
        return bool(wanted.search(output.getvalue()))

    await until(is_shown, why=lambda: f"{lines}\n{output.getvalue()}")


@pytest.mark.parametrize("name", ["admin.md", "using.md"])
async def test_the_screens_of_the_docs_are_what_people_see(
    name: str, own_store: Store, model: ModelEmulator
) -> None:
    document = (ROOT / "docs" / name).read_text(encoding="utf-8")
    start = _START.search(document)
    variables = dict(word.split("=", 1) for word in shlex.split(start[1])) if start else {}
    typed = list(steps(document))

    async with serving_both(own_store, model, **variables) as (discord, slack, service):
        output = io.StringIO()
        rooms = DiscordRooms(discord), SlackRooms(slack)
        seat = Seat(discord=rooms[0], slack=rooms[1], stage=PlainStage(output))
        commands = Commands(seat, model)
        for prompt, line, lines in typed:
            assert seat.prompt == prompt
            output.truncate(output.seek(0))
            await commands.obey(line)
            await shown(seat, output, lines)
            # A reader types the next line after the end of an answer, not at once.
            await all_ended(own_store)

    assert typed
    assert not service.errors()
