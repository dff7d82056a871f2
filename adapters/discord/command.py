"""Where the reply to a slash command is shown in Discord."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import discord
from discord.http import Route

from adapters.discord.client import RestClient
from adapters.discord.errors import ThreadArchived, WebhookGone, translated
from adapters.discord.limits import edit_budget
from adapters.discord.place import ChannelPlace, CommandPlace
from adapters.discord.surface import LIMIT, ChannelSurface, form
from bot.domain import EditBudget, Page
from bot.errors import PlaceGone, WriteRefused

_log = logging.getLogger(__name__)

_ORIGINAL = "@original"
# The token lives for 15 minutes; the last one is left for writes on their way.
_TOKEN_LIFE = timedelta(minutes=14)
# Discord takes the acknowledgement of an interaction for three seconds. Every try counts for the
# webhook's bucket, so they are few.
_DEFERRAL_PAUSES = (0.3, 0.9, 1.8)  # seconds
_RECENT = 100  # messages, the most that one call returns: Discord's documentation


class CommandSurface:
    """The original response to a slash command, then messages of its channel.

    Follow-ups take the channel's place where the bot may not write there. What the interaction's
    webhook has written has `@` before its id. The webhook edits it while the token lives, and has a
    rate limit of its own; later it is edited as the message of the channel that it is.
    """

    limit = LIMIT

    def __init__(self, client: RestClient, *, place: CommandPlace, turn_id: str) -> None:
        self._http = client.http
        self._application = client.application_id
        self._place = place
        self._turn_id = turn_id
        self._channel = ChannelSurface(
            client,
            place=ChannelPlace(place.channel, None, opens_thread=False),
            parent=None,
            turn_id=turn_id,
        )
        self._refused = False
        self._known: set[str] = set()  # ids of what the webhook has written, without the `@`

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return the budget of the interaction's webhook, or for later pages the channel's."""
        if page.number > 0 or not self._by_webhook:
            return self._channel.budget(page, new=new)
        return edit_budget("ask", self._place.token)

    def measure(self, text: str) -> int:
        """Return the number of code points, as for any message."""
        return self._channel.measure(text)

    async def post(self, page: Page) -> str:
        """Fill the original response with the first page; send a message for any other.

        Where the response takes nothing, or no more, the first page is a message too.
        """
        if page.number == 0 and self._by_webhook:
            try:
                return await self._answer(page)
            except WriteRefused as error:
                self._refused = True
                _log.warning("the answer to %s goes into the channel: %s", self._turn_id, error)
        try:
            return await self._channel.post(page)
        except PlaceGone as gone:
            if not self._in_time:
                raise
            try:
                return await self._follow_up(page)
            except WriteRefused:
                raise gone from None

    async def edit(self, message_id: str, page: Page) -> None:
        """Change a response, a follow-up or a message."""
        if not message_id.startswith("@"):
            await self._channel.edit(message_id, page)
            return
        name = message_id.removeprefix("@")
        self._known.add(name)
        if self._by_webhook:
            try:
                await self._edit_response(name, page)
            except WebhookGone:
                self._refused = True
            except WriteRefused:
                self._refused = True
                raise
            else:
                return
        await self._edit_in_channel(name, page)

    @property
    def _by_webhook(self) -> bool:
        return self._in_time and not self._refused

    @property
    def _in_time(self) -> bool:
        asked_at = discord.utils.snowflake_time(self._place.interaction)
        return discord.utils.utcnow() - asked_at < _TOKEN_LIFE

    async def _answer(self, page: Page) -> str:
        # The turn is admitted before it is acknowledged, so that we may come too early.
        for pause in _DEFERRAL_PAUSES:
            try:
                return await self._edit_response(_ORIGINAL, page)
            except WebhookGone:
                await asyncio.sleep(pause)
        return await self._edit_response(_ORIGINAL, page)

    async def _edit_in_channel(self, name: str, page: Page) -> None:
        """Go on without the webhook; PlaceGone where the bot may not see the channel.

        What stands there then could not be stopped any more: in the token's last minute the webhook
        shows it without a button.
        """
        try:
            await self._channel.edit(name, page)
        except PlaceGone as gone:
            try:
                await self._edit_response(name, replace(page, final=True, last=False))
            except WriteRefused:
                raise gone from None

    async def _edit_response(self, name: str, page: Page) -> str:
        """Edit what the webhook has written; return its id with the `@`."""
        try:
            return await self._edit(name, page)
        except ThreadArchived:
            await self._channel.unarchive()
            return await self._edit(name, page)

    async def _edit(self, name: str, page: Page) -> str:
        if page.text:
            return self._kept(await self._write("PATCH", f"/messages/{name}", page))
        async with translated():
            await self._http.request(self._route("DELETE", f"/messages/{name}"))
        return f"@{name}"

    async def _follow_up(self, page: Page) -> str:
        # A webhook knows no nonce: where we may read the channel, an earlier try is found there.
        if lost := await self._lost():
            return await self._edit_response(lost, page)
        return self._kept(await self._write("POST", "", page))

    async def _lost(self) -> str | None:
        """Return the id of what the webhook has written and nobody knows of."""
        try:
            async with translated():
                recent = await self._http.logs_from(self._place.channel, _RECENT)
        except PlaceGone:
            return None
        ours = [one["id"] for one in reversed(recent) if self._is_ours(one)]
        return next((str(one) for one in ours if str(one) not in self._known), None)

    def _is_ours(self, message: Any) -> bool:
        about = message.get("interaction_metadata") or {}
        return bool(about.get("id") == str(self._place.interaction))

    async def _write(self, method: str, path: str, page: Page) -> Any:
        body = form(page, self._turn_id)
        async with translated():
            return await self._http.request(self._route(method, path), json=body)

    def _route(self, method: str, path: str) -> Route:
        return Route(
            method,
            "/webhooks/{webhook_id}/{webhook_token}" + path,
            webhook_id=self._application,
            webhook_token=self._place.token,
        )

    def _kept(self, message: Any) -> str:
        self._known.add(str(message["id"]))
        return f"@{message['id']}"
