"""What Hugging Face says of the chosen models before the first question."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import aiohttp
from huggingface_hub import is_offline_mode

from bot.domain import Json
from bot.errors import CannotStart
from bot.model.failures import CALLS, FAILURES, SERVED, TOKENS
from bot.model.server import ModelServer
from bot.model.server_info import is_name
from bot.model.transport import open_pool, read

log = logging.getLogger(__name__)

HUB = "https://huggingface.co"

_SECONDS = 10.0  # for all that is asked
_BYTES = 1_000_000  # of an answer that is about one model, or one token
_POLICIES = ("", "fastest", "cheapest", "preferred")  # behind a colon; else a provider's name
_CALL = "inference.serverless.write"  # what CALLS is called in the answers


@dataclass(frozen=True, slots=True)
class Served:
    """Who runs a model: the providers that answer, and those that failed their last check."""

    name: str
    live: tuple[str, ...]
    failing: tuple[str, ...]


async def foretell(*, models: Sequence[str], key: str, router: str, hub: str) -> None:
    """Log one line that says which of the models will answer, or what to mend; never raises.

    The Hub is asked what the token may do, and the router for one model after the other until one
    is served; it all ends within ten seconds.

    Sources: huggingface.co/docs/inference-providers/hub-api ("List OpenAI-compatible models": GET
    /v1/models/MODEL has the providers with their status `live` or `error`, and needs no token);
    huggingface_hub 2.4, `HfApi.whoami` (GET /api/whoami-v2 answers 401 to a token that is none).
    Where that answer names the permissions of a fine-grained token is not documented, but known
    from others' captures: what looks otherwise is no trouble.
    """
    server = ModelServer(url=router, key=key, model=models[0], own=False)
    host = urlsplit(router).hostname
    if is_offline_mode():
        log.warning("%s is not asked offline: %s", host, FAILURES["offline"].cure)
        return
    try:
        async with asyncio.timeout(_SECONDS), open_pool(server) as pool:
            level, line = await _forecast(pool, models=models, key=key, router=router, hub=hub)
    except _Unclear as unclear:
        level, line = logging.WARNING, f"{host} does not say who serves {models[0]}: {unclear}"
    except (aiohttp.ClientError, OSError, ValueError, CannotStart) as error:
        is_trusted = not isinstance(error, aiohttp.ClientConnectorCertificateError)
        cure = FAILURES["unreachable" if is_trusted else "certificate"].router
        why = f"({type(error).__name__}): {cure}"
        level, line = logging.WARNING, f"{host} cannot be asked who serves {models[0]} {why}"
    log.log(level, "%s", line)


async def _forecast(
    pool: aiohttp.ClientSession, *, models: Sequence[str], key: str, router: str, hub: str
) -> tuple[int, str]:
    if trouble := await _token_trouble(pool, hub, key):
        return logging.WARNING, trouble
    found: list[Served] = []
    for name in models:
        found.append(await _served(pool, router, key, name))
        if found[-1].live:
            break
    return forecast(found)


class _Unclear(Exception):
    """An answer that says nothing of the model."""


def forecast(found: Sequence[Served]) -> tuple[int, str]:
    """Return how serious it is that the models are served so, and the line that says so."""
    chosen, others = found[0], [one for one in found[1:] if one.live]
    if chosen.live:
        return logging.INFO, f"{chosen.name} is served by {', '.join(chosen.live)}"
    why = f"Nobody serves {chosen.name} at Hugging Face"
    if chosen.failing:
        why = f"{chosen.name} failed the last check at {', '.join(chosen.failing)}"
    if others:
        by = ", ".join(others[0].live)
        return logging.WARNING, f"{why}: {others[0].name} answers for it, served by {by}"
    fallbacks = ", and none of MODEL_FALLBACKS is served" if found[1:] else ""
    return (
        logging.WARNING,
        f"{why}{fallbacks}: set MODEL_ID or MODEL_FALLBACKS to a model that somebody serves "
        f"({SERVED}), or set MODEL_URL",
    )


async def _served(pool: aiohttp.ClientSession, router: str, key: str, name: str) -> Served:
    model, _, provider = name.partition(":")
    status, said = await _get(pool, f"{router}/models/{quote(model)}", key)
    if status not in (200, 400, 404):
        raise _Unclear(f"it answers HTTP {status}; the first question will tell")
    every = [
        (who, one.get("status"))
        for one in _list(said.get("providers"))
        if is_name(who := one.get("provider")) and (provider in _POLICIES or who == provider)
    ]
    return Served(
        name,
        live=tuple(who for who, status in every if status == "live"),
        failing=tuple(who for who, status in every if status != "live"),
    )


async def _token_trouble(pool: aiohttp.ClientSession, hub: str, key: str) -> str:
    """Return what is wrong with the token; "" where nothing is, or it cannot be known."""
    try:
        status, said = await _get(pool, f"{hub}/api/whoami-v2", key)
    except aiohttp.ClientError:
        return ""
    if status == 401:
        return f"Hugging Face does not accept the token: {FAILURES['401'].router}"
    match said:
        case {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": {} as granted}}}:
            permissions = [*_texts(granted.get("global"))]
            for scope in _list(granted.get("scoped")):
                permissions += _texts(scope.get("permissions"))
            if _CALL not in permissions:
                return f"HF_TOKEN may not ask any model: allow it {CALLS} at {TOKENS}"
        case _:
            pass
    return ""


async def _get(pool: aiohttp.ClientSession, url: str, key: str) -> tuple[int, Mapping[str, Json]]:
    headers = {"Authorization": f"Bearer {key}"}
    async with pool.get(url, headers=headers, allow_redirects=False) as response:
        try:
            said = json.loads(await read(response, most=_BYTES))
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            said = {}
        # One model is told as it stands in the list, or within `data`.
        data = said.get("data")
        return response.status, data if isinstance(data, dict) else said


def _list(value: Json) -> list[dict[str, Json]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _texts(value: Json) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
