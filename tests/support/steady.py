"""A model that is asked again, over the sockets of emulated servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bot.model.retrying import RetryingModel, RetryPolicy
from tests.emulators.model import ModelEmulator
from tests.support.model import open_model

NAMES = ("chosen", "second", "third")

QUICK = RetryPolicy(
    wait=2.0,
    pause=0.02,
    longest_pause=0.2,
    patience=0.05,
    failures=1000,
    open_for=0.1,
    longest_open=0.4,
)


@asynccontextmanager
async def steady(
    *emulators: ModelEmulator,
    policy: RetryPolicy = QUICK,
    idle: float = 2.0,
    total: float = 5.0,
    stopping: asyncio.Event | None = None,
) -> AsyncIterator[RetryingModel]:
    """A model with one fallback for each emulator after the first."""
    for emulator in emulators:
        # Of a server with one model that one would be asked, whatever its name.
        emulator.models = NAMES
    async with AsyncExitStack() as stack:
        models = []
        for name, emulator in zip(NAMES, emulators, strict=False):
            opening = open_model(
                model=name, base_url=emulator.url, idle_timeout=idle, total_timeout=total
            )
            models.append((await stack.enter_async_context(opening)).endpoint)
        yield RetryingModel(
            models=models,
            policy=policy,
            total_timeout=total,
            stopping=stopping or asyncio.Event(),
        )
