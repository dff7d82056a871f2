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

from bot.domain import FileText
from bot.files.formats import MOST_CHARACTERS
from bot.files.kinds import Problem
from bot.text.sanitize import one_line, whole_characters

Report = dict[str, Any]  # see `bot.files.child`
log = logging.getLogger(__name__)

MOST_FILES = 5  # of a question
_MOST_BYTES = 10_000_000  # of a file
_NAME_LENGTH = 100  # characters
_FOLDER = Path(__file__).resolve().parents[2]  # from which the child imports `bot`
# A line has a part, of at most four bytes a character, or little else.
_LINE_BYTES = 5 * MOST_CHARACTERS


async def read_path(path: Path) -> FileText:
    """Return the text of a file on this machine, as `read_file` does. Raises OSError."""

    def content() -> bytes:
        # A pipe or a device may have no end.
        if path.exists() and not path.is_file():
            raise OSError(0, "it is not a file")
        with path.open("rb") as file:
            return file.read(_MOST_BYTES + 1)

    return await read_file(path.name, await asyncio.to_thread(content))


async def read_file(name: str, data: bytes, *, seconds: float = 10.0) -> FileText:
    """Return what can be read of a file in this time, or the problem with it.

    Raises OSError if no process can be started.
    """
    name = one_line(whole_characters(name)).replace('"', "'")
    if len(name) > _NAME_LENGTH:
        name = f"{name[: _NAME_LENGTH - 11]}…{name[-10:]}"
    # A child that the system ends reports no problem.
    found, problem = FileText(name), Problem.DAMAGED
    if len(data) > _MOST_BYTES:
        return replace(found, problem=Problem.LARGE.value.format(name=name))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-B", "-s", "-m", "bot.files.child", Path(name).suffix),
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
        with suppress(ProcessLookupError):
            process.kill()
        # Reading to the end closes the pipes, too.
        await process.communicate()
    if any(found.parts):
        return found
    return replace(found, parts=(), problem=problem.value.format(name=name))


async def _reports(process: Process, data: bytes) -> AsyncGenerator[Report]:
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise AssertionError("the process was started without pipes")
    # It writes only when it has read everything, or has ended.
    with suppress(ConnectionError), closing(stdin):
        stdin.write(data)
        await stdin.drain()
    size = 0
    while size <= _LINE_BYTES and (line := await stdout.readline()):
        size += len(line)
        yield json.loads(line)


@cache
def _warn_of_missing(*limits: str) -> None:
    if limits:
        log.warning("Files are read without limits of %s: this system has none", ", ".join(limits))
