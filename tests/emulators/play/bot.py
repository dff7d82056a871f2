"""The bot that is led to the emulators, as a script for any shell and as a process of ours."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

_ROOT = Path(__file__).parents[3]
_END_SECONDS = 25.0  # in which the bot promises to be gone after SIGTERM


def write_script(
    path: Path, *, variables: Mapping[str, str], without: Collection[str], folder: Path
) -> None:
    """Write a shell script, for nobody else to read, that runs the bot with these variables.

    It runs `without` some others, and in `folder`, where no `.env` leads it elsewhere.
    """
    lines = (
        "# Runs the bot in the Discord and Slack of `python -m tests.emulators`, while they last.",
        f"unset {' '.join(without)}",
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        f"export PYTHONPATH={shlex.quote(str(_ROOT))}",
        f"cd {shlex.quote(str(folder))} || exit 1",
        f'exec {shlex.quote(sys.executable)} -m bot run "$@"',
    )
    with private(path) as number:
        os.write(number, "".join(f"{line}\n" for line in lines).encode())


@contextmanager
def private(path: Path) -> Iterator[int]:
    """Open a file anew for writing, for nobody else to read; yields its descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        # It may have been there, with another mode.
        os.fchmod(number, 0o600)
        yield number
    finally:
        os.close(number)


@asynccontextmanager
async def run(script: Path, *, log: Path) -> AsyncIterator[Process]:
    """Run such a script; the bot has ended when this returns, within 25 seconds."""
    with private(log) as number:
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", str(script)),
            stdin=DEVNULL,
            stdout=number,
            stderr=number,
            # Ctrl-C is for us, who end it in good order.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
