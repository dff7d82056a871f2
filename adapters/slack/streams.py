"""Slack's native streams: a message that grows by appends."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import code_of, translated
from adapters.slack.identity import Identity
from adapters.slack.markup import markdown_block
from bot.domain import EditBudget, Page
from bot.errors import MessageGone, SurfaceError, WriteDelayed, WriteFailed, WriteRefused
from bot.markdown import settled

log = logging.getLogger(__name__)

Blocks = Sequence[dict[str, object]]
Metadata = dict[str, object]

# A stream dies about five minutes after its start, even while it grows (field).
_SECONDS = 240.0
# docs, "Rate limits": tier 2 and tier 4, at least so many a minute for each workspace and app.
_STARTS, _APPENDS, _MINUTE = 20, 100, 60.0
# Codes that mean the app or the workspace, not this place (docs: chat.startStream, "Errors").
_FOR_GOOD = {
    "deprecated_endpoint",
    "feature_not_enabled",
    "method_deprecated",
    "missing_scope",
    "not_allowed_token_type",
    "team_access_not_granted",
    "unknown_method",
}
# The beginning of an entity, which the next delta may finish.
_ENTITY_BEGUN = re.compile(r"&#?\w{0,8}\Z")


@dataclass(frozen=True, slots=True)
class Audience:
    """The thread that a stream stands in, and the person who sees it grow."""

    channel: str
    thread: str
    user: str


class Streams:
    """Begins streams until Slack says that this app may have none; then replies go without."""

    def __init__(self, client: AsyncWebClient, *, identity: Identity) -> None:
        self.possible = True
        self._client = client
        self._team = identity.team

    @property
    def starts(self) -> EditBudget:
        """How often streams may be begun in the workspace."""
        return EditBudget(f"slack:start:{self._team}", _STARTS, _MINUTE, refills=True)

    async def begin(self, audience: Audience, page: Page) -> Stream:
        """Show a page in a stream of its own.

        Raises SurfaceError; WriteRefused where the place, or the app, takes no streams.
        """
        words = streamed(page)
        try:
            async with translated():
                answer = await self._client.chat_startStream(
                    channel=audience.channel,
                    thread_ts=audience.thread,
                    markdown_text=_shown(words) or None,
                    recipient_user_id=audience.user,
                    recipient_team_id=self._team,
                )
        except (MessageGone, WriteDelayed, WriteFailed):
            raise
        except SurfaceError as error:
            if code_of(error) in _FOR_GOOD:
                self.possible = False
            log.info("replies go without a stream: Slack answered %s", code_of(error))
            raise WriteRefused(str(error)) from error
        return Stream(
            self._client,
            team=self._team,
            channel=str(answer["channel"]),
            ts=str(answer["ts"]),
            words=words,
        )

    async def end(self, stream_id: str, *, metadata: Metadata) -> None:
        """End a stream that somebody else began, as it stands; SurfaceError."""
        await _stop(self._client, stream_id, words="", blocks=[], metadata=metadata)


class Stream:
    """One message that grows; where it cannot grow as asked it is over, and can be updated."""

    def __init__(
        self, client: AsyncWebClient, *, team: str, channel: str, ts: str, words: str
    ) -> None:
        self.id = f"{channel}:{ts}"
        self._client = client
        self._team = team
        self._channel = channel
        self._ts = ts
        self._words = words  # of the page, as far as they stand there
        self._ends = asyncio.get_running_loop().time() + _SECONDS

    def budget(self, page: Page) -> EditBudget:
        """Return the budget of the method that shows the page next."""
        if page.final or not self.takes(page):
            return EditBudget(f"slack:stop:{self._team}", _STARTS, _MINUTE, refills=True)
        return EditBudget(f"slack:append:{self._team}", _APPENDS, _MINUTE, refills=True)

    def takes(self, page: Page) -> bool:
        """Whether the page can be shown by adding to what stands there."""
        if not page.text or asyncio.get_running_loop().time() > self._ends:
            return False
        words = streamed(page)
        stands_already = not page.final and self._words.startswith(words)
        return stands_already or words.startswith(self._words)

    async def append(self, page: Page) -> None:
        """Add what is new and will not change its meaning any more; SurfaceError."""
        words = streamed(page)
        if not (more := words[len(self._words) :]):
            return
        async with translated():
            await self._client.chat_appendStream(
                channel=self._channel, ts=self._ts, markdown_text=_shown(more)
            )
        self._words = words

    async def finish(self, page: Page | None, *, blocks: Blocks, metadata: Metadata) -> None:
        """Add what is missing of the page, with blocks below, and end the stream; SurfaceError."""
        more = page.text[len(self._words) :] if page else ""
        await _stop(self._client, self.id, words=_shown(more), blocks=blocks, metadata=metadata)


async def _stop(
    client: AsyncWebClient, stream_id: str, *, words: str, blocks: Blocks, metadata: Metadata
) -> None:
    channel, _, ts = stream_id.rpartition(":")
    async with translated():
        await client.chat_stopStream(
            channel=channel,
            ts=ts,
            markdown_text=words or None,
            blocks=list(blocks) or None,
            metadata=metadata,
        )


def streamed(page: Page) -> str:
    """Return what of a page may stand in a stream: nothing that the next delta may change."""
    if page.final:
        return page.text
    return _ENTITY_BEGUN.sub("", settled(page.said or page.text))


def _shown(words: str) -> str:
    return markdown_block(words)["text"]
