"""A tiny random model run by transformers: its speed, its memory, and what the bot's loop feels.

    python -m bench.transformers [ANSWERS]

Needs requirements-transformers.txt. A real model is slower and larger; what stays is what the bot
adds, and that its loop goes on while the weights are read and the answers written.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import uvloop

from bot.domain import Message
from bot.errors import AnswerCut
from bot.local.transformers_model import serve
from config.settings import Settings
from tests.support.model import OneAttempt, open_model
from tests.support.tiny_models import tiny_llama

TOKENS = 300  # of an answer
_TICK = 0.005  # seconds


async def compare(folder: Path, most: int) -> None:
    worst = [0.0]
    watching = asyncio.create_task(watch(worst))
    began = time.perf_counter()
    async with (
        serve(
            Settings(transformers_model=str(folder), context_tokens=1000, max_tokens=TOKENS)
        ) as server,
        open_model(
            model="tiny",
            base_url=server.url,
            api_key=server.api_key,
            max_tokens=TOKENS,
            temperature=0.0,
            top_p=None,
            idle_timeout=60,
            total_timeout=120,
        ) as model,
    ):
        ready = time.perf_counter() - began
        await answer(model)
        first_answer = time.perf_counter() - began
        print(f"start to door {ready:.1f} s, to the end of the first answer {first_answer:.1f} s")
        print(f"longest wait of the loop meanwhile {1000 * worst[0]:.0f} ms")
        for count in (1, 2, 4, most):
            worst[0] = 0.0
            began = time.perf_counter()
            firsts = sorted(await asyncio.gather(*(answer(model) for _ in range(count))))
            seconds = time.perf_counter() - began
            print(
                f"{count} at once: {count * TOKENS / seconds:.0f} tokens/s,"
                f" first token {1000 * firsts[0]:.0f} to {1000 * firsts[-1]:.0f} ms,"
                f" longest wait of the loop {1000 * worst[0]:.0f} ms"
            )
        print(f"memory of its process {memory():.0f} MB")
    watching.cancel()


async def watch(worst: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(_TICK)
        worst[0] = max(worst[0], time.perf_counter() - began - _TICK)


async def answer(model: OneAttempt) -> float:
    """Return the seconds to the first delta."""
    began, first = time.perf_counter(), 0.0
    with suppress(AnswerCut):
        async for _ in model.stream([Message("user", "How many?")]):
            first = first or time.perf_counter() - began
    return first


def memory() -> float:
    table = subprocess.run(["ps", "-A", "-o", "ppid=,rss=,args="], capture_output=True, text=True)
    rows = [line.split(None, 2) for line in table.stdout.splitlines()]
    ours = [row for row in rows if int(row[0]) == os.getpid() and "transformers_process" in row[2]]
    return int(ours[0][1]) / 1000


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_llama(Path(folder) / "model", positions=2000)
        uvloop.run(compare(path, int(sys.argv[1]) if len(sys.argv) > 1 else 8))
