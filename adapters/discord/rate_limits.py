"""Discord's rate limits: the assumed ones, and those that responses report."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal, Protocol

import aiohttp

from adapters.discord.errors import is_banned, retry_after
from bot.domain import EditBudget

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


class Budgets(Protocol):
    """Counts requests with all other processes; what `bot.reply.edit_budget.EditBudgets` does."""

    def learn(self, bucket: str, *, writes: int, seconds: float) -> None:
        """Replace the assumed size of a bucket by the one that Discord reports."""

    async def call(self, budget: EditBudget, *, deadline: float) -> None:
        """Wait until one more may go out; WriteDelayed if that is not before `deadline`."""

    async def spare(self, budget: EditBudget) -> bool:
        """Whether one more optional request may go out at once."""

    def covers(self, budget: EditBudget) -> bool:
        """Whether the last slot of this task covers a request here; True only once per slot."""

    async def pause(self, budget: EditBudget, seconds: float) -> None:
        """Let no request go out for so long."""


def edit_budget(kind: Kind, target: int | str) -> EditBudget:
    """Return the budget of such writes in a channel, or of a webhook by its token."""
    writes, seconds = _SIZES.get(kind, (_WRITES, _WINDOW))
    # Interactions are outside of the global limit.
    around = None if kind == "ask" else EVERYTHING
    return EditBudget(_bucket(kind, target), writes, seconds, refills=False, within=around)


def counted(trace: aiohttp.TraceConfig, budgets: Budgets) -> aiohttp.TraceConfig:
    """Keep all requests within the global limit, and learn from each response.

    Most requests have a slot already, for which their text has waited; the others wait here. The
    first response of a window reports how large the window is, and the last one when it ends
    (Discord's documentation, "Rate Limits", "Header Format").
    """

    async def wait(
        _session: aiohttp.ClientSession,
        _context: SimpleNamespace,
        params: aiohttp.TraceRequestStartParams,
    ) -> None:
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while _is_counted(params) and not budgets.covers(EVERYTHING):
            await budgets.call(EVERYTHING, deadline=deadline)

    async def read(
        _session: aiohttp.ClientSession,
        _context: SimpleNamespace,
        params: aiohttp.TraceRequestEndParams,
    ) -> None:
        headers = params.response.headers
        # A ban may be of one route (discord-api-docs, issue 5385): a ban of interactions says
        # nothing about the others.
        banned = _is_counted(params) and await is_banned(params.response)
        if banned or "X-RateLimit-Global" in headers:
            await budgets.pause(EVERYTHING, await retry_after(params.response))
        budget, window = _budget_of(f"{params.method} {params.url.path}"), _window(headers)
        if budget and window:
            await _learn(budgets, budget, window)

    trace.on_request_start.append(wait)
    trace.on_request_end.insert(0, read)
    return trace


def _is_counted(params: aiohttp.TraceRequestStartParams | aiohttp.TraceRequestEndParams) -> bool:
    """Whether a request counts towards the global limit."""
    return not _INTERACTIONS.search(params.url.path)


@dataclass(frozen=True, slots=True)
class _Window:
    """What a response reports of its bucket; `seconds` is the rest of the window."""

    limit: int
    remaining: int
    seconds: float


async def _learn(budgets: Budgets, budget: EditBudget, window: _Window) -> None:
    if window.remaining == window.limit - 1 and window.seconds > 0:
        budgets.learn(budget.bucket, writes=window.limit, seconds=window.seconds)
    if window.remaining == 0:
        # Discord's window opened with the first write's arrival, later than ours: it ends later.
        await budgets.pause(budget, window.seconds)


def _budget_of(call: str) -> EditBudget | None:
    """Return the budget that a response reports on."""
    for kind, pattern in _ROUTES.items():
        if found := pattern.fullmatch(call):
            return edit_budget(kind, found[1])
    return None


def _bucket(kind: Kind, target: int | str) -> str:
    if kind == "ask":
        # A token is a secret, and buckets are names in the store.
        target = hashlib.blake2b(str(target).encode(), digest_size=12).hexdigest()
    return f"discord:{kind}:{target}"


def _window(headers: Mapping[str, str]) -> _Window | None:
    try:
        return _Window(
            limit=int(headers["X-RateLimit-Limit"]),
            remaining=int(headers["X-RateLimit-Remaining"]),
            seconds=float(headers["X-RateLimit-Reset-After"]),
        )
    except (KeyError, ValueError):
        return None
