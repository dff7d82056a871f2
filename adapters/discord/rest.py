"""discord.py's client for REST, without the rate limits that the library keeps by itself."""

from __future__ import annotations

from typing import Any

import discord
from discord.http import Ratelimit


class RestClient(discord.Client):
    """A client whose calls go out at once: the core has waited for their budgets already.

    discord.py 2.7.1 sleeps inside the call that empties a bucket, though Discord has answered it,
    and lets the first call into a bucket go alone. `typed_at` is when the bot last typed in a
    channel, in loop time.
    """

    def __init__(self, *, intents: discord.Intents, **options: Any) -> None:
        super().__init__(intents=intents, **options)
        self.typed_at: dict[int, float] = {}
        self._limit = _NoLimit(None)
        self.http.get_ratelimit = self._unlimited  # type: ignore[method-assign]

    @property
    def bot_id(self) -> str:
        """The bot's own id; empty before the client has logged in."""
        return str(self.user.id if self.user else "")

    def _unlimited(self, key: str) -> Ratelimit:
        return self._limit


class _NoLimit(Ratelimit):
    """Any bucket: nobody waits for it, and it learns nothing."""

    async def acquire(self) -> None:
        """Go on."""

    async def __aexit__(self, *_: object) -> None:
        """Wake nobody."""

    def update(self, *_: object, **__: object) -> None:
        """Forget it."""
