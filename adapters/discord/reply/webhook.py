"""What one interaction may write: the message that answers it, and messages that follow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import discord
from discord.http import Route

from adapters.discord.errors import WebhookGone, translated
from adapters.discord.rate_limits import edit_budget
from adapters.discord.reply.channel import form
from adapters.discord.rest import RestClient
from bot.domain import EditBudget, Page

ORIGINAL = "@original"
# The token lives for 15 minutes; the last one is left for writes on their way.
_TOKEN_LIFE = timedelta(minutes=14)
# Discord takes the acknowledgement of an interaction for three seconds, and we may come before it:
# the turn is stored first. Every try counts for the webhook's bucket, so they are few.
_DEFERRAL_PAUSES = (0.3, 0.9, 1.8)  # seconds
_DEFERRED = timedelta(seconds=15)  # ours and Discord's clocks may differ


class Webhook:
    """An interaction's webhook, for 15 minutes or until it has refused an edit.

    `original` is the message that it calls so: for a command the first that it writes, and for a
    press, once that is acknowledged with an update to come, the message that was pressed (Discord's
    documentation, "Receiving and Responding", "Interaction Callback Type").
    """

    def __init__(
        self,
        client: RestClient,
        *,
        interaction: int,
        token: str,
        original: int | None,
        turn_id: str,
    ) -> None:
        self._http = client.http
        self._application = client.application_id
        self._token = token
        self._original = ORIGINAL if original is None else str(original)
        self._turn_id = turn_id
        self._acknowledged = False
        self.interaction = interaction
        self.refused = False

    @property
    def in_time(self) -> bool:
        """Whether its token lives."""
        return self._age < _TOKEN_LIFE

    @property
    def lives(self) -> bool:
        """Whether it may be asked to edit something."""
        return self.in_time and not self.refused

    @property
    def budget(self) -> EditBudget:
        """The edit budget of its own."""
        return edit_budget("ask", self._token)

    def wrote(self, message: str) -> bool:
        """Whether a message stands for this press, or may follow it."""
        return message == self._original or int(message) > self.interaction

    async def edit(self, message: str, page: Page) -> str:
        """Show a page there, or delete it for one without text; return the message's id."""
        name = ORIGINAL if message == self._original else message
        return await self._once_there(partial(self._edit, name, page))

    async def send(self, page: Page) -> str:
        """Send a message that follows the others; return its id."""
        return await self._once_there(partial(self._write, "POST", "", page))

    @property
    def _age(self) -> timedelta:
        return discord.utils.utcnow() - discord.utils.snowflake_time(self.interaction)

    async def _once_there(self, write: Callable[[], Awaitable[str]]) -> str:
        for pause in () if self._acknowledged else _DEFERRAL_PAUSES:
            try:
                return await write()
            except WebhookGone:
                if self._age > _DEFERRED:
                    raise
                await asyncio.sleep(pause)
        return await write()

    async def _edit(self, name: str, page: Page) -> str:
        if page.text:
            return await self._write("PATCH", f"/messages/{name}", page)
        async with translated():
            await self._http.request(self._route("DELETE", f"/messages/{name}"))
        return name

    async def _write(self, method: str, path: str, page: Page) -> str:
        body = form(page, self._turn_id)
        async with translated():
            written = await self._http.request(self._route(method, path), json=body)
        self._acknowledged = True
        return str(written["id"])

    def _route(self, method: str, path: str) -> Route:
        return Route(
            method,
            "/webhooks/{webhook_id}/{webhook_token}" + path,
            webhook_id=self._application,
            webhook_token=self._token,
        )
