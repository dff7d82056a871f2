"""Slack's native streams: messages that grow by appends."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

from adapters.slack.errors import code_of, is_transient, refuses_app, translated
from adapters.slack.markup import markdown_block, without_partial_entity
from adapters.slack.reply.cards import Cards
from adapters.slack.reply.messages import Messages
from adapters.slack.workspace import Workspace
from bot.domain import EditBudget, Page
from bot.errors import PlaceGone, SurfaceError, WriteDelayed, WriteRefused
from bot.text.markdown import settled

log = logging.getLogger(__name__)

Json = dict[str, object]

# Requests a minute of each method, for each workspace and app, at least (docs, "Rate limits": tiers
# 3, 2, 4 and 2).
PER_MINUTE = {"update": 50, "start": 20, "append": 100, "stop": 20}
_STREAMS = "streams"  # what Slack may refuse, to the app or a team
# If a start has to wait longer for its slot, the page is posted.
_SLOT_TIMEOUT = 0.5  # seconds
# The workspace of the reader refuses the app (docs: chat.startStream, "Errors").
_TEAM_CODE = "team_access_not_granted"
# docs: chat.appendStream and chat.stopStream, "Errors".
_ENDED = {"message_not_in_streaming_state", "stopped_by_user"}


def method_budget(workspace: Workspace, method: str, *, owes: Sequence[str] = ()) -> EditBudget:
    """Return the budget of a method that Slack limits for each workspace.

    `owes` are the methods that have to end what this one writes.
    """
    owed = tuple(method_budget(workspace, one) for one in owes)
    return workspace.budget(method, PER_MINUTE[method], owes=owed)


class Streams:
    """Starts streams, unless Slack refused them recently or no slot is free."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._client = workspace.client
        self._budgets = workspace.budgets
        self._starts = method_budget(workspace, "start", owes=["stop"])
        self._possible_at = -math.inf  # loop time of the next slot

    def are_possible(self, team: str) -> bool:
        """Whether a stream may be started now for a person of this workspace."""
        if any(map(self._workspace.is_refused, (_STREAMS, f"{_STREAMS}:{team}"))):
            return False
        return asyncio.get_running_loop().time() >= self._possible_at

    async def start(self, messages: Messages, page: Page, cards: Cards) -> Stream:
        """Show a page and cards in a new stream, one of these messages.

        Raises WriteRefused if the thread or the app may have no streams, WriteDelayed if no process
        may start one now, and WriteFailed.
        """

        async def start(news: list[Json] | None) -> Mapping[str, object]:
            async with _translated():
                answer = await self._client.chat_startStream(
                    channel=messages.channel,
                    thread_ts=messages.thread,
                    chunks=[*(news or ()), *chunks(streamed(page))] or None,
                    recipient_user_id=messages.asker,
                    recipient_team_id=messages.team,
                    # Cards that come later are folded, too.
                    task_display_mode=None if news is None else "plan",
                )
            return cast("Mapping[str, object]", answer.data)

        await self._take_slot()
        try:
            answer = await cards.written(page, start, at="start")
        except WriteDelayed as error:
            await self._budgets.pause(self._starts, error.retry_after)
            self._possible_at = asyncio.get_running_loop().time() + error.retry_after
            raise
        except SurfaceError as error:
            if is_transient(error):
                raise
            if refuses_app(error):
                self._workspace.refuse(_STREAMS)
            elif code_of(error) == _TEAM_CODE:
                self._workspace.refuse(f"{_STREAMS}:{messages.team}")
            log.info("No stream in %s for team %s: %s", messages.channel, messages.team, error)
            raise WriteRefused(str(error)) from error
        message_id = f"{answer['channel']}:{answer['ts']}"
        return Stream(self._workspace, message_id=message_id, page=page, cards=cards)

    async def end(self, stream_id: str, *, metadata: Json | None = None) -> None:
        """End a stream that this or another process started. Raises SurfaceError.

        The caller then updates the message with the missing text. If the process dies before
        that, the next attempt finds the message by the metadata.
        """
        channel, _, ts = stream_id.rpartition(":")
        try:
            async with _translated():
                await self._client.chat_stopStream(channel=channel, ts=ts, metadata=metadata)
        except WriteRefused as error:
            if code_of(error) not in _ENDED:
                raise

    async def _take_slot(self) -> None:
        now = asyncio.get_running_loop().time()
        try:
            await self._budgets.final(self._starts, deadline=now + _SLOT_TIMEOUT)
        except WriteDelayed as error:
            # Unless Slack asked for a pause, the next slot comes soon.
            self._possible_at = now + min(error.retry_after, 60.0 / self._starts.writes)
            raise


