"""Checks at startup whether Hugging Face serves the configured models."""

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
from bot.model.server_info import is_name, objects
from bot.model.transport import ServerConnection, read_body
from bot.tokens.counters import is_count

log = logging.getLogger(__name__)

HUB = "https://huggingface.co"

_SECONDS = 10.0  # for all requests together
_MAX_BYTES = 1_000_000  # of a response about one model, or one token
_POLICIES = ("", "fastest", "cheapest", "preferred")  # behind a colon; else a provider's name
_CALL = "inference.serverless.write"  # the name of CALLS in responses


async def log_availability(
    router: ServerConnection, models: Sequence[str], *, hub: str = HUB, seconds: float = _SECONDS
) -> None:
    """Log which of the models will answer, or what to change, in one line; never raises.

    Asks the Hub for the permissions of the token, and the router for each model in turn until one
    is served.

    Sources: huggingface.co/docs/inference-providers/hub-api ("List OpenAI-compatible models": GET
    /v1/models/MODEL has the providers with their status `live` or `error`, and needs no token);
    huggingface_hub 2.4, `HfApi.whoami` (GET /api/whoami-v2 answers 401 to an invalid token). The
    field with the permissions of a fine-grained token is not documented, but known from captured
    responses; responses of another shape are accepted.
    """
    host = router.server
    if is_offline_mode():
        log.warning("%s is not asked offline: %s", host, FAILURES["offline"].cure)
        return
    try:
        async with asyncio.timeout(seconds):
            level, line = await _report(router, models, hub)
        log.log(level, "%s", line)
    except _NoReport as error:
        log.warning("%s did not report the providers of %s: %s", host, models[0], error)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        is_trusted = not isinstance(error, aiohttp.ClientConnectorCertificateError)
        cure = FAILURES["unreachable" if is_trusted else "certificate"].router
        happened = f"{host} cannot be asked who serves {models[0]} ({type(error).__name__})"
        log.warning("%s: %s", happened, cure)


async def examine(router: ServerConnection, name: str, *, hub: str = HUB) -> list[Finding]:
    """Return the state of the token, and each provider of a model with its context and price.

    Prices are in dollars per million tokens (huggingface.co/docs/inference-providers/hub-api,
    `pricing`; not all providers have one). Raises aiohttp.ClientError.
    """
    if trouble := await _token_trouble(router, hub):
        text, _, cure = trouble.partition(": ")
        return [Finding("Model", text, cure, wrong=True)]
    try:
        offers = await _offers(router, name)
    except _NoReport as error:
        return [Finding("Model", f"{router.server} does not say who serves {name}: {error}")]
    if offers:
        return [_finding(name, each) for each in offers]
    cure = f"set MODEL_ID to one that somebody serves ({SERVED})"
    return [Finding("Model", f"Nobody serves {name} at Hugging Face", cure, wrong=True)]


def _finding(name: str, entry: Mapping[str, Json]) -> Finding:
    text = f"{entry.get('provider')} serves {name}"
    if entry.get("status") != "live":
        text = f"{name} failed the last check at {entry.get('provider')}"
    if is_count(context := entry.get("context_length")):
        text += f", with {context} tokens of context"
    match entry.get("pricing"):
        case {"input": int() | float() as read, "output": int() | float() as written}:
            text += f", for ${read:g} (read) and ${written:g} (written) per million tokens"
    return Finding("Model", text)


class _NoReport(Exception):
    """A response without information about the model."""


async def _report(router: ServerConnection, models: Sequence[str], hub: str) -> tuple[int, str]:
    """Return the log level and the line."""
    if trouble := await _token_trouble(router, hub):
        return logging.WARNING, trouble
    chosen, *fallbacks = models
    offers = await _offers(router, chosen)
    if live := _providers(offers, are_live=True):
        return logging.INFO, f"{chosen} is served by {live}"
    reason = f"Nobody serves {chosen} at Hugging Face"
    if failing := _providers(offers, are_live=False):
        reason = f"{chosen} failed the last check at {failing}"
    for name in fallbacks:
        if live := _providers(await _offers(router, name), are_live=True):
            return logging.WARNING, f"{reason}: {name} answers for it, served by {live}"
    if fallbacks:
        reason += ", and none of MODEL_FALLBACKS is served"
    return (
        logging.WARNING,
        f"{reason}: set MODEL_ID or MODEL_FALLBACKS to a model that somebody serves "
        f"({SERVED}), or set MODEL_URL",
    )


async def _offers(router: ServerConnection, name: str) -> list[dict[str, Json]]:
    """Return the Hub's entries about the providers of a model."""
    model, _, provider = name.partition(":")
    status, entry = await _get(router, f"{router.server.url}/models/{quote(model)}")
    if status not in (200, 400, 404):
        raise _NoReport(f"it answers HTTP {status}; the first question will tell")
    return [
        each
        for each in objects(entry.get("providers"))
        if is_name(each.get("provider")) and provider in (*_POLICIES, each.get("provider"))
    ]


def _providers(offers: Sequence[Mapping[str, Json]], *, are_live: bool) -> str:
    """Return the providers that passed their last check, or those that failed it."""
    found = (each for each in offers if (each.get("status") == "live") is are_live)
    return ", ".join(str(each["provider"]) for each in found)


async def _token_trouble(router: ServerConnection, hub: str) -> str:
    """Return what is wrong with the token; "" if it works or the Hub does not report it."""
    try:
        status, account = await _get(router, f"{hub}/api/whoami-v2")
    except aiohttp.ClientError:
        return ""
    if status == 401:
        return f"Hugging Face does not accept the token: {FAILURES['401'].router}"
    match account:
        case {"auth": {"accessToken": {"role": "fineGrained", "fineGrained": {} as granted}}}:
            scopes = [granted.get("global")]
            scopes += [each.get("permissions") for each in objects(granted.get("scoped"))]
            if not any(isinstance(each, list) and _CALL in each for each in scopes):
                return f"HF_TOKEN may not call any model: allow it {CALLS} at {TOKENS}"
    return ""


async def _get(router: ServerConnection, url: str) -> tuple[int, Mapping[str, Json]]:
    headers = {"Authorization": f"Bearer {router.server.key}"}
    async with router.pool.get(url, headers=headers, allow_redirects=False) as response:
        found = parsed_object(await read_body(response, max_bytes=_MAX_BYTES))
        # A single model comes as in the list, or within `data`.
        data = found.get("data")
        return response.status, data if isinstance(data, dict) else found
