"""What a command prints when its reader has left, as `head` does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.process import python

ENDED = 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("words", "status"),
    [("check", ENDED), ("manifest", ENDED), ("--help", 0)],
)
async def test_a_command_ends_quietly_when_its_reader_has_left(
    words: str, status: int, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    variables = {"MODEL_ID": "demo", "DATA_DIR": str(tmp_path)}
    async with python(
        "-m", "bot", words, folder=tmp_path, variables=variables, stdout=writing
    ) as process:
        os.close(writing)
        _, complaints = await process.communicate()

    assert (process.returncode, complaints) == (status, b"")


async def test_a_socket_that_breaks_below_a_running_bot_is_reported(tmp_path: Path) -> None:
    start = (
        "import sys, bot.__main__ as it; from bot.app.shutdown import ShutdownSignals\n"
        "async def breaks(*_): raise BrokenPipeError(32, 'Broken pipe')\n"
        "it._run = breaks; sys.argv[1:] = ['run']\n"
        "sys.exit(it.main(ShutdownSignals(serves=True)))"
    )
    async with python("-c", start, folder=tmp_path, variables={}) as process:
        _, complaints = await process.communicate()

    assert process.returncode == 1
    assert b"Broken pipe" in complaints
