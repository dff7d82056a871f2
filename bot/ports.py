"""What the core needs from models and platforms, and how these tell their downtime."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from bot.domain import (
    ContextMessage,
    Delta,
    EditBudget,
    Message,
    Page,
    Preferences,
    Purpose,
    Turn,
)


class Model(Protocol):
    """Continues a prompt."""

    @property
    def name(self) -> str:
        """The model's name as the operator knows it."""
        ...

    def chosen(self, preferences: Preferences) -> Model:
        """Return the model that answers by these preferences; itself if they choose nothing.

        If the model that they name is gone, another one answers, and a Start names it.
        """
        ...

    def stream(self, prompt: Sequence[Message]) -> AsyncGenerator[Delta]:
        """Yield deltas, none of them empty, until the answer is complete. Raises ModelError.

        The model reads as much of the end of the prompt as its context has room for. AnswerCut is
        no failure: the answer has the longest length that is allowed. Closing the iterator early
        closes the connection.
        """
        ...


class Surface(Protocol):
    """The place of one reply on a platform."""

    @property
    def limit(self) -> int:
        """The most that `measure` may return for the text of one page."""
        ...

    @property
    def shows_work(self) -> bool:
        """Whether people see that the bot is working before there is a message."""
        ...

    def budget(self, page: Page, *, new: bool) -> EditBudget | None:
        """Return the edit budget that writing this page uses; a `new` page is posted.

        None if the write gets its slot itself. Such a write does not wait: if there is no slot, it
        raises WriteDelayed, and after that this method returns the budget of another way to write.
        """
        ...

    def measure(self, text: str) -> int:
        """Return the size of `text` as the platform counts it, after escaping."""
        ...

    async def post(self, page: Page) -> str:
        """Post a new page and return its message id. Raises SurfaceError."""
        ...

    async def edit(self, message_id: str, page: Page) -> None:
        """Replace what a message shows by this page. Raises SurfaceError.

        A page without text deletes the message: the answer needs fewer pages than an earlier
        attempt has posted.
        """
        ...


class Platform(Protocol):
    """A platform on which replies are shown; a worker needs no gateway for it."""

    @property
    def name(self) -> str:
        """The platform's name in thread keys."""
        ...

    def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AbstractAsyncContextManager[Surface]:
        """Open the surface of a turn's reply.

        While it is open, the platform shows that the bot is working, unless the reply has ended.
        Entering raises PlaceGone if nothing can be written there, WriteDelayed if the platform asks
        to wait, and WriteFailed if it could not be reached.
        """
        ...

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return what was said in the place of a question before it, oldest first.

        That is at most `most` messages, behind that of the turn `since` or the last ones if it is
        empty, and the message that the question replies to if only its id is known. One request, or
        none if the question begins the talk or is in a direct message. Raises SurfaceError.
        """
        ...

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the messages, except these, that attempts at a turn may have left behind.

        Among them may be one that another turn of the thread has just posted. One of these is
        returned, too, if it has a button to stop, which no reply has after its end. Raises
        SurfaceError.
        """
        ...


class Downtime:
    """For how long no connection of one platform was open; infinite until the first one opens."""

    def __init__(self) -> None:
        self._is_open = False
        self._last_open = -math.inf  # by the monotonic clock

    def note(self, *, is_open: bool) -> None:
        """Note that a connection has opened, or that none is left."""
        if self._is_open:
            self._last_open = time.monotonic()
        self._is_open = is_open

    def seconds(self) -> float:
        """Return the seconds since a connection was open: 0 while one is."""
        return 0.0 if self._is_open else time.monotonic() - self._last_open
