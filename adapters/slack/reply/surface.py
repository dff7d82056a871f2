"""Where one reply is shown in Slack."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress

from prometheus_client import Counter
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.directory import Identity
from adapters.slack.errors import code_of, method_of
from adapters.slack.reply.messages import SOME_PAGE, Messages, Unreadable
from adapters.slack.reply.status import Status, Statuses
from adapters.slack.reply.streams import Audience, Stream, Streams
from bot.domain import EditBudget, Page, Purpose, Turn
from bot.errors import SurfaceError, WriteDelayed, WriteFailed, WriteRefused
from bot.text.sanitize import escape_markup

log = logging.getLogger(__name__)

_UNSEEN = Counter(
    "parley_slack_unseen_posts_total",
    "Messages sent where nobody could look whether an earlier try had sent them",
)

# chat.update takes a `text` of 4000 bytes after escaping and else fails with msg_too_long (field);
# a markdown block would take 12,000 characters (docs). One limit, so that both say the same.
_LIMIT = 4000
# Tier 3, at least 50 a minute for each method, workspace and app (docs, "Rate limits").
_WRITES, _WINDOW = 50, 60.0
# chat.postMessage: one a second for each channel, with bursts (docs, "Rate limits"); a little less,
# for calls do not arrive as evenly as they leave.
_POSTS, _POSTS_WINDOW = 5, 5.2
_STREAMING = "streaming_state_conflict"  # docs: chat.update, "Errors"


@asynccontextmanager
async def open_surface(
    client: AsyncWebClient,
    turn: Turn,
    purpose: Purpose,
    *,
    identity: Identity,
    statuses: Statuses,
    streams: Streams,
) -> AsyncIterator[SlackSurface]:
    """Open the surface of a turn's reply; in a thread Slack shows until its end that we think."""
    messages = Messages(client, turn, identity=identity)
    status = Status(statuses, channel=messages.channel, thread=messages.thread)
    async with nullcontext() if purpose.has_ended else status.shown():
        yield SlackSurface(
            messages,
            turn,
            purpose,
            team=identity.team,
            status=status,
            streams=streams,
        )


# The methods whose budget is a workspace's, and how their buckets are called.
_KINDS = {
    "chat.update": "update",
    "chat.startStream": "start",
    "chat.appendStream": "append",
    "chat.stopStream": "stop",
}


