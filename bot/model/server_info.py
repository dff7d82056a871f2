"""A model server's models, and of one its context size and what it can do, as reported."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeGuard
from urllib.parse import quote

import aiohttp

from bot.concurrency import cancelled
from bot.domain import Json
from bot.model.transport import ServerConnection
from bot.tokens.counters import is_count

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0  # for all requests of a probe together
VALID_SECONDS = 10.0  # of a report
POLICIES = ("", "fastest", "cheapest", "preferred")  # behind a colon; else a provider's name
_NAME_LENGTH = 200  # characters
# What Ollama gives a model by default on a machine with little video memory; it cuts longer
# prompts silently (ollama/ollama, docs/context-length.mdx).
_OLLAMA_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a model can do, as reported; `takes_tools` is None if nothing reports it."""

    sees: bool = False
    takes_tools: bool | None = None


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server's models, the context of the requested one in tokens, and why it cannot be asked."""

    models: tuple[str, ...]
    context: int | None
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
    trouble = f"{connection.server} has not answered in {seconds:g} s"
    info = ServerInfo((), None, trouble=trouble)
    try:
        async with asyncio.timeout(seconds):
            listed = await connection.get_object("/v1/models")
            entries = objects(listed.get("data"))
            models = tuple(name for each in entries if is_name(name := each.get("id")))
            info = ServerInfo(models, None)
            if name := info.name_for(connection.server.model):
                entry = next((each for each in entries if each.get("id") == name), {})
                info = ServerInfo(models, await _context(connection, name, entry))
    except TimeoutError:
        pass
    except (aiohttp.ClientError, OSError) as error:
        return ServerInfo((), None, trouble=str(connection.failure_of(error)))
    return info


async def fetch_abilities(
    connection: ServerConnection, *, seconds: float = PROBE_SECONDS
) -> Abilities | None:
    """Return what a server, or Hugging Face's router, reports that its model can do.

    None if it does not answer.
    """
    model, is_own = connection.server.model, connection.server.own
    name, _, provider = model.partition(":")
    # Ollama adds a tag, and at Hugging Face a provider may follow a colon.
    names = (model, f"{model}:latest", name)
    reports: list[Mapping[str, Json]] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            entries = objects((await _get(connection, "/v1/models")).get("data"))
            reports += (one for one in entries if len(entries) == 1 or one.get("id") in names)
            if is_own:
                reports.append(await _get(connection, "/props"))
                reports.append(await _get(connection, "/api/show", {"model": model}))
                reports.append(await _get(connection, f"/api/v0/models/{quote(model)}"))
            if not (entries or any(reports)):
                return None
            said = [_takes_tools(one, provider) for one in reports]
            takes_tools = True if True in said else False if False in said else None
            return Abilities(any(map(_sees, reports)), takes_tools)
    return None


def _sees(report: Mapping[str, Json]) -> bool:
    """Whether a model sees pictures, by any field in which servers report it."""
    match report:
        # The router, OpenRouter, and llama.cpp (xllamacpp 2026.10, run).
        case {"architecture": {"input_modalities": list() as kinds}}:
            return "image" in kinds
        # Ollama (docs/api.md: Show Model Information).
        case {"capabilities": list() as abilities}:
            return "vision" in abilities
        # llama.cpp (tools/server/README.md: GET /props); Mistral's own API; LM Studio (its
        # documentation: REST API v0).
        case (
            {"modalities": {"vision": True}}
            | {"capabilities": {"vision": True}}
            | {"object": "model", "type": "vlm"}
        ):
            return True
        # vLLM does not report it, but refuses pictures that its model does not see.
        case {"owned_by": "vllm"}:
            return True
    return False


def _takes_tools(report: Mapping[str, Json], provider: str) -> bool | None:
    """Whether a model takes tools, by any field in which servers report it."""
    match report:
        # Hugging Face's router, of each provider; it chooses one if the name has none.
        case {"providers": list() as providers}:
            anyone = provider in POLICIES
            said = [
                one.get("supports_tools")
                for one in objects(providers)
                if anyone or one.get("provider") == provider
            ]
            return True if True in said else False if False in said else None
        # OpenRouter (docs: Models, supported_parameters).
        case {"supported_parameters": list() as names}:
            return "tools" in names
        # Ollama (docs/api.md: Show Model Information); LM Studio (REST API v0).
        case {"capabilities": list() as abilities}:
            return "tools" in abilities or "tool_use" in abilities
        # llama.cpp (common/jinja/caps.h); it drops tools silently if the template has none.
        case {"chat_template_caps": {"supports_tools": bool() as takes}}:
            return takes
        # Mistral's own API.
        case {"capabilities": {"function_calling": bool() as takes}}:
            return takes
    # vLLM does not report it, but refuses tools if it was started without a parser for calls.
    return None


class ServerWatch:
    """Keeps the context size that a server reports; None until it reports one.

    A report is valid for `valid_seconds`, and not after a failed request: the restarted server may
    have another context or model, and Ollama silently cuts longer prompts.
    """

    def __init__(
        self,
        connection: ServerConnection,
        *,
        probe_seconds: float = PROBE_SECONDS,
        valid_seconds: float = VALID_SECONDS,
    ) -> None:
        self.context: int | None = None  # tokens
        self._connection = connection
        self._probe_seconds = probe_seconds
        self._valid_seconds = valid_seconds
        self._valid_until = -math.inf  # loop time
        self._probe: asyncio.Task[None] | None = None  # shared by all waiting requests

    async def refresh(self, *, deadline: float) -> None:
        """Probe the server again unless its last report is valid; wait until `deadline` at most."""
        now = asyncio.get_running_loop().time()
        if now < self._valid_until:
            return
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._run_probe())
        # Not awaited itself, so that a cancelled caller does not cancel the probe for others.
        await asyncio.wait([self._probe], timeout=max(deadline - now, 0.0))

    def expire(self) -> None:
        """End the validity of the last report."""
        self._valid_until = -math.inf

    async def aclose(self) -> None:
        """Cancel a running probe."""
        if self._probe is not None:
            await cancelled(self._probe)

    async def _run_probe(self) -> None:
        info = await fetch_server_info(self._connection, seconds=self._probe_seconds)
        self._valid_until = asyncio.get_running_loop().time() + self._valid_seconds
        if info.context and info.context != self.context:
            server = self._connection.server
            log.info("%s has a context of %d tokens for %s", server, info.context, server.model)
            self.context = info.context


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
    """Return a model's context in Ollama (docs/openapi.yaml: /api/ps, /api/show)."""
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
        return await connection.get_object(path, body)
    except (aiohttp.ClientError, OSError):
        return {}


def is_name(value: Json) -> TypeGuard[str]:
    """Whether a name is safe for the log and the terminal's head."""
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _NAME_LENGTH


def objects(value: Json) -> list[dict[str, Json]]:
    """Return the objects in a JSON array; none if it is no array."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _object(value: Any) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _positive(value: Json) -> int | None:
    return value if is_count(value) and value else None
