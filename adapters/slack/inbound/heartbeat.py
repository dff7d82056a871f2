"""Whether Slack is heard, and a look at what was missed when it was not."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.identity import Identity
from adapters.slack.inbound.catch_up import Event, Search
from adapters.slack.inbound.events import Inbound
from adapters.slack.inbound.outage import Listening
from adapters.slack.reply.streams import Budgets
from bot.errors import StoreUnavailable

log = logging.getLogger(__name__)

_BEAT_SECONDS = 1.0
_KEPT = 100  # events that wait in memory; of those beyond Slack tells again


class Watch:
    """Keeps the record of when Slack was heard; after an outage, asks Slack what was said.

    That we hear Slack is not saved before all that was missed is read and admitted, and what could
    not be stored.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        *,
        identity: Identity,
        budgets: Budgets,
        listening: Listening,
        inbound: Inbound,
    ) -> None:
        self._client = client
        self._identity = identity
        self._budgets = budgets
        self._listening = listening
        self._inbound = inbound
        self._search: Search | None = None
        self._found: deque[Event] = deque()

    async def keep(self, are_open: Callable[[], bool]) -> None:
        """Watch until cancelled; `are_open` tells whether Slack can be heard now."""
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            if not are_open():
                # What is said now is missed, too, and places that were read already may have more.
                self._search = None
                continue
            try:
                await self._beat()
            except StoreUnavailable as error:
                log.debug("that Slack is heard could not be saved: %s", error)
            except Exception:
                log.exception("what was said while Slack was not heard could not be looked through")

    async def on_event(self, event: Event) -> None:
        """Take an event; one that cannot be stored raises, and is tried again at each beat.

        Slack tells it again, too, but only to one process, which may have the same trouble, and
        only three times.
        """
        try:
            await self._inbound.on_event(event)
        except StoreUnavailable:
            if event not in self._found and len(self._found) < _KEPT:
                self._found.append(event)
            raise

    async def _beat(self) -> None:
        await self._admit()
        silence = await self._listening.beat()
        if not silence:
            self._search = None
            return
        search = self._search = self._search or await self._new_search(silence)
        self._found.extend(await search.look())
        await self._admit()
        if search.is_over:
            await self._listening.begin()
            self._search = None

    async def _new_search(self, silence: int) -> Search:
        log.info("Slack was not heard for %d s: what was said meanwhile is looked for", silence)
        return Search(
            self._client,
            identity=self._identity,
            budgets=self._budgets,
            places=await self._listening.places(),
            seconds=silence,
        )

    async def _admit(self) -> None:
        while self._found:
            try:
                await self._inbound.on_event(self._found[0])
            except StoreUnavailable:
                raise
            except Exception:
                log.exception("what was said while Slack was not heard could not be handled")
            self._found.popleft()
