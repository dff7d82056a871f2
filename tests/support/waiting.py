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
    try:
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise TimeoutError(why()) from None
