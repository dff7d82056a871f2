"""What a model server itself counts in a prompt."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from bot.concurrency import cancelled
from bot.domain import Json, Message
from bot.model.server import ModelServer
from bot.model.server_info import look_through
from bot.model.transport import open_pool, told
from bot.text.sanitize import whole_characters
from bot.tokens.estimate import is_count

log = logging.getLogger(__name__)

# A person waits: a server that is slower than this counts nothing for this turn.
COUNT_SECONDS = 0.3
AGAIN_SECONDS = 300.0  # after which one that did not count, or was away, is tried anew
_HELLO = (Message("user", "Hello"),)
_PROBE_SECONDS = 5.0
_BYTES = 8_000_000  # of an answer: vLLM and TGI send the tokens along


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """An endpoint that counts a chat with its template, and where its answer has the number."""

    name: str
    path: str
    read: Callable[[Any], object]


# llama.cpp since 2026 (xllamacpp 2026.10, run); vLLM (entrypoints/serve/tokenize/protocol.py:
# TokenizeChatRequest); text-generation-inference 3 (router/src/server.rs: get_chat_tokenize).
_WAYS = (
    _Endpoint(
        "llama.cpp",
        "/v1/chat/completions/input_tokens",
        read=lambda said: said["input_tokens"],
    ),
    _Endpoint("vLLM", "/tokenize", read=lambda said: said["count"]),
    _Endpoint(
        "text-generation-inference",
        "/chat_tokenize",
        read=lambda said: len(said["tokenize_response"]),
    ),
)


@asynccontextmanager
async def connect(server: ModelServer) -> AsyncIterator[ServerCounter]:
    """Open the connections by which a server is asked; nothing is sent before the first count."""
    async with open_pool(server) as pool:
        counter = ServerCounter(server, pool)
        try:
            yield counter
        finally:
            await counter.close()


class ServerCounter:
    """Asks a server for the tokens of a prompt: one request, and no answer where it is slow."""

    def __init__(self, server: ModelServer, pool: aiohttp.ClientSession) -> None:
        self._server = server
        self._pool = pool
        self._model = server.model
        self._way: _Endpoint | None = None
        self._finding: asyncio.Task[None] | None = None
        self._find_at = 0.0  # loop time

    async def count(self, prompt: Sequence[Message]) -> int | None:
        """Return the tokens of a prompt; None where the server does not count, or not in time.

        The first prompt is never counted: it has the bot find out, beside it, whether one can be.
        """
        found = None
        if self._way:
            found = await self._ask(self._way, prompt, seconds=COUNT_SECONDS)
        if found is None:
            self._look()
        return found

    async def close(self) -> None:
        """End what is still under way."""
        if self._finding is not None:
            await cancelled(self._finding)

    def _look(self) -> None:
        """Find out anew, if it was not tried just now, how and for which model to ask."""
        now = asyncio.get_running_loop().time()
        if now >= self._find_at and (self._finding is None or self._finding.done()):
            self._finding = asyncio.create_task(self._find())

    async def _find(self) -> None:
        """Try each way once, with a prompt that has one word, for the model that is there now."""
        offer = await look_through(self._pool, self._server)
        self._model = offer.name_for(self._server.model) or self._server.model
        for way in _WAYS:
            if await self._ask(way, _HELLO, seconds=_PROBE_SECONDS):
                if way != self._way:
                    log.info("%s counts prompts itself, as %s does", self._server, way.name)
                self._way = way
                break
        self._find_at = asyncio.get_running_loop().time() + AGAIN_SECONDS

    async def _ask(
        self, way: _Endpoint, prompt: Sequence[Message], *, seconds: float
    ) -> int | None:
        messages: list[Json] = [
            {"role": message.role, "content": whole_characters(message.text)} for message in prompt
        ]
        question: Json = {"model": self._model, "messages": messages}
        try:
            async with asyncio.timeout(seconds):
                said = await told(self._pool, self._server, way.path, question, most=_BYTES)
            found = way.read(said)
        except (TimeoutError, TypeError, LookupError):
            return None
        return found if is_count(found) and found else None
