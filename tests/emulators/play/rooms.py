"""What a person sees in a room of Discord or Slack, and how people and forms are named there."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from tests.emulators.timeline import Moment

BOT = "parley"
GENERAL = "general"

_MENTION = re.compile(r"<@!?(\w+)(?:\|[^<>]*)?>")
_COMMAND = re.compile(r"<(/[\w -]+):\d+>")  # docs: Message Formatting, "Slash Command"
_CALL = re.compile(r"(?<![\w<])@(\w+)")


class Impossible(Exception):
    """What a person asked for cannot be done; `str` is a sentence for them."""


@dataclass(frozen=True, slots=True)
class Room:
    """A channel, a thread or a DM; a thread knows the room that it `hangs_on`."""

    title: str
    channel: str
    thread: str | None = None  # Slack's ts; in Discord a thread is a channel of its own
    hangs_on: Room | None = None


@dataclass(frozen=True, slots=True)
class Sight:
    """A message as a person sees it; `id` is unique over both platforms.

    `within` counts the threads around it: none in the room itself, one in a thread below it.
    `reply_to` is the id of the message that it replies to, where the platform has such replies.
    `labels` are what stands on the buttons, one for each.
    """

    id: str
    author: str
    text: str
    buttons: tuple[str, ...] = ()
    edited: bool = False
    whispered: bool = False  # only one person sees it
    within: int = 0
    reply_to: str | None = None
    labels: tuple[str, ...] = ()


class People:
    """The people of one platform by name, and the mentions in their texts."""

    def __init__(self, join: Callable[[str], str], bots: Sequence[str]) -> None:
        self._join = join
        self._ids = {"bot": bots[0], BOT: bots[0]}
        self._names = dict.fromkeys(bots, BOT)

    def id(self, name: str) -> str:
        """Return the person's id; who is new joins."""
        if name.lower() not in self._ids:
            self._ids[name.lower()] = joined = self._join(name)
            self._names[joined] = name
        return self._ids[name.lower()]

    def has(self, user: str) -> bool:
        """Tell whether the user is one of them, and no bot."""
        return user in self._names and self._names[user] != BOT

    def name(self, user: str) -> str:
        """Return what the user is called."""
        return self._names.get(user, user)

    def spoken(self, text: str) -> str:
        """Return a typed text with its mentions as the platform writes them."""

        def mention(found: re.Match[str]) -> str:
            user = self._ids.get(found[1].lower())
            return f"<@{user}>" if user else found[0]

        return _CALL.sub(mention, text)

    def readable(self, text: str) -> str:
        """Return a text with its mentions as people read them."""
        named = _MENTION.sub(lambda found: f"@{self.name(found[1])}", text)
        return _COMMAND.sub(r"\1", named)


def described_input(name: str, label: str, *, held: str, options: Mapping[str, str]) -> str:
    """Return a line of a form: an input's name, its label, what it holds, and what it offers.

    `options` are the labels of what can be chosen, by their values.
    """
    offered = (f"{value} ({told})" if told != value else value for value, told in options.items())
    choice = f" of {', '.join(offered)}" if options else ""
    return f"  {name} ({label}){choice}: {held}".rstrip()


def standing_sign(
    moments: Sequence[Moment], ours: Collection[str], *, seconds: float
) -> Moment | None:
    """Return the newest sign, unless it is too old or one of `our` messages came after it."""
    for moment in reversed(moments):
        if moment.what == "post" and moment.message in ours:
            return None
        if moment.what == "sign":
            return moment if time.monotonic() - moment.at < seconds else None
    return None
