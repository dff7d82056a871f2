"""Finds out whether Hugging Face serves the configured models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import aiohttp
from huggingface_hub import is_offline_mode

from bot.domain import Finding, Json
from bot.model.failures import CALLS, FAILURES, SERVED, TOKENS
from bot.model.server import parsed_object
from bot.model.server_info import POLICIES, is_name, objects
from bot.model.transport import ServerConnection, read_body
from bot.tokens.counters import is_count

log = logging.getLogger(__name__)

HUB = "https://huggingface.co"

_SECONDS = 10.0  # for all requests together
_MAX_BYTES = 1_000_000  # of a response about one model, or one token
_CALL = "inference.serverless.write"  # the name of CALLS in responses


async def log_availability(
    router: ServerConnection, models: Sequence[str], *, hub: str = HUB, seconds: float = _SECONDS
) -> None:
    """Log who serves the first of the models that is served, or what to change; never raises."""
    host = router.server
    if is_offline_mode():
        log.warning("%s is not asked offline: %s", host, FAILURES["offline"].cure)
        return
    try:
        async with asyncio.timeout(seconds):
            if trouble := await _token_trouble(router, hub):
                _log([trouble])
                return
            for name in models:
                findings = await _providers(router, name)
                _log(findings)
                if not any(each.cure for each in findings):
                    return
    except (aiohttp.ClientError, OSError, ValueError) as error:
        log.warning("%s", router.failure_of(error))


def _log(findings: Sequence[Finding]) -> None:
    for each in findings:
        if each.cure:
            log.warning("%s: %s", each.text, each.cure)
        else:
            log.info("%s", each.text)


async def examine(router: ServerConnection, name: str, *, hub: str = HUB) -> list[Finding]:
    """Return the state of the token, and who serves a model. Raises aiohttp.ClientError."""
    trouble = await _token_trouble(router, hub)
    return [trouble] if trouble else await _providers(router, name)


async def _providers(router: ServerConnection, name: str) -> list[Finding]:
    """Return each provider of a model, with a cure if none of them serves it.

    Source: huggingface.co/docs/inference-providers/hub-api ("List OpenAI-compatible models": GET
    /v1/models/MODEL has the providers with their status `live` or `error`, and needs no token).
    """
    model, _, provider = name.partition(":")
    status, entry = await _get(router, f"{router.server.url}/models/{quote(model)}")
    if status not in (200, 400, 404):
        text = f"{router.server} does not say who serves {name}: it answers HTTP {status}"
        return [Finding("Model", text, "the first question will tell")]
    cure = f"set MODEL_ID to a model that somebody serves ({SERVED}), or set MODEL_FALLBACKS"
    offers = [
        each
        for each in objects(entry.get("providers"))
        if is_name(each.get("provider")) and provider in (*POLICIES, each.get("provider"))
    ]
    if not offers:
        return [Finding("Model", f"Nobody serves {name} at Hugging Face", cure, wrong=True)]
    is_served = any(each.get("status") == "live" for each in offers)
    return [Finding("Model", _offer(name, each), "" if is_served else cure) for each in offers]


def _offer(name: str, entry: Mapping[str, Json]) -> str:
    text = f"{entry.get('provider')} serves {name}"
    if entry.get("status") != "live":
        text = f"{name} failed the last check at {entry.get('provider')}"
    if is_count(context := entry.get("context_length")):
        text += f", with {context} tokens of context"
    match entry.get("pricing"):  # not all providers have one
        case {"input": int() | float() as read, "output": int() | float() as written}:
            text += f", for ${read:g} (read) and ${written:g} (written) per million tokens"
    return text


async def _token_trouble(router: ServerConnection, hub: str) -> Finding | None:
    """Return what is wrong with the token; None if it works or the Hub does not report it.

    Source: huggingface_hub 2.4, `HfApi.whoami` (GET /api/whoami-v2 answers 401 to an invalid
    token). The field with the permissions of a fine-grained token is not documented, but known from
    captured responses; responses of another shape are accepted.
    """
    try:
        status, account = await _get(router, f"{hub}/api/whoami-v2")
    except aiohttp.ClientError:
        return None
    if status == 401:
        text = "Hugging Face does not accept the token"
        return Finding("Model", text, FAILURES["401"].router, wrong=True)
    match account:
        case {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": {} as granted}}}:
            scopes = [granted.get("global")]
            scopes += [each.get("permissions") for each in objects(granted.get("scoped"))]
            if not any(isinstance(each, list) and _CALL in each for each in scopes):
                cure = f"allow it {CALLS} at {TOKENS}"
                return Finding("Model", "HF_TOKEN may not call any model", cure, wrong=True)
    return None


async def _get(router: ServerConnection, url: str) -> tuple[int, Mapping[str, Json]]:
    headers = {"Authorization": f"Bearer {router.server.key}"}
    async with router.pool.get(url, headers=headers, allow_redirects=False) as response:
        found = parsed_object(await read_body(response, max_bytes=_MAX_BYTES))
        # A single model comes as in the list, or within `data`.
        data = found.get("data")
        return response.status, data if isinstance(data, dict) else found
