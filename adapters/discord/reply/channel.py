"""The surface of a reply in a channel, a DM or a Discord thread."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from contextlib import suppress
from typing import Any

from adapters.discord.address import ChannelAddress
from adapters.discord.errors import NotPermitted, OldMessage, ThreadArchived, translated
from adapters.discord.rate_limits import edit_budget
from adapters.discord.reply.message import LIMIT, body_of, shows
from adapters.discord.reply.recovery import Recovery
from adapters.discord.reply.tables import tables_as_code
from adapters.discord.rest import RestClient, request
from bot.domain import EditBudget, Page
from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteFailed, WriteRefused

_log = logging.getLogger(__name__)

_THREAD = "/channels/{channel_id}"
_CHANNEL = _THREAD + "/messages"
_MESSAGE = _CHANNEL + "/{message_id}"


class ChannelSurface:
    """Messages of a channel, a DM or a Discord thread; message ids are Discord's.

    `parent` is the channel in which the thread was opened from the question. If the bot may open
    the thread but not write in it, the reply and its edit budget move to the parent.
    """

    limit = LIMIT

    def __init__(
        self,
        client: RestClient,
        address: ChannelAddress,
        recovery: Recovery,
        *,
        parent: ChannelAddress | None = None,
    ) -> None:
        self._client = client
        self._address = address
        self._parent = parent
        self._turn_id = recovery.turn_id
        self._recovery = recovery
        self._refusals: Counter[int] = Counter()  # by page number
        self._old: set[int] = set()  # numbers of pages whose messages take few edits

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return the budget of the reply's channel; new and old messages have their own."""
        if new:
            return edit_budget("post", self._address.channel)
        return edit_budget("old" if page.number in self._old else "edit", self._address.channel)

    def measure(self, text: str) -> int:
        """Return the code points (discord/discord-api-docs, issue 1315) of the message's text."""
        return len(tables_as_code(text))

    async def post(self, page: Page) -> str:
        """Send a message, or edit the one that an earlier attempt has sent."""
        await self._recovery.search(self._address, self._parent)
        if equal := self._recovery.take_equal(page):
            return equal
        while unknown := self._recovery.unknown:
            message_id = unknown[0]
            is_edited = await self._is_edited(message_id, page)
            del unknown[0]
            if is_edited:
                return message_id
        message = await self._send_to_thread_or_parent(page)
        if await self._is_shown(message, page):
            return str(message["id"])
        # The message of an earlier attempt takes no edit: another one replaces it.
        another = await self._send(self._address, page)
        if not await self._is_shown(another, page):
            raise WriteFailed("the messages of earlier attempts take no edits")
        with suppress(SurfaceError):
            await self._edit(self._address, str(message["id"]), Page(page.number, "", final=True))
        return str(another["id"])

    async def edit(self, message_id: str, page: Page) -> None:
        """Edit a message, or delete it for a page without text; unarchives its thread."""
        if not message_id.isdecimal():
            raise MessageGone(f"{message_id!r} is not the id of a Discord message")
        self._recovery.known.add(message_id)
        try:
            await self._edit_in_thread_or_parent(message_id, page)
        except OldMessage as error:
            if page.number in self._old:
                raise
            # This page was written with the budget of newer messages.
            self._old.add(page.number)
            raise WriteFailed(str(error)) from error
        except (MessageGone, WriteRefused) as error:
            # If the page is posted again, its nonce must not lead to this message. The next process
            # computes the same nonce, because it knows of no other page's refusals.
            self._refusals[page.number] += 1
            if isinstance(error, WriteRefused):
                self._parent = None
            raise
        self._parent = None

    async def unarchive(self) -> None:
        """Unarchive the thread; raises PlaceGone if only moderators may."""
        try:
            ids = {"channel_id": self._address.channel}
            await request(self._client, "PATCH", _THREAD, ids, body={"archived": False})
        except WriteRefused as error:
            raise PlaceGone(f"the thread stays archived: {error}") from error

    async def _send_to_thread_or_parent(self, page: Page) -> dict[str, Any]:
        try:
            message = await self._send(self._address, page)
        except NotPermitted as error:
            if self._parent is None or page.number > 0:
                raise
            _log.warning(
                "Turn %s: the reply is posted in channel %d, not in its thread: %s",
                *(self._turn_id, self._parent.channel, error),
            )
            message = await self._send(self._parent, page)
            self._address = self._parent
        self._parent = None
        return message

    async def _is_shown(self, message: dict[str, Any], page: Page) -> bool:
        """Whether a message in Discord's response shows this page, if need be after an edit.

        Discord answers a repeated nonce with the message of the attempt that did get through.
        """
        if shows(message, page, self._turn_id):
            return True
        return await self._is_edited(str(message["id"]), page)

    async def _is_edited(self, message_id: str, page: Page) -> bool:
        try:
            await self.edit(message_id, page)
        except (MessageGone, WriteRefused) as error:
            # It is gone if an answer with fewer pages has deleted it meanwhile.
            _log.info(
                "Turn %s: message %s of an earlier attempt takes no edit: %s",
                *(self._turn_id, message_id, error),
            )
            return False
        return True

    async def _edit_in_thread_or_parent(self, message_id: str, page: Page) -> None:
        try:
            try:
                await self._edit(self._address, message_id, page)
            except ThreadArchived:
                await self.unarchive()
                await self._edit(self._address, message_id, page)
        except MessageGone:
            if self._parent is None:
                raise
            # An earlier attempt may have moved to the parent.
            await self._edit(self._parent, message_id, page)
            self._address = self._parent

    async def _edit(self, address: ChannelAddress, message_id: str, page: Page) -> None:
        if not page.text:
            channel = self._client.get_partial_messageable(address.channel)
            async with translated():
                await channel.get_partial_message(int(message_id)).delete()
            return
        ids = {"channel_id": address.channel, "message_id": message_id}
        await request(self._client, "PATCH", _MESSAGE, ids, body=body_of(page, self._turn_id))

    async def _send(self, address: ChannelAddress, page: Page) -> dict[str, Any]:
        body = body_of(page, self._turn_id)
        attempt = f"{self._turn_id}/{page.number}/{self._refusals[page.number]}".encode()
        # Discord takes 25 characters.
        body["nonce"] = hashlib.blake2b(attempt, digest_size=12).hexdigest()
        body["enforce_nonce"] = True
        if address.question is not None:
            # On each page, because nothing else names the turn of a finished one.
            question = str(address.question)
            body["message_reference"] = {"message_id": question, "fail_if_not_exists": False}
        ids = {"channel_id": address.channel}
        try:
            sent: dict[str, Any] = await request(self._client, "POST", _CHANNEL, ids, body=body)
        except WriteFailed:
            self._recovery.note_lost_response()
            raise
        self._recovery.known.add(str(sent["id"]))
        return sent
