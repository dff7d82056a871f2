"""The lifetimes of what a process runs."""

from __future__ import annotations

import asyncio

from bot.__main__ import until_stopped


async def test_a_listener_that_loses_its_cancellation_is_told_again() -> None:
    told = 0

    async def listen() -> None:
        nonlocal told
        while told < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                told += 1
        raise asyncio.CancelledError

    stopping = asyncio.Event()
    stopping.set()

    async with asyncio.timeout(10):
        await until_stopped({"discord": listen()}, stopping)

    assert told == 2
