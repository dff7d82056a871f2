"""Finds out whether Hugging Face serves the configured models."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import aiohttp
from huggingface_hub import is_offline_mode

from bot.access.quotas import Price, Prices
from bot.domain import Finding, Json
from bot.model.failures import CALLS, FAILURES, SERVED, TOKENS
from bot.model.server import parsed_object
from bot.model.server_info import POLICIES, is_name, objects
from bot.model.transport import ServerConnection, read_body
from bot.tokens.counters import is_count

log = logging.getLogger(__name__)

HUB = "https://huggingface.co"

_SECONDS = 10.0  # for all requests together
_PRICES_SECONDS = 3600.0  # between two looks at the prices
_MOST_PRICE = 1e6
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


async def keep_prices(
    router: ServerConnection,
    labels: Mapping[str, str],
    prices: Prices,
    *,
    pause_seconds: float = _PRICES_SECONDS,
) -> None:
    """Keep the prices of models as the catalogue has them, by label, until cancelled.

    Unless a name says which provider answers, that is the router's choice: the dearest of those
    that serve the model counts, or with `:cheapest` the cheapest. A price that is not told any more
    stays.
    """
    while not is_offline_mode():
        for name, label in labels.items():
            try:
                async with asyncio.timeout(_SECONDS):
                    offers = [one for one in await _entries(router, name) if _is_live(one)]
                    choose = min if name.endswith(":cheapest") else max
                    if found := [*filter(None, map(_price, offers))]:
                        prices.known[label] = choose(found, key=sum)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                log.info("The price of %s is not known: %s", name, router.failure_of(error))
        await asyncio.sleep(pause_seconds)


async def _entries(router: ServerConnection, name: str) -> list[dict[str, Json]]:
    """Return the providers that may answer for a model, as the catalogue has them."""
    model, _, provider = name.partition(":")
    _, entry = await _get(router, f"{router.server.url}/models/{quote(model)}")
    return _offering(entry, provider)


def _offering(entry: Mapping[str, Json], provider: str) -> list[dict[str, Json]]:
    return [
        each
        for each in objects(entry.get("providers"))
        if is_name(each.get("provider")) and provider in (*POLICIES, each.get("provider"))
    ]


def _is_live(entry: Mapping[str, Json]) -> bool:
    return entry.get("status") == "live"


def _price(entry: Mapping[str, Json]) -> Price | None:
    """Return a provider's price in US dollars for a million tokens; not all have one."""
    match entry.get("pricing"):
        case {"input": int() | float() as read, "output": int() | float() as written}:
            # JSON has infinities, and booleans are numbers.
            if 0 <= read <= _MOST_PRICE and 0 <= written <= _MOST_PRICE:
                return Price(float(read), float(written))
    return None


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
    offers = _offering(entry, provider)
    if not offers:
        return [Finding("Model", f"Nobody serves {name} at Hugging Face", cure, wrong=True)]
    is_served = any(map(_is_live, offers))
    return [Finding("Model", _offer(name, each), "" if is_served else cure) for each in offers]


def _offer(name: str, entry: Mapping[str, Json]) -> str:
    text = f"{entry.get('provider')} serves {name}"
    if entry.get("status") != "live":
        text = f"{name} failed the last check at {entry.get('provider')}"
    if is_count(context := entry.get("context_length")):
        text += f", with {context} tokens of context"
    if price := _price(entry):
        text += f", for ${price.read:g} (read) and ${price.written:g} (written) per million tokens"
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
