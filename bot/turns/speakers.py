"""Who has spoken in the threads of the bot, known to all processes."""

from __future__ import annotations

from collections.abc import Callable

from bot.cache import BoundedCache
from bot.domain import ThreadKey
from bot.errors import StoreUnavailable
from bot.turns.queue import TurnQueue

# How long a process believes that the bot was not called into a thread. It is shorter than an
# answer takes to be read, so nobody goes on with an answer in a thread that is believed foreign.
FOREIGN_SECONDS = 1.0
_MOST_THREADS = 10_000  # that a process remembers


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
