"""The web page as a platform: replies into streams in any process, HTTP in one with the role."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager

from adapters.live import LiveSurface
from bot.domain import ContextMessage, Purpose, Turn
from bot.store import Store


class WebPlatform:
    """Writes replies to streams in any process; `Pages` serves the page."""

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
        """Return nothing: a conversation has one person, and its history is complete."""
        return ()

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return nothing: page ids are page numbers, so none can be orphaned."""
        return ()
