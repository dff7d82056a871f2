"""The bot as processes before a real Synapse: kills of both, limits, and what is forgotten.

By hand: `KILLS=300 SYNAPSE_KILLS=30 pytest tests/processes/test_matrix.py -k killed`, and
`ANSWER_SECONDS=600 pytest tests/processes/test_matrix.py -k grows`.
"""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.chaos.fleet import Crew, Fleet, fleet, server
from tests.chaos.matrix import MOST_EDITS, Homeserver, MatrixTalk, homeserver
from tests.chaos.run import HEARS, Report, run
from tests.chaos.talks import answer
from tests.emulators.model import ModelEmulator
from tests.support.matrix_proxy import in_front_of
from tests.support.process import model_variables, python
from tests.support.synapse import eventually, python_of_synapse
from tests.support.waiting import until

KILLS = int(os.environ.get("KILLS", "4"))
SYNAPSE_KILLS = int(os.environ.get("SYNAPSE_KILLS", "1"))
ANSWER_SECONDS = float(os.environ.get("ANSWER_SECONDS", "6"))
_LAST_LINES = 60  # of each log, printed for what was lost
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


async def chaos(folder: Path, *faults: str, times: int, pause: float) -> Report:
    """Let faults strike so many times while people ask, edit and delete, and judge.

    They strike `pause` seconds apart on average.
    """
    python_of_synapse()
    traces = folder / "traces"
    report = await run(
        folder,
        seed=times,
        seconds=60.0 + 15 * times,
        names=faults,
        pause=pause,
        most=times,
        each=1,
        hears=HEARS[:2],
        platforms=("matrix",),
        traces=traces,
    )
    print(report)
    if report.verdict.problems:
        for one in (*sorted(traces.glob("*.log")), traces / "turns.jsonl"):
            print(one.name, *one.read_text(encoding="utf-8").splitlines()[-_LAST_LINES:], sep="\n")
    return report


async def test_a_killed_bot_loses_doubles_and_halves_nothing(folder: Path) -> None:
    kills = "SIGKILL", "SIGKILL at admission", "SIGKILL at the first post"
    report = await chaos(folder, *kills, "SIGKILL at the last write", times=KILLS, pause=0.7)

    assert not report.verdict.problems, str(report)
    # Some wait for a moment, such as the first post, in which no process may be.
    assert report.effects.total() > KILLS // 2


async def test_a_killed_synapse_loses_doubles_and_halves_nothing(folder: Path) -> None:
    report = await chaos(folder, "Synapse killed", times=SYNAPSE_KILLS, pause=4.0)

    assert not report.verdict.problems, str(report)
    assert report.effects.total() == SYNAPSE_KILLS


@asynccontextmanager
async def bots(
    folder: Path, model: ModelEmulator, at: Homeserver, *, processes: int = 1
) -> AsyncIterator[Fleet]:
    """Run processes of the bot, each of which has its own way to the homeserver."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(server(folder))
        crews = []
        for _ in range(processes):
            proxy = await stack.enter_async_context(in_front_of(at.synapse.url))
            at.proxies.append(proxy)
            variables = {
                "MATRIX_HOMESERVER": proxy.url,
                "MATRIX_TOKEN": at.account.token,
                "REDIS_URL": f"unix://{store.socket}",
                **model_variables(model),
            }
            crews.append(Crew(("matrix", "worker"), variables, {}))
        yield await stack.enter_async_context(fleet(folder, crews))


async def nothing(_: str) -> None:
    pass


async def test_every_429_is_obeyed_by_all_processes(folder: Path, model: ModelEmulator) -> None:
    model.answer, model.chunk, model.delay = answer, 12, 0.1
    async with homeserver(folder) as at, bots(folder, model, at, processes=2) as running:
        await at.synapse.set_limit(at.account, a_second=1, burst=3)
        talks = [MatrixTalk(at, nothing, kind, 0) for kind in ("DM", "thread", "DM", "thread")]
        # Synapse asks to wait for a second at most.
        at.proxies[0].refuse(4.0)
        for number, talk in enumerate(talks, 1):
            await talk.ask(number)
        await until(lambda: all(talk.is_whole() for talk in talks), why=lambda: running.texts)

        refused = [one for proxy in at.proxies for one in proxy.calls if one.status == 429]
        print(f"{len(refused)} writes refused")
        assert refused
        assert [one async for one in at.problems()] == []


async def test_an_answer_that_grows_for_long_has_few_edits(
    folder: Path, model: ModelEmulator
) -> None:
    text = " ".join(f"word{number}" for number in range(300))
    model.answer, model.delay = text, ANSWER_SECONDS * model.chunk / len(text)
    async with homeserver(folder) as at, bots(folder, model, at) as running:
        talk = MatrixTalk(at, nothing, "DM", 0)
        await talk.ask(1)
        within = ANSWER_SECONDS + 60
        await until(lambda: talk.shown() == [text], within=within, why=lambda: running.texts)

        edits = await talk.edits_of_an_answer()
        print(f"{edits} edits in {ANSWER_SECONDS} s")
        assert 2 <= edits <= MOST_EDITS


@pytest.mark.parametrize("removed", ["question", "answer", "forget", "forget-me"])
async def test_what_is_forgotten_is_in_no_row_of_the_servers_database(
    folder: Path, model: ModelEmulator, monkeypatch: pytest.MonkeyPatch, removed: str
) -> None:
    censors_soon(folder, monkeypatch)
    canary = f"canary{random.getrandbits(64):x}"
    text = f"{canary} " + "The quick brown fox jumps over the dog. " * 20 + canary
    model.answer, model.delay = text, 6.0 * model.chunk / len(text)
    options = {"redaction_retention_period": "1s", "enable_search": False}
    async with homeserver(folder, **options) as at, bots(folder, model, at) as running:
        talk = MatrixTalk(at, nothing, "thread", 0)
        await talk.ask(1)
        await until(lambda: talk.shown() == [text], why=lambda: running.texts)
        assert await talk.edits_of_an_answer() > 1
        assert rows_with(canary, at.synapse.database)

        if removed == "forget":
            command = "-m", "bot", "forget", talk.person
            async with python(*command, folder=folder, variables=running.variables) as process:
                out, _ = await process.communicate()
            assert f"its answers to {talk.person} on matrix.\nOf this person".encode() in out
        elif removed == "forget-me":
            await talk.say("!parley forget-me yes")
        else:
            await talk.remove(talk.message_of(1) if removed == "question" else talk.messages()[0])

        await eventually(partial(gone, canary, at.synapse.database))


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
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None) as opened:
        opened.execute("BEGIN")  # Synapse drops some tables
        tables = opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            rows = opened.execute(f'SELECT * FROM "{table}"')
            found += [table for row in rows if word.encode() in b"".join(map(_bytes, row))]
    return found


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