class Stream:
    """One message that grows by appends; if a page does not fit, it is ended and updated."""

    def __init__(self, workspace: Workspace, *, message_id: str, page: Page, cards: Cards) -> None:
        self.id = message_id
        self._cards = cards
        self._workspace = workspace
        self._client = workspace.client
        self._said = page.said
        self._markdown = streamed(page)
        now = asyncio.get_running_loop().time()
        self._expires_at = now + workspace.limits.stream_seconds

    def budget(self, page: Page) -> EditBudget:
        """Return the budget of the method that shows the page."""
        ends = ends_stream(page) or not self.takes(page)
        method = "stop" if ends else "append"
        return method_budget(self._workspace, method)

    def takes(self, page: Page) -> bool:
        """Whether the page can be shown by appending to the message, before the stream expires."""
        expired = not page.final and asyncio.get_running_loop().time() >= self._expires_at
        return bool(page.text) and not expired and addition(self._markdown, page) is not None

    def is_silent(self, page: Page) -> bool:
        """Whether the page has no new text of the answer, and there is no news of its cards."""
        return page.said == self._said and not self._cards.are_news(page)

    async def append(self, page: Page) -> None:
        """Append the missing text that the next delta cannot change, and what cards show now.

        Raises SurfaceError.
        """
        channel, _, ts = self.id.rpartition(":")
        more = addition(self._markdown, page) or ""

        async def append(news: list[Json] | None) -> None:
            if added := [*chunks(more), *(news or ())]:
                async with _translated():
                    await self._client.chat_appendStream(channel=channel, ts=ts, chunks=added)

        await self._cards.written(page, append, at="growth")
        self._markdown += more
        self._said = page.said

    async def finish(
        self, page: Page, *, blocks: list[Json], metadata: Json, suspends: bool
    ) -> None:
        """Append the missing text and the blocks, and end the stream. Raises SurfaceError.

        The line of the calls is left out if their cards are there. The session then waits for a
        person if it `suspends`, unless Slack refuses that with the cards.
        """
        channel, _, ts = self.id.rpartition(":")

        async def finish(news: list[Json] | None) -> None:
            is_told = news is not None and page.last and self._cards.tell_all()
            more = addition(self._markdown, without_steps(page) if is_told else page) or ""
            async with _translated():
                await self._client.chat_stopStream(
                    channel=channel,
                    ts=ts,
                    chunks=[*chunks(more), *(news or ())] or None,
                    blocks=blocks or None,
                    metadata=metadata,
                    session_status="suspended" if suspends and news is not None else None,
                )

        await self._cards.written(page, finish, at="end")


def chunks(markdown: str) -> list[Json]:
    """Return a text as Slack takes it beside other chunks.

    A stream that was begun with `markdown_text` never takes other chunks (field).
    """
    return [{"type": "markdown_text", "text": markdown}] if markdown else []


def without_steps(page: Page) -> Page:
    """Return a page without the line that lists the calls of tools."""
    if not page.steps:
        return page
    before, _, after = page.text.rpartition(page.steps)
    return replace(page, text=before + after.lstrip() if after else before.rstrip(), steps="")


def ends_stream(page: Page) -> bool:
    """Whether a stream ends with the page: a running one has no buttons to answer a question."""
    return page.final or bool(page.consent)


def streamed(page: Page) -> str:
    """Return the Markdown of a page in a stream, without text that the next delta may change."""
    text = page.text if ends_stream(page) else without_partial_entity(settled(page.said))
    return markdown_block(text)["text"]


def addition(markdown: str, page: Page) -> str | None:
    """Return what to append to this Markdown to show the page; None if it would have to change.

    The whole page is escaped each time, because addresses depend on the text before them.
    """
    wanted = streamed(page)
    if wanted.startswith(markdown):
        return wanted[len(markdown) :]
    # Text that came too early may stay while the page grows.
    return "" if not page.final and markdown.startswith(wanted) else None


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Raise only SurfaceError, and not PlaceGone: a post or an update may still be allowed."""
    try:
        async with translated():
            yield
    except PlaceGone as error:
        raise WriteRefused(str(error)) from error
