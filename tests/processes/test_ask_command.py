"""One question from a shell, with the command as a process."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from bot.text.sanitize import strip_controls
from tests.emulators.model import ModelEmulator
from tests.support.process import ROOT, catches
from tests.support.waiting import until

pytestmark = pytest.mark.process

COMPLETIONS = "POST /v1/chat/completions"


@asynccontextmanager
async def asked(
    words: Sequence[str],
    folder: Path,
    variables: dict[str, str],
    *,
    stdin: int = PIPE,
    stdout: int = PIPE,
) -> AsyncIterator[Process]:
    """Run `python -m bot ask WORD …` with these variables and no others; it is gone at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "ask", *words),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)} | variables,
        stdin=stdin,
        stdout=stdout,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(60):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def outcome(
    words: Sequence[str], folder: Path, given: str | bytes = "", **variables: str
) -> tuple[int | None, str, str]:
    """Return the exit status and what was written to standard output and error."""
    async with asked(words, folder, variables) as process:
        given = given if isinstance(given, bytes) else given.encode()
        printed, complaints = await process.communicate(given)
    return process.returncode, printed.decode(), complaints.decode()


class Terminal:
    """A pseudo-terminal, and what stands on it; `end` is for the process."""

    def __init__(self) -> None:
        self._ours, self.end = pty.openpty()
        self._seen = b""
        os.set_blocking(self._ours, False)

    def seen(self) -> str:
        # A terminal whose last process has gone is read with an error.
        with suppress(OSError):
            while chunk := os.read(self._ours, 65536):
                self._seen += chunk
        return self._seen.decode(errors="replace").replace("\r\n", "\n")

    def close(self) -> None:
        os.close(self._ours)
        os.close(self.end)


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


async def test_an_answer_goes_into_a_pipe_whole_and_nothing_beside_it(
    tmp_path: Path, model: ModelEmulator
) -> None:
    model.answer = "\n one\x1b[2J two\n\nthree \n"

    said = await outcome(["Hello"], tmp_path, MODEL_URL=model.url, LOG_LEVEL="debug")

    assert said == (0, "one[2J two\n\nthree\n", "")


@pytest.mark.parametrize(
    ("words", "given", "question"),
    [
        (["What", "is", "it?"], "unread", "What is it?"),
        (["Summarise this:", "-"], "a diff\n", "Summarise this: a diff\n"),
        (["-", "or", "-"], "it", "it or it"),
        ([], "from a pipe", "from a pipe"),
        (["Say", "-"], b"caf\xe9", "Say caf\ufffd"),
        (["--", "--help", "-x"], "", "--help -x"),
    ],
)
async def test_words_and_standard_input_make_the_question(
    tmp_path: Path, model: ModelEmulator, words: list[str], given: str | bytes, question: str
) -> None:
    status, _, _ = await outcome(words, tmp_path, given, MODEL_URL=model.url)

    assert status == 0
    assert model.requests[0].messages[-1]["content"] == question


@pytest.mark.parametrize("words", [[], ["-"], [" "]])
async def test_no_question_is_told(tmp_path: Path, model: ModelEmulator, words: list[str]) -> None:
    said = await outcome(words, tmp_path, MODEL_URL=model.url)

    assert said == (1, "", "bot: there is no question\n")


async def test_at_a_terminal_no_words_are_a_mistake(tmp_path: Path) -> None:
    async with asked_at_a_terminal([], tmp_path, MODEL_ID="demo") as (process, _):
        _, complaints = await process.communicate()

    assert process.returncode == 2
    assert complaints.decode().endswith("ask: error: there is no question\n")


async def test_at_a_terminal_an_answer_grows(tmp_path: Path, model: ModelEmulator) -> None:
    model.answer = [(0, " one"), (0, "\x9b31m two"), (0, " three"), (60, " four")]
    async with asked_at_a_terminal(["Hi"], tmp_path, MODEL_URL=model.url) as (process, terminal):
        await until(lambda: "three" in terminal.seen())

        assert terminal.seen() == "one31m two three"
        assert process.returncode is None


async def test_an_answer_that_begins_anew_at_a_terminal_says_so(
    tmp_path: Path, model: ModelEmulator
) -> None:
    model.answer = "one two three four five"
    model.fail(COMPLETIONS, "drop", at_delta=1)
    async with asked_at_a_terminal(["Hi"], tmp_path, MODEL_URL=model.url) as (process, terminal):
        _, complaints = await process.communicate()
        seen = terminal.seen()

    assert process.returncode == 0
    assert "begins anew" in complaints.decode()
    first, second, rest = seen.split("\n")
    assert model.answer.startswith(first)
    assert (second, rest) == (model.answer, "")


async def test_into_a_pipe_an_answer_that_begins_anew_goes_once(
    tmp_path: Path, model: ModelEmulator
) -> None:
    model.answer = "one two three four five"
    model.fail(COMPLETIONS, "drop", at_delta=1)

    said = await outcome(["Hi"], tmp_path, MODEL_URL=model.url)

    assert said == (0, "one two three four five\n", "")


