"""The bot's messages in Slack: sends, changes and finds them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from adapters.slack.errors import code_of, is_transient, translated
from adapters.slack.markup import markdown_block
from adapters.slack.workspace import MOST_PAGES, Workspace
from bot.domain import PRESSES, End, Page, Rating, Turn, choices
from bot.errors import PlaceGone, SurfaceError, WriteRefused
from bot.languages import later, say
from bot.text.sanitize import escape_markup, one_line

log = logging.getLogger(__name__)
_T = TypeVar("_T")

# The action_ids of buttons, beside PRESSES; a button's value is the turn's id. That of an answer to
# a question begins with the id of the call or question and ":".
STOP, REGENERATE, CONTINUE = "stop", "regenerate", "continue"
RATE = "rate"  # the value begins with the rating
_SIGNS: Mapping[Rating, tuple[str, str]] = {
    "good": ("👍", later("Good answer")),
    "bad": ("👎", later("Bad answer")),
}
_BAD_BLOCKS = ("invalid_blocks", "invalid_blocks_format")
_OFFERED: Mapping[End, tuple[tuple[str, str], ...]] = {
    "": ((REGENERATE, later("Regenerate")),),
    "cut": ((REGENERATE, later("Regenerate")), (CONTINUE, later("Continue"))),
    "failed": ((REGENERATE, later("Retry")),),
    "older": (),
}
_STOPS = ((STOP, later("Stop")),)
_UNFINISHED = {STOP, *PRESSES}  # no ended reply has them
UNNUMBERED = -1  # in place of a page's number: a running stream does not have one yet
_EVENT = "parley_turn"


class Messages:
    """The messages that are the pages of one reply; their ids are `channel:ts`."""

    def __init__(self, workspace: Workspace, turn: Turn) -> None:
        channel, thread = turn.place.get("channel"), turn.place.get("thread")
        question = turn.place.get("question")
        if not isinstance(channel, str) or not isinstance(question, str):
            raise PlaceGone(f"turn {turn.id} has no Slack address")
        self.channel = channel
        self.thread = thread if isinstance(thread, str) else ""  # empty at the top level of a DM
        self.asker = turn.person.id
        # A place names the asker's workspace if it is another one.
        self.team = str(turn.place.get("team") or workspace.identity.team)
        self._workspace = workspace
        self._client = workspace.client
        self._turn = turn
        self._question = question
        # The name and the size of each file that a message had after its last update, by its id.
        self.files: dict[str, list[tuple[object, object]]] = {}

    async def send(self, page: Page) -> str:
        """Send a page and return its id. Raises SurfaceError."""
        return await self.with_controls(page, partial(self._send, page))

    async def change(self, message_id: str, page: Page, files: Sequence[str] | None = None) -> None:
        """Make a message show a page; delete it if the page has no text. Raises SurfaceError.

        It then has these `files` alone, by their ids, or those that it had.
        """
        await self.with_controls(page, partial(self._change, message_id, page, files))

    async def with_controls(self, page: Page, write: Callable[[], Awaitable[_T]]) -> _T:
        """Write a page with its controls; retry without rating buttons if Slack refuses them.

        Guess: a workspace without them answers as to any invalid block.
        """
        try:
            return await write()
        except WriteRefused as error:
            if code_of(error) not in _BAD_BLOCKS or not self._is_rated(page):
                raise
            log.info("Slack refused rating buttons, answers have none for a while: %s", error)
            self._workspace.refuse(RATE)
            return await write()

    async def _send(self, page: Page) -> str:
        async with translated():
            answer = await self._client.chat_postMessage(
                channel=self.channel,
                thread_ts=self.thread or None,
                unfurl_links=False,
                unfurl_media=False,
                **self._fields(page),
            )
        return f"{answer['channel']}:{answer['ts']}"

    async def _change(self, message_id: str, page: Page, files: Sequence[str] | None) -> None:
        channel, _, ts = message_id.rpartition(":")
        async with translated():
            if not page.text:
                await self._client.chat_delete(channel=channel, ts=ts)
                return
            answer = await self._client.chat_update(
                channel=channel,
                ts=ts,
                file_ids=None if files is None else json.dumps(files),
                # A stream that Slack ended has no metadata.
                **self._fields(page),
            )
        # Guess: the message in an answer has its files.
        found = (answer.get("message") or {}).get("files") or ()
        self.files[message_id] = [(one.get("name"), one.get("size")) for one in found]

    async def find(self, *, but: Collection[str], streams: bool) -> dict[int, str]:
        """Find this reply's messages, except those in `but`, by page number.

        Running streams are included as UNNUMBERED if `streams` is True. Raises SurfaceError if
        no message was found and not all can be read.
        """
        found, last_of_another = await self._find(but)
        return {
            number: message_id
            for number, message_id in found
            if number != UNNUMBERED or (streams and message_id > last_of_another)
        }

    async def orphaned(self, *, but: Collection[str]) -> list[str]:
        """Find this reply's messages and running streams, except those in `but`. Raises as `find`.

        Messages in `but` that are unfinished are included.
        """
        found, _ = await self._find(but, unfinished=True)
        return [message_id for _, message_id in found]

    def controls(self, page: Page) -> list[dict[str, object]]:
        """Return the blocks below the text."""
        if page.final:
            buttons = [self._button(*each) for each in (_OFFERED[page.end] if page.last else ())]
        elif page.consent:
            named = f"{page.consent}:"
            buttons = [self._button(*each, value=named) for each in choices(page.consent).items()]
        else:
            buttons = [self._button(*each) for each in _STOPS]
        blocks = [self._reference()] if self._turn.place.get("refers") and not page.number else []
        if buttons:
            blocks.append({"type": "actions", "elements": buttons})
        if self._is_rated(page):
            blocks.append(self._feedback())
        return blocks

    def metadata(self, page: Page) -> dict[str, object]:
        """Return the metadata by which other attempts at this turn find the page."""
        return {"event_type": _EVENT, "event_payload": {"turn": self._turn.id, "page": page.number}}

    def _is_rated(self, page: Page) -> bool:
        is_rated = self._workspace.rated and page.last and page.end != "failed"
        return is_rated and not self._workspace.is_refused(RATE)

    def _button(self, action: str, label: str, value: str = "") -> dict[str, object]:
        text, value = {"type": "plain_text", "text": say(label)}, value + self._turn.id
        return {"type": "button", "action_id": action, "text": text, "value": value}

    def _feedback(self) -> dict[str, object]:
        """Return Slack's own buttons (docs: "Feedback buttons element")."""
        good, bad = (
            {
                "text": {"type": "plain_text", "text": label},
                "accessibility_label": say(description),
                "value": f"{rating}:{self._turn.id}",
            }
            for rating, (label, description) in _SIGNS.items()
        )
        element = {"action_id": RATE, "positive_button": good, "negative_button": bad}
        return {"type": "context_actions", "elements": [{"type": "feedback_buttons", **element}]}

    def _reference(self) -> dict[str, object]:
        """Return a line that names the question, for a thread with several waiting questions.

        It has no link: in a stream Slack would show a preview of the question.
        """
        asker = self._turn.person
        name = self._workspace.directory.cached(asker.id) or asker.name
        # The name was not available in time.
        seconds = self._question.partition(".")[0]
        # Slack shows each reader the local time (docs: Formatting message text, "Date formatting").
        utc = time.strftime("%H:%M UTC", time.gmtime(int(seconds)))
        at = f"<!date^{seconds}^{{time}}|{utc}>"
        text = say("Answer to the question of {at}", at=at)
        if name != asker.id:
            whose = "Answer to {name}'s question of {at}"
            text = say(whose, name=escape_markup(one_line(name)), at=at)
        element = {"type": "mrkdwn", "text": text, "verbatim": True}
        return {"type": "context", "elements": [element]}

    def _fields(self, page: Page) -> dict[str, Any]:
        return {
            "text": escape_markup(page.text),
            "blocks": [markdown_block(page.text), *self.controls(page)],
            "metadata": self.metadata(page),
            "parse": "none",
        }

    async def _find(
        self, but: Collection[str], *, unfinished: bool = False
    ) -> tuple[list[tuple[int, str]], str]:
        """Return the messages of this reply, and the id of the last message of another turn.

        Messages in `but` are left out; with `unfinished`, those that are unfinished are included.
        """
        found: list[tuple[int, str]] = []
        above, bot = self._turn.place.get("above"), self._workspace.identity.user
        last_of_another = str(above or "")
        try:
            async for message in self._since_question(waits=unfinished):
                message_id = f"{self.channel}:{message.get('ts')}"
                # Other apps may send the same metadata, so the author is compared.
                is_left_out = message_id in but and not (unfinished and _is_unfinished(message))
                if message.get("user") != bot or is_left_out:
                    continue
                match message:
                    case {"metadata": {"event_payload": {"turn": str(turn), "page": int(number)}}}:
                        if turn == self._turn.id:
                            found.append((number, message_id))
                        else:
                            last_of_another = max(last_of_another, message_id)
                    # A stream gets its metadata at its end. The turns of a thread are answered one
                    # after the other, so a running stream belongs to this turn, unless an answer of
                    # another turn is below it. A stream that has ended may have been read.
                    case {"streaming_state": "in_progress"}:
                        found.append((UNNUMBERED, message_id))
        except SurfaceError as error:
            # The scope or the method is missing, or the rate limit of reading was reached, which is
            # one request a minute for some apps (docs).
            if is_transient(error) or not found:
                raise
        return found, last_of_another

    async def _since_question(self, *, waits: bool) -> AsyncIterator[dict[str, object]]:
        # What a search misses is sent twice, so it waits for no other reading: Slack, which takes
        # 50 requests a minute or more (docs: Tier 3), has to refuse it itself.
        bucket, requests = ("repairs", 30) if waits else ("search", 500)
        cursor = ""
        for _ in range(MOST_PAGES):
            messages, cursor = await self._workspace.read(
                channel=self.channel,
                thread=self.thread,
                bucket=bucket,
                requests=requests,
                oldest=self._question,
                cursor=cursor or None,
            )
            for message in messages:
                yield message
            if not cursor:
                return
        raise SurfaceError("there are too many messages since the question")


def _is_unfinished(message: Mapping[str, object]) -> bool:
    match message:
        case {"blocks": [*_, {"type": "actions", "elements": [{"action_id": action}, *_]}]}:
            return action in _UNFINISHED
    return False
