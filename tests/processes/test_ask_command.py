"""One question from a shell, with the command as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.app.test_ask_command import Terminal
from tests.emulators.hub import hub
from tests.emulators.model import ModelEmulator
from tests.support.process import catches, children, python
from tests.support.waiting import until

LIMIT = 30.0  # seconds: half of what the model would take for its answer


def asked(
    words: Sequence[str],
    folder: Path,
    variables: dict[str, str],
    *,
    stdin: int = PIPE,
    stdout: int = PIPE,
) -> AbstractAsyncContextManager[Process]:
    """Run `python -m bot ask WORD …` with these variables and no others; it is gone at the end."""
    arguments = ("-m", "bot", "ask", *words)
    return python(*arguments, folder=folder, variables=variables, stdin=stdin, stdout=stdout)


async def outcome(
    words: Sequence[str], folder: Path, given: str | bytes = "", **variables: str
) -> tuple[int | None, str, str]:
    """Return the exit status and what was written to standard output and error."""
    async with asked(words, folder, variables) as process:
        given = given if isinstance(given, bytes) else given.encode()
        printed, complaints = await process.communicate(given)
    return process.returncode, printed.decode(), complaints.decode()


@asynccontextmanager
async def asked_at_a_terminal(
    words: Sequence[str], folder: Path, **variables: str
) -> AsyncIterator[tuple[Process, Terminal]]:
    terminal = Terminal()
    try:
        async with asked(
            words, folder, variables, stdin=terminal.end, stdout=terminal.end
        ) as process:
            yield process, terminal
    finally:
        terminal.close()


async def test_at_a_terminal_no_words_are_a_mistake(tmp_path: Path) -> None:
    async with asked_at_a_terminal([], tmp_path, MODEL_ID="demo") as (process, _):
        _, complaints = await process.communicate()

    assert process.returncode == 2
    assert complaints.decode().endswith("ask: error: there is no question\n")


async def test_a_full_disk_is_reported(tmp_path: Path, model: ModelEmulator) -> None:
    try:
        full = os.open("/dev/full", os.O_WRONLY)
    except OSError:
        pytest.skip("this system has no disk that is always full: needs /dev/full")
    async with asked(["Hi"], tmp_path, {"MODEL_URL": model.url}, stdout=full) as it:
        os.close(full)
        _, complaints = await it.communicate()

    assert it.returncode == 1
    assert complaints.decode() == "bot: the answer cannot be written: No space left on device\n"


async def test_nobody_but_the_model_is_asked(tmp_path: Path, model: ModelEmulator) -> None:
    model.answer = "Fine."
    async with hub() as hugging_face:
        told = await outcome(["Hi"], tmp_path, MODEL_URL=model.url, HF_ENDPOINT=hugging_face.url)

    assert told == (0, "Fine.\n", "")
    assert not hugging_face.asked


async def test_a_reader_that_has_left_is_no_failure(tmp_path: Path, model: ModelEmulator) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    async with asked(["Hi"], tmp_path, {"MODEL_URL": model.url}, stdout=writing) as process:
        os.close(writing)
        _, complaints = await process.communicate()

    assert (process.returncode, complaints) == (0, b"")


async def test_sigterm_hangs_up_and_ends_quietly(tmp_path: Path, model: ModelEmulator) -> None:
    model.answer = [(0, "one"), (60, " two")]
    variables = {"MODEL_URL": model.url, "TERM": "dumb"}
    async with asked_at_a_terminal(["Hi"], tmp_path, **variables) as (process, terminal):
        await until(lambda: "one" in terminal.seen())
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LIMIT):
            _, complaints = await process.communicate()
        seen = terminal.seen()

    assert process.returncode == 128 + signal.SIGTERM
    assert (seen, complaints) == ("one\n", b"")
    assert not model.running


on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="Linux alone tells which signals are caught"
)


@on_linux
async def test_a_question_that_is_not_written_to_its_end_can_be_interrupted(
    tmp_path: Path, model: ModelEmulator
) -> None:
    async with asked(["-"], tmp_path, {"MODEL_URL": model.url}) as process:
        assert process.stdin
        # More than a pipe holds: it reads by then.
        process.stdin.write(b"x" * 500_000)
        await until(lambda: not process.stdin.transport.get_write_buffer_size())  # type: ignore[union-attr]
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(LIMIT):
            await process.wait()
        assert process.stderr
        complaints = await process.stderr.read()

    assert (process.returncode, complaints) == (130, b"")
    assert not model.requests


@on_linux
@pytest.mark.parametrize("moment", ["start", "load", "answer"])
async def test_an_interruption_at_any_moment_leaves_no_process(tmp_path: Path, moment: str) -> None:
    words = ["Tell me a very long story about a king."]
    async with asked_at_a_terminal(words, tmp_path, MODEL_ID="demo", LOG_LEVEL="debug") as (
        process,
        terminal,
    ):
        # Before that an interruption is Python's own matter.
        await until(lambda: catches(process, signal.SIGTERM))
        if moment == "load":
            await until(lambda: children("bot.local.llama_cpp_process", parent=process.pid))
        if moment == "answer":
            await until(terminal.seen)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(LIMIT):
            _, complaints = await process.communicate()

        # Nor is a word said about a demo model that was chosen.
        assert (process.returncode, complaints) == (130, b"")
        # What was killed may take a moment to go.
        await until(lambda: not processes_at_home_in(tmp_path))


def processes_at_home_in(folder: Path) -> list[str]:
    """Return the ids of those that were started with this HOME, where the system tells (Linux)."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"HOME={folder}".encode() in environment.read_bytes().split(b"\0"):
                found.append(environment.parent.name)
    return found


async def test_the_demo_model_answers_and_is_named_where_nobody_chose_it(tmp_path: Path) -> None:
    question = ["What is the capital of France?"]

    status, printed, complaints = await outcome(question, tmp_path, TEMPERATURE="0")

    assert (status, printed) == (0, "The capital of France is Paris.\n")
    assert "a small demo model: set HF_TOKEN or MODEL_URL for a good one" in complaints