async def test_an_answer_that_is_cut_short_is_an_answer(
    tmp_path: Path, model: ModelEmulator
) -> None:
    model.answer = "one two three four five six"

    status, printed, complaints = await outcome(
        ["Hi"], tmp_path, MODEL_URL=model.url, MAX_TOKENS="3"
    )

    assert status == 0
    assert model.answer.startswith(printed.strip())
    assert "WARNING" in complaints
    assert "MAX_TOKENS=3" in complaints


async def test_a_failure_is_one_calm_line_with_the_cure(
    tmp_path: Path, model: ModelEmulator
) -> None:
    model.fail_as("wrong key")

    status, printed, complaints = await outcome(
        ["Hi"], tmp_path, MODEL_URL=model.url, MODEL_API_KEY="a-secret-key"
    )

    assert (status, printed) == (1, "")
    assert complaints.splitlines()[-1].startswith("bot: 127.0.0.1")
    assert complaints.splitlines()[-1].endswith("set MODEL_API_KEY to a key that it accepts")
    assert "Traceback" not in complaints
    assert "a-secret-key" not in complaints


async def test_what_a_server_says_of_itself_drives_no_terminal(tmp_path: Path) -> None:
    kind = "text/html; \x9b31m\u202elmth\u2066" + "x" * 5000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 0\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = "http://{}:{}/v1".format(*server.sockets[0].getsockname())
        status, _, complaints = await outcome(["Hi"], tmp_path, MODEL_URL=url)

    assert status == 1
    assert "answers with text/html" in complaints
    assert complaints == strip_controls(complaints)
    assert max(map(len, complaints.splitlines())) < 500


async def test_mistakes_in_the_settings_are_told_before_anything_is_asked(tmp_path: Path) -> None:
    said = await outcome(["Hi"], tmp_path, TOP_P="2", MAX_TOKENS="many")

    assert said == (
        1,
        "",
        "bot: MAX_TOKENS='many' is not a whole number\n"
        "bot: TOP_P='2' is not above 0 and at most 1\n",
    )


async def test_a_disk_that_is_full_is_told(tmp_path: Path, model: ModelEmulator) -> None:
    try:
        full = os.open("/dev/full", os.O_WRONLY)
    except OSError:
        pytest.skip("this system has no disk that is always full: needs /dev/full")
    async with asked(["Hi"], tmp_path, {"MODEL_URL": model.url}, stdout=full) as it:
        os.close(full)
        _, complaints = await it.communicate()

    assert it.returncode == 1
    assert complaints.decode() == "bot: the answer cannot be written: No space left on device\n"


async def test_a_reader_that_has_left_is_no_failure(tmp_path: Path, model: ModelEmulator) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    async with asked(["Hi"], tmp_path, {"MODEL_URL": model.url}, stdout=writing) as process:
        os.close(writing)
        _, complaints = await process.communicate()

    assert (process.returncode, complaints) == (0, b"")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
async def test_an_interruption_hangs_up_and_ends_quietly(
    tmp_path: Path, model: ModelEmulator, number: signal.Signals, status: int
) -> None:
    model.answer = [(0, "one"), (60, " two")]
    async with asked_at_a_terminal(["Hi"], tmp_path, MODEL_URL=model.url) as (process, terminal):
        await until(lambda: "one" in terminal.seen())
        process.send_signal(number)
        async with asyncio.timeout(10):
            _, complaints = await process.communicate()
        seen = terminal.seen()

    assert process.returncode == status
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
        await until(lambda: catches(process, signal.SIGTERM))
        await asyncio.sleep(1)  # whatever it does by then
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            await process.wait()
        assert process.stderr
        complaints = await process.stderr.read()

    assert (process.returncode, complaints) == (130, b"")
    assert not model.requests


@on_linux
@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
async def test_an_interruption_at_any_moment_leaves_no_process(
    tmp_path: Path, seconds: float
) -> None:
    words = ["Tell me a very long story about a king."]
    async with asked(words, tmp_path, {"MODEL_ID": "demo"}, stdin=DEVNULL) as process:
        # Before that an interruption is Python's own matter.
        await until(lambda: catches(process, signal.SIGTERM))
        await asyncio.sleep(seconds)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            _, complaints = await process.communicate()

        assert (process.returncode, complaints) == (130, b"")
        assert processes_at_home_in(tmp_path) == []


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

    quiet = await outcome(question, tmp_path, MODEL_ID="demo", TEMPERATURE="0")
    status, printed, complaints = await outcome(question, tmp_path, TEMPERATURE="0")

    assert quiet == (0, "The capital of France is Paris.\n", "")
    assert (status, printed) == (0, "The capital of France is Paris.\n")
    assert "a small demo model: set HF_TOKEN or MODEL_URL for a good one" in complaints
