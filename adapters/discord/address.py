"""Where a reply goes in Discord, as a turn carries it from the gateway to a worker."""

from __future__ import annotations

from dataclasses import dataclass

from bot.domain import Json, Place
from bot.errors import PlaceGone


@dataclass(frozen=True, slots=True)
class ChannelPlace:
    """A channel, a DM or a Discord thread.

    `question` is the message that the reply stands under, None where it simply comes next.
    `opens_thread` asks the surface to open a thread from the question and to write there.
    """

    channel: int
    question: int | None
    opens_thread: bool

    def written(self) -> dict[str, Json]:
        """Return the JSON that `read_place` understands."""
        question = None if self.question is None else str(self.question)
        return {
            "channel": str(self.channel),
            "question": question,
            "opens_thread": self.opens_thread,
        }


@dataclass(frozen=True, slots=True)
class Press:
    """A press of a button on `message`, with a token as that of a command."""

    interaction: int
    token: str
    message: int

    def written(self) -> dict[str, Json]:
        """Return what it adds to the place of the command that the message answers."""
        of_it: dict[str, Json] = {
            "interaction": str(self.interaction),
            "token": self.token,
            "message": str(self.message),
        }
        return {"press": of_it}


@dataclass(frozen=True, slots=True)
class CommandPlace:
    """The original response to a slash command, and the channel in which it was given.

    `token` speaks for the interaction for 15 minutes (Discord's documentation, "Receiving and
    Responding"), so it is kept out of logs. `press` is the last one that had the answer written
    anew.
    """

    channel: int
    interaction: int
    token: str
    press: Press | None = None

    def written(self) -> dict[str, Json]:
        """Return the JSON that `read_place` understands."""
        return {
            "channel": str(self.channel),
            "interaction": str(self.interaction),
            "token": self.token,
        } | (self.press.written() if self.press else {})


def read_place(place: Place) -> ChannelPlace | CommandPlace:
    """Read back what `written` wrote; PlaceGone when it was something else."""
    try:
        return _read(place)
    except ValueError as error:
        raise PlaceGone("the turn's place is none of Discord's") from error


def _read(place: Place) -> ChannelPlace | CommandPlace:
    match place:
        case {"channel": str(channel), "interaction": str(interaction), "token": str(token)}:
            return CommandPlace(int(channel), int(interaction), token, _press(place.get("press")))
        case {"channel": str(channel), "question": None, "opens_thread": False}:
            return ChannelPlace(int(channel), None, opens_thread=False)
        case {"channel": str(channel), "question": str(question), "opens_thread": bool(opens)}:
            return ChannelPlace(int(channel), int(question), opens_thread=opens)
        case _:
            raise ValueError(sorted(place))


def _press(written: Json) -> Press | None:
    match written:
        case None:
            return None
        case {"interaction": str(interaction), "token": str(token), "message": str(message)}:
            return Press(int(interaction), token, int(message))
        case _:
            raise ValueError("a press")
