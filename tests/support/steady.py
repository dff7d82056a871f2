"""A model that is asked again, over the sockets of emulated servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bot.model.client import connect
from bot.model.retrying import RetryingModel, RetryPolicy
from tests.emulators.model import ModelEmulator

NAMES = ("chosen", "second", "third")

QUICK = RetryPolicy(
    wait=2.0,
    pause=0.02,
    longest_pause=0.2,
    moment=0.05,
    failures=1000,
    rest=0.1,
    longest_rest=0.4,
)


@asynccontextmanager
async def steady(
    *emulators: ModelEmulator,
    schedule: RetryPolicy = QUICK,
    idle: float = 2.0,
    total: float = 5.0,
    stopping: asyncio.Event | None = None,
) -> AsyncIterator[RetryingModel]:
    """A model with one fallback for each emulator after the first."""
    for emulator in emulators:
        # Of a server with one model that one would be asked, whatever its name.
        emulator.models = NAMES
    async with AsyncExitStack() as stack:
        models = [
            await stack.enter_async_context(
                connect(
                    model=name,
                    base_url=emulator.url,
                    api_key="",
                    max_tokens=50,
                    temperature=None,
                    top_p=None,
                    idle_timeout=idle,
                    total_timeout=total,
                )
            )
            for name, emulator in zip(NAMES, emulators, strict=False)
        ]
        yield RetryingModel(
            models=models,
            schedule=schedule,
            total_timeout=total,
            stopping=stopping or asyncio.Event(),
        )
