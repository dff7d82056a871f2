"""Our messages in Slack: sent, changed, and found again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.directory import Identity
from adapters.slack.errors import NotSlack, translated
from adapters.slack.history import MOST_PAGES, read_page
from adapters.slack.markup import markdown_block
from bot.domain import Page, Turn
from bot.errors import PlaceGone, SurfaceError, WriteFailed
from bot.text.sanitize import escape_markup

# The action_ids of buttons; a button's value is the turn's id.
STOP, REGENERATE = "stop", "regenerate"

SOME_PAGE = -1  # instead of a page's number, where the message does not tell

_EVENT = "parley_turn"


class Unreadable(SurfaceError):
    """What stands there may not be read."""


class Messages:
    """The messages that are the pages of one reply; their ids are `channel:ts`."""

    def __init__(self, client: AsyncWebClient, turn: Turn, *, identity: Identity) -> None:
        channel, thread = turn.place.get("channel"), turn.place.get("thread")
        question = turn.place.get("question")
        if not isinstance(channel, str) or not isinstance(question, str):
            raise PlaceGone(f"turn {turn.id} has no place in Slack")
        self.channel = channel
        self.thread = thread if isinstance(thread, str) else None
        self._client = client
        self._identity = identity
        self._turn_id = turn.id
        self._question = question

    async def send(self, page: Page) -> str:
        """Send a page and return its id; SurfaceError."""
        async with translated():
            answer = await self._client.chat_postMessage(
                channel=self.channel,
                thread_ts=self.thread,
                text=escape_markup(page.text),
                blocks=self._blocks(page),
                metadata=self.metadata(page),
                parse="none",
                unfurl_links=False,
                unfurl_media=False,
            )
        return f"{answer['channel']}:{answer['ts']}"

    async def change(self, message_id: str, page: Page) -> None:
        """Make a message show a page; one without text takes it away. SurfaceError."""
        channel, _, ts = message_id.rpartition(":")
        async with translated():
            if page.text:
                await self._client.chat_update(
                    channel=channel,
                    ts=ts,
                    text=escape_markup(page.text),
                    blocks=self._blocks(page),
                    # A stream that did not end by us has none.
                    metadata=self.metadata(page),
                    parse="none",
                )
            else:
                await self._client.chat_delete(channel=channel, ts=ts)

    async def find(self, *, but: Collection[str], streams: bool) -> dict[int, str]:
        """Return the pages that stand there already, by number or SOME_PAGE, without some.

        None is SOME_PAGE without `streams`. Raises WriteFailed, and Unreadable where none was
        found and not all may be read.
        """
        ours, last = await self._ours(but)
        return {
            number: one for number, one in ours if number != SOME_PAGE or (streams and one > last)
        }

    async def strays(self, *, but: Collection[str]) -> list[str]:
        """Return the messages of this reply, and streams that run, without some; as `find`."""
        ours, _ = await self._ours(but)
        return [message_id for _, message_id in ours]

    def controls(self, page: Page) -> list[dict[str, object]]:
        """Return the blocks below the text."""
        if not page.final:
            return [self._button(STOP, "Stop")]
        return [self._button(REGENERATE, "Regenerate")] if page.last else []

    def metadata(self, page: Page) -> dict[str, object]:
        """Return what tells other tries at this turn that the message is this page."""
        return {
            "event_type": _EVENT,
            "event_payload": {"turn": self._turn_id, "page": page.number},
        }

    def _button(self, action: str, label: str) -> dict[str, object]:
        text = {"type": "plain_text", "text": label}
        button = {"type": "button", "action_id": action, "text": text, "value": self._turn_id}
        return {"type": "actions", "elements": [button]}

    def _blocks(self, page: Page) -> list[dict[str, object]]:
        return [{**markdown_block(page.text)}, *self.controls(page)]

    async def _ours(self, but: Collection[str]) -> tuple[list[tuple[int, str]], str]:
        """Return our pages, and the last message of another turn."""
        found: list[tuple[int, str]] = []
        last = ""
        try:
            async for message in self._since_question():
                page = self._page_of(message)
                if page and page[1] not in but:
                    found.append(page)
                last = max(last, self._of_another(message))
        except SurfaceError as error:
            if isinstance(error, WriteFailed) and not isinstance(error, NotSlack):
                raise
            # No scope or no method to read, or reading's own rate limit, which is down to once a
            # minute for some apps (docs).
            if not found:
                raise Unreadable(str(error)) from error
        return found, last

    async def _since_question(self) -> AsyncIterator[dict[str, object]]:
        cursor = ""
        for _ in range(MOST_PAGES):
            messages, cursor = await read_page(
                self._client,
                channel=self.channel,
                thread=self.thread or "",
                since=self._question,
                cursor=cursor,
            )
            for message in messages:
                yield message
            if not cursor:
                return
        raise Unreadable("more was said since the question than is looked through")

    def _of_another(self, message: Mapping[str, object]) -> str:
        match message:
            case {
                "user": self._identity.user,
                "ts": str(ts),
                "metadata": {"event_payload": {"turn": str(turn)}},
            } if turn != self._turn_id:
                return self._id_of(ts)
        return ""

    def _page_of(self, message: Mapping[str, object]) -> tuple[int, str] | None:
        # Any app may send such metadata, so the author counts too.
        match message:
            case {
                "user": self._identity.user,
                "ts": str(ts),
                "metadata": {"event_payload": {"turn": self._turn_id, "page": int(number)}},
            }:
                return number, self._id_of(ts)
            # A stream takes no metadata before its end. A thread's turns are answered one after the
            # other, so one that still runs was begun for this turn, unless an answer of another
            # stands below it; one that is over may be an answer that people have read.
            case {"user": self._identity.user, "ts": str(ts), "streaming_state": "in_progress"}:
                return SOME_PAGE, self._id_of(ts)
            case _:
                return None

    def _id_of(self, ts: str) -> str:
        return f"{self.channel}:{ts}"
