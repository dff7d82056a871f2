"""What the core asks of the world."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from bot.domain import Delta, EditBudget, Message, Page, Purpose, Turn


class Model(Protocol):
    """Continues a prompt."""

    @property
    def name(self) -> str:
        """The model's name as the operator knows it."""
        ...

    def stream(self, prompt: Sequence[Message]) -> AsyncGenerator[Delta]:
        """Yield deltas, never empty, until the answer is complete; raise ModelError otherwise.

        A model reads the newest of the prompt that it has room for. A LeftOut says that it read the
        last message without its middle. A Start takes back all deltas before it. AnswerCut is no
        failure: the answer is as long as it may be. Closing the iterator early hangs up on the
        model.
        """
        ...


class Surface(Protocol):
    """Where one reply is shown."""

    @property
    def limit(self) -> int:
        """The most that `measure` may return for the text of one page."""
        ...

    def budget(self, page: Page, *, new: bool) -> EditBudget | None:
        """Return the edit budget that showing this page now draws on; `new` ones are posted.

        None where the write itself sees to its slot: it does not wait for one, and where there is
        none it raises WriteDelayed, after which another way to show the page has another budget.
        """
        ...

    def measure(self, text: str) -> int:
        """Return the size of `text` as the platform counts it, its escaping included."""
        ...

    async def post(self, page: Page) -> str:
        """Show a new page and return its message id; raise SurfaceError when that failed."""
        ...

    async def edit(self, message_id: str, page: Page) -> None:
        """Make the message show this page, whole; raise SurfaceError when that failed.

        A page without text takes the message away: the answer needs fewer pages than an earlier
        try had posted.
        """
        ...


class Platform(Protocol):
    """A place where replies are shown, reached without a gateway."""

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

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the messages, except these, that attempts at a turn may have left behind.

        Among them may be one that another turn of the thread has just posted. Raises SurfaceError.
        """
        ...
