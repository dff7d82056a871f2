"""A reply in a channel, a DM or a thread: its address, its surface and its recovery."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from adapters.discord.reply.message import (
    LIMIT,
    body_of,
    is_narrow,
    is_page,
    measured,
    replied_to_id,
    shows,
    turns_of,
)
from adapters.discord.rest import (
    ChannelGone,
    NotPermitted,
    OldMessage,
    RestClient,
    ThreadArchived,
    edit_budget,
    fetch_messages,
    own_id,
    request,
)
from bot.domain import EditBudget, Json, Page, StepNotes
from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteFailed, WriteRefused

_log = logging.getLogger(__name__)

_CHANNEL = "/channels/{channel_id}"
_MESSAGES = _CHANNEL + "/messages"
_MESSAGE = _MESSAGES + "/{message_id}"


@dataclass(frozen=True, slots=True)
class ChannelAddress:
    """A channel, a DM or a Discord thread.

    The reply quotes the message `question` if there is one. With `opens_thread`, the surface opens
    a thread from the question and writes there.
    """

    channel: int
    question: int | None
    opens_thread: bool

    def to_json(self) -> dict[str, Json]:
        """Return the JSON that `parse_address` reads."""
        question = None if self.question is None else str(self.question)
        channel, opens_thread = str(self.channel), self.opens_thread
        return {"channel": channel, "question": question, "opens_thread": opens_thread}


class ChannelSurface:
    """Messages of a channel, a DM or a Discord thread; message ids are Discord's.

    `parent` is the channel in which the thread was opened from the question. If the bot may open
    the thread but not write in it, the reply and its edit budget move to the parent.
    """

    limit = LIMIT
    shows_work = True
    shows_thoughts = False
    has_buttons = True
    shows_whole = staticmethod(is_narrow)

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
        self._fallback = parent  # until the thread has shown something
        self._turn_id = recovery.turn_id
        self._recovery = recovery
        self._refusals: Counter[int] = Counter()  # by page number
        self._old: set[int] = set()  # numbers of pages whose messages take few edits

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return the budget of the reply's channel; new and old messages have their own."""
        if new:
            return edit_budget("post", self._address.channel)
        return edit_budget("old" if page.number in self._old else "edit", self._address.channel)

    def note_step(self, steps: StepNotes) -> bool:
        """Show nothing: typing does not say what is done."""
        return False

    def measure(self, text: str) -> int:
        """Return the code points (discord/discord-api-docs, issue 1315) of the message's text."""
        return len(measured(text))

    async def post(self, page: Page) -> str:
        """Send a message, or edit the one that an earlier attempt has sent."""
        await self._recovery.search(self._address, self._fallback)
        if equal := self._recovery.take_equal(page):
            return equal
        while unknown := self._recovery.unknown:
            message_id = unknown[0]
            is_edited = await self._try_edit(message_id, page)
            del unknown[0]
            if is_edited:
                return message_id
        message = await self._send_to_thread_or_parent(page)
        if await self._ensure_shows(message, page):
            return str(message["id"])
        # The message of an earlier attempt cannot be edited, so a new one replaces it.
        another = await self._send(self._address, page)
        if not await self._ensure_shows(another, page):
            raise WriteFailed("the messages of earlier attempts cannot be edited")
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
            # A new post needs another nonce: for this one Discord would return this message. The
            # next process, which knows of no other page's refusals, computes the same (`_send`).
            self._refusals[page.number] += 1
            if isinstance(error, WriteRefused):
                self._fallback = None
            raise
        self._fallback = None

    async def unarchive(self) -> None:
        """Unarchive the thread; raises PlaceGone if only moderators may."""
        try:
            ids = {"channel_id": self._address.channel}
            await request(self._client, "PATCH", _CHANNEL, ids, body={"archived": False})
        except WriteRefused as error:
            raise PlaceGone(f"the thread stays archived: {error}") from error

    async def _send_to_thread_or_parent(self, page: Page) -> dict[str, Any]:
        try:
            message = await self._send(self._address, page)
        except NotPermitted as error:
            if self._fallback is None or page.number > 0:
                raise
            _log.warning(
                "Turn %s: the reply is posted in channel %d, not in its thread: %s",
                *(self._turn_id, self._fallback.channel, error),
            )
            message = await self._send(self._fallback, page)
            self._address = self._fallback
        self._fallback = None
        return message

    async def _ensure_shows(self, message: dict[str, Any], page: Page) -> bool:
        """Edit a message that Discord returned, if it differs; False if it cannot be edited.

        For a repeated nonce Discord returns the message of the first attempt.
        """
        if shows(message, page, self._turn_id, rated=self._client.rated):
            return True
        return await self._try_edit(str(message["id"]), page)

    async def _try_edit(self, message_id: str, page: Page) -> bool:
        """Edit a message of an earlier attempt; return False if it cannot be edited."""
        try:
            await self.edit(message_id, page)
        except (MessageGone, WriteRefused) as error:
            # An answer with fewer pages may have deleted it.
            _log.info(
                "Turn %s: cannot edit message %s of an earlier attempt: %s",
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
        except (MessageGone, ChannelGone):
            if self._fallback is None:
                raise
            # An earlier attempt may have moved to the parent.
            await self._edit(self._fallback, message_id, page)
            self._address = self._fallback

    async def _edit(self, address: ChannelAddress, message_id: str, page: Page) -> None:
        ids = {"channel_id": address.channel, "message_id": message_id}
        if not page.text:
            await request(self._client, "DELETE", _MESSAGE, ids)
            return
        body = body_of(page, self._turn_id, rated=self._client.rated)
        await request(self._client, "PATCH", _MESSAGE, ids, body=body, files=page.attachments)

    async def _send(self, address: ChannelAddress, page: Page) -> dict[str, Any]:
        body = body_of(page, self._turn_id, rated=self._client.rated)
        attempt = f"{self._turn_id}/{page.number}/{self._refusals[page.number]}".encode()
        # Discord allows 25 characters.
        body["nonce"] = hashlib.blake2b(attempt, digest_size=12).hexdigest()
        body["enforce_nonce"] = True
        if address.question is not None:
            # On each page, because finished pages have no button with the turn's id.
            question = str(address.question)
            body["message_reference"] = {"message_id": question, "fail_if_not_exists": False}
        ids = {"channel_id": address.channel}
        sending = request(self._client, "POST", _MESSAGES, ids, body=body, files=page.attachments)
        try:
            sent: dict[str, Any] = await sending
        except WriteFailed:
            self._recovery.note_lost_response()
            raise
        self._recovery.known.add(str(sent["id"]))
        return sent


class Recovery:
    """Finds the messages of earlier attempts at a reply that were not saved.

    `tried_at` is the earliest time of such an attempt, or None. `alone`: no other reply is in
    progress in the channel. `above` is a message of the previous reply, or 0. `known` are the ids
    of the reply's messages that this process knows, and `unknown` further ones, oldest first.
    """

    def __init__(
        self,
        client: RestClient,
        *,
        turn_id: str,
        tried_at: float | None,
        alone: bool,
        above: int = 0,
    ) -> None:
        self.turn_id = turn_id
        self.known: set[str] = set()
        self.unknown: list[str] = []
        self._client = client
        self._tried_at = tried_at
        self._alone = alone
        self._above = above
        self._own: list[dict[str, Any]] = []  # all of the bot's messages after the question

    def note_lost_response(self) -> None:
        """Record that a message may have been posted although the request failed."""
        self._tried_at = self._tried_at or time.time()

    async def search(self, *addresses: ChannelAddress | None) -> None:
        """Read the channels if the nonce of an attempt may have expired; raises SurfaceError."""
        known_for = self._client.tuning.nonce_known_for
        if self._tried_at is None or time.time() - self._tried_at < known_for:
            return
        self._own, self.unknown = [], []
        for address in filter(None, addresses):
            if self.unknown:
                break
            own = await own_messages(self._client, address, turn_id=self.turn_id, above=self._above)
            own = [one for one in own if str(one["id"]) not in self.known]
            self.unknown += reply_message_ids(own, address, turn_id=self.turn_id, alone=self._alone)
            self._own += own
        self._tried_at = None

    def take_equal(self, page: Page) -> str | None:
        """Return the id of an earlier message that already shows this page, and mark it as used."""
        # A finished page has no button with the turn's id, so this may be another turn's message
        # with the same text, which does no harm.
        for message in self._own:
            message_id = str(message["id"])
            same = shows(message, page, self.turn_id, rated=self._client.rated)
            if same and message_id not in self.known:
                self.known.add(message_id)
                self.unknown = [one for one in self.unknown if one != message_id]
                return message_id
        return None


async def own_messages(
    client: RestClient, address: ChannelAddress, *, turn_id: str, above: int = 0
) -> list[dict[str, Any]]:
    """Return the bot's messages after a turn's question, oldest first; raises SurfaceError.

    Messages up to `above` are excluded: they may be of an older reply without buttons.
    """
    after = max(int(turn_id.rpartition(":")[2]), above)
    try:
        found = await messages_since(client, address.channel, after)
    except PlaceGone as error:
        _log.warning(
            "Turn %s: cannot read earlier messages in channel %d, some may be duplicated: %s",
            *(turn_id, address.channel, error),
        )
        return []
    return [one for one in found if is_page(one, str(own_id(client)))]


async def messages_since(client: RestClient, channel: int, after: int) -> list[Any]:
    """Return the oldest of a channel's messages after this id, in order. Raises SurfaceError."""
    found: list[Any] = []
    size = client.tuning.page_size
    for _ in range(client.tuning.history_pages):
        # The oldest of them, the newest first.
        page = await fetch_messages(client, channel, limit=size, after=after)
        found += reversed(page)
        if len(page) < size:
            return found
        after = int(page[0]["id"])
    _log.warning("Channel %d has too many messages to read all: some may be duplicated", channel)
    return found


def reply_message_ids(
    own: Iterable[Any], address: ChannelAddress, *, turn_id: str, alone: bool
) -> Iterator[str]:
    """Yield the ids of messages with the turn's button, and of the reply's finished pages.

    Finished pages have no buttons. In a channel they reply to the question. Elsewhere, messages
    before a button belong to the button's turn; messages after the last button are included only if
    this reply is `alone`.
    """
    before: list[str] = []
    for message in own:
        message_id, turns = str(message["id"]), turns_of(message)
        if turns:
            yield from [*before, message_id] if turn_id in turns else ()
            before = []
        elif address.question is not None:
            yield from [message_id] if replied_to_id(message) == str(address.question) else ()
        elif alone and replied_to_id(message) is None:
            before.append(message_id)
