"""Models behind emulated or real servers: one attempt at one, or retries and fallbacks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from bot.domain import Message, Preferences, Tool
from bot.model.client import ROUTER, Endpoint, ModelClient
from bot.model.retrying import RetryingModel, RetryPolicy
from bot.model.server import ModelServer
from bot.model.transport import connect
from bot.ports import OnThought
from config.settings import Settings
from tests.emulators.model import ModelEmulator

NAMES = ("chosen", "second", "third")

QUICK = RetryPolicy(
    wait=60.0,
    pause=0.02,
    longest_pause=0.2,
    patience=0.05,
    failures=1000,
    open_for=0.1,
    longest_open=0.4,
)


class OneAttempt:
    """Satisfies `bot.ports.Model` by one attempt at an endpoint.

    `prompt_tokens` is what the server reported of the last prompt.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.prompt_tokens: int | None = None

    @property
    def name(self) -> str:
        return self.endpoint.name

    def chosen(self, preferences: Preferences) -> OneAttempt:
        return self

    async def takes_tools(self) -> bool | None:
        return await self.endpoint.takes_tools()

    async def sees(self) -> bool:
        return await self.endpoint.sees()

    async def stream(
        self,
        prompt: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        on_thought: OnThought | None = None,
    ) -> AsyncGenerator[str, None]:
        answer = None
        try:
            async with self.endpoint.stream(
                prompt, tools=tools, deadline=math.inf, on_thought=on_thought
            ) as answer:
                assert isinstance(answer.first, str)
                yield answer.first
                async for delta in answer.deltas:
                    assert isinstance(delta, str)
                    yield delta
        finally:
            self.prompt_tokens = answer.prompt_tokens if answer else None


@asynccontextmanager
async def open_model(
    *,
    base_url: str | None,
    model: str = "emulated",
    api_key: str = "",
    own: bool = True,
    max_tokens: int = 50,
    temperature: float | None = None,
    top_p: float | None = None,
    idle_timeout: float = 5.0,
    total_timeout: float = 10.0,
) -> AsyncIterator[OneAttempt]:
    """Open a model; without `base_url` at Hugging Face's router."""
    server = ModelServer(
        url=base_url or ROUTER, key=api_key or "-", model=model, own=own and base_url is not None
    )
    async with connect(server) as connection:
        settings = Settings(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            reply_timeout=total_timeout,
        )
        yield OneAttempt(ModelClient(connection, settings, idle_timeout=idle_timeout))


@asynccontextmanager
async def open_retrying(
    *emulators: ModelEmulator,
    policy: RetryPolicy = QUICK,
    idle: float = 30.0,
    total: float = 60.0,
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
            models=models, policy=policy, total_timeout=total, stopping=stopping or asyncio.Event()
        )
