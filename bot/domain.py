"""The frozen values that everybody passes around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal
from urllib.parse import quote, unquote

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
Place = Mapping[str, Json]
Role = Literal["system", "user", "assistant"]
Outcome = Literal["done", "stopped", "failed", "dead"]


@dataclass(frozen=True, slots=True)
class ThreadKey:
    """Names one conversation; `str(key)` and `ThreadKey.parse` are its only written form."""

    platform: str
    workspace: str
    channel: str
    thread: str

    def __str__(self) -> str:
        parts = (self.platform, self.workspace, self.channel, self.thread)
        # JSON may bring half a surrogate pair, which cannot be encoded.
        return ":".join(quote(part, safe="", errors="replace") for part in parts)

    @classmethod
    def parse(cls, text: str) -> ThreadKey:
        """Read back what `str` wrote; ValueError when it was not four parts."""
        platform, workspace, channel, thread = (unquote(part) for part in text.split(":"))
        return cls(platform, workspace, channel, thread)


@dataclass(frozen=True, slots=True)
class Person:
    """Who speaks: an id, and the name that others see.

    The id is unique within `workspace`; on the whole platform if that is empty. Limits count a
    person wherever the id names the same one.
    """

    id: str
    name: str
    workspace: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a person just said, and where.

    `id` names what the person did, so that the same event delivered twice is the same turn; it
    begins with the platform. `place` is the JSON object from which the platform's surface finds its
    way back, in another process too. `asked_at` is in seconds since the epoch. `left_out` counts
    the characters of what the person said that `text` is without.
    """

    id: str
    key: ThreadKey
    person: Person
    text: str
    place: Place
    asked_at: float
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """One line of a history or of a prompt."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Start:
    """Among deltas: the answer begins here from its first word, whatever came before.

    `model` names who gives it where that is not the chosen one; else it is empty.
    """

    model: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Among deltas: the model has read the question without so many characters of its middle."""

    characters: int


# What a model says while it answers: text, and what a person has to know of it.
Delta = str | Start | LeftOut


@dataclass(frozen=True, slots=True)
class Exchange:
    """A remembered turn; `asked_at` is in seconds since the epoch."""

    turn_id: str
    person: Person
    asked_at: float
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a reply that fits one platform message.

    `number` counts from 0. `final` says that this page will not change any more: a surface shows
    its Stop control only on a page that is not final. `last` says that the reply has ended here: a
    surface may offer to write it anew. `said` is what the model has said of a page that still
    grows, whose `text` shows it with nothing half written.
    """

    number: int
    text: str
    final: bool
    said: str = ""
    last: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """What of a reply stands on its pages, or will when the write under way is through.

    `pages` are its message ids, and `text` is all that stands there. It begins with what the model
    `said`, which is empty when there is nothing to remember: not a word came, a person deleted it,
    or the former answer is back. `below` is what a person has to know of the answer at its end.
    `outcome` is empty as long as the text grows: with one it is whole, and stays so.
    """

    pages: tuple[str, ...] = ()
    text: str = ""
    said: str = ""
    below: str = ""
    outcome: Outcome | Literal[""] = ""


class Purpose(Enum):
    """Why the surface of a reply is opened."""

    ANSWER = auto()  # write the reply; nothing of it was posted yet
    RESUME = auto()  # write the reply; an earlier attempt may have posted pages that were not saved
    RESTORE = auto()  # correct or delete messages of a reply that has ended
    APOLOGIZE = auto()  # post the missing apology of a reply that has ended

    @property
    def recovers(self) -> bool:
        """Whether the surface must look for messages that an earlier attempt did not save."""
        return self in (Purpose.RESUME, Purpose.APOLOGIZE)

    @property
    def has_ended(self) -> bool:
        """Whether the reply has ended. Then the surface shows no sign of work."""
        return self in (Purpose.RESTORE, Purpose.APOLOGIZE)


@dataclass(frozen=True, slots=True)
class EditBudget:
    """How many writes a platform allows in so many seconds, shared by all who write into `bucket`.

    `bucket` is unique over all platforms and kinds of writes, e.g. `discord:edit:<channel>`. One
    that `refills` gets its writes back evenly; else a window opens with the first write, and the
    next one has all of them again; where it is not told when that was, it `slides`, and no time of
    that length sees more. So many writes of a window are `kept` for what people wait for
    most, ends and new messages. Each write into a bucket that is `within` another counts there too.
    """

    bucket: str
    writes: int
    seconds: float
    refills: bool
    slides: bool = False
    kept: int = 1
    within: EditBudget | None = None
