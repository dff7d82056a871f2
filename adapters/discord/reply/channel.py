"""Where one reply is shown in Discord: messages, each with a button."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import discord
from discord.http import Route

from adapters.discord.address import ChannelPlace
from adapters.discord.errors import NotPermitted, OldMessage, ThreadArchived, translated
from adapters.discord.rate_limits import edit_budget
from adapters.discord.reply.recovery import of_reply, standing
from adapters.discord.reply.tables import tables_as_code
from adapters.discord.rest import RestClient
from bot.domain import EditBudget, Json, Page
from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteFailed, WriteRefused

# A button's custom_id is one of these and the turn's id.
STOP, REGENERATE = "stop:", "regenerate:"
REGENERATE_LABEL = "Regenerate"
LIMIT = 2000  # Discord's documentation, "Create Message"

_log = logging.getLogger(__name__)

# Discord knows a nonce for "the past few minutes" (its documentation, "Create Message").
_KNOWN_FOR = 60.0  # seconds for which it surely does

_CHANNEL = "/channels/{channel_id}/messages"
_MESSAGE = _CHANNEL + "/{message_id}"
# Discord's documentation, "Component Reference": a row, a button, and the grey of a button.
_ROW, _BUTTON, _GREY = 1, 2, 2


class ChannelSurface:
    """Messages of a channel, a DM or a Discord thread; message ids are Discord's.

    `parent` is where the thread was opened from the question. The reply stands there, and the edit
    budget is the parent's from then on, when we may open the thread and not write in it.
    `tried_at` is the earliest time at which another try may have sent what nobody knows of, None
    where there was none. `alone` says that no other reply grows in this place.
    """

    limit = LIMIT

    def __init__(
        self,
        client: RestClient,
        *,
        place: ChannelPlace,
        parent: ChannelPlace | None,
        turn_id: str,
        tried_at: float | None,
        alone: bool,
    ) -> None:
        self._client = client
        self._http = client.http
        self._place = place
        self._parent = parent
        self._turn_id = turn_id
        self._refusals: Counter[int] = Counter()  # by page number
        self._old: set[int] = set()  # numbers of pages whose messages take few edits
        self._tried_at = tried_at
        self._alone = alone
        self._known: set[str] = set()  # ids of messages
        self._lost: list[str] = []  # ids of messages that earlier tries have left, oldest first
        self._ours: list[dict[str, Any]] = []  # all that we have written after the question

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return the budget of the reply's channel.

        New messages have one of their own, and so have messages that turned out to be old.
        """
        if new:
            return edit_budget("post", self._place.channel)
        return edit_budget("old" if page.number in self._old else "edit", self._place.channel)

    def measure(self, text: str) -> int:
        """Return the code points (discord/discord-api-docs, issue 1315) of what is shown."""
        return len(tables_as_code(text))

    async def post(self, page: Page) -> str:
        """Send a message; sent again, the first one is changed instead.

        Where that takes no edit, another is sent and it is taken away.
        """
        await self._look()
        if said := self._said(page):
            return said
        while self._lost:
            lost = self._lost[0]
            shown = await self._comes_to_be(lost, page)
            del self._lost[0]
            if shown:
                return lost
        message = await self._send_where_we_may(page)
        if await self._comes_to_show(message, page):
            return str(message["id"])
        again = await self._send(self._place, page)
        if not await self._comes_to_show(again, page):
            raise WriteFailed("what earlier tries have sent takes no edits")
        with suppress(SurfaceError):
            await self._edit(self._place, str(message["id"]), Page(page.number, "", final=True))
        return str(again["id"])

    async def edit(self, message_id: str, page: Page) -> None:
        """Change a message, or delete it for a page without text; its thread is unarchived."""
        if not message_id.isdecimal():
            raise MessageGone(f"{message_id!r} is no message of Discord's")
        self._known.add(message_id)
        try:
            await self._edit_where_it_stands(message_id, page)
        except OldMessage as error:
            if page.number in self._old:
                raise
            # The budget that this page was written with is none of old messages.
            self._old.add(page.number)
            raise WriteFailed(str(error)) from error
        except (MessageGone, WriteRefused) as error:
            # Where the page is sent anew, that must not find this message by its nonce. The next
            # process comes to the same nonce, for it knows of no other page's refusals.
            self._refusals[page.number] += 1
            if isinstance(error, WriteRefused):
                self._parent = None
            raise
        self._parent = None

    async def unarchive(self) -> None:
        """Open the archived thread again; PlaceGone where only moderators may."""
        try:
            async with translated():
                # `discord.Thread.edit` would have to look the thread up before.
                await self._http.edit_channel(self._place.channel, archived=False)
        except WriteRefused as error:
            raise PlaceGone(f"the thread stays archived: {error}") from error

    async def _look(self) -> None:
        """Look for what earlier tries have sent, where that may be too long ago for the nonce."""
        if self._tried_at is None or time.time() - self._tried_at < _KNOWN_FOR:
            return
        bot_id = self._client.bot_id
        self._ours, self._lost = [], []
        for place in (self._place, self._parent):
            if place and not self._lost:
                ours = await standing(self._http, place, bot_id=bot_id, turn_id=self._turn_id)
                ours = [one for one in ours if str(one["id"]) not in self._known]
                self._lost += of_reply(ours, place, turn_id=self._turn_id, alone=self._alone)
                self._ours += ours
        self._tried_at = None

    def _said(self, page: Page) -> str | None:
        """Return a message that is this page already: no button tells whose the finished ones are.

        Another turn's that says the same to the letter would do as well.
        """
        for message in self._ours:
            message_id = str(message["id"])
            if message_id not in self._known and _shows(message, page, self._turn_id):
                self._known.add(message_id)
                self._lost = [one for one in self._lost if one != message_id]
                return message_id
        return None

    async def _send_where_we_may(self, page: Page) -> dict[str, Any]:
        try:
            message = await self._send(self._place, page)
        except NotPermitted as error:
            if self._parent is None or page.number > 0:
                raise
            _log.warning("the reply stands in the channel: %s", error)
            message = await self._send(self._parent, page)
            self._place = self._parent
        self._parent = None
        return message

    async def _comes_to_show(self, message: dict[str, Any], page: Page) -> bool:
        """Whether a message as Discord returned it shows this page, after an edit perhaps."""
        if _shows(message, page, self._turn_id):
            return True
        # An earlier try got through after all, and Discord answers with what it sent.
        return await self._comes_to_be(str(message["id"]), page)

    async def _comes_to_be(self, message_id: str, page: Page) -> bool:
        try:
            await self.edit(message_id, page)
        except (MessageGone, WriteRefused) as error:
            # Gone is what an answer that needed fewer pages took away since.
            _log.info("what an earlier try has sent takes no edits: %s", error)
            return False
        return True

    async def _edit_where_it_stands(self, message_id: str, page: Page) -> None:
        try:
            await self._edit_unarchived(message_id, page)
        except MessageGone:
            if self._parent is None:
                raise
            # An earlier try may have moved to the parent.
            await self._edit(self._parent, message_id, page)
            self._place = self._parent

    async def _edit_unarchived(self, message_id: str, page: Page) -> None:
        try:
            await self._edit(self._place, message_id, page)
        except ThreadArchived:
            await self.unarchive()
            await self._edit(self._place, message_id, page)

    async def _edit(self, place: ChannelPlace, message_id: str, page: Page) -> None:
        async with translated():
            if not page.text:
                await self._http.delete_message(place.channel, message_id)
                return
            route = Route("PATCH", _MESSAGE, channel_id=place.channel, message_id=message_id)
            await self._http.request(route, json=form(page, self._turn_id))

    async def _send(self, place: ChannelPlace, page: Page) -> dict[str, Any]:
        body = form(page, self._turn_id)
        body["nonce"] = _nonce(self._turn_id, page.number, self._refusals[page.number])
        body["enforce_nonce"] = True
        if place.question is not None:
            # On every page, for nothing else tells whose a finished one is.
            body["message_reference"] = {
                "message_id": str(place.question),
                "fail_if_not_exists": False,
            }
        route = Route("POST", _CHANNEL, channel_id=place.channel)
        try:
            async with translated():
                sent: dict[str, Any] = await self._http.request(route, json=body)
        except WriteFailed:
            # It may stand there.
            self._tried_at = self._tried_at or time.time()
            raise
        self._known.add(str(sent["id"]))
        return sent


