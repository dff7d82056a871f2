"""Decides whether a message is for the bot, from facts that a platform's adapter knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# Which messages the bot answers in a thread in which it has answered, without being called.
Follow = Literal["auto", "all", "mention"]

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
    if facts.direct or facts.calls_bot:
        return True
    if facts.calls_other or facts.edited or not facts.speakers:
        return False
    return follow == "all" or (follow == "auto" and facts.speakers == 1)


def is_stop(facts: Facts, text: str) -> bool:
    """Return whether a message, without its mention of the bot, is the word "stop" alone.

    From a person whose answer is running it is no question; said to somebody else it is nothing.
    """
    is_ours = facts.direct or facts.calls_bot or not facts.calls_other
    return is_ours and not facts.edited and _STOP.fullmatch(text) is not None
