"""The bot as processes before a real Synapse: kills of both, limits, and what is forgotten.

By hand: `KILLS=300 SYNAPSE_KILLS=30 pytest tests/processes/test_matrix.py -k killed`; and
`ANSWER_SECONDS=600 pytest tests/processes/test_matrix.py -k grows`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.emulators.model import ModelEmulator
from tests.support.matrix_proxy import disobeyed
from tests.support.matrix_scene import Scene, scene
from tests.support.synapse import Synapse, eventually, python_of_synapse, running_synapse

KILLS = int(os.environ.get("KILLS", "3"))
SYNAPSE_KILLS = int(os.environ.get("SYNAPSE_KILLS", "1"))
ANSWER_SECONDS = float(os.environ.get("ANSWER_SECONDS", "6"))
MOST_EDITS = 12
# Synapse looks for redacted content every five minutes; here every second.
_SOONER = """
import synapse.storage.databases.main.censor_events as it
real = it.Duration
it.Duration = lambda minutes: real(seconds=minutes / 5)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    # pytest's own temporary paths are too long for a socket.
    with tempfile.TemporaryDirectory(prefix="parley-") as made:
        yield Path(made)


@pytest.fixture
async def own_synapse(folder: Path) -> AsyncIterator[Synapse]:
    """A homeserver that may be killed."""
    (folder / "synapse").mkdir()
    async with running_synapse(folder / "synapse") as one:
        yield one


async def talk_meanwhile(one: Scene, strike: object, times: int) -> None:
    """Let the people ask until it has struck so often, and all be answered."""
    ending = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for talk in one.talks:
            group.create_task(one.asking(talk, ending))
        try:
            for _ in range(times):
                await strike()  # type: ignore[operator]
        finally:
            ending.set()
    await one.settled()


async def test_a_killed_bot_loses_doubles_and_halves_nothing(
    folder: Path, model: ModelEmulator, synapse: Synapse
) -> None:
    async with scene(folder, model, synapse, seed=KILLS) as one:
        await talk_meanwhile(one, one.kill_bot, KILLS)

        asked = sum(len(talk.asked) for talk in one.talks)
        print(f"{asked} questions, kills {one.kills}, most edits {await one.most_edits()}")
        assert await one.problems() == [], one.fleet.texts[-2:]
        assert sum(one.kills.values()) == KILLS
        assert await one.most_edits() <= MOST_EDITS


async def test_a_killed_synapse_loses_doubles_and_halves_nothing(
    folder: Path, model: ModelEmulator, own_synapse: Synapse
) -> None:
    async with scene(folder, model, own_synapse, seed=SYNAPSE_KILLS) as one:
        await talk_meanwhile(one, one.kill_synapse, SYNAPSE_KILLS)

        asked = sum(len(talk.asked) for talk in one.talks)
        print(f"{asked} questions, kills {one.kills}, most edits {await one.most_edits()}")
        assert await one.problems() == [], one.fleet.texts[-2:]
        assert await one.most_edits() <= MOST_EDITS


async def test_every_429_is_obeyed_by_all_processes(
    folder: Path, model: ModelEmulator, synapse: Synapse
) -> None:
    async with scene(folder, model, synapse, limited=True) as one:
        await synapse.set_limit(one.account, a_second=1, burst=3)
        for number, talk in enumerate(one.talks, 1):
            await talk.ask(number)
        await one.settled()

        refused = [call for call in one.calls if call.status == 429]
        print(f"{len(refused)} refused of {len(one.calls)}")
        assert refused
        assert list(disobeyed(one.calls)) == []
        assert await one.problems() == []


async def test_an_answer_that_grows_for_long_has_few_edits(
    folder: Path, model: ModelEmulator, synapse: Synapse
) -> None:
    async with scene(folder, model, synapse, kinds=("direct",), processes=1) as one:
        text = " ".join(f"word{number}" for number in range(300))
        model.answer, model.delay = text, ANSWER_SECONDS * model.chunk / len(text)
        talk = one.talks[0]
        await talk.ask(1)
        await talk.person.sees(
            talk.room,
            lambda found: found and found[-1].text == text,
            of=one.account,
            seconds=ANSWER_SECONDS + 60,
        )

        print(f"{ANSWER_SECONDS} s, {await one.most_edits()} edits")
        assert 2 <= await one.most_edits() <= MOST_EDITS


@pytest.mark.parametrize("redacted", ["question", "answer"])
async def test_what_is_forgotten_is_in_no_row_of_the_servers_database(
    folder: Path, model: ModelEmulator, monkeypatch: pytest.MonkeyPatch, redacted: str
) -> None:
    censors_soon(folder, monkeypatch)
    canary = f"canary{random.getrandbits(64):x}"
    (folder / "synapse").mkdir()
    options = {"redaction_retention_period": "1s", "enable_search": False}
    async with (
        running_synapse(folder / "synapse", **options) as synapse,
        scene(folder, model, synapse, kinds=("mention",), processes=1) as one,
    ):
        text = f"{canary} " + "The quick brown fox jumps over the dog. " * 20 + canary
        model.answer, model.delay = text, 6.0 * model.chunk / len(text)
        talk = one.talks[0]
        await talk.ask(1)
        [whole] = await talk.person.sees(
            talk.room, lambda found: found and found[-1].text == text, of=one.account
        )
        assert whole.edits > 1
        assert rows_with(canary, synapse.database)

        gone_first = talk.asked[1] if redacted == "question" else whole.id
        await talk.person.redact(talk.room, gone_first)

        await eventually(lambda: gone(canary, synapse.database))


def censors_soon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a Synapse that is started now remove redacted content every second."""
    tool = folder / "sooner"
    tool.mkdir()
    (tool / "sitecustomize.py").write_text(_SOONER)
    python = tool / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tool} exec {python_of_synapse()} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("SYNAPSE_PYTHON", str(python))


async def gone(word: str, database: Path) -> bool:
    return not rows_with(word, database)


def rows_with(word: str, database: Path) -> list[str]:
    """Return the table of each row that has a word in it."""
    found = []
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as opened:
        tables = opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            rows = opened.execute(f'SELECT * FROM "{table}"')
            found += [table for row in rows if word.encode() in b"".join(map(_bytes, row))]
    return found


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
