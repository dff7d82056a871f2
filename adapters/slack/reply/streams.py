"""Slack's native streams: a message that grows by appends."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.directory import Identity
from adapters.slack.errors import NotSlack, code_of, translated
from adapters.slack.markup import markdown_block, without_partial_entity
from adapters.slack.refusals import Refusals, refuses_app
from adapters.slack.workspace import Budgets
from bot.domain import EditBudget, Page
from bot.errors import PlaceGone, SurfaceError, WriteDelayed, WriteFailed, WriteRefused
from bot.text.markdown import settled

log = logging.getLogger(__name__)

Blocks = Sequence[dict[str, object]]
Metadata = dict[str, object]

# docs, "Rate limits": tier 2 and tier 4, at least so many a minute for each workspace and app.
_STARTS, _APPENDS, _MINUTE = 20, 100, 60.0
# A start that would wait for longer is worth a post.
_PATIENCE = 0.5  # seconds
# The reader's workspace lets the app not in (docs: chat.startStream, "Errors").
_TEAM_CODE = "team_access_not_granted"
# docs: chat.appendStream and chat.stopStream, "Errors".
_OVER = {"message_not_in_streaming_state", "stopped_by_user"}


@dataclass(frozen=True, slots=True)
class Audience:
    """The thread that a stream stands in, and the person who sees it grow, of that team."""

    channel: str
    thread: str
    user: str
    team: str


class Streams:
    """Begins streams, unless Slack has refused them lately: to this app, or to a reader's team.

    Then replies go without. While there is no slot for one, for Slack wants none or so many were
    begun, they go without too.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        *,
        identity: Identity,
        budgets: Budgets,
        refusals: Refusals,
        stream_seconds: float,
    ) -> None:
        self._client = client
        self._team = identity.team
        self._budgets = budgets
        self._starts = EditBudget(f"slack:start:{self._team}", _STARTS, _MINUTE, refills=True)
        self._refusals = refusals
        self._stream_seconds = stream_seconds
        self._possible_at = -math.inf  # loop time before which there is no slot

    def possible(self, audience: Audience) -> bool:
        """Whether one may be begun now."""
        if self._refusals.cover(audience.team):
            return False
        return asyncio.get_running_loop().time() >= self._possible_at

    async def begin(self, audience: Audience, page: Page) -> Stream:
        """Show a page in a stream of its own.

        Raises WriteRefused where the place, or the app, takes no streams, WriteDelayed where none
        may be begun now, by any process, and WriteFailed.
        """
        await self._take_slot()
        try:
            async with _translated():
                answer = await self._client.chat_startStream(
                    channel=audience.channel,
                    thread_ts=audience.thread,
                    markdown_text=streamed(page) or None,
                    recipient_user_id=audience.user,
                    recipient_team_id=audience.team,
                )
        except WriteDelayed as error:
            await self._budgets.pause(self._starts, error.retry_after)
            self._possible_at = asyncio.get_running_loop().time() + error.retry_after
            raise
        except SurfaceError as error:
            if isinstance(error, WriteFailed) and not isinstance(error, NotSlack):
                raise
            self._note(error, audience)
            raise WriteRefused(str(error)) from error
        return Stream(
            self._client,
            team=self._team,
            channel=str(answer["channel"]),
            ts=str(answer["ts"]),
            page=page,
            seconds=self._stream_seconds,
        )

    def _note(self, error: SurfaceError, audience: Audience) -> None:
        if refuses_app(error):
            self._refusals.add()
        elif code_of(error) == _TEAM_CODE:
            self._refusals.add(audience.team)
        log.info(
            "A reply in %s to a person of %s goes without a stream: %s",
            audience.channel,
            audience.team,
            error,
        )

    async def _take_slot(self) -> None:
        now = asyncio.get_running_loop().time()
        try:
            await self._budgets.final(self._starts, deadline=now + _PATIENCE)
        except WriteDelayed as error:
            # Unless Slack wants none begun, the next slot comes soon.
            self._possible_at = now + min(error.retry_after, _MINUTE / _STARTS)
            raise

    async def end(self, stream_id: str, *, metadata: Metadata | None = None) -> None:
        """End a stream as it stands, whoever began it, if it is not over; SurfaceError.

        The update that follows brings the words that the message lacks. Whoever dies before it
        leaves what the next try finds by the metadata; where Slack refuses that, the stream ends
        without: then there is nothing to refuse.
        """
        try:
            await _stop(self._client, stream_id, metadata=metadata)
        except WriteRefused as error:
            if code_of(error) in _OVER:
                return
            if metadata is None:
                raise
            await self.end(stream_id)


