"""Reads files in child processes, within limits of time, memory and length."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import socket
import subprocess
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from threading import Thread

from bot.domain import FileText, Json
from bot.files.formats import MOST_CHARACTERS
from bot.files.pictures import read_picture
from bot.files.problem import Problem
from bot.languages import say

log = logging.getLogger(__name__)

MB = 1_000_000  # bytes
_FOLDER = Path(__file__).resolve().parents[2]  # from which the child imports `bot`
# A line has a part, of at most twelve letters a character, or little else.
_LINE_BYTES = 13 * MOST_CHARACTERS
_MOST_CHARSET = 40  # characters
_WRITTEN_BYTES = 65_536  # at once: all of a file would be in memory twice

_server: socket.socket | None = None  # the connection to the fork server of this process


async def read_file(
    name: str,
    data: bytes | bytearray,
    *,
    most_mb: int,
    seconds: float = 10.0,
    html: str | None = None,
) -> FileText:
    """Return what can be read of a file in this time, or the problem with it.

    With `html`, text is that of a web page, in this charset ("" if it was not told), and of the
    unit "html": the first part is its title, and the second what people see there. Else a page
    stays as it is written. Raises OSError if no process can be started.
    """
    if len(data) > most_mb * MB:
        return too_large(name, most_mb=most_mb)
    if picture := read_picture(name, data):
        return picture
    if sys.platform == "win32":  # it cannot fork
        return FileText(name, problem=Problem.WINDOWS)
    kind = b"" if html is None else f"html {html[:_MOST_CHARSET]}".encode("ascii", "replace")
    # A server that has ended unseen, because nobody needed it or the system did, is replaced.
    found = await _read(name, kind, data, seconds) or await _read(name, kind, data, seconds)
    if found is None:
        raise OSError("no process can be started")
    return found


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
    return FileText(name, problem=say(Problem.LARGE).replace("{most}", str(most_mb)))


async def _read(name: str, kind: bytes, data: bytes | bytearray, seconds: float) -> FileText | None:
    """Return what a copy of the fork server reads; None if there is no copy."""
    # A copy that the system ends reports no problem.
    problem, unit, total, parts, is_cut = Problem.DAMAGED, "", 1, list[str](), False
    reader, writer = await asyncio.open_unix_connection(sock=_connection(), limit=_LINE_BYTES)
    has_begun = False
    try:
        reports = _reports(reader, writer, kind, data)
        async with asyncio.timeout(seconds), aclosing(reports):
            async for report in reports:
                has_begun = True
                match report:
                    case [str() as part, bool() as is_cut, str() as unit, int() as total]:
                        parts.append(part)
                    case [str() as reason]:
                        problem = Problem[reason]
    except TimeoutError:
        problem = Problem.SLOW
    except (ValueError, LookupError):
        log.warning("The process that reads files has sent what is no report")
    except ConnectionError:
        pass
    finally:
        # A copy that goes on can write nowhere, and its time is limited.
        writer.transport.abort()
    if not has_begun and problem is Problem.DAMAGED:
        return None
    if not any(parts):
        return FileText(name, problem=problem)
    return FileText(name, "\f".join(parts), unit, total, is_cut)


async def _reports(
    reader: StreamReader, writer: StreamWriter, kind: bytes, data: bytes | bytearray
) -> AsyncGenerator[Json]:
    """Send a file, and yield the reports on it, of which the first is empty."""
    size, line = 0, await reader.readline()
    if not line:
        return
    yield json.loads(line)
    with suppress(ConnectionError):
        writer.write(kind + b"\n")
        for start in range(0, len(data), _WRITTEN_BYTES):
            writer.write(data[start : start + _WRITTEN_BYTES])
            await writer.drain()
        writer.write_eof()
    while size <= _LINE_BYTES and (line := await reader.readline()):
        size += len(line)
        yield json.loads(line)


def _connection() -> socket.socket:
    """Return a connection to a new copy of the fork server, which is started if there is none."""
    global _server
    ours, theirs = socket.socketpair()
    with theirs:
        for _ in range(2):
            _server = _server or _start()
            try:
                socket.send_fds(_server, [b"+"], [theirs.fileno()])
            except OSError:
                _server.close()
                _server = None
            else:
                return ours
    ours.close()
    raise OSError("no process can be started")


def _start() -> socket.socket:
    """Start the fork server, which ends when this connection is closed, and return that."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            (sys.executable, "-B", "-s", "-m", "bot.files.fork_server"),
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=_FOLDER,
            env={},
            # Ctrl-C in the terminal must not reach it.
            start_new_session=True,
        )
    Thread(target=process.wait, daemon=True).start()
    atexit.register(ours.close)
    return ours