def form(page: Page, turn_id: str) -> dict[str, Json]:
    """Return how a page is written, whoever writes it: nobody is called, no link previewed."""
    return {
        "content": tables_as_code(page.text),
        "components": [{"type": _ROW, "components": [it]} for it in _buttons(page, turn_id)],
        # Without it Discord takes its own default (Discord's documentation, "Allowed Mentions
        # Object"), in an edit too.
        "allowed_mentions": {"parse": [], "replied_user": False},
        "flags": discord.MessageFlags(suppress_embeds=True).value,
    }


def _buttons(page: Page, turn_id: str) -> list[dict[str, Json]]:
    if not page.final:
        return [_button("Stop", STOP + turn_id)]
    return [_button(REGENERATE_LABEL, REGENERATE + turn_id)] if page.last else []


def _button(label: str, custom_id: str) -> dict[str, Json]:
    return {"type": _BUTTON, "style": _GREY, "label": label, "custom_id": custom_id}


def _shows(message: dict[str, Any], page: Page, turn_id: str) -> bool:
    """Whether a message as Discord returns it is this page already."""
    wanted = [button["custom_id"] for button in _buttons(page, turn_id)]
    shown = [it["custom_id"] for row in message["components"] for it in row["components"]]
    # Discord drops the white space around a text.
    return bool(message["content"] == tables_as_code(page.text).strip() and shown == wanted)


def _nonce(turn_id: str, number: int, refusals: int) -> str:
    # Discord takes 25 characters.
    written = f"{turn_id}/{number}/{refusals}".encode()
    return hashlib.blake2b(written, digest_size=12).hexdigest()
