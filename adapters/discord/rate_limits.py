"""Discord's rate limits: the assumed ones, and those that responses report."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from typing import Literal

import aiohttp

from adapters.discord.errors import is_banned, retry_after
from bot.domain import EditBudget
from bot.reply.edit_budget import EditBudgets

Kind = Literal["post", "edit", "old", "ask", "thread"]

# Measured: about five new messages, and five edits, in five seconds for each channel; and as many
# for the webhook of each interaction. Edits of messages that are older than an hour are fewer: an
# operator counted these (circuitsacul/starboard-4, issue 118).
_WRITES, _WINDOW = 5, 5.0
# New threads of a channel: waits of more than 200 s (discord-api-docs, issue 7816) and of 280 s
# (NousResearch/hermes-agent, pull request 96101) were seen; how many fit before is a guess.
_SIZES: Mapping[Kind, tuple[int, float]] = {"old": (3, 20.0), "thread": (50, 300.0)}
_ROUTES: Mapping[Kind, re.Pattern[str]] = {
    "post": re.compile(r"POST .*/channels/(\d+)/messages"),
    "edit": re.compile(r"PATCH .*/channels/(\d+)/messages/\d+"),
    "ask": re.compile(r"PATCH .*/webhooks/\d+/([^/]+)/messages/[^/]+"),
    "thread": re.compile(r"POST .*/channels/(\d+)/messages/\d+/threads"),
}
_INTERACTIONS = re.compile(r"/(?:interactions|webhooks)/")

# Discord's documentation, "Rate Limits", "Global Rate Limit": 50 requests a second in all, but for
# those of interactions. No response tells when its second began. The extra tenth is for requests
# that overtake each other in flight. A fifth is kept for final edits and new messages.
EVERYTHING = EditBudget("discord:everything", 50, 1.1, refills=False, slides=True, kept=10)
_PATIENCE = 10.0  # seconds for which a request waits for its slot


def edit_budget(kind: Kind, target: int | str) -> EditBudget:
    """Return the budget of such writes in a channel, or of a webhook by its token."""
    writes, seconds = _SIZES.get(kind, (_WRITES, _WINDOW))
    around: EditBudget | None = EVERYTHING
    if kind == "ask":
        around = None  # interactions are outside of the global limit
        # A token is a secret, and buckets are names in the store.
        target = hashlib.blake2b(str(target).encode(), digest_size=12).hexdigest()
    bucket = f"discord:{kind}:{target}"
    return EditBudget(bucket, writes, seconds, refills=False, within=around)


def counted(trace: aiohttp.TraceConfig, budgets: EditBudgets) -> aiohttp.TraceConfig:
    """Keep all requests within the global limit, and learn from each response.

    Most requests have a slot already, for which their text has waited; the others wait here. The
    first response of a window reports how large the window is, and the last one when it ends
    (Discord's documentation, "Rate Limits", "Header Format").
    """

    async def wait(_: object, __: object, params: aiohttp.TraceRequestStartParams) -> None:
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while _is_counted(params) and not budgets.covers(EVERYTHING):
            await budgets.call(EVERYTHING, deadline=deadline)

    async def read(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
        headers = params.response.headers
        # A ban may be of one route (discord-api-docs, issue 5385): a ban of interactions says
        # nothing about the others.
        banned = _is_counted(params) and await is_banned(params.response)
        if banned or "X-RateLimit-Global" in headers:
            await budgets.pause(EVERYTHING, await retry_after(params.response))
        call = f"{params.method} {params.url.path}"
        for kind, route in _ROUTES.items():
            if found := route.fullmatch(call):
                await _learn(budgets, edit_budget(kind, found[1]), headers)

    trace.on_request_start.append(wait)
    trace.on_request_end.insert(0, read)
    return trace


def _is_counted(params: aiohttp.TraceRequestStartParams | aiohttp.TraceRequestEndParams) -> bool:
    return not _INTERACTIONS.search(params.url.path)


async def _learn(budgets: EditBudgets, budget: EditBudget, headers: Mapping[str, str]) -> None:
    try:
        limit = int(headers["X-RateLimit-Limit"])
        remaining = int(headers["X-RateLimit-Remaining"])
        rest_of_window = float(headers["X-RateLimit-Reset-After"])  # seconds
    except (KeyError, ValueError):
        return
    if remaining == limit - 1 and rest_of_window > 0:
        budgets.learn(budget.bucket, writes=limit, seconds=rest_of_window)
    if remaining == 0:
        # Discord's window opened with the first write's arrival, later than ours: it ends later.
        await budgets.pause(budget, rest_of_window)