class SlackSurface:
    """Messages in a thread or a DM; message ids are `channel:ts`.

    A page that grows in a thread is a stream of Slack's, as long as Slack has it so; a page that
    cannot grow as it should, and any other, is a message that is updated.
    """

    limit = _LIMIT

    def __init__(
        self,
        messages: Messages,
        turn: Turn,
        purpose: Purpose,
        *,
        team: str,
        status: Status,
        streams: Streams,
    ) -> None:
        self._messages = messages
        self._team = team
        self._status = status
        self._streams = streams
        self._audience: Audience | None = None
        if messages.thread:
            # A turn of an older version does not tell the asker's team.
            asker = str(turn.place.get("team") or team)
            self._audience = Audience(messages.channel, messages.thread, turn.person.id, asker)
        self._stream: Stream | None = None
        # Once the reply has ended a stream may be that of the turn that goes on in the thread.
        self._takes_streams = not purpose.has_ended
        # Pages that stand there already, by number; None when we have to look first.
        self._standing: dict[int, str] | None = None if purpose.recovers else {}
        # Messages that are no other page's, with their pages' numbers: known by their ids, or
        # taking no edits any more.
        self._known: dict[str, int] = {}

    def budget(self, page: Page, *, new: bool) -> EditBudget | None:
        """Return the budget of the method that shows the page, in the workspace or channel.

        A stream is begun at once or not at all.
        """
        if new and self._streams_from(page):
            return None
        if new:
            return self._posts
        if self._stream and page.text:
            return self._stream.budget(page)
        return EditBudget(f"slack:update:{self._team}", _WRITES, _WINDOW, refills=True)

    def measure(self, text: str) -> int:
        """Return the bytes that `text` has after escaping."""
        return len(escape_markup(text).encode())

    async def post(self, page: Page) -> str:
        """Send a message, unless an earlier try did: then that one is edited and returned.

        An earlier try is looked for after a failed one, and when the turn was taken before. What it
        has sent gives way to a new message where it takes no edits.
        """
        if self._standing is None:
            self._standing = await self._found()
        if standing := self._standing.pop(self._where(page, self._standing), ""):
            try:
                await self.edit(standing, page)
            except (WriteDelayed, WriteFailed):
                self._standing[page.number] = standing
                raise
            except WriteRefused as error:
                log.info("what an earlier try has sent takes no edits: %s", error)
                # Nobody else knows of it.
                with suppress(SurfaceError):
                    await self.edit(standing, Page(page.number, "", final=True))
            else:
                return standing
        return await self._send(page)

    async def edit(self, message_id: str, page: Page) -> None:
        """Change a message; a page without text takes it away."""
        # Should the page be sent anew, it must not find this message.
        self._known[message_id] = page.number
        with self._naming_the_bucket():
            if not await self._grown(message_id, page):
                await self._change(message_id, page)

    async def _send(self, page: Page) -> str:
        try:
            async with self._status.replying():
                with self._naming_the_bucket():
                    return await self._begin(page)
        except WriteFailed:
            self._standing = None
            raise

    async def _found(self) -> dict[int, str]:
        try:
            return await self._messages.find(but=self._known, streams=self._takes_streams)
        except Unreadable as error:
            # A message that may stand twice is better than none for long.
            log.warning(
                "A message may stand twice in Slack: we cannot look for the first: %s", error
            )
            _UNSEEN.inc()
            return {}

    @contextmanager
    def _naming_the_bucket(self) -> Iterator[None]:
        """Let a delay tell which of a write's methods Slack wants less of."""
        try:
            yield
        except WriteDelayed as delayed:
            method = method_of(delayed)
            if kind := _KINDS.get(method):
                delayed.bucket = f"slack:{kind}:{self._team}"
            elif method == "chat.postMessage":
                delayed.bucket = self._posts.bucket
            raise

    @property
    def _posts(self) -> EditBudget:
        bucket = f"slack:post:{self._messages.channel}"
        return EditBudget(bucket, _POSTS, _POSTS_WINDOW, refills=True)

    def _where(self, page: Page, standing: Collection[int]) -> int:
        """Return the number by which a page is found among those that stand there."""
        # A stream that tells no number is a page's that was not known yet.
        return page.number if page.number in standing or self._is_sent_anew(page) else SOME_PAGE

    def _is_sent_anew(self, page: Page) -> bool:
        """Whether its message takes no edits any more."""
        return page.number in self._known.values()

    def _streams_from(self, page: Page) -> bool:
        # What is sent anew is to be found by its number. A sign of life alone cannot be taken back.
        grows = bool(page.said) and not page.final and not self._is_sent_anew(page)
        return grows and self._audience is not None and self._streams.possible(self._audience)

    async def _begin(self, page: Page) -> str:
        if self._audience and self._streams_from(page):
            try:
                self._stream = await self._streams.begin(self._audience, page)
            except WriteRefused:
                self._audience = None
            else:
                self._status.processing = True
                return self._stream.id
        return await self._messages.send(page)

    async def _grown(self, message_id: str, page: Page) -> bool:
        """Show a page by adding to its stream; False where it has to be written as a whole."""
        stream = self._stream
        if stream is None or stream.id != message_id:
            return False
        try:
            if not stream.takes(page):
                await self._leave(stream)
                return False
            await self._add(stream, page)
        except WriteRefused as error:
            log.info("a stream takes no more: %s", error)
            self._stream = None
            return False
        except WriteFailed:
            # Whether it stands there is unknown, and adding it again might double it.
            self._stream = None
            raise
        return True

    async def _add(self, stream: Stream, page: Page) -> None:
        if page.final:
            controls, metadata = self._messages.controls(page), self._messages.metadata(page)
            await stream.finish(page, blocks=controls, metadata=metadata)
            self._stream, self._status.processing = None, False
        elif stream.is_silent(page):
            await self._status.again()
        else:
            await stream.append(page)

    async def _leave(self, stream: Stream) -> None:
        await self._streams.end(stream.id)
        self._stream, self._status.processing = None, False

    async def _change(self, message_id: str, page: Page) -> None:
        try:
            await self._messages.change(message_id, page)
        except WriteRefused as error:
            # What Slack answers to chat.delete of a stream that runs is not documented.
            if page.text and code_of(error) != _STREAMING:
                raise
            # Whoever began the stream has died, or never heard that it began.
            await self._end(message_id, page)
            await self._messages.change(message_id, page)

    async def _end(self, message_id: str, page: Page) -> None:
        try:
            await self._streams.end(message_id, metadata=self._messages.metadata(page))
        except WriteRefused as error:
            # The page would be sent anew, beside one that may run for minutes.
            raise WriteFailed(str(error)) from error
        self._status.processing = False
