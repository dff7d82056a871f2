"""Where the reply to a slash command is shown in Discord."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from adapters.discord.address import ChannelPlace, CommandPlace
from adapters.discord.errors import ThreadArchived, WebhookGone
from adapters.discord.reply.channel import LIMIT, ChannelSurface
from adapters.discord.reply.recovery import written_since
from adapters.discord.reply.webhook import ORIGINAL, Webhook
from adapters.discord.rest import RestClient
from bot.domain import EditBudget, Page
from bot.errors import MessageGone, PlaceGone, WriteRefused

_log = logging.getLogger(__name__)


class CommandSurface:
    """The original response to a slash command, then messages of its channel.

    Follow-ups take the channel's place where the bot may not write there. What a webhook has
    written has `@` before its id. The interaction's webhook edits it while its token lives, and has
    a rate limit of its own; later it is edited as the message of the channel that it is.
    A press that has the answer written anew brings a webhook for the message that was pressed, and
    for what follows. Messages that neither may edit are refused, so that they are sent anew.
    """

    limit = LIMIT

    def __init__(
        self, client: RestClient, *, place: CommandPlace, turn_id: str, tried_at: float | None
    ) -> None:
        self._http = client.http
        self._place = place
        self._turn_id = turn_id
        self._channel = ChannelSurface(
            client,
            place=ChannelPlace(place.channel, None, opens_thread=False),
            parent=None,
            turn_id=turn_id,
            tried_at=tried_at,
            alone=False,
        )
        self._command = self._newest = Webhook(
            client,
            interaction=place.interaction,
            token=place.token,
            original=None,
            turn_id=turn_id,
        )
        if press := place.press:
            self._newest = Webhook(
                client,
                interaction=press.interaction,
                token=press.token,
                original=press.message,
                turn_id=turn_id,
            )
        self._in_channel = False  # the first page, for no webhook may edit it
        self._known: set[str] = set()  # ids of what webhooks have written, without the `@`

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return the budget of the newest webhook, or for what the channel shows the channel's."""
        by_webhook = self._fills_response if new else self._newest.lives and not self._in_channel
        if page.number > 0 or not by_webhook:
            return self._channel.budget(page, new=new)
        return self._newest.budget

    def measure(self, text: str) -> int:
        """Return the number of code points, as for any message."""
        return self._channel.measure(text)

    async def post(self, page: Page) -> str:
        """Fill the original response with the first page; send a message for any other.

        Where the response takes nothing, or no more, the first page is a message too.
        """
        if page.number == 0 and self._fills_response:
            try:
                return self._kept(await self._edit_by(self._command, ORIGINAL, page))
            except WriteRefused as error:
                self._command.refused = True
                _log.warning("the answer to %s goes into the channel: %s", self._turn_id, error)
        try:
            return await self._channel.post(page)
        except PlaceGone as gone:
            if not self._newest.in_time:
                raise
            try:
                return await self._follow_up(page)
            except WriteRefused:
                raise gone from None

    async def edit(self, message_id: str, page: Page) -> None:
        """Change a response, a follow-up or a message."""
        if not message_id.startswith("@"):
            await self._edit_as_message(message_id, page)
            return
        name = message_id.removeprefix("@")
        self._known.add(name)
        webhook = self._webhook_of(name)
        if not (webhook.lives and await self._is_edited_by(webhook, name, page)):
            await self._edit_in_channel(webhook, name, page)

    @property
    def _fills_response(self) -> bool:
        """Whether a first page that is posted becomes the original response."""
        return self._newest is self._command and self._command.lives

    async def _edit_as_message(self, name: str, page: Page) -> None:
        self._in_channel |= page.number == 0
        await self._channel.edit(name, page)

    def _webhook_of(self, name: str) -> Webhook:
        return self._newest if self._newest.wrote(name) else self._command

    async def _is_edited_by(self, webhook: Webhook, name: str, page: Page) -> bool:
        """Edit a message; False where the webhook is not there any more, or knows no such message.

        One that another interaction has written looks as if it was deleted: the channel knows.
        """
        try:
            await self._edit_by(webhook, name, page)
        except WebhookGone:
            webhook.refused = True
            return False
        except WriteRefused:
            webhook.refused = True
            raise
        except MessageGone:
            return False
        return True

    async def _edit_in_channel(self, webhook: Webhook, name: str, page: Page) -> None:
        """Go on without the webhook; PlaceGone where the bot may not see the channel.

        What stands there then could not be stopped any more: in the token's last minute the webhook
        shows it without a button.
        """
        try:
            await self._edit_as_message(name, page)
        except PlaceGone as gone:
            try:
                await self._edit_by(webhook, name, replace(page, final=True, last=False))
            except (MessageGone, WriteRefused) as error:
                if webhook is not self._newest:
                    raise WriteRefused(f"no interaction edits this page any more: {gone}") from gone
                if isinstance(error, MessageGone):
                    raise
                raise gone from None

    async def _edit_by(self, webhook: Webhook, name: str, page: Page) -> str:
        try:
            return await webhook.edit(name, page)
        except ThreadArchived:
            await self._channel.unarchive()
            return await webhook.edit(name, page)

    async def _follow_up(self, page: Page) -> str:
        # A webhook knows no nonce: where we may read the channel, an earlier try is found there.
        if lost := await self._lost():
            return self._kept(await self._edit_by(self._newest, lost, page))
        return self._kept(await self._newest.send(page))

    async def _lost(self) -> str | None:
        """Return the id of what the webhook has written and nobody knows of."""
        try:
            since = await written_since(self._http, self._place.channel, self._newest.interaction)
        except PlaceGone:
            return None
        ours = [one["id"] for one in since if self._is_ours(one)]
        return next((str(one) for one in ours if str(one) not in self._known), None)

    def _is_ours(self, message: Any) -> bool:
        about = message.get("interaction_metadata") or {}
        return bool(about.get("id") == str(self._newest.interaction))

    def _kept(self, message: str) -> str:
        self._known.add(message)
        return f"@{message}"
