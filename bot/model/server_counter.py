"""Asks a model server to count the tokens of a prompt."""

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
from bot.model.server_info import fetch_server_info
from bot.model.transport import ServerConnection
from bot.text.sanitize import whole_characters
from bot.tokens.estimate import is_count

log = logging.getLogger(__name__)

_SAMPLE = (Message("user", "Hello"),)
_MAX_BYTES = 8_000_000  # of a response: vLLM and TGI send the tokens along


@dataclass(frozen=True, slots=True)
class CountTimings:
    """How long a server may count, in seconds."""

    # A person waits: if the server is slower, it counts nothing for this turn.
    count: float = 0.3
    probe: float = 5.0  # for each kind that is tried
    retry: float = 300.0  # after which a server that counts nothing is probed again


@dataclass(frozen=True, slots=True)
class _CountingApi:
    """An endpoint that counts a chat with its template, and where its answer has the number."""

    kind: str
    path: str
    read: Callable[[Any], object]


# llama.cpp since 2026 (xllamacpp 2026.10, run); vLLM (entrypoints/serve/tokenize/protocol.py:
# TokenizeChatRequest); text-generation-inference 3 (router/src/server.rs: get_chat_tokenize).
_COUNTING_APIS = (
    _CountingApi(
        "llama.cpp",
        "/v1/chat/completions/input_tokens",
        read=lambda answer: answer["input_tokens"],
    ),
    _CountingApi("vLLM", "/tokenize", read=lambda answer: answer["count"]),
    _CountingApi(
        "text-generation-inference",
        "/chat_tokenize",
        read=lambda answer: len(answer["tokenize_response"]),
    ),
)


@asynccontextmanager
async def open_counter(
    connection: ServerConnection, timings: CountTimings = CountTimings()
) -> AsyncIterator[ServerCounter]:
    """Open a counter; nothing is sent before the first count."""
    counter = ServerCounter(connection, timings)
    try:
        yield counter
    finally:
        await counter.aclose()


class ServerCounter:
    """Counts prompts by one request each, which is given up if the server is slow."""

    def __init__(self, connection: ServerConnection, timings: CountTimings) -> None:
        self._connection = connection
        self._timings = timings
        self._model = connection.server.model
        self._api: _CountingApi | None = None
        self._probe: asyncio.Task[None] | None = None
        self._probe_at = 0.0  # loop time

    async def count(self, prompt: Sequence[Message]) -> int | None:
        """Return the tokens of a prompt; None if the server does not count, or not in time.

        The first prompt is never counted: it only starts the search for a way to ask.
        """
        found = None
        if self._api:
            found = await self._ask(self._api, prompt, seconds=self._timings.count)
        is_due = asyncio.get_running_loop().time() >= self._probe_at
        if found is None and is_due and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._find_api())
        return found

    async def aclose(self) -> None:
        """End a probe that is under way."""
        if self._probe is not None:
            await cancelled(self._probe)

    async def _find_api(self) -> None:
        """Try each kind once, with a short prompt for the model that the server has now."""
        server = self._connection.server
        info = await fetch_server_info(self._connection)
        self._model = info.name_for(server.model) or server.model
        for api in _COUNTING_APIS:
            if await self._ask(api, _SAMPLE, seconds=self._timings.probe):
                if api != self._api:
                    log.info("%s counts prompts itself, as %s does", server, api.kind)
                self._api = api
                break
        self._probe_at = asyncio.get_running_loop().time() + self._timings.retry

    async def _ask(
        self, api: _CountingApi, prompt: Sequence[Message], *, seconds: float
    ) -> int | None:
        messages: list[Json] = [
            {"role": message.role, "content": whole_characters(message.text)} for message in prompt
        ]
        body: Json = {"model": self._model, "messages": messages}
        try:
            async with asyncio.timeout(seconds):
                answer = await self._connection.get_json(api.path, body, max_bytes=_MAX_BYTES)
            found = api.read(answer)
        except (aiohttp.ClientError, OSError, TypeError, LookupError):
            return None
        return found if is_count(found) and found else None
