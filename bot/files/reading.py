"""Reads files in child processes, within limits of time, memory and length."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing, suppress
from pathlib import Path

from bot.concurrency import end_process
from bot.domain import FileText, Json
from bot.files.formats import MOST_CHARACTERS
from bot.files.pictures import read_picture
from bot.files.problem import Problem

log = logging.getLogger(__name__)

MB = 1_000_000  # bytes
_FOLDER = Path(__file__).resolve().parents[2]  # from which the child imports `bot`
# A line has a part, of at most twelve letters a character, or little else.
_LINE_BYTES = 13 * MOST_CHARACTERS
_WRITTEN_BYTES = 65_536  # at once: all of a file would be in memory twice


async def read_file(
    name: str, data: bytes | bytearray, *, most_mb: int, seconds: float = 10.0
) -> FileText:
    """Return what can be read of a file in this time, or the problem with it.

    Raises OSError if no process can be started.
    """
    if len(data) > most_mb * MB:
        return too_large(name, most_mb=most_mb)
    if picture := read_picture(name, data):
        return picture
    # A child that the system ends reports no problem.
    problem, unit, total, parts, is_cut = Problem.DAMAGED, "", 1, list[str](), False
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-B", "-s", "-m", "bot.files.child"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        cwd=_FOLDER,
        env={},
        limit=_LINE_BYTES,
        # Ctrl-C in the terminal must not reach the child; it is ended below.
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds), aclosing(_reports(process, data)) as reports:
            async for report in reports:
                match report:
                    case [str() as part, bool() as is_cut, str() as unit, int() as total]:
                        parts.append(part)
                    case [str() as reason]:
                        problem = Problem[reason]
    except TimeoutError:
        problem = Problem.SLOW
    except (ValueError, LookupError):
        log.warning("The process that reads files has sent what is no report")
    finally:
        # A child that has reported all ends by itself.
        await end_process(process, seconds=0.2, kill=process.kill)
        # Reading to the end closes the pipes, too.
        await process.communicate()
    if not any(parts):
        return FileText(name, problem=problem)
    return FileText(name, "\f".join(parts), unit, total, is_cut)


async def read_path(path: Path, *, most_mb: int) -> FileText:
    """Return what can be read of a file on this machine. Raises OSError and ValueError."""

    def beginning() -> bytes:
        # A pipe or a device may have no end.
        if path.exists() and not path.is_file():
            raise OSError(0, "it is not a file")
        with path.open("rb") as file:
            return file.read(most_mb * MB + 1)

    return await read_file(path.name, await asyncio.to_thread(beginning), most_mb=most_mb)


def too_large(name: str, *, most_mb: int) -> FileText:
    """Return that a file is larger than `most_mb`."""
    return FileText(name, problem=Problem.LARGE.replace("{most}", str(most_mb)))


async def _reports(process: Process, data: bytes | bytearray) -> AsyncGenerator[Json]:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise AssertionError("the process was started without pipes")
    # It writes only when it has read everything, or has ended.
    with suppress(ConnectionError), closing(stdin):
        for start in range(0, len(data), _WRITTEN_BYTES):
            stdin.write(data[start : start + _WRITTEN_BYTES])
            await stdin.drain()
    size = 0
    while size <= _LINE_BYTES and (line := await stdout.readline()):
        size += len(line)
        yield json.loads(line)
