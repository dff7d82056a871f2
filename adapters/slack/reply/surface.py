"""Shows one reply in Slack."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from prometheus_client import Counter

from adapters.slack.errors import code_of, is_transient, refuses_app
from adapters.slack.reply.cards import Cards
from adapters.slack.reply.messages import UNNUMBERED, Messages
from adapters.slack.reply.status import Status
from adapters.slack.reply.streams import Stream, Streams, ends_stream, method_budget
from adapters.slack.workspace import Workspace
from bot.concurrency import Backoff
from bot.domain import Attachment, EditBudget, Page, Purpose, StepNotes, Turn
from bot.errors import SurfaceError, WriteDelayed, WriteFailed, WriteRefused
from bot.text.markdown import PIPE
from bot.text.sanitize import escape_markup

log = logging.getLogger(__name__)

_UNSEEN = Counter(
    "parley_slack_unseen_posts_total",
    "Messages sent without a check whether an earlier attempt had sent them",
)

# chat.postMessage: one a second for each channel, with bursts (docs, "Rate limits"); a little less,
# because requests do not arrive as evenly as they leave.
_POSTS, _POSTS_WINDOW = 5, 5.2
_ALL_POSTS = 300  # docs, "several hundred a minute" for each workspace
_PATIENCE = 30.0  # seconds, for the slots of further requests of one write
_PAUSES = Backoff(first=1.0, longest=10.0)  # before files are shared again
_FILES = "files"  # what Slack may refuse
_MOST_COLUMNS = 20  # docs: Table block
_STREAMING = "streaming_state_conflict"  # docs: chat.update, "Errors"


class SlackSurface:
    """Messages in a thread or a DM; message ids are `channel:ts`.

    A page that grows in a thread is a stream, as long as Slack allows it. Any other page is a
    message that is updated. All replies share `streams`.
    """

    # chat.update takes a `text` of 4000 bytes after escaping and else fails with msg_too_long
    # (field); a markdown block would take 12,000 characters (docs). One limit, so that both show
    # the same text.
    limit = 4000

    def __init__(
        self, workspace: Workspace, turn: Turn, purpose: Purpose, *, streams: Streams
    ) -> None:
        self._turn_id = turn.id
        self._workspace = workspace
        self._streams = streams
        self._messages = messages = Messages(workspace, turn)
        self.status = Status(
            workspace,
            channel=messages.channel,
            thread=messages.thread,
            title=turn.text if messages.thread == turn.place.get("question") else "",
        )
        self._may_start = bool(messages.thread)
        self._stream: Stream | None = None
        self._starts = False  # a stream, now
        self._cards = Cards(workspace)
        # Once the reply has ended, a running stream may be of the next turn in the thread.
        self._may_adopt_streams = not purpose.has_ended
        resumes = purpose is Purpose.RESUME
        self._owes = ("update", "stop") if resumes else ("update",)
        # Messages of an earlier attempt, by page number; None if they have to be searched.
        self._earlier: dict[int, str] | None = None if purpose.recovers else {}
        # The page numbers of the messages that were edited: they are not posted pages of an earlier
        # attempt. If such a page is posted again, its message accepts no more edits.
        self._edited: dict[str, int] = {}
        self._is_seen = purpose is not Purpose.ANSWER  # or may be: a message of the reply
        self._uploaded: dict[Attachment, str] = {}  # their ids
        self._attached: set[tuple[str, tuple[Attachment, ...]]] = set()  # tried for a message

    shows_thoughts = False
    has_buttons = True

    @property
    def shows_work(self) -> bool:
        """Whether the thread has a status line, which the top level of a DM never has."""
        return self.status.is_possible

    def budget(self, page: Page, *, new: bool) -> EditBudget | None:
        """Return the budget of the method that shows the page, for the workspace or channel.

        None for a stream: it is started at once or not at all. A page that grows by updates owes
        one, and the page of an earlier attempt may be a stream that nobody has ended.
        """
        owed = () if page.final else self._owes
        update = method_budget(self._workspace, "update", owes=owed)
        if new:
            around = self._workspace.budget("post", _ALL_POSTS)
            bucket, owes = f"slack:post:{self._messages.channel}", update.owes
            post = EditBudget(
                bucket, _POSTS, _POSTS_WINDOW, shape="refills", owes=owes, within=around
            )
            return None if self._may_stream(page) else post
        return self._stream.budget(page) if self._stream and page.text else update

    def measure(self, text: str) -> int:
        """Return the bytes that `text` has after escaping."""
        return len(escape_markup(text).encode())

    def shows_whole(self, table: str) -> bool:
        """Whether a table has no more columns than Slack takes (docs: Table block).

        Guess: that holds for Markdown, too.
        """
        head = table.partition("\n")[0].strip(" |")
        return len(PIPE.findall(head)) < _MOST_COLUMNS

    async def post(self, page: Page) -> str:
        """Send a message, or edit and return the one that an earlier attempt sent.

        Earlier messages are searched after a failed post, and if the turn was taken before. A
        message that accepts no edits is replaced.
        """
        if self._earlier is None:
            self._earlier = await self._find_earlier()
        # A stream without a number is of a page that has not been saved.
        known = page.number in self._earlier or page.number in self._edited.values()
        if earlier := self._earlier.pop(page.number if known else UNNUMBERED, ""):
            try:
                await self.edit(earlier, page)
            except (WriteDelayed, WriteFailed):
                self._earlier[page.number] = earlier
                raise
            except WriteRefused as error:
                log.info("Turn %s: cannot edit an earlier message: %s", self._turn_id, error)
                # No other process knows this message.
                with suppress(SurfaceError):
                    await self.edit(earlier, Page(page.number, "", final=True))
            else:
                return earlier
        message_id = await self._send(page)
        self._is_seen = True
        self._note_question(page)
        await self._attach(message_id, page)
        return message_id

    async def edit(self, message_id: str, page: Page) -> None:
        """Change a message; delete it if the page has no text."""
        self._edited[message_id] = page.number
        streamed = self._stream is not None and self._stream.id == message_id
        if not await self._grow(message_id, page):
            if streamed:
                # The slot was one for the stream.
                await self._wait_for("update")
            await self._change(message_id, page)
        self._note_question(page)
        if page.text:
            await self._attach(message_id, page)

    def note_step(self, steps: StepNotes) -> bool:
        """Show in the status line what is done now, before and below the text of a stream.

        Not below a message that grows by updates: that one may have a question's buttons. A stream
        has a card of each call, too, which is written with its text or for itself.
        """
        self._cards.steps = steps
        grows = self._stream is not None or self._starts
        shows = self.status.is_possible and (grows or not self._is_seen)
        if shows:
            self.status.note_step(steps.doing)
        return shows and not (grows and self._cards.are_possible)

    def _note_question(self, page: Page) -> None:
        if page.consent:
            self.status.suspend()

    async def _attach(self, message_id: str, page: Page) -> None:
        """Give a message the files of its page by a further update; a failure is only logged.

        Only chat.update takes files. A process that dies before that leaves the turn to the next
        one, which writes the page again.
        """
        files, known = page.attachments, self._messages.files.get(message_id, [])
        is_done = (message_id, files) in self._attached or self._workspace.is_refused(_FILES)
        if is_done or known == [(one.name, len(one.data)) for one in files]:
            return
        self._attached.add((message_id, files))
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                for pause in _PAUSES.pauses():
                    if (wait := await self._share(message_id, page)) is None:
                        return
                    await asyncio.sleep(max(wait, pause))

    async def _share(self, message_id: str, page: Page) -> float | None:
        """Return the seconds until a failed attempt is repeated; None if it is not."""
        try:
            for one in page.attachments:
                if one not in self._uploaded:
                    self._uploaded[one] = await self._workspace.upload(one)
            await self._wait_for("update")
            ids = [self._uploaded[one] for one in page.attachments]
            await self._messages.change(message_id, page, ids)
        except SurfaceError as error:
            log.warning("Turn %s: the answer lacks its files: %s", self._turn_id, error)
            if refuses_app(error):
                self._workspace.refuse(_FILES)
            return error.retry_after if isinstance(error, WriteDelayed | WriteFailed) else None
        return None

    async def _send(self, page: Page) -> str:
        try:
            async with self.status.posting():
                return await self._start(page)
        except WriteFailed:
            self._earlier = None
            raise

    async def _find_earlier(self) -> dict[int, str]:
        try:
            return await self._messages.find(but=self._edited, streams=self._may_adopt_streams)
        except SurfaceError as error:
            if is_transient(error):
                raise
            # A duplicate is better than a long delay.
            log.warning(
                "Turn %s: cannot search earlier messages in %s, one may be sent twice: %s",
                *(self._turn_id, self._messages.channel, error),
            )
            _UNSEEN.inc()
            return {}

    def _may_stream(self, page: Page) -> bool:
        # A page that is posted again has to be found by its number. A status text could not be
        # removed from a stream.
        grows = (
            bool(page.said) and not ends_stream(page) and page.number not in self._edited.values()
        )
        return grows and self._may_start and self._streams.are_possible(self._messages.team)

    async def _start(self, page: Page) -> str:
        if self._may_stream(page):
            self._starts = True
            try:
                self._stream = await self._streams.start(self._messages, page, self._cards)
            except WriteRefused:
                self._may_start = False
            except WriteDelayed:
                # The page now waits for a post, and keeps its place there.
                self._may_start = False
                raise
            else:
                self.status.session = "active"
                return self._stream.id
            finally:
                self._starts = False
        return await self._messages.send(page)

    async def _grow(self, message_id: str, page: Page) -> bool:
        """Show a page by appending to its stream; False if it has to be updated."""
        stream = self._stream
        if stream is None or stream.id != message_id:
            return False
        try:
            if not stream.takes(page):
                await self._streams.end(stream.id)
                self._stream, self.status.session = None, ""
                return False
            await self._append(stream, page)
        except WriteRefused as error:
            log.info("Turn %s: a stream accepts no more text: %s", self._turn_id, error)
            self._stream = None
            return False
        except WriteFailed:
            # It may have arrived; appending it again could duplicate it.
            self._stream = None
            raise
        return True

    async def _append(self, stream: Stream, page: Page) -> None:
        if ends_stream(page):
            messages, metadata = self._messages, self._messages.metadata(page)
            suspends = bool(page.consent) and self.status.is_possible
            await messages.with_controls(
                page,
                lambda: stream.finish(
                    page,
                    blocks=messages.controls(page),
                    metadata=metadata,
                    suspends=suspends,
                ),
            )
            self._stream, self.status.session = None, ""
        elif stream.is_silent(page):
            await self.status.show_again()
        else:
            await stream.append(page)

    async def _change(self, message_id: str, page: Page) -> None:
        self._cards.forget()
        try:
            await self._messages.change(message_id, page)
        except WriteRefused as error:
            # Slack does not document the error of chat.delete for a running stream.
            if page.text and code_of(error) != _STREAMING:
                raise
            # The process that started the stream has died, or did not receive the answer.
            await self._wait_for("stop")
            await self._end(message_id, page)
            await self._wait_for("update")
            await self._messages.change(message_id, page)

    async def _wait_for(self, method: str) -> None:
        """Wait for a slot of one more request for the same write."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        budget = method_budget(self._workspace, method)
        await self._workspace.budgets.final(budget, deadline=deadline)

    async def _end(self, message_id: str, page: Page) -> None:
        try:
            await self._streams.end(message_id, metadata=self._messages.metadata(page))
        except WriteRefused as error:
            # If this were a refusal, the page would be posted again beside a stream that may run
            # for minutes.
            raise WriteFailed(str(error)) from error
        self.status.session = ""
