"""Decides whether a message is for the bot, from an adapter's facts and from who has spoken."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from bot.cache import BoundedCache
from bot.domain import Follow, ThreadKey
from bot.errors import StoreUnavailable
from bot.turns.queue import TurnQueue

# How long a process believes that the bot was not called into a thread. It is shorter than an
# answer takes to be read, so nobody goes on with an answer in a thread that is believed foreign.
FOREIGN_SECONDS = 1.0
_MOST_THREADS = 10_000  # that a process remembers

_STOP = re.compile(r"\s*stop\s*\.?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a message that a person wrote.

    `direct`: it is in a DM with the bot alone. `calls_bot`: it mentions the bot, or its role, or
    replies to one of its messages. `calls_other`: it mentions or replies to somebody who is neither
    the bot nor the author; a group of people counts, too. `edited`: it was not for the bot before
    it was edited. `speakers` is how many people have spoken in its thread, its author included; 0
    if the bot has not answered there, if that is not known, and outside of threads.
    """

    direct: bool = False
    calls_bot: bool = False
    calls_other: bool = False
    edited: bool = False
    speakers: int = 0


def is_for_bot(facts: Facts, follow: Follow) -> bool:
    """Return whether a message is for the bot; `follow` is what its thread is set to."""
    return not why_left_alone(facts, follow)


def why_left_alone(facts: Facts, follow: Follow) -> str:
    """Return why a message is not for the bot, for the log; empty if it is."""
    if facts.direct or facts.calls_bot:
        return ""
    if facts.calls_other:
        return "it calls somebody else"
    if facts.edited:
        return "its edit does not call me"
    if not facts.speakers:
        return "I was not called here"
    if follow == "mention":
        return "I answer only mentions here"
    return "several people speak here" if follow == "auto" and facts.speakers > 1 else ""


def is_stop(facts: Facts, text: str) -> bool:
    """Return whether a message, without its mention of the bot, is the word "stop" alone.

    From a person whose answer is running it is no question; said to somebody else it is nothing.
    """
    is_ours = facts.direct or facts.calls_bot or not facts.calls_other
    return is_ours and not facts.edited and _STOP.fullmatch(text) is not None


class Speakers:
    """Counts the people who have spoken in a thread of the bot.

    The store is asked once for each message in a thread of the bot, and about any other thread
    once in `FOREIGN_SECONDS` at most.
    """

    def __init__(self, queue: TurnQueue, *, clock: Callable[[], float]) -> None:
        self._queue = queue
        # Whether a thread is one of the bot.
        self._known: BoundedCache[ThreadKey, bool] = BoundedCache(
            capacity=_MOST_THREADS, clock=clock
        )

    async def count(
        self, thread: ThreadKey, *people: str, ours: bool = False, called: bool = False
    ) -> int:
        """Note that people have spoken in a thread, and return how many have.

        0 if it is no thread of the bot. `ours` makes it one, because the bot has opened it; a call
        makes it one only if its question is admitted. If the store is away, this raises
        StoreUnavailable if the bot is `called` or the thread is known as the bot's, and returns 0
        for others: many may talk there, and nobody waits for the bot.
        """
        known = self._known.get(thread)
        ours_for_all_we_know = ours or called or known is True
        if not ours_for_all_we_know and known is False:
            return 0
        try:
            if not ours_for_all_we_know and self._queue.is_away:
                return 0
            speakers = await self._queue.note_speakers(thread, *people, ours=ours)
        except StoreUnavailable as error:
            if ours_for_all_we_know:
                raise
            self._queue.note_away(error)
            return 0
        if speakers:
            self.note_ours(thread)
        elif not called:
            self._known.put(thread, False, seconds=FOREIGN_SECONDS)
        return speakers

    def note_ours(self, thread: ThreadKey) -> None:
        """Note that a thread is one of the bot."""
        self._known.put(thread, True)
