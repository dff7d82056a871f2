"""Runs tasks together, and ends them."""

from __future__ import annotations

import asyncio
from typing import Any


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and return when they have ended, whatever came of them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def together(*tasks: asyncio.Task[None]) -> None:
    """Run tasks until one ends, and raise what it raised; each of the others is cancelled first.

    One that is cancelled alone is an end too: whoever waits for failures would run on without it.
    Each is told once: `asyncio.gather` ends with the first that heeds a cancellation, and whoever
    cleans up behind it would cut the others off in what they still do.
    """
    try:
        over, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in over:
            task.result()
    finally:
        await cancelled(*tasks)
