"""The bot that is led to the emulators, as a script for any shell and as a process of ours."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import shlex
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

_ROOT = Path(__file__).parents[3]
_END_SECONDS = 25  # in which the bot promises to be gone after SIGTERM

# The shell waits for the bot. Its child reads from a pipe that nobody writes to: the end comes when
# the process that holds the other end is gone, however it went, and then the bot goes too.
_GUARD = f"""
exec 3<&0
"$@" 3<&- </dev/null &
bot=$!
(
    read -r _
    kill -TERM "$bot"
    waited=0
    while [ "$waited" -lt {_END_SECONDS} ] && sleep 1; do waited=$((waited + 1)); done
    kill -KILL "$bot"
) <&3 >/dev/null 2>&1 &
wait "$bot"
status=$?
kill "$!" 2>/dev/null
exit "$status"
"""


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


def write_settings(path: Path, *, variables: Mapping[str, str]) -> None:
    """Write a `.env` with these variables, for nobody else to read."""
    with private(path) as number:
        os.write(number, "".join(f"{name}={value}\n" for name, value in variables.items()).encode())


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
    """Run such a script; the bot has ended when this returns, within 25 seconds.

    It is told to end when we are gone, too, however we went.
    """
    end, lifeline = os.pipe()
    try:
        process = await _start(script, stdin=end, log=log)
    except BaseException:
        os.close(lifeline)
        raise
    finally:
        os.close(end)
    try:
        yield process
    finally:
        os.close(lifeline)
        await _see_end(process)


async def _start(script: Path, *, stdin: int, log: Path) -> Process:
    with private(log) as number:
        return await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", _GUARD, "sh", "/bin/sh", str(script)),
            stdin=stdin,
            stdout=number,
            stderr=number,
            # Ctrl-C is for us, who end it in good order.
            start_new_session=True,
        )


async def _see_end(process: Process) -> None:
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """Hold a folder that no other play has: `emulators`, or `emulators-2` while that is taken."""
    for number in itertools.count(1):
        folder = parent / ("emulators" if number == 1 else f"emulators-{number}")
        with private(folder / "lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield folder
            return
