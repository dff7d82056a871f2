"""All tools that are set up, for one question at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bot.domain import Turn
from bot.tools.toolset import Asked, Offered, ToolSource

log = logging.getLogger(__name__)

_OFFER_SECONDS = 2.0  # a person waits; a server that is away offers nothing


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of all `sources`, of which the first with a name is offered.

    `is_always_allowed` tells whether the person of a turn has allowed a tool for always, and
    `consent_seconds` how long a call waits for an answer.
    """

    sources: Sequence[ToolSource]
    is_always_allowed: Callable[[Turn, Offered], Awaitable[bool]]
    consent_seconds: float

    async def offered(self, asked: Asked) -> list[Offered]:
        """Return the tools for a question; none where people have switched them off."""
        if asked.turn.preferences.tools == "off":
            return []
        found = await asyncio.gather(*(self._offered(source, asked) for source in self.sources))
        named = {one.tool.name: one for tools in reversed(found) for one in reversed(tools)}
        return list(reversed(named.values()))

    async def _offered(self, source: ToolSource, asked: Asked) -> Sequence[Offered]:
        try:
            async with asyncio.timeout(_OFFER_SECONDS):
                return await source.offered(asked)
        except Exception as error:
            why = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
            log.warning("%s offers no tools: %s", type(source).__name__, why)
            return ()
