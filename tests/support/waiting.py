"""Waiting for what another task or process does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(
    condition: Callable[[], object], *, within: float = 60.0, why: Callable[[], object] = str
) -> None:
    """Return when the condition holds; TimeoutError with what `why` says when it takes too long.

    The bound is wide, for a busy machine: it ends a test that hangs and measures nothing.
    """
    now = asyncio.get_running_loop().time
    start = now()
    try:
        async with asyncio.timeout(within):
            while not condition():
                # What has taken long is looked for less often, which leaves the cores to it.
                await asyncio.sleep(min(max((now() - start) / 10, 0.005), 0.02))
    except TimeoutError:
        raise TimeoutError(why()) from None


def at_least(seconds: float) -> float:
    """Return what a sleep of so many seconds takes at least: a timer may go off a bit early."""
    return 0.9 * seconds
