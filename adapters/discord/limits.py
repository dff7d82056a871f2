"""Discord's rate limits: what we believe of them, and what each answer teaches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Literal, Protocol

import aiohttp

from bot.domain import EditBudget

Kind = Literal["post", "edit", "ask"]

# Field measurements: about five new messages, and five edits, in five seconds for each channel; and
# as many for the webhook of each interaction.
_WRITES, _WINDOW = 5, 5.0
_MESSAGES = re.compile(r"/channels/(\d+)/messages(?:/\d+)?$")
_KINDS: Mapping[str, Kind] = {"POST": "post", "PATCH": "edit"}


class Learn(Protocol):
    """Takes in how many writes a bucket allows in so many seconds."""

    def __call__(self, bucket: str, *, writes: int, seconds: float) -> None:
        """Count on it from now on."""
        ...


def edit_budget(kind: Kind, place: int | str) -> EditBudget:
    """Return the budget of new messages or edits in a channel, or of an interaction's webhook."""
    return EditBudget(_bucket(kind, place), _WRITES, _WINDOW, refills=False)


def teach(trace: aiohttp.TraceConfig, learn: Learn) -> None:
    """Let the first answer of each window tell how large the window is.

    Discord's documentation, "Rate Limits", "Header Format".
    """

    async def read(
        _session: aiohttp.ClientSession,
        _context: SimpleNamespace,
        params: aiohttp.TraceRequestEndParams,
    ) -> None:
        place = _MESSAGES.search(params.url.path)
        kind = _KINDS.get(params.method)
        if place and kind and (found := _window(params.response.headers)):
            learn(_bucket(kind, place[1]), writes=found[0], seconds=found[1])

    trace.on_request_end.append(read)


def _bucket(kind: Kind, place: int | str) -> str:
    return f"discord:{kind}:{place}"


def _window(headers: Mapping[str, str]) -> tuple[int, float] | None:
    try:
        limit = int(headers["X-RateLimit-Limit"])
        remaining = int(headers["X-RateLimit-Remaining"])
        seconds = float(headers["X-RateLimit-Reset-After"])
    except (KeyError, ValueError):
        return None
    return (limit, seconds) if remaining == limit - 1 and seconds > 0 else None
