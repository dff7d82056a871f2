"""What the commands do, and what they answer, on any platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bot.domain import Person, ThreadKey
from bot.errors import Refused, StoreUnavailable
from bot.turns.intake import Intake

Scope = Literal["thread", "channel", "server"]
# A form has room for five fields on every platform.
Part = Literal["answers", "access"]

# In the order of help. A platform registers them as `/parley NAME`, with these descriptions.
COMMANDS: Mapping[str, str] = {
    "reset": "Forget this conversation",
    "stop": "End the answer that is running here",
    "quiet": "Answer only mentions and replies in this thread",
    "follow": "Answer everything in this thread",
    "model": "Choose the model that answers",
    "persona": "Choose how I am to answer",
    "settings": "Show and change what is chosen here",
    "usage": "Show what you have used today",
    "forget-me": "Forget everything you have said to me",
    "help": "Show what I can do here",
}
ASK_ABOUT = "Ask about this"  # of a message's menu
SUMMARISE = "Summarise from here"
SUMMARY_QUESTION = (
    "Summarise what was said from the quoted message on: what it is about, what was decided, and"
    " what is open. Say who said what where it matters."
)
FORGET_QUESTION = (
    "Shall I forget everything that you have said to me, and my answers to it, in every place? "
    "I cannot bring it back."
)
FORGET = "Forget everything"  # the button below it


_AWAY = "I cannot do this at the moment. Please try again in a minute."


class NotOffered(Refused):
    """Nothing in this version, or nothing in this place, does what a command asks for."""

    apology = "I cannot do this yet."


class NotAThread(Refused):
    """The command is about a thread, and was called outside of one."""

    apology = "This works in a thread in which I have answered. Please use it there."


class NotYours(Refused):
    """The conversation is one of other people."""

    apology = (
        "Only the person who began this conversation, or somebody who manages the channel, "
        "can do this."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A command: who calls it, where, and what the platform lets this person do there.

    `id` names the event, as a turn's id does. `thread` is the conversation that commands mean
    there, and `in_thread` tells that nothing else is said in its place, so that `stop` means it
    alone. `scopes` are the places for which something can be chosen there, the nearest first, and
    what people call them, such as "this channel". `own_thread`: the person began this conversation
    or is alone in it with the bot.
    """

    id: str
    thread: ThreadKey
    person: Person
    scopes: Mapping[Scope, str]
    roles: tuple[str, ...] = ()
    in_thread: bool = False
    own_thread: bool = False
    manages_messages: bool = False
    manages_channel: bool = False
    manages_server: bool = False


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that does not work in a place: what, and what somebody would have to switch on."""

    without: str  # "I see only messages that mention me"
    cure: str  # "switch on Message Content Intent under Bot at …"


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What help tells of a place: how to ask there, in sentences, and what is missing.

    `written` is how a person writes a command there.
    """

    ways: Sequence[str]
    lacks: Sequence[Lack] = ()
    written: str = "`/parley {name}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One input of a form.

    A `choice` is one of `options`, each with its value and its label; `people` and `roles` are any
    number of ids, up to `most`; a text has up to `most` characters. `value` is what is chosen now,
    one text or several ids.
    """

    name: str
    label: str
    hint: str
    kind: Literal["line", "text", "choice", "people", "roles"]
    value: str | tuple[str, ...] = ""
    options: tuple[tuple[str, str], ...] = ()
    most: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a person can fill in; `seen` is handed back, so that only what they changed changes."""

    title: str
    fields: tuple[Field, ...]
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What is chosen in a place, and the forms that this person may open."""

    text: str
    forms: Sequence[tuple[Scope, Part, str]] = field(default=())  # with the label of a button


class Desk:
    """Carries out commands; each method returns a sentence for the person alone.

    Each raises Refused, whose `apology` is for the person, and StoreUnavailable.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def reset(self, call: Call) -> str:
        """Forget a conversation."""
        _require_thread(call)
        if not (call.own_thread or call.manages_channel or call.manages_server):
            raise NotYours
        await self._intake.reset(call.thread)
        return "I have forgotten this conversation. Your next question begins a new one."

    async def stop(self, call: Call) -> str:
        """End the answers of this person that run there, or any if they manage messages."""
        thread, channel = call.thread, "" if call.in_thread else call.thread.channel
        stopped = False
        if call.manages_messages and call.in_thread:
            stopped = await self._intake.stop_thread(thread)
        if not stopped:
            stopped = await self._intake.stop_own(call.id, thread, call.person, channel=channel)
        return "I stop." if stopped else "No answer of yours is running here."

    async def quiet(self, call: Call) -> str:
        """Answer only mentions and replies in a thread."""
        raise NotOffered

    async def follow(self, call: Call) -> str:
        """Answer everything in a thread."""
        raise NotOffered

    async def choose_model(self, call: Call, name: str, scope: Scope | None = None) -> str:
        """Choose the model that answers, by its name; an empty one takes the choice back.

        Without a scope it is the nearest.
        """
        raise NotOffered

    def models(self, typed: str = "") -> list[tuple[str, str]]:
        """Return the names and labels of the models that match what a person has typed."""
        return []

    async def choose_persona(self, call: Call, text: str, scope: Scope | None = None) -> str:
        """Choose how the bot is to answer; an empty text takes the choice back."""
        raise NotOffered

    async def overview(self, call: Call) -> Overview:
        """Return what is chosen for a place, and which forms this person may open."""
        raise NotOffered

    async def form(self, call: Call, scope: Scope, part: Part) -> Form:
        """Return a form with what is chosen now."""
        raise NotOffered

    async def fill_in(
        self,
        call: Call,
        scope: Scope,
        part: Part,
        values: Mapping[str, str | Sequence[str]],
        *,
        seen: str,
    ) -> str:
        """Store what a person changed in a form, by the names of its fields."""
        raise NotOffered

    async def usage(self, call: Call) -> str:
        """Tell what the person has used, and what is left."""
        raise NotOffered

    async def forget_me(self, call: Call) -> str:
        """Forget the person, who has answered FORGET_QUESTION with yes."""
        raise NotOffered

    async def help(self, call: Call, here: Here) -> str:
        """Tell what works in a place, for whom, and what an admin would have to switch on."""
        parts = ["\n".join(f"- {way}" for way in here.ways)]
        commands = (f"{here.written.format(name=one)} {does}" for one, does in COMMANDS.items())
        parts.append("\n".join(commands))
        if here.lacks:
            lines = [f"- {lack.without}. An admin can {lack.cure}." for lack in here.lacks]
            parts.append("\n".join(["What does not work here:", *lines]))
        return "\n\n".join(parts)


def excuse(error: Refused | StoreUnavailable) -> str:
    """Return what a person is told of a command that was not carried out."""
    return error.apology if isinstance(error, Refused) else _AWAY


def _require_thread(call: Call) -> None:
    if "thread" not in call.scopes:
        raise NotAThread
