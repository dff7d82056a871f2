"""Where a reply is written in Discord, in the form in which a turn carries it to a worker."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from bot.domain import Json, Place
from bot.errors import PlaceGone


@dataclass(frozen=True, slots=True)
class ChannelAddress:
    """A channel, a DM or a Discord thread.

    The reply quotes the message `question` if there is one. With `opens_thread`, the surface opens
    a thread from the question and writes there.
    """

    channel: int
    question: int | None
    opens_thread: bool

    def to_json(self) -> dict[str, Json]:
        """Return the JSON that `parse_address` reads."""
        question = None if self.question is None else str(self.question)
        channel, opens_thread = str(self.channel), self.opens_thread
        return {"channel": channel, "question": question, "opens_thread": opens_thread}


@dataclass(frozen=True, slots=True)
class ButtonPress:
    """A press of a button on `message`; its token is like that of a command."""

    interaction: int
    token: str
    message: int

    def to_json(self) -> dict[str, Json]:
        """Return what is added to the address of the command that the message answers."""
        interaction, message = str(self.interaction), str(self.message)
        return {"press": {"interaction": interaction, "token": self.token, "message": message}}


@dataclass(frozen=True, slots=True)
class CommandAddress:
    """The original response to a slash command, and the channel of the command.

    `token` acts for the interaction for 15 minutes (Discord's documentation, "Receiving and
    Responding"), so it is kept out of logs. `press` is the last one that regenerated the answer. If
    `channel` is None, nothing but the interaction may write: the answer is `private`, for the asker
    alone, or the bot is no member there. Versions that know no such addresses refuse them, for they
    would write further pages into the channel.
    """

    channel: int | None
    interaction: int
    token: str
    press: ButtonPress | None = None
    private: bool = False

    def to_json(self) -> dict[str, Json]:
        """Return the JSON that `parse_address` reads; a press adds its own."""
        written: dict[str, Json] = {"interaction": str(self.interaction), "token": self.token}
        if self.channel is None:
            return written | {"private": self.private}
        return {"channel": str(self.channel)} | written


def parse_address(place: Place) -> ChannelAddress | CommandAddress:
    """Return the address in a turn; raises PlaceGone if it is not one of Discord's."""
    with suppress(ValueError):
        match place:
            case {"channel": str(channel), "interaction": str(interaction), "token": str(token)}:
                return _pressed(CommandAddress(int(channel), int(interaction), token), place)
            case {"private": bool(private), "interaction": str(interaction), "token": str(token)}:
                return _pressed(
                    CommandAddress(None, int(interaction), token, private=private), place
                )
            case {"channel": str(channel), "question": None, "opens_thread": False}:
                return ChannelAddress(int(channel), None, opens_thread=False)
            case {"channel": str(channel), "question": str(question), "opens_thread": bool(opens)}:
                return ChannelAddress(int(channel), int(question), opens_thread=opens)
    raise PlaceGone("the turn has no address in Discord")


def _pressed(command: CommandAddress, place: Place) -> CommandAddress:
    match place.get("press"):
        case None:
            return command
        case {"interaction": str(pressed), "token": str(token), "message": str(message)}:
            return replace(command, press=ButtonPress(int(pressed), token, int(message)))
    raise ValueError("a press without its interaction")
