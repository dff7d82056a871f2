"""The web page as a platform: replies into streams in any process, HTTP in one with the role."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager

from adapters.live import LiveSurface
from bot.domain import ContextMessage, Purpose, Turn
from bot.store import Store


class WebPlatform:
    """Where replies are shown, in any process; `PageServer` serves the page itself."""

    name = "web"

    def __init__(self, *, store: Store, remembers: bool = True) -> None:
        self._store = store
        self._remembers = remembers

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncGenerator[LiveSurface]:
        """Open the surface of a turn's reply; all purposes share it."""
        surface = LiveSurface(store=self._store, turn=turn, remembers=self._remembers)
        if not purpose.has_ended:
            await surface.begin()
        yield surface

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return nothing: one person alone talks here, and the history has it all."""
        return ()

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return nothing: a page's place in the stream is its number."""
        return ()
