"""Finds messages that earlier attempts at a reply have left, when their nonces have expired."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

from adapters.discord.address import ChannelAddress
from adapters.discord.reply.message import answered_by, is_page, shows, turns_of
from adapters.discord.rest import RestClient, fetch_messages, own_id
from bot.domain import Page
from bot.errors import PlaceGone

_log = logging.getLogger(__name__)


class Recovery:
    """Finds the messages of earlier attempts at a reply that were not saved.

    `tried_at` is the earliest time of such an attempt, None if there was none. `alone` says that no
    other reply grows in the channel. `known` are the ids of the reply's messages that its process
    knows, and `unknown` those of others that belong to it, oldest first.
    """

    def __init__(
        self, client: RestClient, *, turn_id: str, tried_at: float | None, alone: bool
    ) -> None:
        self.turn_id = turn_id
        self.known: set[str] = set()
        self.unknown: list[str] = []
        self._client = client
        self._tried_at = tried_at
        self._alone = alone
        self._own: list[dict[str, Any]] = []  # all of the bot's messages after the question

    def note_lost_response(self) -> None:
        """Note that a message may have been posted although the request failed."""
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
            own = await own_messages(self._client, address, turn_id=self.turn_id)
            own = [one for one in own if str(one["id"]) not in self.known]
            self.unknown += of_reply(own, address, turn_id=self.turn_id, alone=self._alone)
            self._own += own
        self._tried_at = None

    def take_equal(self, page: Page) -> str | None:
        """Return a found message that already is this page, once."""
        # A finished page has no button that names its turn. Another turn's message with the same
        # text would do as well.
        for message in self._own:
            message_id = str(message["id"])
            if message_id not in self.known and shows(message, page, self.turn_id):
                self.known.add(message_id)
                self.unknown = [one for one in self.unknown if one != message_id]
                return message_id
        return None


async def own_messages(
    client: RestClient, address: ChannelAddress, *, turn_id: str
) -> list[dict[str, Any]]:
    """Return the bot's messages after a turn's question, oldest first; raises SurfaceError."""
    try:
        found = await messages_since(client, address.channel, int(turn_id.rpartition(":")[2]))
    except PlaceGone as error:
        _log.warning(
            "Turn %s: cannot look for earlier messages in channel %d, some may stand twice: %s",
            *(turn_id, address.channel, error),
        )
        return []
    return [one for one in found if is_page(one, str(own_id(client)))]


async def messages_since(client: RestClient, channel: int, after: int) -> list[Any]:
    """Return the oldest of a channel's messages after this id, oldest first; SurfaceError."""
    found: list[Any] = []
    size = client.tuning.page_size
    for _ in range(client.tuning.history_pages):
        # The oldest of them, the newest first.
        page = await fetch_messages(client, channel, limit=size, after=after)
        found += reversed(page)
        if len(page) < size:
            return found
        after = int(page[0]["id"])
    _log.warning("Channel %d has too many messages to read all: some may stand twice", channel)
    return found


def of_reply(
    own: Iterable[Any], address: ChannelAddress, *, turn_id: str, alone: bool
) -> Iterator[str]:
    """Yield the ids of messages with the turn's button, and of the reply's finished pages.

    These have no button. Below a question in a channel, each of them replies to it. Elsewhere, the
    messages before a button belong to the button's turn, and the messages after the last button
    could belong to any reply, unless this one is `alone`.
    """
    before: list[str] = []
    for message in own:
        message_id, turns = str(message["id"]), turns_of(message)
        if turns:
            yield from [*before, message_id] if turn_id in turns else ()
            before = []
        elif address.question is not None:
            yield from [message_id] if answered_by(message) == str(address.question) else ()
        elif alone and answered_by(message) is None:
            before.append(message_id)