class Stream:
    """One message that grows; where it cannot grow as asked it is over, and can be updated."""

    def __init__(
        self,
        client: AsyncWebClient,
        *,
        team: str,
        channel: str,
        ts: str,
        page: Page,
        seconds: float,
    ) -> None:
        self.id = f"{channel}:{ts}"
        self._client = client
        self._team = team
        self._channel = channel
        self._ts = ts
        self._said = page.said
        self._stands = streamed(page)
        self._expires_at = asyncio.get_running_loop().time() + seconds

    def budget(self, page: Page) -> EditBudget:
        """Return the budget of the method that shows the page next."""
        if page.final or not self.takes(page):
            return EditBudget(f"slack:stop:{self._team}", _STARTS, _MINUTE, refills=True)
        return EditBudget(f"slack:append:{self._team}", _APPENDS, _MINUTE, refills=True)

    def takes(self, page: Page) -> bool:
        """Whether the page can be shown by adding to the message, while Slack still takes that."""
        expired = not page.final and asyncio.get_running_loop().time() >= self._expires_at
        return bool(page.text) and not expired and addition(self._stands, page) is not None

    def is_silent(self, page: Page) -> bool:
        """Whether the model has said no more than before: new is at most a sign of life."""
        return page.said == self._said

    async def append(self, page: Page) -> None:
        """Add what is new and will not change its meaning any more; SurfaceError."""
        if more := addition(self._stands, page):
            async with _translated():
                await self._client.chat_appendStream(
                    channel=self._channel, ts=self._ts, markdown_text=more
                )
            self._stands += more
        self._said = page.said

    async def finish(self, page: Page, *, blocks: Blocks, metadata: Metadata) -> None:
        """Add what is missing of the page, with blocks below, and end the stream; SurfaceError."""
        more = addition(self._stands, page) or ""
        await _stop(self._client, self.id, words=more, blocks=blocks, metadata=metadata)


async def _stop(
    client: AsyncWebClient,
    stream_id: str,
    *,
    words: str = "",
    blocks: Blocks = (),
    metadata: Metadata | None = None,
) -> None:
    channel, _, ts = stream_id.rpartition(":")
    async with _translated():
        await client.chat_stopStream(
            channel=channel,
            ts=ts,
            markdown_text=words or None,
            blocks=list(blocks) or None,
            metadata=metadata,
        )


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Let only SurfaceError out: what a stream may not, a post or an update still may."""
    try:
        async with translated():
            yield
    except PlaceGone as error:
        raise WriteRefused(str(error)) from error


def streamed(page: Page) -> str:
    """Return the Markdown of a page in a stream, without what the next delta may change."""
    words = page.text if page.final else without_partial_entity(settled(page.said))
    return markdown_block(words)["text"]


def addition(stands: str, page: Page) -> str | None:
    """Return what a stream needs so that it shows the page; None if words would have to change.

    The whole page is escaped each time: what is an address depends on the words before it.
    """
    markdown = streamed(page)
    if markdown.startswith(stands):
        return markdown[len(stands) :]
    # Words that have come too early may stay while the page grows.
    return "" if not page.final and stands.startswith(markdown) else None
