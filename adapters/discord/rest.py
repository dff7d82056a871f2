"""discord.py's client for REST, and requests that the library's public calls cannot make.

This file has all of the library's REST internals that the adapter uses, and
`tests/discord/test_rest.py` pins them. The public calls parse each response, with the question that
it quotes: a message that the library cannot parse would fail a write that Discord has accepted.
Those that open or unarchive a thread need its server in the library's cache, or one more request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import discord
from discord.http import Ratelimit, Route

from adapters.discord.errors import located, translated
from adapters.discord.tuning import Tuning
from bot.domain import Json
from bot.errors import WriteRefused

API_URL = Route.BASE
Payload = dict[str, Any]


class RestClient(discord.Client):
    """A client whose requests go out at once: the core has waited for their budgets already.

    discord.py 2.7.1 sleeps inside the request that empties a bucket, although Discord has answered
    it, and sends the first request of a bucket alone. `typed_at` is when the bot last typed in a
    channel, in loop time.
    """

    def __init__(self, *, tuning: Tuning, **options: Any) -> None:
        super().__init__(**options)
        self.tuning = tuning
        self.typed_at: dict[int, float] = {}
        unlimited = _NoLimit(None)
        self.http.get_ratelimit = lambda key: unlimited  # type: ignore[method-assign]


class _NoLimit(Ratelimit):
    async def acquire(self) -> None:
        """Return at once."""

    async def __aexit__(self, *_: object) -> None:
        """Release nothing."""

    def update(self, *_: object, **__: object) -> None:
        """Ignore the headers of a response."""


def own_id(client: discord.Client) -> int:
    """Return the bot's own id; 0 before the client has logged in."""
    return client.user.id if client.user else 0


def use_api(address: str) -> None:
    """Send all requests of this process to an address; an empty one is Discord's own."""
    Route.BASE = address or API_URL


async def request(
    client: discord.Client,
    method: str,
    path: str,
    ids: Mapping[str, Any] | None = None,
    *,
    body: Mapping[str, Json] | None = None,
    query: Mapping[str, int] | None = None,
) -> Any:
    """Send a request and return Discord's response unparsed; raises SurfaceError.

    `ids` fill the path; their names are those of Discord's documentation.
    """
    options: dict[str, Any] = {"params": query} if body is None else {"json": body}
    async with translated():
        return await client.http.request(Route(method, path, **(ids or {})), **options)


async def fetch_messages(client: discord.Client, channel: int, **query: int) -> list[Payload]:
    """Return a page of a channel's messages, the newest first; raises SurfaceError."""
    path = "/channels/{channel_id}/messages"
    return [*await request(client, "GET", path, {"channel_id": channel}, query=query)]


async def fetch_channel(client: discord.Client, channel: int) -> object:
    """Return a channel; raises SurfaceError, also if the library cannot parse it."""
    async with translated():
        try:
            return await client.fetch_channel(channel)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise WriteRefused(f"channel {channel} cannot be parsed: {located(error)}") from error
