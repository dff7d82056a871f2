"""A model on a server of one's own, which may come back with less room than it had."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Protocol

import aiohttp

from bot.concurrency import cancelled
from bot.domain import Delta, Message
from bot.errors import AnswerCut, ModelError
from bot.model.server import ModelServer
from bot.model.server_info import look_through
from bot.model.transport import open_pool

log = logging.getLogger(__name__)

_HOLDS_SECONDS = 10.0  # for which a server's word about itself is not asked for again


class Limited(Protocol):
    """A model that is asked once, and takes no more than it is told."""

    @property
    def name(self) -> str:
        """The model's name as the operator knows it."""
        ...

    def limit(self, context: int) -> None:
        """Heed that the server has room for so many tokens, the answer's included."""
        ...

    def stream(self, prompt: Sequence[Message], *, deadline: float) -> AsyncGenerator[Delta]:
        """As `retrying.Asked`."""
        ...


@asynccontextmanager
async def heeding(model: Limited, server: ModelServer) -> AsyncIterator[HeedfulModel]:
    """Open the connections by which a server is asked; nothing is sent before the first prompt."""
    async with open_pool(server) as pool:
        heedful = HeedfulModel(model=model, server=server, pool=pool)
        try:
            yield heedful
        finally:
            await heedful.aclose()


class HeedfulModel:
    """Satisfies `retrying.Asked`: the server tells its context before a prompt goes there.

    What it says holds for ten seconds, and never longer than until a request fails, for a server
    that was away may have another context or model now; Ollama would cut a longer prompt without a
    word. One that tells nothing is asked what it is asked: nobody waits for it beyond a look, and
    after a look that was in vain for all its time nobody waits at all until a request fails.
    """

    def __init__(self, *, model: Limited, server: ModelServer, pool: aiohttp.ClientSession) -> None:
        self._model = model
        self._server = server
        self._pool = pool
        self._looking = asyncio.Lock()
        self._looked_at = self._holds_until = -math.inf  # loop time
        self._context: int | None = None
        self._is_mute = False  # the last look took all its time
        self._beside: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The model's name as the operator knows it."""
        return self._model.name

    async def stream(
        self, prompt: Sequence[Message], *, deadline: float
    ) -> AsyncGenerator[Delta, None]:
        """Yield the model's deltas; raise its ModelErrors."""
        if self._is_mute:
            self._look_beside()
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await self._look()
        try:
            async with aclosing(self._model.stream(prompt, deadline=deadline)) as deltas:
                async for delta in deltas:
                    yield delta
        except AnswerCut:
            raise
        except ModelError:
            self._holds_until, self._is_mute = -math.inf, False
            raise

    async def aclose(self) -> None:
        """End a look that nobody waits for."""
        if self._beside is not None:
            await cancelled(self._beside)

    def _look_beside(self) -> None:
        if self._beside is None or self._beside.done():
            self._beside = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Have looked since now, or have the server's word still; all who wait share a look."""
        came = _now()
        async with self._looking:
            if self._looked_at >= came or _now() < self._holds_until:
                return
            began = _now()
            offer = await look_through(self._pool, self._server)
            self._is_mute = not offer.whole
            # Who came meanwhile would be told nothing either.
            self._looked_at = began if offer.whole else _now()
            if offer.models and offer.whole:
                self._holds_until = began + _HOLDS_SECONDS
            if offer.context and offer.context != self._context:
                log.info("%s has a context of %d tokens", self._server, offer.context)
                self._context = offer.context
                self._model.limit(offer.context)


def _now() -> float:
    return asyncio.get_running_loop().time()
