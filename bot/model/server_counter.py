"""Asks a model server to count the tokens of a prompt."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

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
_PROBE_SECONDS = 5.0  # for each kind of server that is tried

# The paths that count a chat with its template. llama.cpp since 2026 (xllamacpp 2026.10, run);
# vLLM (entrypoints/serve/tokenize/protocol.py: TokenizeChatRequest); text-generation-inference 3
# (router/src/server.rs: get_chat_tokenize).
_PATHS = {
    "llama.cpp": "/v1/chat/completions/input_tokens",
    "vLLM": "/tokenize",
    "text-generation-inference": "/chat_tokenize",
}


class ServerCounter:
    """Counts prompts by one request each, which is given up after `count_seconds`.

    Nothing is sent before the first count. A server that does not count is probed again after
    `retry_seconds`.
    """

    def __init__(
        self,
        connection: ServerConnection,
        *,
        count_seconds: float = 0.3,  # a person waits
        retry_seconds: float = 300.0,
    ) -> None:
        self._connection = connection
        self._count_seconds = count_seconds
        self._retry_seconds = retry_seconds
        self._model = connection.server.model
        self._kind = ""
        self._probe: asyncio.Task[None] | None = None
        self._probe_at = 0.0  # loop time

    async def count(self, prompt: Sequence[Message]) -> int | None:
        """Return the tokens of a prompt; None if the server does not count, or not in time.

        The first prompt is never counted: it only starts the search for a way to ask.
        """
        found = None
        if self._kind:
            found = await self._ask(self._kind, prompt, seconds=self._count_seconds)
        is_due = asyncio.get_running_loop().time() >= self._probe_at
        if found is None and is_due and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._find_kind())
        return found

    async def aclose(self) -> None:
        """End a probe that is under way."""
        if self._probe is not None:
            await cancelled(self._probe)

    async def _find_kind(self) -> None:
        """Try each kind once, with a short prompt for the model that the server has now."""
        server = self._connection.server
        info = await fetch_server_info(self._connection)
        self._model = info.name_for(server.model) or server.model
        for kind in _PATHS:
            if await self._ask(kind, _SAMPLE, seconds=_PROBE_SECONDS):
                if kind != self._kind:
                    log.info("%s counts prompts itself, as %s does", server, kind)
                self._kind = kind
                break
        self._probe_at = asyncio.get_running_loop().time() + self._retry_seconds

    async def _ask(self, kind: str, prompt: Sequence[Message], *, seconds: float) -> int | None:
        messages: list[Json] = [
            {"role": message.role, "content": whole_characters(message.text)} for message in prompt
        ]
        body: Json = {"model": self._model, "messages": messages}
        try:
            async with asyncio.timeout(seconds):
                answer = await self._connection.get_object(_PATHS[kind], body, max_bytes=_MAX_BYTES)
        except (aiohttp.ClientError, OSError):
            return None
        return _count_in(answer)


def _count_in(answer: Mapping[str, Json]) -> int | None:
    match answer:
        case {"input_tokens": found} | {"count": found} if is_count(found) and found:
            return found
        case {"tokenize_response": [*tokens]} if tokens:
            return len(tokens)
        case _:
            return None
