"""The status line of a thread: "is thinking..."."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal

from adapters.slack.errors import REQUEST_TIMEOUT, refuses_app, translated
from adapters.slack.workspace import Workspace
from bot.concurrency import running
from bot.domain import Turn
from bot.errors import StoreUnavailable, SurfaceError, WriteDelayed
from bot.intake.intake import Intake
from bot.languages import say
from bot.text.sanitize import one_line

log = logging.getLogger(__name__)

# At the top level of a DM, to the person alone.
RECEIVED = "I have read your message, and answer it here as soon as I can."
_WORKING = "is thinking..."
_STATUS = "status lines"  # what Slack may refuse
_TIMEOUT = 1.5  # seconds; the first text waits for a status request in progress
_MOST_LINE = 50  # characters (field: getsentry/junior, pull request 56)
_REFRESH = 100.0  # seconds; Slack removes the line after two minutes
# docs: assistant.threads.setStatus, "Rate limiting"; for each app and workspace.
_PER_MINUTE = 600
_RECEIVED_PER_MINUTE = 100  # docs: chat.postEphemeral, Tier 4
_RECEIVED_SECONDS = 30.0  # within which the notice is not repeated in a DM
_TITLES_PER_MINUTE = 50  # docs: agents.sessions.rename, Tier 3
_MOST_TITLE = 80  # characters; Slack takes 200, and a list shows fewer
# Guess: Slack parses no markup in a title or a line. If it does, this prevents mentions.
NO_MARKUP = str.maketrans("<>", "()")


async def show_waiting(workspace: Workspace, intake: Intake, turn: Turn) -> None:
    """Show the status line once if no worker takes the turn soon.

    At the top level of a DM, which has no status line, an ephemeral message is sent instead, unless
    another answer is in progress. Failures are only logged.
    """
    channel, thread = str(turn.place["channel"]), turn.place["thread"]
    with suppress(StoreUnavailable):
        after = workspace.limits.sign_after
        if not await intake.still_waits(turn, after=after, first=thread is None):
            return
        if thread is None:
            await _acknowledge(workspace, turn, channel)
        # At least half of the calls are reserved for the replies.
        elif await workspace.budgets.spare(workspace.budget("waiting", _PER_MINUTE)):
            await Status(workspace, channel=channel, thread=str(thread)).show_again()


async def _acknowledge(workspace: Workspace, turn: Turn, channel: str) -> None:
    # An edited question keeps waiting: notify once.
    budget = workspace.budget("heard", _RECEIVED_PER_MINUTE)
    if workspace.acknowledged_dms.get(channel) or not await workspace.budgets.spare(budget):
        return
    workspace.acknowledged_dms.put(channel, True, seconds=_RECEIVED_SECONDS)
    try:
        async with translated():
            await workspace.client.chat_postEphemeral(
                channel=channel, user=turn.person.id, text=say(RECEIVED)
            )
    except SurfaceError as error:
        log.info("Turn %s: cannot send the waiting notice: %s", turn.id, error)


class Status:
    """The status line of one reply; Slack removes it when a message of the bot follows.

    All replies share the refusals of status lines. Failures are only logged. `session` is the
    status that the thread's session needs at the end, if any: after a stream that was not ended it
    stays "processing" (docs: agent_session_stopped). The session gets the `title`, if there is one,
    by which people find it (docs: Agent sessions).
    """

    def __init__(self, workspace: Workspace, *, channel: str, thread: str, title: str = "") -> None:
        self.session: Literal["active", "suspended", ""] = ""
        self._workspace = workspace
        self._title = one_line(title).translate(NO_MARKUP)
        self._client = workspace.client
        self._channel = channel
        self._thread = thread  # empty at the top level of a DM, which has no status line
        self._lock = asyncio.Lock()
        self._is_needed = True  # until a page is posted
        self._line = say(_WORKING)

    @property
    def is_possible(self) -> bool:
        """Whether a line can be shown: Slack has not refused it."""
        return bool(self._thread) and not self._workspace.is_refused(_STATUS)

    @asynccontextmanager
    async def displayed(self, turn: Turn) -> AsyncIterator[None]:
        """Show the line until a page is posted or the block ends.

        At the top level of a DM the person gets a notice if no page is posted for a while.
        """
        if not self._thread:
            async with running(self._acknowledge_late(turn)):
                yield
            return
        async with running(self._refresh()):
            yield
        self._start_naming()
        async with self._lock:
            if self._is_needed:
                await self._set("")
        if self.session:
            await self._request(self._client.agents_sessions_setStatus, status=self.session)

    @asynccontextmanager
    async def posting(self) -> AsyncIterator[None]:
        """Keep the line unset while the block posts a page, and afterwards."""
        async with self._lock:
            yield
            self._is_needed = False

    async def show_again(self) -> None:
        """Show the line below a reply that has stalled."""
        self._is_needed = True
        await self._show()

    def note_step(self, what: str) -> None:
        """Show soon what is done now, such as "Searching the web"; empty if that has ended."""
        line = _doing(what) if what else say(_WORKING)
        if line != self._line:
            self._line, self._is_needed = line, True
            self._workspace.signs.start(self._show())

    def suspend(self) -> None:
        """Let the session wait for a person at the end, if a line can end that when it goes on."""
        if self.is_possible:
            self.session = "suspended"

    async def _show(self) -> None:
        async with self._lock:
            if self._is_needed:
                await self._set(self._line)

    async def _acknowledge_late(self, turn: Turn) -> None:
        await asyncio.sleep(self._workspace.limits.unseen_after)
        if self._is_needed:
            await _acknowledge(self._workspace, turn, self._channel)

    async def _refresh(self) -> None:
        while True:
            async with self._lock:
                if not self._is_needed:
                    return
                await self._set(self._line)
            self._start_naming()
            await asyncio.sleep(_REFRESH)

    def _start_naming(self) -> None:
        """Set the session's title once. The line or a stream has created the session."""
        title, self._title = self._title, ""
        if title:
            shown = title if len(title) <= _MOST_TITLE else f"{title[: _MOST_TITLE - 1]}…"
            self._workspace.signs.start(self._name_session(shown))

    async def _name_session(self, title: str) -> None:
        budget = self._workspace.budget("titles", _TITLES_PER_MINUTE)
        if await self._workspace.budgets.spare(budget):
            rename = self._client.agents_sessions_rename
            refusal = await self._request(rename, timeout=REQUEST_TIMEOUT, title=title)
            if isinstance(refusal, WriteDelayed):
                await self._workspace.budgets.pause_after(refusal, budget)

    async def _set(self, status: str) -> None:
        if self._workspace.is_refused(_STATUS):
            return
        error = await self._request(self._client.assistant_threads_setStatus, status=status)
        if error and refuses_app(error):
            self._workspace.refuse(_STATUS)
            log.info("No more status lines for a while: %s", error)

    async def _request(
        self, method: Callable[..., Awaitable[object]], *, timeout: float = _TIMEOUT, **fields: str
    ) -> SurfaceError | None:
        """Make a request for the thread; return and log its failure."""
        try:
            async with translated(timeout):
                await method(channel_id=self._channel, thread_ts=self._thread, **fields)
        except SurfaceError as error:
            log.debug("No %s in thread %s of %s: %s", fields, self._thread, self._channel, error)
            return error
        return None


def _doing(what: str) -> str:
    """Return the line of a step; Slack writes the app's name before it (docs: its page)."""
    said = say("is {what}", what=what[:1].lower() + one_line(what[1:]))
    said = said.translate(NO_MARKUP).replace("`", "")
    return f"{said[: _MOST_LINE - 1].rstrip()}…"
