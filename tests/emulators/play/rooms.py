"""Where one can stand in the emulated Discord and Slack, with the same verbs in both."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tests.emulators.faults import How
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


_How = TypeVar("_How", contravariant=True)


class Breakable(Protocol[_How]):
    """An emulator, as far as it can be made to fail."""

    def fail(
        self,
        call: str,
        how: _How,
        *,
        status: int,
        retry_after: float | None,
        seconds: float,
        applied: bool,
        times: int,
        after: int,
    ) -> object: ...

    def heal(self) -> None: ...


class Called(Protocol):
    """A call of the bot."""

    @property
    def limited(self) -> bool: ...


class Rooms(Protocol):
    """One platform; what cannot be done there raises Impossible with a sentence."""

    name: str

    @property
    def emulator(self) -> Breakable[How]: ...

    @property
    def bot_is_here(self) -> bool: ...

    def channel(self, name: str) -> Room:
        """Return the channel of this name, a new one if need be."""

    def dm(self, person: str) -> Room: ...

    def thread(self, room: Room, message: str, number: int) -> Room:
        """Return the thread of a message, whose number goes into the title."""

    async def say(self, room: Room, person: str, text: str) -> None:
        """Write as the person, with @bot and @NAME as mentions."""

    async def reply(self, message: str, person: str, text: str) -> None:
        """Write as the person in reply to a message."""

    async def ask(self, room: Room, person: str, text: str) -> None:
        """Use the bot's command /ask."""

    async def use(self, room: Room, person: str, command: str, options: Mapping[str, str]) -> None:
        """Use another command of the bot's, such as "parley model", with options by name."""

    async def offered(self, room: Room, person: str, command: str, typed: str) -> list[str]:
        """Return what completes the first option of a command."""

    async def choose(self, message: str, person: str, action: str) -> None:
        """Choose what a message's menu offers of the bot's; the beginning of its name will do."""

    def form(self, person: str) -> str | None:
        """Return what the form says that stands open before a person; None if there is none."""

    async def fill(self, person: str, values: Mapping[str, str]) -> None:
        """Send the open form; what is left out stays as it is."""

    def allow(self, person: str, right: str) -> None:
        """Let a person manage the "channel" or the "server", or neither."""

    def give_role(self, person: str, name: str) -> str:
        """Give a person a role, a new one if need be; return its id."""

    def ids(self, room: Room, person: str) -> Mapping[str, str]:
        """Return the ids of the server, the channel and the person, by what each is called."""

    def elsewhere(self, person: str) -> Room:
        """Return a place of people where the bot is no member."""

    async def home(self, person: str, button: str) -> list[str]:
        """Open the bot's own page, if the platform has one, and return it; or press a button."""

    async def click(self, message: str, person: str, button: str) -> None: ...

    async def edit(self, message: str, text: str) -> None: ...

    async def delete(self, message: str) -> None: ...

    async def stop(self, room: Room, person: str) -> None:
        """Press the platform's own stop button."""

    def sights(self, room: Room, person: str) -> list[Sight]:
        """Return what the person sees, below each message its thread."""

    def signs(self, room: Room) -> list[str]:
        """Return what the platform says of a bot at work."""

    def moments(self, room: Room) -> list[Moment]:
        """Return what happened in the room and in the threads below it, in order."""

    def calls(self, since: float) -> list[Called]:
        """Return the bot's calls since then, in monotonic seconds."""

    def readable(self, text: str) -> str:
        """Return a text with its mentions as people read them."""


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
