"""All tools that are set up, for one question at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain

from bot.languages import later
from bot.ports import Model
from bot.tools.toolset import Asked, IsAllowed, Listed, Offered, ToolSource
from config.settings import Settings

log = logging.getLogger(__name__)

_OWN = {
    "read_earlier_messages": later("reads what you and I have said here before"),
    "read_channel_messages": later("reads what others have written here, where you may read it"),
    "read_file": later("reads on in a file that you have sent"),
    "open_link": later("opens a link that you have written"),
}
_MARGIN = 1.0  # seconds beyond a question's patience; a server that is away offers nothing


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of all `sources`, of which the first with a name is offered.

    They are offered to models that take tools. If `is_tried`, that includes those of which nobody
    knows it. `is_always_allowed` tells whether the person of a turn has allowed a tool for always,
    and `consent_seconds` how long a call waits for an answer.
    """

    sources: Sequence[ToolSource]
    is_always_allowed: IsAllowed
    consent_seconds: float
    is_tried: bool = True

    async def offered(self, asked: Asked, model: Model) -> list[Offered]:
        """Return the tools for a question; none where people have switched them off."""
        if asked.turn.preferences.tools == "off":
            return []
        takes = await model.takes_tools()
        if takes is False or (takes is None and not self.is_tried):
            return []
        found = await asyncio.gather(*(self._offered(source, asked) for source in self.sources))
        named = dict[str, Offered]()
        for one in chain.from_iterable(found):
            named.setdefault(one.tool.name, one)
        return list(named.values())

    async def _offered(self, source: ToolSource, asked: Asked) -> Sequence[Offered]:
        try:
            async with asyncio.timeout(asked.patience + _MARGIN):
                return await source.offered(asked)
        except Exception as error:
            why = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
            log.warning("%s offers no tools: %s", type(source).__name__, why)
            return ()


@asynccontextmanager
async def open_sources(settings: Settings) -> AsyncIterator[Sequence[ToolSource]]:
    """Open the sources that need no conversation: our own first, then MCP servers.

    Raises CannotStart.
    """
    # What they need is loaded only where a model may call tools.
    from bot.tools.file_pages import FilePages
    from bot.tools.link import LinkOpener
    from bot.tools.mcp_servers import mcp_source
    from bot.tools.web_search import web_search

    async with mcp_source(settings) as servers:
        found = FilePages(), LinkOpener(), web_search(settings), servers
        yield [one for one in found if one]


def listed(settings: Settings) -> list[Listed]:
    """Return what people read of the tools that are set up."""
    if settings.tools is False:
        return []
    found = [Listed(name=name, does=does) for name, does in _OWN.items()]
    if settings.search_url or settings.search_key:
        found.append(Listed(name="search_web", does="searches the web"))
    return [
        *found,
        *(
            Listed(name=f"{it.name}/{name}", kind=kind, places=frozenset(it.places))
            for it in settings.tool_servers
            for name, kind in it.tools.items()
        ),
    ]
