"""What a GGUF file gives on this machine: loading, memory, and words for one and for eight.

    python -m bench.local [FILE.gguf] [--threads N] [--context N]

Without a file it is the demo model. The first words are of a prompt of 20 tokens or so.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bot.app.assistant import LOCAL_SLOTS
from bot.domain import Message
from bot.errors import AnswerCut
from bot.local import llama_cpp
from config.settings import Settings
from tests.support.model import OneAttempt, open_model

TOKENS = 200
PROMPT = "Tell me a very long story about a king, with many details."


async def main(file: Path | None, *, threads: int | None, context: int) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    async with (
        llama_cpp.serve(
            Settings(local_threads=threads, context_tokens=context),
            path=file,
            parallel=LOCAL_SLOTS,
        ) as server,
        open_model(
            model=server.name,
            base_url=server.url,
            api_key=server.api_key,
            max_tokens=TOKENS,
            temperature=0.0,
            top_p=None,
            idle_timeout=600,
            total_timeout=600,
        ) as model,
    ):
        for count in (1, 1, LOCAL_SLOTS, 2 * LOCAL_SLOTS):
            await measure(model, count)


async def measure(model: OneAttempt, count: int) -> None:
    began = time.monotonic()
    answers = await asyncio.gather(*(answer(model, number) for number in range(count)))
    seconds = time.monotonic() - began
    firsts = sorted(first - began for first, _ in answers)
    deltas = sum(number for _, number in answers)
    print(
        f"{count} at once: {deltas / seconds:.0f} tokens/s in all, first words after"
        f" {shown(firsts)} s, all done after {seconds:.1f} s"
    )


async def answer(model: OneAttempt, number: int) -> tuple[float, int]:
    first, deltas = 0.0, 0
    with suppress(AnswerCut):
        # Each its own, so that no conversation is kept of another.
        async for _ in model.stream([Message("user", f"{number + time.time()}: {PROMPT}")]):
            first, deltas = first or time.monotonic(), deltas + 1
    return first, deltas


def shown(seconds: Sequence[float]) -> str:
    return " ".join(f"{each:.2f}" for each in seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--context", type=int, default=2048)
    chosen = parser.parse_args()
    asyncio.run(main(chosen.file, threads=chosen.threads, context=chosen.context))
