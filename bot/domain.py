"""The frozen values that all rooms share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal
from urllib.parse import quote, unquote

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
Place = Mapping[str, Json]
Role = Literal["system", "user", "assistant"]
# How a turn ends: "done" with its answer; "stopped" by a person; "failed" if the model had no whole
# answer or the platform refused it; and "dead" if it was given up, because its attempts are used up
# or its record cannot be read: a repair writes what people should see of it.
Outcome = Literal["done", "stopped", "failed", "dead"]
Rating = Literal["good", "bad"]
# Which messages the bot answers in a thread in which it has answered, without being called.
Follow = Literal["auto", "all", "mention"]
# How the answer of an ended reply stands: "" is whole, or as far as a person let it come; "cut" has
# the longest length that is allowed; "failed" lacks a whole answer; and "older" is followed by the
# ended reply of another turn in its thread, however it ended itself.
End = Literal["", "cut", "failed", "older"]


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
        """Read back what `str` wrote. Raises ValueError if it is not four parts."""
        platform, workspace, channel, thread = (unquote(part) for part in text.split(":"))
        return cls(platform, workspace, channel, thread)


@dataclass(frozen=True, slots=True)
class Person:
    """A person who asks: an id, and the name that others see.

    The id is unique in `workspace`, or on the whole platform if that is empty. Limits count a
    person across all places in which the id is unique.
    """

    id: str
    name: str
    workspace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """What the platform knows of a person who asks, for the decision whether they may.

    `direct`: they ask in a direct message. `roles` are the ids of their roles in that server, empty
    if the platform has none or does not tell. `home` is their own server, if it is another one.
    `signed_in`: the platform itself admits only people who may use the bot. `operator`: it is the
    person who runs the bot, without any limit.
    """

    direct: bool = False
    roles: tuple[str, ...] = ()
    home: str = ""
    signed_in: bool = False
    operator: bool = False


ANYBODY = Asker()  # somebody of whom nothing is known


@dataclass(frozen=True, slots=True)
class ContextMessage:
    """What somebody said, shown in a prompt without being part of the history.

    `id` is the id of the turn that the message asks for, or would ask for. `person` is None for the
    bot itself. `text` is empty if only the id is known. `in_thread` tells, only when it is read,
    that a person said it in the thread of the question; other bots are no people.
    """

    id: str
    person: Person | None
    text: str
    in_thread: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """What was chosen for a server, a channel or a thread; an empty field or None chooses nothing.

    `model` is the name of one of MODELS, and `persona` a text for the system prompt, of several
    lines perhaps. `temperature` is from 0 to 2, and `max_tokens` the longest answer in tokens.
    Of channels and servers only: `people` and `roles` are ids of those who may ask there, of
    anybody if both are empty; the numbers are limits of one person or of the whole server, which
    do not exceed those of the place around it, unless somebody of the operator has `raised` them.
    """

    model: str = ""
    persona: str = ""
    temperature: float | None = None
    max_tokens: int | None = None
    follow: Follow | Literal[""] = ""
    people: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    questions_per_day: int | None = None
    tokens_per_day: int | None = None
    server_tokens_per_day: int | None = None
    raised: Literal[True] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, and where it was asked.

    `id` begins with the platform and names the event, so that an event that is delivered twice is
    one turn. `place` is a JSON object from which the platform opens the surface, in any process. A
    worker adds to it, as `above`, the last message of the reply before this one in the thread. The
    queue adds a true `refers` if several questions waited there, and the reply has to name its own.
    `asked_at` is in seconds since the epoch. `left_out` counts the characters of the question that
    `text` lacks. `where` names the channel and the server as people see them, and `zone` the
    person's time zone as the IANA database does; both are empty if the platform does not tell.
    `quote` is the message to which the question replies, and `context` what others said before, if
    the adapter has read it; None leaves that to the worker. A turn that `joins` may be answered
    together with others of its person: its place needs no answer of its own. `preferences` are
    those of how to answer, as they were when the turn was admitted; the queue sets them.
    `asker` decides whether it is admitted, and is not stored.
    """

    id: str
    key: ThreadKey
    person: Person
    text: str
    place: Place
    asked_at: float
    left_out: int = 0
    where: str = ""
    zone: str = ""
    quote: ContextMessage | None = None
    context: tuple[ContextMessage, ...] | None = None
    joins: bool = False
    preferences: Preferences = Preferences()
    asker: Asker = field(default=ANYBODY, compare=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt; `context` has a text for each message of others that precedes it."""

    role: Role
    text: str
    context: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Start:
    """A delta: the answer starts over, and all deltas before this one are void.

    `model` names the model that answers if it is not the configured one; else it is empty.
    """

    model: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A delta: the model reads the question without this many characters of its middle."""

    characters: int


@dataclass(frozen=True, slots=True)
class Retrying:
    """A delta: the model failed with `error`, and is asked again after a pause of some seconds."""

    error: Exception


@dataclass(frozen=True, slots=True)
class BeginningLeftOut:
    """A delta: the model reads the talk without so many exchanges at its beginning."""

    exchanges: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A delta: an attempt of a model begins, which reads about so many tokens."""

    tokens: int


@dataclass(frozen=True, slots=True)
class Used:
    """A delta: what the attempt under way has read and written in tokens, by its server's count."""

    read: int
    written: int


Delta = str | Start | LeftOut | BeginningLeftOut | Retrying | Reading | Used


@dataclass(frozen=True, slots=True)
class Exchange:
    """A remembered turn; `asked_at` is in seconds since the epoch.

    `quote` is the message to which the question replied, and `context` are the messages of others
    that its prompt showed, oldest first. `model` is the model that answered, empty in records of
    older versions.
    """

    turn_id: str
    person: Person
    asked_at: float
    question: str
    answer: str
    quote: ContextMessage | None = None
    context: tuple[ContextMessage, ...] = ()
    model: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a reply that fits one platform message.

    `number` counts from 0. A `final` page does not change any more: a surface shows its Stop
    control on other pages only. On the `last` page the reply has ended, and `end` says what a
    surface may offer: to write the answer anew, to try a failed one again, and to continue one that
    was cut; none of that below an older one. `said` is the model's raw text of a page that still
    grows, whose `text` shows it without unfinished markup.
    """

    number: int
    text: str
    final: bool
    said: str = ""
    last: bool = False
    end: End = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What the pages of a reply show, or will show after the write under way.

    `message_ids` has one for each page, and `text` is all that the pages show. It begins with
    `said`, the model's answer, which is empty if there is nothing to remember: the model said
    nothing, a person deleted the reply, or the previous answer was restored. `below` is the footer
    of the answer, and `model` the one that gave it if it is not the configured one. `outcome` is
    empty while the text grows. With an outcome the text is whole and does not change, and `end`
    says how the answer stands. `removed` are messages that the reply itself has deleted, or is
    about to delete.
    """

    message_ids: tuple[str, ...] = ()
    text: str = ""
    said: str = ""
    below: str = ""
    outcome: Outcome | Literal[""] = ""
    end: End = ""
    model: str = ""
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How a turn stands, for a screen that shows it anew.

    `answer` is the text of the model as far as it was saved, and `below` the notices under it.
    While a new answer has no word yet, it is the one that it will replace. `rating` is that of the
    person who asked.
    """

    turn_id: str
    question: str
    asked_at: float
    state: Literal["waiting", "running"] | Outcome
    answer: str = ""
    below: str = ""
    model: str = ""
    end: End = ""
    rating: Rating | Literal[""] = ""


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
    """How many writes a platform allows in some seconds, shared by all writers of `bucket`.

    `bucket` is unique over all platforms and kinds of writes, e.g. `discord:edit:<channel>`. If it
    `refills`, writes become free evenly. Else a window opens with the first write, and the next
    window has all writes again. If the platform does not tell when its window opens, the bucket
    `slides`: no period of that length has more writes. Some writes of a window are `kept` for final
    writes and new messages. Each write also counts in the bucket `within` which this one is. If
    only one process writes in the bucket, it is `own`, and the store is not asked about it.
    """

    bucket: str
    writes: int
    seconds: float
    refills: bool
    slides: bool = False
    kept: int = 1
    within: EditBudget | None = None
    own: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check of the set-up found, in one sentence, with its cure if something is wrong.

    With `wrong` something would not work; a cure alone is advice.
    """

    subject: str
    text: str
    cure: str = ""
    wrong: bool = False
