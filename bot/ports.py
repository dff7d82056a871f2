"""The interfaces of models and platforms, and the downtime of a platform."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from bot.domain import (
    ContextMessage,
    Delta,
    EditBudget,
    FileRef,
    Message,
    Page,
    Preferences,
    Purpose,
    StepNotes,
    ThreadKey,
    Tool,
    Turn,
)
from bot.errors import SurfaceError

# Gets what a model thinks before it answers, piece by piece. None comes as each request begins:
# what was thought for one that failed is void.
OnThought = Callable[[str | None], None]


class Model(Protocol):
    """Continues a prompt."""

    @property
    def name(self) -> str:
        """The model's name as the operator knows it."""

    def chosen(self, preferences: Preferences) -> Model:
        """Return the model for these preferences; itself if they are empty.

        If the preferred model is gone, another one answers, and a Start names it.
        """

    async def sees(self) -> bool:
        """Whether pictures of a question are seen, as far as it is reported."""

    async def takes_tools(self) -> bool | None:
        """Whether the model takes tools; None if only a request with tools can tell."""

    def stream(
        self,
        prompt: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        on_thought: OnThought | None = None,
    ) -> AsyncGenerator[Delta]:
        """Yield deltas, none of them empty, until the answer is complete. Raises ModelError.

        The model reads as much of the end of the prompt as fits into its context; a FilesRead says
        what of the files of the last question. What follows that are rounds of the model's calls
        and their results, which are cut to their share. The answer ends with the ToolCalls that the
        model asks for, if any; it may have no text then. A model that takes no tools answers
        without. AnswerCut is no failure: the answer reached the
        longest allowed length. Closing the iterator early closes the connection.
        """


class Surface(Protocol):
    """Shows one reply on a platform."""

    @property
    def limit(self) -> int:
        """The most that `measure` may return for the text of one page."""

    @property
    def shows_work(self) -> bool:
        """Whether the platform shows that the bot is working before there is a message."""

    @property
    def shows_thoughts(self) -> bool:
        """Whether people can read there what the model has thought."""

    @property
    def has_buttons(self) -> bool:
        """Whether a reply has buttons, which go when another reply follows it."""

    def note_step(self, steps: StepNotes) -> bool:
        """Show by the platform's own sign what is done now (`doing`), such as "Searching the web".

        `steps` are all calls of the turn so far. False if the sign does not say it, or the reply
        has something to change, too: then it is written.
        """

    def budget(self, page: Page, *, new: bool) -> EditBudget | None:
        """Return the edit budget that writing this page uses; a `new` page is posted.

        None if the write takes its slot itself. Such a write does not wait: without a free slot it
        raises WriteDelayed, and this method then returns the budget of another kind of write.
        """

    def measure(self, text: str) -> int:
        """Return the size of `text` as the platform counts it, after escaping."""

    def shows_whole(self, table: str) -> bool:
        """Whether the platform shows a table, in Markdown, as wide as it is."""

    async def post(self, page: Page) -> str:
        """Post a new page and return its message id. Raises SurfaceError.

        Without its attachments, if the platform refuses them.
        """

    async def edit(self, message_id: str, page: Page) -> None:
        """Replace the content of a message with this page. Raises SurfaceError.

        A page without text deletes the message: the answer has fewer pages than an earlier attempt
        has posted.
        """


class PartlyRead(SurfaceError):
    """Only some of the messages before a question could be read: these."""

    def __init__(self, found: Sequence[ContextMessage]) -> None:
        super().__init__("only a part could be read")
        self.found = found


@dataclass(frozen=True, slots=True)
class Earlier:
    """Messages of one place, oldest first, each behind the time at which it was written.

    Times are in seconds since the epoch. What was written before `unread_before` is not among them;
    that is 0 if there is nothing. `has_gap`: nor are some that came after the last of them.
    """

    messages: Sequence[tuple[float, ContextMessage]]
    unread_before: float = 0.0
    has_gap: bool = False


# Reads at most so many messages that were written before a time, by one request. Raises
# SurfaceError.
ReadEarlier = Callable[[float, int], Awaitable[Earlier]]


class Platform(Protocol):
    """A platform on which replies are shown; a worker needs no gateway for it."""

    @property
    def name(self) -> str:
        """The platform's name in thread keys."""

    def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AbstractAsyncContextManager[Surface]:
        """Open the surface of a turn's reply.

        While it is open, the platform shows that the bot is working, unless the reply has ended.
        Entering raises PlaceGone if the bot cannot write there, WriteDelayed if the platform asks
        to wait, and WriteFailed if the platform cannot be reached.
        """

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return the messages before a question in its channel or thread, oldest first.

        At most `most` messages: those after the turn `since`, or the last ones if it is empty, with
        the one with which the thread begins. The message that the question replies to is added if
        only its id is known. One request, or none if the question begins the conversation or is in
        a direct message. Raises SurfaceError; PartlyRead with the first of too many.
        """

    def earlier(self, turn: Turn) -> ReadEarlier | None:
        """Return what reads the channel or thread of a question, before it, and no other place.

        None if there is no more than its history, as in a direct message, or if its person may not
        read what was said there.
        """

    def fetch_file(self, file: FileRef) -> AsyncGenerator[bytes]:
        """Yield the bytes of a file, from the platform's own hosts only.

        Raises MessageGone if it is no longer there, PlaceGone or WriteRefused if it may not be
        read, and WriteDelayed or WriteFailed if a later attempt may succeed. Files of strangers may
        have any size: close the iterator early.
        """

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the messages, except these, that attempts at a turn may have left behind.

        Among them may be one that another turn of the thread has just posted. An excluded message
        is returned, too, if it still has a Stop button, which no ended reply has. Raises
        SurfaceError.
        """


class Untitled(Protocol):
    """The conversations of a platform for which the model is to write a title, once.

    Every method raises StoreUnavailable.
    """

    async def claim(self) -> ThreadKey | None:
        """Claim a conversation for a minute, and return it; None if none is due."""

    async def put_off(self, thread: ThreadKey, *, seconds: float) -> bool:
        """Give a conversation back, to be claimed later; False if it wants no title any more."""

    async def entitle(self, thread: ThreadKey, title: str) -> bool:
        """End its wish, and show the title unless that is empty.

        Changes nothing and returns False if a person has chosen a title since, or has deleted it.
        """


class Downtime:
    """Measures how long a platform has had no open connection; infinite before the first."""

    def __init__(self) -> None:
        self._is_open = False
        self._last_open = -math.inf  # by the monotonic clock

    def note(self, *, is_open: bool) -> None:
        """Record that a connection has opened, or that none is left."""
        if self._is_open:
            self._last_open = time.monotonic()
        self._is_open = is_open

    def seconds(self) -> float:
        """Return the seconds since a connection was open: 0 while one is."""
        return 0.0 if self._is_open else time.monotonic() - self._last_open
