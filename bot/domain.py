"""The frozen values that all rooms share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal
from urllib.parse import quote, unquote

from bot.languages import later, say

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
Place = Mapping[str, Json]
Role = Literal["system", "user", "assistant", "tool"]
# What a call of a tool does, as the operator says. "reads": nothing, so it may be called again.
# "keyed": a second call with the same key has no second effect. "effects": never called again.
ToolKind = Literal["reads", "keyed", "effects"]
# The answer to a question about a call; "late" stands for none in time. "answer" and "done" are for
# a question of the call's server: a form was filled in, a page was visited.
Consent = Literal["allow", "always", "deny", "late", "answer", "done"]
# The ids of such questions begin so; those of calls have no "-".
FORM, LINK = "form-", "link-"
# The answers that a person can choose, with the labels of their buttons.
CONSENT_LABELS: Mapping[Consent, str] = {
    "allow": later("Allow"),
    "always": later("Allow always"),
    "deny": later("Deny"),
}
_QUESTION_LABELS: Mapping[str, Mapping[Consent, str]] = {
    FORM: {"answer": later("Answer"), "deny": later("Deny")},
    LINK: {"done": later("Done"), "deny": later("Deny")},
}
# The names of all buttons, with what a press of one means.
PRESSES: Mapping[str, Consent] = {
    one: one for labels in (CONSENT_LABELS, *_QUESTION_LABELS.values()) for one in labels
}
# How a turn ends: "done" with its answer; "stopped" by a person; "failed" if the model gave no
# complete answer or the platform refused it; "dead" if its attempts are used up or its record
# cannot be read. A repair then posts the apology.
Outcome = Literal["done", "stopped", "failed", "dead"]
Rating = Literal["good", "bad"]
# Which messages the bot answers without a mention, in threads in which it has answered.
Follow = Literal["auto", "all", "mention"]
# The state of an ended reply's answer: "" is complete or was stopped by a person; "cut" reached the
# longest allowed length; "failed" is incomplete; "older" is superseded by the ended reply of a
# later turn in its thread, whatever its own state was.
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
    """What the platform knows of an asker, used to decide whether they may use the bot.

    `direct`: they ask in a direct message. `roles` are the ids of their roles in that server, empty
    if the platform has none or does not report them. `home` is their own server, if it differs.
    `signed_in`: the platform itself admits only people who may use the bot. `operator`: the
    person runs the bot and has no limits.
    """

    direct: bool = False
    roles: tuple[str, ...] = ()
    home: str = ""
    signed_in: bool = False
    operator: bool = False


ANYBODY = Asker()  # nothing is known of the person


@dataclass(frozen=True, slots=True)
class FileRef:
    """Names a file that somebody sent, so that its platform can fetch it, in any process.

    `id` is unique on the platform, and begins with the platform's name. `message` is the id of the
    turn or the ContextMessage to which the file belongs. `size` is in bytes, 0 if the platform does
    not report it. `place` says where the platform finds the file.
    """

    id: str
    message: str
    name: str
    size: int
    place: Place


@dataclass(frozen=True, slots=True)
class ContextMessage:
    """A message that a prompt shows without it being part of the history.

    `id` is the id of the turn that the message asks for, or would ask for. `person` is None for the
    bot itself. `text` is empty if only the id is known. `in_thread` is true if a person, and not
    another bot, wrote it in the thread of the question; it is not stored.
    """

    id: str
    person: Person | None
    text: str
    in_thread: bool = field(default=False, compare=False)
    files: tuple[FileRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """The preferences of a server, a channel or a thread; an empty field or None sets nothing.

    `model` is the name of one of MODELS, and `persona` a text for the system prompt, which may
    have several lines. `temperature` is from 0 to 2, and `max_tokens` the longest answer in tokens.
    `tools` can only be switched off, for all that the place contains. For channels and servers
    only: `people` and `roles` are the ids of those who may ask there (anybody if both are empty);
    the numbers limit one person or the whole server. They do not exceed the limits of the enclosing
    scope unless an operator has `raised` them.
    """

    model: str = ""
    persona: str = ""
    temperature: float | None = None
    max_tokens: int | None = None
    follow: Follow | Literal[""] = ""
    tools: Literal["off", ""] = ""
    people: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    questions_per_day: int | None = None
    tokens_per_day: int | None = None
    server_tokens_per_day: int | None = None
    raised: Literal[True] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, and where it was asked.

    `where` and `zone` are empty if the platform does not report them. `language` is the one in
    which the person is told about it, set by the queue.
    """

    id: str  # the platform and its event's id: an event that is delivered twice is one turn
    key: ThreadKey
    person: Person
    text: str
    # From it the platform opens the surface, in any process. A worker adds the last message of the
    # reply before as `above`, and `refers: true` if the reply must name which question it answers.
    place: Place
    asked_at: float  # seconds since the epoch
    left_out: int = 0  # characters of the question that `text` lacks
    where: str = ""  # the channel and the server as people see them
    zone: str = ""  # the person's IANA time zone
    files: tuple[FileRef, ...] = ()
    quote: ContextMessage | None = None  # the message to which the question replies
    # Earlier messages of others; None if the adapter has not read them, then the worker does.
    context: tuple[ContextMessage, ...] | None = None
    joins: bool = False  # it may be answered together with others of the same person
    preferences: Preferences = Preferences()  # those at the admission, set by the queue
    language: str = field(default="", compare=False)
    once: str = ""  # the model for this question alone, by name; "" for the place's
    instructions: str = ""  # the person's own for all their questions, set by the queue
    asker: Asker = field(default=ANYBODY, compare=False)  # for admission; not stored
    traceparent: str = field(default="", compare=False)  # of its trace; "" if nothing is recorded


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Picture:
    """A picture of a kind that models take; its sides are in pixels."""

    media_type: str
    width: int
    height: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class FileText:
    """What was read of a file.

    A form feed divides the `text` into pages, slides or sheets, as `unit` says, of which the file
    has a `total`. The text of a "picture" says what it shows. `is_cut`: the last part lacks its
    end. `problem` says why there is no text, in a sentence for people with `{names}` for the
    file's. A `picture` of the question is shown as it is.
    """

    name: str
    text: str = ""
    unit: str = ""
    total: int = 1
    is_cut: bool = False
    problem: str = ""
    picture: Picture | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """What a model may call: a name of letters, digits, "_" and "-", at most 64.

    `schema` is the JSON Schema of its arguments, an object.
    """

    name: str
    description: str
    schema: Mapping[str, Json] = field(hash=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model asks for; a delta at the end of its text.

    `arguments` are JSON as the model wrote it. The model's `id` may come twice; what is sent back
    has nine letters and digits, which chat templates of Mistral demand.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a prompt; the `context`, texts of others, and the `files` precede it.

    `calls` are those at the end of an answer. A message of a "tool" has the result of `call`.
    """

    role: Role
    text: str
    context: tuple[str, ...] = ()
    files: tuple[FileText, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    call: ToolCall | None = None

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Those of its files; only the last message has any."""
        return tuple(one.picture for one in self.files if one.picture)


@dataclass(frozen=True, slots=True)
class Start:
    """A delta: the answer starts over; discard all deltas before this one.

    `model` names the model that answers if it is not the configured one; else it is empty.
    """

    model: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A delta: this many characters were cut from the middle of the question."""

    characters: int


@dataclass(frozen=True, slots=True)
class ReadingFiles:
    """A delta: files of these names are fetched and read now; none once that has ended."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FilesRead:
    """A delta: what the model has read of the files of the question."""

    files: tuple[FileText, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Something on the web that an answer may name by its number; its title is a stranger's."""

    number: int
    title: str
    address: str


# Outcomes of calls that more than the loop knows by name. UNKNOWN: it may have been done, or not.
UNKNOWN = later("not known")
WAITS_FOR_CONSENT = later("waits to be allowed")
WAITS_FOR_ANSWER = later("waits for an answer")


@dataclass(frozen=True, slots=True)
class StepNote:
    """One call for people: `what` it is, in a sentence without its end, and its `outcome`.

    The outcome is empty while the tool runs, and else one or two words, such as "done".
    """

    call_id: str
    what: str
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class StepNotes:
    """A delta: all calls of the turn so far, and the sources that they found."""

    notes: tuple[StepNote, ...]
    sources: tuple[Source, ...] = ()

    @property
    def doing(self) -> str:
        """What is done now; empty if nothing is."""
        return next((one.what for one in self.notes if not one.outcome), "")


def choices(call_id: str) -> Mapping[Consent, str]:
    """Return the answers that a person can choose for a call, or for a question of its server."""
    labels = _QUESTION_LABELS.get(call_id[: len(FORM)], CONSENT_LABELS)
    return {one: say(label) for one, label in labels.items()}


@dataclass(frozen=True, slots=True)
class ConsentNeeded:
    """A delta, the last one: a person must allow a call, or answer its server's question.

    `call_id` is that of the call, or of the question. `question` says on one line what is called,
    on which server, with which arguments, or what the server asks. `seconds` is the time that is
    left to answer.
    """

    call_id: str
    question: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Retrying:
    """A delta: the model failed with `error` and will be retried after a pause."""

    error: Exception


@dataclass(frozen=True, slots=True)
class BeginningLeftOut:
    """A delta: this many exchanges were dropped from the beginning of the conversation."""

    exchanges: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A delta: an attempt begins; its prompt has about this many tokens.

    Before the `model` is asked, `is_answered` is False and the number not known. The first text
    comes after another one.
    """

    tokens: int
    model: str = ""
    is_answered: bool = True


@dataclass(frozen=True, slots=True)
class Used:
    """A delta: the tokens that the current attempt has read and written, as the server reports."""

    read: int
    written: int


@dataclass(frozen=True, slots=True)
class ContextUnread:
    """A delta: the messages before the question, which the model should see, cannot be read."""


OfPrompt = LeftOut | BeginningLeftOut | ContextUnread | ReadingFiles | FilesRead
OfTools = ToolCall | StepNotes | ConsentNeeded
Delta = str | Start | OfPrompt | Retrying | Reading | Used | OfTools


@dataclass(frozen=True, slots=True)
class Exchange:
    """A remembered turn; `asked_at` is in seconds since the epoch.

    `quote` is the message to which the question replied, and `context` are the messages of others
    that its prompt showed, oldest first. `files` are those of the question alone. `model` is the
    model that answered.
    """

    turn_id: str
    person: Person
    asked_at: float
    question: str
    answer: str
    quote: ContextMessage | None = None
    context: tuple[ContextMessage, ...] = ()
    model: str = ""
    files: tuple[FileRef, ...] = ()

    @property
    def all_files(self) -> tuple[FileRef, ...]:
        """Those of the question, of what it replied to, and of the context, newest first."""
        shown = (*filter(None, (self.quote,)), *reversed(self.context))
        found = (*self.files, *(file for one in shown for file in one.files))
        return tuple({file.id: file for file in found}.values())


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that a reply brings; its name is not the model's."""

    name: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a reply that fits one platform message.

    `number` counts from 0. A `final` page does not change any more: a surface shows its Stop
    control on other pages only. On the `last` page the reply has ended, and `end` determines the
    controls: regenerate an answer, retry a failed one, continue a cut one, and none below a
    superseded one. `said` is the model's raw text of a page that still grows; `text` is the same
    without unfinished markup, and with a `sign` of life at its end, if there is one. The message
    has the `attachments` and no other files. `consent` is the id of the call that a person is to
    allow: the page has the controls for that instead of Stop. `steps` is the line of the `text`
    that lists the calls of tools, if there is one: a surface that shows them otherwise, as its
    `note_step` was told them, may leave it out. `thought` is for how many seconds the model has
    thought so far, where the surface shows thoughts.
    """

    number: int
    text: str
    final: bool
    said: str = ""
    sign: str = ""
    last: bool = False
    end: End = ""
    attachments: tuple[Attachment, ...] = ()
    consent: str = ""
    steps: str = ""
    thought: int = 0


@dataclass(frozen=True, slots=True)
class Thought:
    """What the model has thought for an answer, which is no part of it, and for how long."""

    text: str = ""
    seconds: int = 0


NO_THOUGHT = Thought()


@dataclass(frozen=True, slots=True)
class Shown:
    """What the pages of a reply show, or will show after the current write.

    `message_ids` has one for each page, and `text` is all that the pages show. It begins with
    `said`, the model's answer, which is empty if there is nothing to remember: the model sent
    no text, a person deleted the reply, or the previous answer was restored. `below` is the footer
    of the answer, and `model` the model that gave it if it is not the configured one. `outcome` is
    empty while the text grows. With an outcome the text is complete and does not change, and `end`
    is the state of the answer. `removed` are messages that the reply itself has deleted, or is
    about to delete. `cut` is the number of a page that ended early, to go on below, and how many
    characters of it were on the screen. `thought` is None where people do not see it, or if it is
    as it was.
    """

    message_ids: tuple[str, ...] = ()
    text: str = ""
    said: str = ""
    below: str = ""
    outcome: Outcome | Literal[""] = ""
    end: End = ""
    model: str = ""
    removed: tuple[str, ...] = ()
    cut: tuple[int, int] | None = None
    thought: Thought | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of the question or the answer of a turn, around a word that was searched for."""

    turn_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a turn, for a screen that redraws it.

    `answer` is the saved text of the model, and `below` the notices under it. While a new answer
    has no text yet, `answer` is the answer that it will replace. `rating` is that of the
    person who asked, and `files` are those of the question. `consent` is the id of a call that
    waits until a person allows it, and `sign` the line that says which one. `thought` is for how
    many seconds the model has thought, if that can be read. `versions` are the ids of all turns in
    its place, itself among them, if there was ever another one; `version_of` is the first of these,
    which may be gone.
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
    files: tuple[FileRef, ...] = ()
    consent: str = ""
    sign: str = ""
    version_of: str = ""
    versions: tuple[str, ...] = ()
    thought: int = 0


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


# How writes become free again. "refills": evenly. "fixed": a window opens with the first write, and
# the next window has all writes again. "slides": no period of that length has more writes, because
# the platform does not report when its window opens.
Shape = Literal["fixed", "slides", "refills"]


@dataclass(frozen=True, slots=True)
class EditBudget:
    """How many writes a platform allows in some seconds, shared by all writers of `bucket`."""

    bucket: str  # unique over all platforms and kinds of writes, e.g. `discord:edit:<channel>`
    writes: int
    seconds: float
    shape: Shape = "fixed"
    for_finals: int = 1  # writes of a window that are for final writes and new messages only
    within: EditBudget | None = None  # each write counts there, too
    own: bool = False  # only one process writes in it, and the store is not asked about it
    # A write after which the message has to be written again reserves one in each of these.
    owes: tuple[EditBudget, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a check of the set-up, with its cure if something is wrong.

    `wrong` marks an error; a cure without it is advice.
    """

    subject: str
    text: str
    cure: str = ""
    wrong: bool = False
