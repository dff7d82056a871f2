"""Whether Slack is heard, and a look at what was missed when it was not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.identity import Identity
from adapters.slack.inbound import Inbound
from adapters.slack.listening import Listening
from adapters.slack.missed import missed
from bot.errors import StoreUnavailable

log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds after which nobody waits for an answer any more
# A connection that has gone silent is noticed this much later, and clocks differ a little.
_OVERLAP = 10.0  # seconds
_BEAT_SECONDS = 1.0


class Watch:
    """Keeps the record of when Slack was heard; after an outage, asks Slack what was said."""

    def __init__(
        self, client: AsyncWebClient, *, identity: Identity, listening: Listening, inbound: Inbound
    ) -> None:
        self._client = client
        self._identity = identity
        self._listening = listening
        self._inbound = inbound

    async def keep(self, are_open: Callable[[], bool]) -> None:
        """Watch until cancelled; `are_open` tells whether Slack can be heard now."""
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            if not are_open():
                continue
            try:
                await self._beat()
            except StoreUnavailable as error:
                log.debug("that Slack is heard could not be saved: %s", error)
            except Exception:
                log.exception("what was said while Slack was not heard could not be looked through")

    async def _beat(self) -> None:
        if silence := await self._listening.beat():
            await self._catch_up(silence)
            await self._listening.begin()

    async def _catch_up(self, silence: int) -> None:
        events = await missed(
            self._client,
            places=await self._listening.places(),
            since=time.time() - min(silence + _OVERLAP, PATIENCE),
            bot=self._identity.user,
        )
        log.info("Slack was not heard for %d s; messages found since: %d", silence, len(events))
        for event in events:
            await self._inbound.on_event(event)
