"""The reply to a slash command: its address, and its surface."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import discord

from adapters.discord.reply.channel import ChannelAddress, ChannelSurface, Recovery, messages_since
from adapters.discord.reply.message import (
    LIMIT,
    QUESTION,
    QUESTION_LIMIT,
    body_of,
    is_narrow,
    measured,
    question_line,
)
from adapters.discord.rest import (
    RestClient,
    ThreadArchived,
    WebhookGone,
    edit_budget,
    fetch_message,
    request,
)
from bot.domain import EditBudget, Json, Page, StepNotes
from bot.errors import MessageGone, PlaceGone, WriteRefused

_log = logging.getLogger(__name__)

_ORIGINAL = "@original"
_WEBHOOK = "/webhooks/{webhook_id}/{webhook_token}"
_MESSAGE = _WEBHOOK + "/messages/{message_id}"
# The token lives for 15 minutes; the last one is left for writes in flight.
_TOKEN_LIFE = timedelta(minutes=14)
_DEFERRED_WITHIN = timedelta(seconds=15)  # the clocks of the bot and of Discord may differ


@dataclass(frozen=True, slots=True)
class ButtonPress:
    """A press of a button on `message`; its token is like that of a command."""

    interaction: int
    token: str
    message: int

    def to_json(self) -> dict[str, Json]:
        """Return the JSON that is added to the address of the message's command."""
        interaction, message = str(self.interaction), str(self.message)
        return {"press": {"interaction": interaction, "token": self.token, "message": message}}


@dataclass(frozen=True, slots=True)
class CommandAddress:
    """The original response to a slash command, and the channel of the command.

    `token` acts for the interaction for 15 minutes (Discord's documentation, "Receiving and
    Responding"), so it is kept out of logs. `press` is the last one that regenerated the answer. If
    `channel` is None, nothing but the interaction may write: the answer is `private`, for the asker
    alone, or the bot is no member there. Older versions reject such addresses, because they would
    post further pages in the channel.
    """

    channel: int | None
    interaction: int
    token: str
    press: ButtonPress | None = None
    private: bool = False

    def to_json(self) -> dict[str, Json]:
        """Return the JSON that `parse_address` reads; a press adds its own."""
        written: dict[str, Json] = {"interaction": str(self.interaction), "token": self.token}
        if self.channel is None:
            return written | {"private": self.private}
        return {"channel": str(self.channel)} | written


