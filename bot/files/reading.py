"""Reads files in child processes, within limits of time, memory and length."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from bot.concurrency import end_process
from bot.domain import FileText
from bot.files.formats import MOST_CHARACTERS
from bot.files.kinds import Problem
from bot.text.files import plain_name

Report = dict[str, Any]  # see `bot.files.child`
log = logging.getLogger(__name__)

MB = 1_000_000  # bytes
_FOLDER = Path(__file__).resolve().parents[2]  # from which the child imports `bot`
# A line has a part, of at most four bytes a character, or little else.
_LINE_BYTES = 5 * MOST_CHARACTERS
_WRITTEN_BYTES = 65_536  # at once: all of a file would be in memory twice


async def read_file(name: str, data: bytes | bytearray, *, seconds: float = 10.0) -> FileText:
    """Return what can be read of a file in this time, or the problem with it.

    Raises OSError if no process can be started.
    """
    # A child that the system ends reports no problem.
    found, problem = FileText(plain_name(name)), Problem.DAMAGED
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-B", "-s", "-m", "bot.files.child", Path(found.name).suffix),
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
                if "part" in report:
                    parts = (*found.parts, str(report["part"]))
                    found = replace(found, parts=parts, is_cut=bool(report["is_cut"]))
                elif "unlimited" in report:
                    _warn_of_missing(*report["unlimited"])
                elif "problem" in report:
                    problem = Problem[report["problem"]]
                else:
                    found = replace(found, unit=str(report["unit"]), total=int(report["total"]))
    except TimeoutError:
        problem = Problem.SLOW
    except (ValueError, LookupError, TypeError):
        log.warning("The process that reads files has sent what is no report")
    finally:
        # A child that has reported all ends by itself.
        await end_process(process, seconds=0.2, kill=process.kill)
        # Reading to the end closes the pipes, too.
        await process.communicate()
    if any(found.parts):
        return found
    return replace(found, parts=(), problem=problem.value)


def too_large(name: str, *, most_mb: int) -> FileText:
    """Return that a file is larger than `most_mb`."""
    problem = Problem.LARGE.value.replace("{most}", str(most_mb))
    return FileText(plain_name(name), problem=problem)


async def _reports(process: Process, data: bytes | bytearray) -> AsyncGenerator[Report]:
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


@cache
def _warn_of_missing(*limits: str) -> None:
    if limits:
        log.warning("Files are read without limits of %s: this system has none", ", ".join(limits))
