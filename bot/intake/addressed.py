"""Decides whether a message is for the bot, from an adapter's facts and from who has spoken."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bot.cache import BoundedCache
from bot.domain import Follow, ThreadKey
from bot.errors import StoreUnavailable
from bot.turns.queue import TurnQueue

_STOP, _HELP = (re.compile(rf"\s*{it}\s*\.?\s*", re.IGNORECASE) for it in ("stop", "help"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a person's message.

    `direct`: it is in a DM with the bot alone. `calls_bot`: it mentions the bot, or its role, or
    replies to one of its messages. `calls_other`: it mentions or replies to another person, or a
    group, but not the author. `edited`: it is an edit, so it may be for the bot only now.
    """

    direct: bool = False
    calls_bot: bool = False
    calls_other: bool = False
    edited: bool = False


def ignore_reason(facts: Facts, speakers: int, follow: Follow) -> str:
    """Return why a message is not for the bot, for the log; empty if it is.

    `speakers` is how many people have spoken in its thread, including the author; 0 outside of
    threads, and if the bot has not answered there. `follow` is the setting of its thread.
    """
    if facts.direct or facts.calls_bot:
        return ""
    if facts.calls_other:
        return "it calls somebody else"
    if facts.edited:
        return "its edit does not call me"
    if not speakers:
        return "I was not called here"
    if follow == "mention":
        return "I answer only mentions here"
    return "several people speak here" if follow == "auto" and speakers > 1 else ""


def is_stop(facts: Facts, text: str) -> bool:
    """Return whether a message, without its mention of the bot, is the word "stop" alone.

    Addressed to others, that word is not for the bot.
    """
    is_ours = facts.direct or facts.calls_bot or not facts.calls_other
    return is_ours and not facts.edited and _STOP.fullmatch(text) is not None


def is_help(text: str) -> bool:
    """Return whether a message for the bot, without its mention, is the word "help" alone."""
    return _HELP.fullmatch(text) is not None


class Speakers:
    """Counts the people who have spoken in a thread of the bot; each call is one request."""

    def __init__(self, queue: TurnQueue) -> None:
        self._queue = queue
        self._ours: BoundedCache[ThreadKey, bool] = BoundedCache()

    async def count(
        self, thread: ThreadKey, *people: str, ours: bool = False, called: bool = False
    ) -> int:
        """Note that people have spoken in a thread, and return how many have.

        0 if it is not a thread of the bot. `ours` makes it one, because the bot has opened it; a
        call makes it one only if its question is admitted. If the store is away, raises
        StoreUnavailable if the bot is `called` or the thread is known as the bot's, and returns 0
        for other threads, in which no answer is expected.
        """
        must_know = ours or called or self._ours.get(thread)
        if not must_know and self._queue.leases.store.is_away:
            return 0
        try:
            speakers = await self._queue.note_speakers(thread, *people, ours=ours)
        except StoreUnavailable as error:
            if must_know:
                raise
            self._queue.leases.store.note_away(error)
            return 0
        if speakers:
            self.note_ours(thread)
        return speakers

    def note_ours(self, thread: ThreadKey) -> None:
        """Note that a thread is the bot's."""
        self._ours.put(thread, True)
