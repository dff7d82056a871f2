"""The context of a turn: what others said before the question, read from the platform."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from bot.domain import ContextMessage, Exchange, Turn
from bot.errors import StoreUnavailable, SurfaceError
from bot.ports import PartlyRead, Platform
from bot.text.context import newest, shortened
from bot.turns.queue import TurnQueue
from bot.turns.records import History

log = logging.getLogger(__name__)

_READ_SECONDS = 3.0  # a person waits


@dataclass(frozen=True, slots=True)
class TurnContext:
    """What a prompt shows of others: the message that the question replies to, and earlier ones.

    `messages` is None if they were not read; `is_incomplete` if some of them could not be read.
    """

    quote: ContextMessage | None
    messages: tuple[ContextMessage, ...] | None
    is_incomplete: bool = False


class ContextReader:
    """Reads at most `most` messages from the platform for a turn.

    In a thread that the bot has not seen, these are the last ones, with the one with which it
    begins; in a thread in which several people speak, those since the last question that was
    answered.
    """

    def __init__(self, *, queue: TurnQueue, history: History, most: int) -> None:
        self._queue = queue
        self._history = history
        self._most = most

    async def read(
        self, turn: Turn, platform: Platform, remembered: Sequence[Exchange]
    ) -> TurnContext | None:
        """Return the context of a turn that has none yet; None if there is nothing to add.

        A turn that is regenerated has that of its exchange. Messages that cannot be read in time
        are left out and logged.
        """
        if own := next((one for one in remembered if one.turn_id == turn.id), None):
            return TurnContext(own.quote, own.context) if own.quote or own.context else None
        quote, excluded = turn.quote, _shown_by(remembered)
        # An earlier prompt showed, or looked for, a message of which only the id is known.
        if quote and not quote.text and quote.id in excluded:
            quote = None
        since = remembered[-1].turn_id if remembered else ""
        wants_quote, wants_more, is_incomplete = quote is not None and not quote.text, False, False
        found: Sequence[ContextMessage] = ()
        try:
            wants_more = self._most > 0 and await self._reads_thread(turn, since)
            if not wants_quote and not wants_more:
                return None
            async with asyncio.timeout(_READ_SECONDS):
                try:
                    most = self._most if wants_more else 0
                    read = await platform.read_context(turn, since=since, most=most)
                except PartlyRead as partly:
                    read, is_incomplete = partly.found, True
            speakers = {one.person.id for one in read if one.person and one.in_thread}
            if speakers:
                await self._queue.note_speakers(turn.key, *speakers)
            if read:
                excluded |= await self._queue.lookup.withheld([one.id for one in read])
            found = read
        except (SurfaceError, StoreUnavailable, TimeoutError) as error:
            why = str(error) or f"no answer in {_READ_SECONDS:g} s"
            log.warning("Turn %s: the context in %s is not read: %s", turn.id, turn.key, why)
            is_incomplete = wants_more
        # Messages that are answered together with this question need no quote.
        if quote and quote.id not in excluded:
            quote = next((one for one in found if one.id == quote.id and one.text), quote)
        # The bot's own messages since that question are in the history, or were forgotten.
        messages = [
            one
            for one in found
            if one.id not in excluded and not (since and one.person is None) and one.text.strip()
        ]
        return TurnContext(
            shortened(quote) if quote else None,
            # One more is that with which a thread begins.
            tuple(newest(messages[-self._most - 1 :] if self._most else ())),
            is_incomplete,
        )

    async def _reads_thread(self, turn: Turn, since: str) -> bool:
        if since:
            # Without a name it only counts them.
            return await self._queue.note_speakers(turn.key) > 1
        return not await self._history.is_seen(turn.key)


def _shown_by(remembered: Sequence[Exchange]) -> set[str]:
    """Return the ids of the messages that earlier prompts of a thread showed."""
    ids = {one.turn_id for one in remembered}
    ids |= {each.id for one in remembered for each in one.context}
    return ids | {one.quote.id for one in remembered if one.quote}
