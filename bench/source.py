"""A model, and a bare socket beside it, in a process of their own: `python -m bench.source`.

It prints where the two listen. Each line of its input sets how the model speaks, or asks what it
has said: JSON as `Source` writes it. All times are monotonic seconds, the same in all processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvloop

from tests.emulators.model import ModelEmulator
from tests.support.process import ROOT

Deltas = list[tuple[float, int]]  # when each was sent, and the answer's length with it
_NUMBER = re.compile(r"question (\d+)")
_BEAT = 0.1  # seconds between two lines of the bare socket, about as between two writes


@dataclass(frozen=True, slots=True)
class Source:
    """The process, seen from the bench."""

    process: Process
    url: str
    port: int

    async def speak(self, answer: str, *, chunk: int, speed: float, thinking: float) -> None:
        """Let all further answers be this text, in pieces, so many of them a second."""
        await self._tell({"answer": answer, "chunk": chunk, "speed": speed, "thinking": thinking})

    async def said(self) -> dict[int, Deltas]:
        """Return what was said to each question since the last change; the end is `ended`."""
        told = await self._tell({})
        return {int(number): [(at, end) for at, end in one] for number, one in told.items()}

    async def ended(self, number: int) -> Deltas:
        """Wait until the answer to a question has ended, and return it."""
        while not (await self._tell({"ended": number})).get("ended"):
            await asyncio.sleep(0.1)
        return (await self.said())[number]

    async def _tell(self, line: dict[str, object]) -> dict[str, list[tuple[float, int]]]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        answer: dict[str, list[tuple[float, int]]] = json.loads(
            await self.process.stdout.readline()
        )
        return answer


@asynccontextmanager
async def a_source() -> AsyncIterator[Source]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.source"),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdin=PIPE,
        stdout=PIPE,
        limit=2**26,
    )
    try:
        assert process.stdout
        place = json.loads(await process.stdout.readline())
        yield Source(process, place["url"], place["port"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def main() -> None:
    lines = asyncio.StreamReader(limit=2**26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    beating = await asyncio.start_server(beat, "127.0.0.1", 0, backlog=1000)
    async with ModelEmulator() as model, beating:
        port = beating.sockets[0].getsockname()[1]
        print(json.dumps({"url": model.url, "port": port}), flush=True)
        while line := await lines.readline():
            print(json.dumps(obey(model, json.loads(line))), flush=True)


def obey(model: ModelEmulator, line: dict[str, object]) -> dict[int | str, object]:
    if "answer" in line:
        model.answer, model.chunk = str(line["answer"]), int(str(line["chunk"]))
        model.delay, model.first_delay = 1 / float(str(line["speed"])), float(str(line["thinking"]))
        model.requests.clear()
        return {}
    answers = {_number(one.messages[-1]["content"]): one for one in model.requests}
    if "ended" in line:
        found = answers.get(int(str(line["ended"])))
        return {"ended": bool(found and found.finished)}
    return {
        number: _ends([(one.at, one.text) for one in asked.deltas])
        for number, asked in answers.items()
    }


def _number(question: str) -> int:
    found = _NUMBER.findall(question)
    return int(found[-1]) if found else 0


def _ends(deltas: list[tuple[float, str]]) -> Deltas:
    """Return when each delta came, and the length that the answer shows then."""
    ends, length = [], 0
    for at, text in deltas:
        # Space at the end of a text shows with the word behind it.
        ends.append((at, length + len(text.rstrip())))
        length += len(text)
    return ends


async def beat(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write the time, again and again."""
    while not writer.is_closing():
        writer.write(f"{time.monotonic()}\n".encode())
        await asyncio.sleep(_BEAT)


if __name__ == "__main__":
    uvloop.run(main())
