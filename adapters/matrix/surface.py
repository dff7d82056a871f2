"""Shows one reply: posts exactly once, edits by a plan, and takes a page away whole."""

from __future__ import annotations

import logging
import mimetypes
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from adapters.matrix import messages
from adapters.matrix.client import MatrixClient
from adapters.matrix.markup import LIMIT, measure
from adapters.matrix.messages import ASK, FILE, Address, Message, digest
from bot.domain import Attachment, EditBudget, Page, Purpose, StepNotes, Turn
from bot.errors import MessageGone, WriteDelayed, WriteRefused

log = logging.getLogger(__name__)

# A server keeps every edit for ever, and in the field no client could open a room with a thousand
# of one message any more. The end of an answer is always among these.
MOST_EDITS = 12
# Seconds from each write of a growing page to the next: at 2, 5, 10 and 20 s, and then each 20 s.
_GAPS = (2.0, 3.0, 5.0, 10.0, 20.0)
_PAUSE = 3600.0  # seconds until more edits may be tried: longer than an answer grows
_MOST_POSTS = 5  # of a page whose messages are redacted


class MatrixSurface:
    """Messages in a thread, or in the room itself; message ids are event ids.

    The transaction of a post is named by turn and page, so that the server answers the same one
    with the event of the first: Synapse does so for a day. But an account that logs in again has
    other transactions, so what earlier attempts have posted is looked for, too.
    """

    limit = LIMIT
    shows_work = True
    shows_thoughts = False
    has_buttons = False
    measure = staticmethod(measure)

    def __init__(self, client: MatrixClient, turn: Turn, purpose: Purpose) -> None:
        self._client, self._turn, self._address = client, turn, Address.of(turn)
        self._messages: dict[str, Message] = {}
        self._is_read = purpose is Purpose.ANSWER
        self._again: Counter[int] = Counter()  # by page, whose message cannot be used any more
        # The same text by another process may be another edit, if it was changed in between.
        self._own = uuid4().hex

    def note_step(self, steps: StepNotes) -> bool:
        """Show nothing: typing does not say what is done."""
        return False

    def shows_whole(self, table: str) -> bool:
        """Whether a table is shown as wide as it is: clients scroll."""
        return True

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return the account's budget, and for a growing page the plan of its edits within.

        The plan is a bucket of one write in as many seconds as follow this write. It is in the
        store, so another process goes on with it.
        """
        account, known = self._client.account, self._page(page.number)
        if _must_show(page):
            return account
        writes = 0 if new else (known.grown if known else 0) + 1
        return EditBudget(self._bucket(page), 1, _GAPS[min(writes, 4)], within=account)

    async def post(self, page: Page) -> str:
        """Send a page, or take over the message of an earlier attempt, also of another process."""
        await self._read()
        for _ in range(_MOST_POSTS):
            with suppress(messages.TakenAway):
                message = self._page(page.number) or await self._send(page)
                await self.edit(message.id, page)
                return message.id
        raise MessageGone("each message of the page was redacted")

    async def edit(self, message_id: str, page: Page) -> None:
        """Change a message if it shows something else; take it away for a page without text."""
        await self._read()
        try:
            if page.text:
                await self._change(message_id, page)
                await self._put_beside(message_id, page)
            else:
                await self._delete(message_id, page)
        except (MessageGone, WriteRefused):
            self._drop(message_id, page)
            raise

    async def _read(self) -> None:
        if not self._is_read:
            self._messages = await messages.messages_of(self._client, self._address, self._turn.id)
            self._is_read = True

    def _page(self, number: int) -> Message | None:
        return next((it for it in self._messages.values() if it.page == number), None)

    def _bucket(self, page: Page) -> str:
        return f"{self._turn.id}/page/{page.number}"

    def _drop(self, message_id: str, page: Page) -> None:
        """Forget a message, so that the page is posted by another transaction."""
        self._messages.pop(message_id, None)
        self._again[page.number] += 1

    async def _send(self, page: Page) -> Message:
        """Post a page; it is read back, since an earlier post may have another text."""
        client, turn, address = self._client, self._turn, self._address
        relation = address.relation(address.question, quotes=turn.place.get("refers") is True)
        content = {**messages.page_content(page, turn), **relation}
        txn = digest(turn.id, page.number, self._again[page.number])
        id_ = await client.send(address.room, txn, content)
        try:
            message = self._messages[id_] = await messages.message_of(client, address.room, id_)
        except MessageGone:
            left = self._messages.get(id_)
            await messages.redact(client, address.room, left.edits if left else ())
            self._drop(id_, page)
            raise
        return message

    async def _change(self, message_id: str, page: Page) -> None:
        client, room = self._client, self._address.room
        message = self._messages.get(message_id)
        if message is None or message.page < 0:
            message = await messages.message_of(client, room, message_id)
            self._messages[message_id] = message
        content = messages.page_content(page, self._turn)
        wanted = digest(content)
        if message.shows == wanted and not message.edits:
            return
        if message.shows != wanted:
            if not _must_show(page) and message.grown >= MOST_EDITS - 1:
                bucket = self._bucket(page)
                raise WriteDelayed("the page has its edits", retry_after=_PAUSE, bucket=bucket)
            txn = digest(self._own, message_id, len(message.edits), wanted)
            edit = await client.send(room, txn, messages.edit_content(message_id, content))
            message.note(content, edit)
        # Synapse takes edits of a redacted message, which anybody could read by their ids.
        event = await client.event(room, message_id)
        if not messages.mark_of(event.get("content")):
            await messages.redact(client, room, message.edits)
            raise messages.redacted(client, event)

    async def _delete(self, message_id: str, page: Page) -> None:
        """Redact a page with what belongs to it, and the page last: until then it is found."""
        client, room = self._client, self._address.room
        await messages.withdraw(client, room, message_id)
        await messages.redact(client, room, [message_id])
        for one in [it.id for it in self._messages.values() if it.beside == message_id]:
            del self._messages[one]
        self._drop(message_id, page)

    async def _put_beside(self, message_id: str, page: Page) -> None:
        """Give a page its files, or the message on which its question is answered, and no others.

        While it grows, the files of its last answer stay.
        """
        files = {FILE + digest(it.name, it.data.hex()): it for it in page.attachments}
        asked = ASK + page.consent if page.consent else ""
        known = {it.name: it.id for it in self._messages.values() if it.beside == message_id}
        for name, id_ in known.items():
            if name != asked and name not in files and (page.final or not name.startswith(FILE)):
                await messages.redact(self._client, self._address.room, [id_])
                del self._messages[id_]
        try:
            if asked and asked not in known:
                content = messages.ask_content(page.consent, self._turn.person.id)
                await self._send_beside(message_id, asked, content)
            for name, file in files.items():
                if name not in known:
                    await self._send_beside(message_id, name, await self._upload(file))
        except WriteRefused as error:
            log.warning("Turn %s: the answer lacks its files: %s", self._turn.id, error)

    async def _send_beside(self, message_id: str, name: str, content: Mapping[str, Any]) -> None:
        relation = self._address.relation(message_id, quotes=False)
        whole = messages.marked(self._turn, {**content, **relation}, beside=message_id, name=name)
        txn = digest(message_id, name)
        id_ = await self._client.send(self._address.room, txn, whole)
        self._messages[id_] = Message(id=id_, beside=message_id, name=name)

    async def _upload(self, file: Attachment) -> dict[str, Any]:
        media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return {
            "msgtype": "m.file",
            "body": file.name,
            "filename": file.name,
            "url": await self._client.upload(file.name, file.data, media_type),
            "info": {"mimetype": media_type, "size": len(file.data)},
            "m.mentions": {},
        }


def _must_show(page: Page) -> bool:
    """Whether a page is written whenever it comes: its end, or what a person is asked."""
    return page.final or bool(page.consent)
