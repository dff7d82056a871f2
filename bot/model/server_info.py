"""What a model server of one's own has, in its own words: which models, and how much they see."""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import aiohttp

from bot.domain import Json
from bot.model.server import ModelServer
from bot.model.transport import asked, open_pool, told
from bot.tokens.estimate import is_count

_SECONDS = 5.0  # for all questions together; a server that is away is not waited for
_NAME_LENGTH = 200  # characters
_BYTES = 4_000_000  # of an answer: Ollama tells a licence along
# What Ollama gives a model where nobody chose, on a machine with little video memory; it cuts
# longer prompts without a word (ollama/ollama, docs/context-length.mdx).
_OLLAMA_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server's models, and the context of the one asked about, in tokens, where it tells.

    `whole` says that it was asked all there is to ask; else the time was over. `trouble` says why
    it could not be asked, and is empty if it answered.
    """

    models: tuple[str, ...]
    context: int | None
    whole: bool = True
    trouble: str = field(default="", compare=False)

    def name_for(self, model: str) -> str | None:
        """Return what the server calls this model, or its only one; None where one must choose."""
        if model in self.models:
            return model
        if f"{model}:latest" in self.models:  # Ollama
            return f"{model}:latest"
        return self.models[0] if len(self.models) == 1 else None


async def look(server: ModelServer) -> ServerInfo:
    """Ask a server what it has; nothing is known of one that is away, or that has no such words."""
    async with open_pool(server) as pool:
        return await look_through(pool, server)


async def look_through(pool: aiohttp.ClientSession, server: ModelServer) -> ServerInfo:
    """Look, by connections that are there already."""
    asker = _Asker(server)
    try:
        async with asyncio.timeout(_SECONDS):
            return await asker.offer(pool)
    except TimeoutError:
        return replace(asker.known, whole=False)
    except (aiohttp.ClientError, OSError) as error:
        return ServerInfo((), None, trouble=_trouble(error))


class _Asker:
    """Puts the questions of several kinds of server; `known` is what was answered so far."""

    def __init__(self, server: ModelServer) -> None:
        self.known = ServerInfo((), None, trouble=f"has not answered in {_SECONDS:g} s")
        self._server = server

    async def offer(self, pool: aiohttp.ClientSession) -> ServerInfo:
        said = _object(await asked(pool, self._server, "/v1/models", most=_BYTES))
        entries = [each for each in _list(said.get("data")) if isinstance(each, dict)]
        models = tuple(name for each in entries if is_name(name := each.get("id")))
        self.known = ServerInfo(models, None)
        name = self.known.name_for(self._server.model)
        entry = next((each for each in entries if each.get("id") == name), {})
        if name:
            self.known = ServerInfo(models, await self._context(pool, name, entry))
        return self.known

    async def _context(
        self, pool: aiohttp.ClientSession, name: str, entry: Mapping[str, Json]
    ) -> int | None:
        """Return the tokens that a conversation may have, wherever this kind of server says so."""
        # vLLM (entrypoints/openai/models/protocol.py: ModelCard).
        if found := _whole(entry.get("max_model_len")):
            return found
        # llama.cpp (tools/server/README.md: GET /props), of one of its slots.
        props = await self._get(pool, "/props")
        if found := _whole(_object(props.get("default_generation_settings")).get("n_ctx")):
            return found
        # text-generation-inference (docs/openapi.json: Info).
        if found := _whole((await self._get(pool, "/info")).get("max_total_tokens")):
            return found
        return await self._ollama_context(pool, name)

    async def _ollama_context(self, pool: aiohttp.ClientSession, name: str) -> int | None:
        """Return what Ollama gives the model now, or will give it when it loads it.

        Source: ollama/ollama, docs/openapi.yaml: /api/ps, /api/show.
        """
        running = _list((await self._get(pool, "/api/ps")).get("models"))
        for each in map(_object, running):
            if each.get("name") == name and (found := _whole(each.get("context_length"))):
                return found
        shown = await self._get(pool, "/api/show", {"model": name})
        parameters = str(shown.get("parameters"))
        chosen = re.search(r"^num_ctx\s+(\d{1,12})\b", parameters, re.MULTILINE)
        if chosen and (found := _whole(int(chosen[1]))):
            return found
        lengths = (
            _whole(value)
            for key, value in _object(shown.get("model_info")).items()
            if key.endswith(".context_length")
        )
        return next((min(each, _OLLAMA_CONTEXT) for each in lengths if each), None)

    async def _get(
        self, pool: aiohttp.ClientSession, path: str, question: Json = None
    ) -> Mapping[str, Json]:
        """Return an answer's object; {} where there is none."""
        return _object(await told(pool, self._server, path, question, most=_BYTES))


def is_name(value: Json) -> TypeGuard[str]:
    """Whether a name may stand in the log, and in the terminal's head."""
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _NAME_LENGTH


def _trouble(error: aiohttp.ClientError | OSError) -> str:
    """Say in words, without an address, why a server cannot be asked."""
    match error:
        case aiohttp.ClientProxyConnectionError():
            return "is behind a proxy that cannot be reached (HTTP_PROXY, HTTPS_PROXY)"
        case aiohttp.ClientConnectorDNSError():
            return "has a name that is unknown"
        case OSError(errno=errno.ECONNREFUSED):
            return "refuses the connection"
        case _:
            return f"cannot be asked ({type(error).__name__})"


def _object(value: Any) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _whole(value: Json) -> int | None:
    return value if is_count(value) and value else None
