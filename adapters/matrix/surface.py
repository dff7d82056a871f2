"""Shows one reply: posts exactly once, edits by the plan, and takes a page away whole."""

from __future__ import annotations

import logging
import mimetypes
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from adapters.matrix.client import MatrixClient
from adapters.matrix.edits import MOST_EDITS, PAUSE, bucket_of, budget_of, is_free
from adapters.matrix.markup import LIMIT, measure
from adapters.matrix.messages import (
    ASK,
    FILE,
    KEY,
    MESSAGE,
    Address,
    Message,
    ask_content,
    digest,
    edit_content,
    mark_of,
    message_of,
    messages_of,
    own_messages,
    page_content,
)
from bot.domain import Attachment, EditBudget, Page, Purpose, StepNotes, Turn
from bot.errors import MessageGone, WriteDelayed, WriteRefused

log = logging.getLogger(__name__)

_MOST_POSTS = 5  # of a page, whose messages are redacted


class MatrixSurface:
    """Messages in a thread or, without one, in the room itself; message ids are event ids.

    The transaction of a post is named by the turn and the page, so the server answers a repeated
    one with the first one's event: Synapse does so for a day. What earlier attempts have posted is
    looked for as well, because an account that logs in again has transactions of its own.
    """

    limit = LIMIT
    shows_work = True
    shows_thoughts = False

    def __init__(self, client: MatrixClient, turn: Turn, purpose: Purpose) -> None:
        self._client, self._turn = client, turn
        self._address = Address.of(turn)
        self._quotes = turn.place.get("refers") is True
        self._messages: dict[str, Message] = {}
        self._is_first = self._is_read = purpose is Purpose.ANSWER
        self._posted: dict[str, str] = {}  # the digest of the content, by transaction
        self._again: Counter[int] = Counter()  # by page, whose message cannot be used any more
        # An edit that was repeated by another process would be none, if the same text was there
        # before the last one.
        self._own = uuid4().hex

    def note_step(self, steps: StepNotes) -> bool:
        """Show nothing: typing does not say what is done."""
        return False

    def measure(self, text: str) -> int:
        """Return the bytes of a text in canonical JSON."""
        return measure(text)

    def shows_whole(self, table: str) -> bool:
        """Whether a table is shown as wide as it is: clients scroll."""
        return True

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return the account's budget, and for a growing page the plan of its edits within."""
        known = self._page(page.number)
        writes = 0 if new else (known.grown if known else 0) + 1
        account = self._client.account
        return budget_of(page, turn_id=self._turn.id, writes=writes, account=account)

    async def post(self, page: Page) -> str:
        """Send a page, or take over the message of an earlier attempt, also of another process."""
        await self._read()
        for _ in range(_MOST_POSTS):
            # One may be redacted, by a person or because an earlier answer had fewer pages.
            with suppress(MessageGone):
                message = self._page(page.number) or await self._send(page)
                await self.edit(message.id, page)
                return message.id
        raise MessageGone("each message of the page was redacted")

    async def edit(self, message_id: str, page: Page) -> None:
        """Change a message if it shows something else; take it away for a page without text."""
        await self._read()
        try:
            if not page.text:
                await self._delete(message_id)
                self._drop(message_id, page)
                return
            message = self._messages.get(message_id)
            if message is None or message.page < 0:
                message = await message_of(self._client, self._address.room, message_id)
                self._messages[message_id] = message
            await self._change(message, page)
        except (MessageGone, WriteRefused):
            self._drop(message_id, page)
            raise
        await self._put_beside(message_id, page)

    async def _read(self) -> None:
        """Look for the messages of earlier attempts, once."""
        if not self._is_read:
            found = await messages_of(self._client, self._address, self._turn.id)
            self._messages = {**found, **self._messages}
            self._is_read = True

    def _page(self, number: int) -> Message | None:
        return next((it for it in self._messages.values() if it.page == number), None)

    def _drop(self, message_id: str, page: Page) -> None:
        """Forget a message, so that the page is posted by another transaction."""
        self._messages.pop(message_id, None)
        self._again[page.number] += 1

    async def _send(self, page: Page) -> Message:
        """Post a page. What an earlier post of the transaction shows is read from the server."""
        content, address = page_content(page, self._turn.id), self._address
        txn = digest(self._turn.id, page.number, self._again[page.number])
        is_new = self._posted.setdefault(txn, digest(content)) == digest(content)
        relation = address.relation(address.question, quotes=self._quotes)
        id_ = await self._client.send(address.room, MESSAGE, txn, {**content, **relation})
        message = Message(id=id_, page=page.number)
        message.note(content)
        if not (is_new and self._is_first) or self._again[page.number]:
            try:
                message = await message_of(self._client, address.room, id_)
            except MessageGone:
                self._again[page.number] += 1
                raise
        self._messages[id_] = message
        return message

    async def _change(self, message: Message, page: Page) -> None:
        content, room = page_content(page, self._turn.id), self._address.room
        wanted = digest(content)
        if message.shows == wanted:
            if not message.edits:
                return
        else:
            if not is_free(page) and message.grown >= MOST_EDITS - 1:
                bucket = bucket_of(page, self._turn.id)
                raise WriteDelayed("the page has its edits", retry_after=PAUSE, bucket=bucket)
            if message.tried != wanted:
                message.tried, message.attempts = wanted, message.attempts + 1
            txn = digest(self._own, message.id, message.attempts)
            edit = edit_content(message.id, content)
            message.note_edit(await self._client.send(room, MESSAGE, txn, edit), content)
            message.tried = ""
        # Synapse takes edits of a redacted message, and anybody could read them by their ids.
        event = await self._client.event(room, message.id)
        if not mark_of(event.get("content")):
            await self._redact(*message.edits)
            raise MessageGone(f"{message.id} was redacted")

    async def _delete(self, message_id: str) -> None:
        """Redact a message last, because a server lists no edits of one that is redacted."""
        edits = dict.fromkeys(
            self._messages[message_id].edits if message_id in self._messages else ()
        )
        with suppress(MessageGone):
            now = await message_of(self._client, self._address.room, message_id)
            edits |= dict.fromkeys(now.edits)
        beside = [it.id for it in self._messages.values() if it.beside == message_id]
        await self._redact(*beside, *edits, message_id)
        for one in beside:
            del self._messages[one]

    async def _redact(self, *events: str) -> None:
        await redact(self._client, self._address.room, events)

    async def _put_beside(self, message_id: str, page: Page) -> None:
        """Give a page its files, or the message on which its question is answered, and no others.

        While it grows, the files of its last answer stay.
        """
        files = {FILE + digest(it.name, it.data.hex()): it for it in page.attachments}
        asked = ASK + page.consent if page.consent else ""
        known = {it.name: it.id for it in self._messages.values() if it.beside == message_id}
        for name, id_ in known.items():
            if name != asked and name not in files and (page.final or not name.startswith(FILE)):
                await self._redact(id_)
                del self._messages[id_]
        try:
            if asked and asked not in known:
                content = ask_content(page.consent, self._turn.person.id)
                await self._send_beside(message_id, asked, content)
            for name, file in files.items():
                if name not in known:
                    await self._send_beside(message_id, name, await self._upload(file))
        except WriteRefused as error:
            log.warning("Turn %s: the answer lacks its files: %s", self._turn.id, error)

    async def _send_beside(self, message_id: str, name: str, content: Mapping[str, Any]) -> None:
        address = self._address
        mark = {"turn": self._turn.id, "beside": message_id, "name": name}
        whole = {**content, KEY: mark, **address.relation(message_id, quotes=False)}
        id_ = await self._client.send(address.room, MESSAGE, digest(message_id, name), whole)
        self._messages[id_] = Message(id=id_, beside=message_id, name=name)

    async def _upload(self, file: Attachment) -> dict[str, Any]:
        media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        address = await self._client.upload(file.name, file.data, media_type)
        return {
            "msgtype": "m.file",
            "body": file.name,
            "filename": file.name,
            "url": address,
            "info": {"mimetype": media_type, "size": len(file.data)},
            "m.mentions": {},
        }


async def redact(client: MatrixClient, room: str, events: Iterable[str]) -> None:
    """Take away events; one that is gone already stays so."""
    for one in events:
        with suppress(MessageGone):
            await client.redact(room, one, digest("redact", one))


async def sweep(client: MatrixClient, room: str, message_id: str) -> None:
    """Redact what belonged to a message of ours that somebody has redacted."""
    await redact(client, room, [it async for it in _left_of(client, room, message_id)])


async def _left_of(client: MatrixClient, room: str, message_id: str) -> AsyncIterator[str]:
    async for event in own_messages(client, room, after=message_id):
        match event["content"]:
            case {"m.relates_to": {"rel_type": "m.replace", "event_id": str(edited)}}:
                of = edited
            case content:
                of = str(mark_of(content).get("beside"))
        if of == message_id:
            yield str(event["event_id"])