class CommandSurface:
    """The original response to a slash command, then messages of its channel.

    Follow-ups replace these messages if the bot may not write in the channel. A message id with `@`
    before it was written by a webhook. While the token is valid, the interaction's webhook edits
    it, with a rate limit of its own; later it is edited as a message of the channel. A Regenerate
    press adds a webhook for its message and later ones. Editing a message that neither webhook may
    edit raises WriteRefused, so that its page is posted again. If the address has no channel, only
    webhooks write.

    The first page begins with the `question`, unless that is None. It is empty if the turn has lost
    it; then it is read from the message.
    """

    shows_whole = staticmethod(is_narrow)

    def __init__(
        self,
        client: RestClient,
        *,
        address: CommandAddress,
        turn_id: str,
        tried_at: float | None,
        question: str | None,
    ) -> None:
        # On all pages, so that they are cut alike when the question is lost.
        self.limit = LIMIT if question is None else LIMIT - QUESTION_LIMIT
        self._question = question_line(question) if question else None
        self._question_is_lost = question == ""
        self._client = client
        self._address = address
        self._turn_id = turn_id
        webhook = partial(Webhook, client, turn_id, private=address.private)
        self._command = webhook(interaction=address.interaction, token=address.token)
        self._newest = self._command
        if press := address.press:
            self._newest = webhook(
                interaction=press.interaction, token=press.token, original=press.message
            )
        self._channel: ChannelSurface | None = None
        if address.channel is not None:
            channel = ChannelAddress(address.channel, None, opens_thread=False)
            recovery = Recovery(client, turn_id=turn_id, tried_at=tried_at, alone=False)
            self._channel = ChannelSurface(client, channel, recovery)
        self._in_channel = False  # the first page, because no webhook may edit it
        self._known: set[str] = set()  # ids of messages of webhooks, without the `@`
        # Discord shows "thinking" below a command, and nothing below a press.
        self.shows_work = address.press is None
        self.shows_thoughts = False
        self.has_buttons = True

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return the budget of the newest webhook, or the channel's for its own messages."""
        by_webhook = self._fills_response if new else self._newest.usable and not self._in_channel
        if self._channel is None or (page.number == 0 and by_webhook):
            return self._newest.budget
        return self._channel.budget(page, new=new)

    def note_step(self, steps: StepNotes) -> bool:
        """Show nothing: "thinking" does not say what is done."""
        return False

    def measure(self, text: str) -> int:
        """Return the number of code points, as for any message."""
        return len(measured(text))

    async def post(self, page: Page) -> str:
        """Write the first page as the original response if possible, else as a message."""
        page = await self._with_question(page)
        if page.number == 0 and self._fills_response:
            try:
                return self._noted(await self._edit_by(self._command, _ORIGINAL, page))
            except WriteRefused as error:
                self._command.refused = True
                _log.warning(
                    "Turn %s: the reply is posted in channel %s, not as the response: %s",
                    *(self._turn_id, self._address.channel, error),
                )
        try:
            return await self._messages().post(page)
        except PlaceGone as gone:
            if not self._newest.in_time:
                raise
            try:
                return await self._follow_up(page)
            except WriteRefused:
                raise gone from None

    async def edit(self, message_id: str, page: Page) -> None:
        """Edit a response, a follow-up or a message of the channel."""
        page = await self._with_question(page, message_id)
        if not message_id.startswith("@"):
            await self._edit_as_message(message_id, page)
            return
        name = message_id.removeprefix("@")
        self._known.add(name)
        webhook = self._newest if self._newest.may_edit(name) else self._command
        if not (webhook.usable and await self._try_edit_by(webhook, name, page)):
            await self._edit_in_channel(webhook, name, page)

    async def _with_question(self, page: Page, message_id: str = "") -> Page:
        if page.number or not page.text:
            return page
        if message_id and self._question_is_lost:
            first = (await self._read(message_id.removeprefix("@"))).partition("\n")[0]
            self._question = first if first.startswith(QUESTION) else None
            self._question_is_lost = False
        # Two quotes would become one.
        gap = "\n\n" if page.text.startswith(">") else "\n"
        return replace(page, text=f"{self._question}{gap}{page.text}") if self._question else page

    async def _read(self, name: str) -> str:
        if self._address.channel is not None:
            with suppress(PlaceGone):  # where the webhook may still write
                found = await fetch_message(self._client, self._address.channel, name)
                return str(found["content"])
        return await self._newest.read(name)

    @property
    def _fills_response(self) -> bool:
        return self._newest is self._command and self._command.usable

    async def _edit_as_message(self, name: str, page: Page) -> None:
        self._in_channel |= page.number == 0
        await self._messages().edit(name, page)

    async def _try_edit_by(self, webhook: Webhook, name: str, page: Page) -> bool:
        """Edit a message; False if the webhook has expired, or does not know the message."""
        try:
            await self._edit_by(webhook, name, page)
        except WriteRefused as error:
            webhook.refused = True
            if isinstance(error, WebhookGone):
                return False
            raise
        except MessageGone:
            # Or it is another interaction's message, which can be edited in the channel.
            return False
        return True

    async def _edit_in_channel(self, webhook: Webhook, name: str, page: Page) -> None:
        """Edit a webhook's message as one of the channel.

        If the bot cannot see the channel, nothing can be edited once the token has expired, so in
        the token's last minute the webhook shows the page without a Stop button. Raises PlaceGone.
        """
        try:
            await self._edit_as_message(name, page)
        except PlaceGone as gone:
            try:
                await self._edit_by(webhook, name, replace(page, final=True, last=False))
            except (MessageGone, WriteRefused) as error:
                if webhook is not self._newest:
                    raise WriteRefused(f"no interaction can edit this page: {gone}") from gone
                if isinstance(error, MessageGone):
                    raise
                raise gone from None

    async def _edit_by(self, webhook: Webhook, name: str, page: Page) -> str:
        try:
            return await webhook.edit(name, page)
        except ThreadArchived:
            await self._messages().unarchive()
            return await webhook.edit(name, page)

    async def _follow_up(self, page: Page) -> str:
        # Webhooks have no nonces. An earlier attempt is found in the channel, if that can be read.
        if unknown := await self._unknown():
            return self._noted(await self._edit_by(self._newest, unknown, page))
        return self._noted(await self._newest.send(page))

    async def _unknown(self) -> str | None:
        interaction, channel = self._newest.interaction, self._address.channel
        if channel is None:
            return None
        try:
            since = await messages_since(self._client, channel, interaction)
        except PlaceGone:
            return None
        for message in since:
            written_for = (message.get("interaction_metadata") or {}).get("id")
            if written_for == str(interaction) and str(message["id"]) not in self._known:
                return str(message["id"])
        return None

    def _messages(self) -> ChannelSurface:
        if self._channel is None:
            raise PlaceGone("only the interaction may write there")
        return self._channel

    def _noted(self, message_id: str) -> str:
        self._known.add(message_id)
        return f"@{message_id}"


class Webhook:
    """An interaction's webhook: usable for 15 minutes or until it has refused an edit.

    `discord.Webhook` is not used: it waits inside a call until its bucket is refilled, and parses
    what the response quotes.

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
        original: int | str = _ORIGINAL,
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
        name = _ORIGINAL if message_id == self._original else message_id
        return await self._once_acknowledged(partial(self._edit, name, page))

    async def read(self, message_id: str) -> str:
        """Return the text of a message."""
        name = _ORIGINAL if message_id == self._original else message_id
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
        call = self._client, method, path, self._ids | ids
        message = await request(*call, body=body, files=page.attachments)
        self._acknowledged = True
        return str(message["id"])
