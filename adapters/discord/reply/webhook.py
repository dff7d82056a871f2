"""Writes the response and follow-ups of one interaction.

`discord.Webhook` is not used: it waits inside a call until its bucket is refilled, and parses what
the response quotes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import discord

from adapters.discord.reply.message import body_of
from adapters.discord.rest import RestClient, WebhookGone, edit_budget, request
from bot.domain import Page

ORIGINAL = "@original"
_WEBHOOK = "/webhooks/{webhook_id}/{webhook_token}"
_MESSAGE = _WEBHOOK + "/messages/{message_id}"
# The token lives for 15 minutes; the last one is left for writes in flight.
_TOKEN_LIFE = timedelta(minutes=14)
_DEFERRED_WITHIN = timedelta(seconds=15)  # the clocks of the bot and of Discord may differ


class Webhook:
    """An interaction's webhook: usable for 15 minutes or until it has refused an edit.

    With `private`, only its person sees its follow-ups. `original` is its "@original" message: for
    a command the first that it writes, and for a press, once acknowledged with a deferred update,
    the message with the button (Discord's documentation, "Receiving and
    Responding", "Interaction Callback Type").
    """

    def __init__(
        self,
        client: RestClient,
        turn_id: str,
        *,
        interaction: int,
        token: str,
        original: int | str = ORIGINAL,
        private: bool = False,
    ) -> None:
        self._client = client
        self._ids = {"webhook_id": client.application_id or 0, "webhook_token": token}
        self._original = str(original)
        self._private = private
        self._turn_id = turn_id
        self._acknowledged = False
        self.interaction = interaction
        self.budget = edit_budget("ask", token)
        self.refused = False

    @property
    def in_time(self) -> bool:
        """Whether the token is valid."""
        return self._age < _TOKEN_LIFE

    @property
    def usable(self) -> bool:
        """Whether an edit can be tried."""
        return self.in_time and not self.refused

    def may_edit(self, message_id: str) -> bool:
        """Whether a message is the original, or newer than the interaction."""
        return message_id == self._original or int(message_id) > self.interaction

    async def edit(self, message_id: str, page: Page) -> str:
        """Edit a message, or delete it for a page without text; return its id."""
        name = ORIGINAL if message_id == self._original else message_id
        return await self._once_acknowledged(partial(self._edit, name, page))

    async def read(self, message_id: str) -> str:
        """Return the text of a message."""
        name = ORIGINAL if message_id == self._original else message_id
        message = await request(self._client, "GET", _MESSAGE, self._ids | {"message_id": name})
        return str(message["content"])

    async def send(self, page: Page) -> str:
        """Send a follow-up; return its id."""
        return await self._once_acknowledged(partial(self._write, "POST", _WEBHOOK, page))

    @property
    def _age(self) -> timedelta:
        return discord.utils.utcnow() - discord.utils.snowflake_time(self.interaction)

    async def _once_acknowledged(self, write: Callable[[], Awaitable[str]]) -> str:
        for pause in () if self._acknowledged else self._client.tuning.deferral_pauses:
            try:
                return await write()
            except WebhookGone:
                if self._age > _DEFERRED_WITHIN:
                    raise
                await asyncio.sleep(pause)
        return await write()

    async def _edit(self, name: str, page: Page) -> str:
        if page.text:
            return await self._write("PATCH", _MESSAGE, page, message_id=name)
        await request(self._client, "DELETE", _MESSAGE, self._ids | {"message_id": name})
        return name

    async def _write(self, method: str, path: str, page: Page, **ids: str) -> str:
        body = body_of(page, self._turn_id, rated=self._client.rated, private=self._private)
        message = await request(self._client, method, path, self._ids | ids, body=body)
        self._acknowledged = True
        return str(message["id"])
