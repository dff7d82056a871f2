"""The context of a turn: what others said before the question, read from the platform."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bot.domain import ContextMessage, Exchange
from bot.errors import StoreUnavailable, SurfaceError
from bot.ports import PartlyRead, Platform
from bot.text.graphemes import CUT, without_middle
from bot.text.sanitize import whole_characters

if TYPE_CHECKING:
    from bot.turns.conversation import Lease

log = logging.getLogger(__name__)

_MOST_CHARACTERS = 4_000  # of one message
_MOST_IN_ALL = 64_000  # characters: more than a quarter of most models' contexts
_READ_SECONDS = 3.0  # a person waits


async def complete_context(
    lease: Lease,
    platform: Platform,
    remembered: Sequence[Exchange],
    *,
    most: int,
    is_seen: Callable[[], Awaitable[bool]],
) -> None:
    """Set and save the quote and the context of a turn. Raises LeaseLost.

    An earlier attempt may have saved them, or the exchange of a turn that is regenerated. At most
    `most` messages are read: in a thread that the bot has not seen (`is_seen`), the last ones; in a
    thread in which several people speak, those since the last question that was answered.
    Messages that cannot be read in time are left out and logged.
    """
    if lease.context is not None:
        return
    turn = lease.turn
    if own := next((one for one in remembered if one.turn_id == turn.id), None):
        if own.quote or own.context:
            await lease.save_context(own.quote, own.context)
        return
    quote = lease.quote if lease.quote and not _is_known(lease.quote, remembered) else None
    since = remembered[-1].turn_id if remembered else ""
    wants_quote, wants_more = quote is not None and not quote.text, False
    try:
        if since:
            wants_more = most > 0 and await lease.note_speakers() > 1
        else:
            wants_more = most > 0 and not await is_seen()
        if not wants_quote and not wants_more:
            return
        async with asyncio.timeout(_READ_SECONDS):
            try:
                found = await platform.read_context(
                    turn, since=since, most=most if wants_more else 0
                )
            except PartlyRead as partly:
                found, lease.context_unread = partly.found, True
        await lease.note_speakers(*_speakers(found))
        withheld = _shown_by(remembered) | await lease.withheld([one.id for one in found])
    except (SurfaceError, StoreUnavailable, TimeoutError) as error:
        log.warning(
            "Turn %s: the context in %s is not read: %s",
            turn.id,
            turn.key,
            str(error) or f"no answer in {_READ_SECONDS:g} s",
        )
        found, withheld, lease.context_unread = (), set(), wants_more
    # Messages that are answered together with this question need no quote.
    if quote and quote.id not in withheld:
        quote = next((one for one in found if one.id == quote.id and one.text), quote)
    # The bot's own messages since that question are in the history, or were forgotten.
    context = [
        one
        for one in found
        if one.id not in withheld and not (since and one.person is None) and one.text.strip()
    ]
    if quote or context or wants_more:
        shorter = shortened(quote) if quote else None
        await lease.save_context(shorter, newest(context[-most:] if most else ()))


def shortened(one: ContextMessage) -> ContextMessage:
    """Return a message without its middle if it is too long to store."""
    text = whole_characters(one.text)
    if len(text) > _MOST_CHARACTERS:
        text = without_middle(text, _MOST_CHARACTERS - len(CUT))
    return replace(one, text=text)


def _is_known(quote: ContextMessage, remembered: Sequence[Exchange]) -> bool:
    """Whether an earlier prompt showed, or looked for, a message of which only the id is known."""
    return not quote.text and quote.id in _shown_by(remembered)


def _shown_by(remembered: Sequence[Exchange]) -> set[str]:
    """Return the ids of the messages that earlier prompts of a thread showed."""
    ids = {one.turn_id for one in remembered}
    ids |= {each.id for one in remembered for each in one.context}
    return ids | {one.quote.id for one in remembered if one.quote}


def _speakers(found: Sequence[ContextMessage]) -> set[str]:
    return {one.person.id for one in found if one.person and one.in_thread}


def newest(context: Sequence[ContextMessage]) -> list[ContextMessage]:
    """Return the newest messages that fit the limit of all together, in their order."""
    chosen: list[ContextMessage] = []
    room = _MOST_IN_ALL
    for one in map(shortened, reversed(context)):
        room -= len(one.text)
        if room < 0:
            break
        chosen.append(one)
    return chosen[::-1]
