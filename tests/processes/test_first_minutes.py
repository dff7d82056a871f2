"""What a new operator types by `docs/first-minutes.md` leads to what stands there."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.process import ROOT
from tests.support.waiting import until

_BLOCK = re.compile(r"^```console (\w+)\n(.*?)^```$", re.M | re.S)
_TYPED = re.compile(r"^(\$ |(?:Discord|Slack) [^>]*> |.*\(Enter [^()]*\): ?)(.*)$")
_ID = re.compile(r"\b(?:\d{17,20}|[TU]0[A-Z0-9]+)\b")
_MOST_LINES = 10  # until the bot runs
_CLONE = "git clone ADDRESS parley && cd parley"


class Terminal:
    """A shell in a folder, of which one line runs at a time, and all that it has printed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self.printed = ""

    async def run(self, line: str) -> None:
        """Begin a line; the one before it has to end by itself."""
        await self.finish()
        self._process = await asyncio.create_subprocess_exec(
            *shlex.split(line),
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder)},
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read(self._process))

    def type(self, line: str) -> None:
        assert self._process
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())

    async def finish(self) -> None:
        """Wait for the end of the line that runs."""
        if self._process and self._reading:
            await self._reading
            assert await self._process.wait() == 0, self.printed

    async def close(self) -> None:
        """End what still runs."""
        if self._process and self._reading:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            await self._reading
            await self._process.wait()

    async def _read(self, process: Process) -> None:
        assert process.stdout
        while read := await process.stdout.read(65536):
            self.printed += read.decode()


class Reader:
    """Finds the lines of a document in what terminals print, and what its ids are there."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._read: dict[Terminal, int] = {}

    def real(self, typed: str) -> str:
        """Return a typed line with the ids of this run."""
        return _ID.sub(lambda found: self._ids[found[0]], typed)

    async def find(self, line: str, terminal: Terminal) -> None:
        """Wait for a line, behind those that were found before."""
        new = [it for it in dict.fromkeys(_ID.findall(line)) if it not in self._ids]
        wanted = _ID.sub(lambda it: self._ids.get(it[0], it[0]), line)
        pattern = re.escape(wanted.strip()).replace("…", ".*")
        for id_ in new:
            pattern = pattern.replace(id_, r"(\w+)", 1).replace(id_, r"\w+")
        sought = re.compile(pattern)

        def found() -> re.Match[str] | None:
            return sought.search(terminal.printed, self._read.get(terminal, 0))

        await until(found, why=lambda: f"{line}\n{terminal.printed}")
        match = found()
        assert match
        self._read[terminal] = match.end()
        self._ids |= zip(new, match.groups(), strict=True)


def steps() -> Iterator[tuple[str, str, str | None]]:
    """Yield each line of a terminal by its name: what stands there, and what is typed behind it."""
    document = (ROOT / "docs" / "first-minutes.md").read_text(encoding="utf-8")
    for name, block in _BLOCK.findall(document):
        for line in block.splitlines():
            typed = _TYPED.match(line)
            yield (name, typed[1], typed[2]) if typed else (name, line, None)


def lay_out(folder: Path) -> None:
    """Make what a clone and an installation are; nothing is installed."""
    for path in (*ROOT.glob("*.lock"), *map(ROOT.joinpath, ("Makefile", ".env.example"))):
        (folder / path.name).symlink_to(path)
    for name in ("bot", "adapters", "config", "tests"):
        (folder / name).symlink_to(ROOT / name)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    for stamp in ("run", "dev"):
        (folder / ".venv" / stamp).touch()


def test_ten_typed_lines_are_enough() -> None:
    lines = [typed for _, prompt, typed in steps() if typed and prompt]
    until_it_runs = lines[: lines.index("make run") + 1]

    assert len(until_it_runs) <= _MOST_LINES


async def test_what_an_operator_types_leads_to_what_stands_there(tmp_path: Path) -> None:
    if not shutil.which("make"):
        pytest.skip("make runs the lines: install make")
    lay_out(tmp_path)
    reader, terminals = Reader(), {name: Terminal(tmp_path) for name, *_ in steps()}

    try:
        for name, line, typed in steps():
            terminal = terminals[name]
            if line != "$ ":
                if not (typed and line.endswith("> ")):  # a pipe shows no such prompt
                    await reader.find(line, terminal)
                if typed is not None:
                    terminal.type(reader.real(typed))
            elif typed and typed != _CLONE:
                await terminal.run(typed)
    finally:
        for terminal in reversed(terminals.values()):
            await terminal.close()

    assert "Traceback" not in "".join(it.printed for it in terminals.values())
