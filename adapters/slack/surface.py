"""Where one reply is shown in Slack."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import translated
from adapters.slack.identity import Identity
from adapters.slack.markup import markdown_block
from adapters.slack.status import Status, Statuses
from bot.domain import EditBudget, Page, Turn
from bot.errors import SurfaceError, WriteFailed, WriteRefused
from bot.guard import escape_markup

STOP = "stop"  # the Stop button's action_id; its value is the turn's id

# chat.update takes a `text` of 4000 bytes after escaping and else fails with msg_too_long (field);
# a markdown block would take 12,000 characters (docs). One limit, so that both say the same.
_LIMIT = 4000
# Tier 3, at least 50 a minute for each method, workspace and app (docs, "Rate limits").
_WRITES, _WINDOW = 50, 60.0
_EVENT = "parley_turn"
# A turn that is taken up later than this may have been begun by a process that has died.
_LATE = 2.5  # seconds
_LOOKED_THROUGH = 200  # messages after the question


@asynccontextmanager
async def open_surface(
    client: AsyncWebClient, turn: Turn, *, identity: Identity, statuses: Statuses
) -> AsyncIterator[SlackSurface]:
    """Open the surface of a turn's reply; in a thread Slack shows meanwhile that we think."""
    thread = turn.place.get("thread")
    channel = str(turn.place["channel"])
    place = thread if isinstance(thread, str) else None
    status = Status(statuses, channel=channel, thread=place)
    async with status.shown():
        yield SlackSurface(client, turn, identity=identity, status=status)


class SlackSurface:
    """Messages in a thread or a DM; message ids are `channel:ts`."""

    limit = _LIMIT

    def __init__(
        self, client: AsyncWebClient, turn: Turn, *, identity: Identity, status: Status
    ) -> None:
        thread = turn.place.get("thread")
        self._client = client
        self._identity = identity
        self._status = status
        self._turn_id = turn.id
        self._channel = str(turn.place["channel"])
        self._thread = thread if isinstance(thread, str) else None
        self._question = str(turn.place["question"])
        # Pages that stand there already, by number; None when we have to look first.
        self._standing: dict[int, str] | None = None if _is_late(turn) else {}
        self._refused: set[str] = set()
        self.budget = EditBudget(f"slack:{identity.team}:write", _WRITES, _WINDOW)

    def measure(self, text: str) -> int:
        """Return the bytes that `text` has after escaping."""
        return len(escape_markup(text).encode())

    async def post(self, page: Page) -> str:
        """Send a message, unless an earlier try did: then that one is edited and returned.

        An earlier try is looked for after a failed one, and when the turn was taken up late.
        """
        if self._standing is None:
            self._standing = await self._find_pages()
        if standing := self._standing.get(page.number):
            await self.edit(standing, page)
            return standing
        try:
            async with self._status.replying(), translated():
                return await self._send(page)
        except WriteFailed:
            self._standing = None
            raise

    async def edit(self, message_id: str, page: Page) -> None:
        """Change a message; a page without text takes it away."""
        channel, _, ts = message_id.rpartition(":")
        try:
            async with translated():
                if page.text:
                    await self._client.chat_update(
                        channel=channel,
                        ts=ts,
                        text=escape_markup(page.text),
                        blocks=self._blocks(page),
                        parse="none",
                    )
                else:
                    await self._client.chat_delete(channel=channel, ts=ts)
        except WriteRefused:
            # The page is about to be sent anew, which must not find this message again.
            self._refused.add(message_id)
            if self._standing:
                self._standing.pop(page.number, None)
            raise

    async def _send(self, page: Page) -> str:
        # Slack keeps the metadata through updates that bring none.
        metadata = {
            "event_type": _EVENT,
            "event_payload": {"turn": self._turn_id, "page": page.number},
        }
        answer = await self._client.chat_postMessage(
            channel=self._channel,
            thread_ts=self._thread,
            text=escape_markup(page.text),
            blocks=self._blocks(page),
            metadata=metadata,
            parse="none",
            unfurl_links=False,
            unfurl_media=False,
        )
        return f"{answer['channel']}:{answer['ts']}"

    def _blocks(self, page: Page) -> list[dict[str, object]]:
        shown: list[dict[str, object]] = [{**markdown_block(page.text)}]
        if not page.final:
            shown.append({"type": "actions", "elements": [self._stop_button()]})
        return shown

    def _stop_button(self) -> dict[str, object]:
        label = {"type": "plain_text", "text": "Stop"}
        return {"type": "button", "action_id": STOP, "text": label, "value": self._turn_id}

    async def _find_pages(self) -> dict[int, str]:
        try:
            async with translated():
                messages = await self._messages_since_question()
        except WriteFailed:
            raise
        except SurfaceError:
            # No scope to read, or reading's own rate limit, which is down to once a minute for
            # some apps (docs): a message that may stand twice is better than none for long.
            return {}
        ours = (self._page_of(message) for message in messages)
        return dict(page for page in ours if page and page[1] not in self._refused)

    async def _messages_since_question(self) -> list[dict[str, object]]:
        if self._thread is None:
            answer = await self._client.conversations_history(
                channel=self._channel,
                oldest=self._question,
                limit=_LOOKED_THROUGH,
                include_all_metadata=True,
            )
        else:
            answer = await self._client.conversations_replies(
                channel=self._channel,
                ts=self._thread,
                oldest=self._question,
                limit=_LOOKED_THROUGH,
                include_all_metadata=True,
            )
        return list(answer["messages"])

    def _page_of(self, message: Mapping[str, object]) -> tuple[int, str] | None:
        # Any app may send metadata with our event's name, so the author counts too.
        match message:
            case {
                "user": self._identity.user,
                "ts": str(ts),
                "metadata": {
                    "event_type": str(event),
                    "event_payload": {"turn": str(turn), "page": int(number)},
                },
            } if event == _EVENT and turn == self._turn_id:
                return number, f"{self._channel}:{ts}"
            case _:
                return None


def _is_late(turn: Turn) -> bool:
    return time.time() - turn.asked_at > _LATE
