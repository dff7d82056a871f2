"""Queries of a model server other than chats: its models, context size and token counts."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import aiohttp

from bot.concurrency import cancelled
from bot.domain import Json, Message
from bot.model.transport import ServerConnection
from bot.text.sanitize import whole_characters
from bot.tokens.counters import is_count

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0  # for all requests of a probe together
_NAME_LENGTH = 200  # characters
_MAX_BYTES = 4_000_000  # of a response: Ollama sends a licence along
# What Ollama gives a model by default on a machine with little video memory; it cuts longer
# prompts silently (ollama/ollama, docs/context-length.mdx).
_OLLAMA_CONTEXT = 4096

# For the search for a server's counting API.
_SAMPLE = (Message("user", "Hello"),)
_MAX_COUNT_BYTES = 8_000_000  # of a response: vLLM and TGI send the tokens along
_KIND_SECONDS = 5.0  # for each kind of server that is tried
# The paths that count a chat with its template. llama.cpp since 2026 (xllamacpp 2026.10, run);
# vLLM (entrypoints/serve/tokenize/protocol.py: TokenizeChatRequest); text-generation-inference 3
# (router/src/server.rs: get_chat_tokenize).
_COUNT_PATHS = {
    "llama.cpp": "/v1/chat/completions/input_tokens",
    "vLLM": "/tokenize",
    "text-generation-inference": "/chat_tokenize",
}


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server's models, and the context of the requested one in tokens, if reported.

    `is_complete` is False if the time limit ended the queries. `trouble` is the reason why the
    server could not be asked; it is empty if the server answered.
    """

    models: tuple[str, ...]
    context: int | None
    is_complete: bool = True
    trouble: str = field(default="", compare=False)

    def name_for(self, model: str) -> str | None:
        """Return the server's name for this model, or its only model; None if it is ambiguous."""
        if model in self.models:
            return model
        if f"{model}:latest" in self.models:  # Ollama
            return f"{model}:latest"
        return self.models[0] if len(self.models) == 1 else None


async def fetch_server_info(
    connection: ServerConnection, *, seconds: float = PROBE_SECONDS
) -> ServerInfo:
    """Query a self-hosted server; the result is empty if it does not answer or report."""
    trouble = f"has not answered in {seconds:g} s"
    info = ServerInfo((), None, is_complete=False, trouble=trouble)
    try:
        async with asyncio.timeout(seconds):
            listed = await connection.get_object("/v1/models", max_bytes=_MAX_BYTES)
            entries = objects(listed.get("data"))
            models = tuple(name for each in entries if is_name(name := each.get("id")))
            info = ServerInfo(models, None, is_complete=False)
            context = None
            if name := info.name_for(connection.server.model):
                entry = next((each for each in entries if each.get("id") == name), {})
                context = await _context(connection, name, entry)
            return ServerInfo(models, context)
    except TimeoutError:
        return info
    except (aiohttp.ClientError, OSError) as error:
        return ServerInfo((), None, trouble=_trouble(error))


class ServerCounter:
    """Counts prompts by one request each, with the time limit `count_seconds`.

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

        The first prompt is never counted: it only starts the search for a counting API.
        """
        found = None
        if self._kind:
            found = await self._ask(self._kind, prompt, seconds=self._count_seconds)
        is_due = asyncio.get_running_loop().time() >= self._probe_at
        if found is None and is_due and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._find_kind())
        return found

    async def aclose(self) -> None:
        """Cancel a running probe."""
        if self._probe is not None:
            await cancelled(self._probe)

    async def _find_kind(self) -> None:
        """Try each counting API once, with a short prompt for the server's current model."""
        server = self._connection.server
        info = await fetch_server_info(self._connection)
        self._model = info.name_for(server.model) or server.model
        for kind in _COUNT_PATHS:
            if await self._ask(kind, _SAMPLE, seconds=_KIND_SECONDS):
                if kind != self._kind:
                    log.info("%s provides token counts (API of %s)", server, kind)
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
                answer = await self._connection.get_object(
                    _COUNT_PATHS[kind], body, max_bytes=_MAX_COUNT_BYTES
                )
        except (aiohttp.ClientError, OSError):
            return None
        return _count_in(answer)


async def _context(
    connection: ServerConnection, name: str, entry: Mapping[str, Json]
) -> int | None:
    """Return the context size in tokens, from any field in which servers report it."""
    # vLLM (entrypoints/openai/models/protocol.py: ModelCard).
    if found := _positive(entry.get("max_model_len")):
        return found
    # llama.cpp (tools/server/README.md: GET /props), of one of its slots.
    props = await _get(connection, "/props")
    if found := _positive(_object(props.get("default_generation_settings")).get("n_ctx")):
        return found
    # text-generation-inference (docs/openapi.json: Info).
    if found := _positive((await _get(connection, "/info")).get("max_total_tokens")):
        return found
    return await _ollama_context(connection, name)


async def _ollama_context(connection: ServerConnection, name: str) -> int | None:
    """Return the context of the loaded model in Ollama, or the one it will load it with.

    Source: ollama/ollama, docs/openapi.yaml: /api/ps, /api/show.
    """
    for each in objects((await _get(connection, "/api/ps")).get("models")):
        if each.get("name") == name and (found := _positive(each.get("context_length"))):
            return found
    details = await _get(connection, "/api/show", {"model": name})
    parameters = str(details.get("parameters"))
    chosen = re.search(r"^num_ctx\s+(\d{1,12})\b", parameters, re.MULTILINE)
    if chosen and (found := _positive(int(chosen[1]))):
        return found
    lengths = (
        _positive(value)
        for key, value in _object(details.get("model_info")).items()
        if key.endswith(".context_length")
    )
    return next((min(each, _OLLAMA_CONTEXT) for each in lengths if each), None)


async def _get(connection: ServerConnection, path: str, body: Json = None) -> Mapping[str, Json]:
    """Return a response's object; {} if there is none."""
    try:
        return await connection.get_object(path, body, max_bytes=_MAX_BYTES)
    except (aiohttp.ClientError, OSError):
        return {}


def _count_in(answer: Mapping[str, Json]) -> int | None:
    match answer:
        case {"input_tokens": found} | {"count": found} if is_count(found) and found:
            return found
        case {"tokenize_response": [*tokens]} if tokens:
            return len(tokens)
        case _:
            return None


def is_name(value: Json) -> TypeGuard[str]:
    """Whether a name is safe for the log and the terminal's head."""
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _NAME_LENGTH


def objects(value: Json) -> list[dict[str, Json]]:
    """Return the objects in a JSON array; none if it is no array."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _trouble(error: aiohttp.ClientError | OSError) -> str:
    """Return why a server cannot be asked, without its address."""
    match error:
        case aiohttp.ClientProxyConnectionError():
            return "is behind a proxy that cannot be reached (HTTP_PROXY, HTTPS_PROXY)"
        case aiohttp.ClientConnectorDNSError():
            return "has an unknown host name"
        case OSError(errno=errno.ECONNREFUSED):
            return "refuses the connection"
        case _:
            return f"cannot be asked ({type(error).__name__})"


def _object(value: Any) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _positive(value: Json) -> int | None:
    return value if is_count(value) and value else None
