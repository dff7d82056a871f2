"""Where one reply is shown in Discord."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import discord
from discord.http import Route

from adapters.discord.client import RestClient
from adapters.discord.errors import NotAnswered, NotPermitted, ThreadArchived, translated
from adapters.discord.limits import edit_budget
from adapters.discord.place import ChannelPlace, CommandPlace, read_place
from adapters.discord.tables import tables_as_code
from bot.domain import EditBudget, Page, Turn
from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteFailed, WriteRefused

# A button's custom_id is one of these and the turn's id.
STOP, REGENERATE = "stop:", "regenerate:"

_log = logging.getLogger(__name__)

_LIMIT = 2000  # Discord's documentation, "Create Message"
_NAME_LIMIT = 100  # Discord's documentation, "Start Thread from Message"
_ALREADY_OPEN = 160004  # "A thread has already been created for this message"
_TYPING_PAUSE = 8.0  # seconds; Discord shows typing for ten
# Replies that stand in one channel type together: it takes about five calls in five seconds.
_TYPING_GAP = 1.0  # seconds
_ORIGINAL = "@original"
# The token lives for 15 minutes; the last one is left for writes on their way.
_TOKEN_LIFE = timedelta(minutes=14)
# Discord takes the acknowledgement of an interaction for three seconds. Every try counts for the
# webhook's bucket, so they are few.
_DEFERRAL_PAUSES = (0.3, 0.9, 1.8)  # seconds


@asynccontextmanager
async def open_surface(
    client: RestClient, turn: Turn
) -> AsyncIterator[ChannelSurface | CommandSurface]:
    """Open the surface of a turn's reply through a client that has logged in.

    A thread is opened where the turn asks for one, and Discord shows that we type until the end.
    Raises PlaceGone, WriteDelayed or WriteFailed.
    """
    match read_place(turn.place):
        case CommandPlace() as command:
            # Discord itself shows that we work, until the first edit.
            yield CommandSurface(client, place=command, turn_id=turn.id)
        case ChannelPlace() as asked:
            place = await _in_thread(client, asked, name=_thread_name(turn.text))
            async with _typing(client, place.channel):
                parent = None if place is asked else asked
                yield ChannelSurface(client, place=place, parent=parent, turn_id=turn.id)


class ChannelSurface:
    """Messages of a channel, a DM or a Discord thread; message ids are Discord's.

    `parent` is where the thread was opened from the question. The reply stands there, and the edit
    budget is the parent's from then on, when we may open the thread and not write in it.
    """

    limit = _LIMIT

    def __init__(
        self,
        client: RestClient,
        *,
        place: ChannelPlace,
        parent: ChannelPlace | None,
        turn_id: str,
    ) -> None:
        self._client = client
        self._place = place
        self._parent = parent
        self._turn_id = turn_id
        self._refusals = 0

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return the budget of the reply's channel; new messages have one of their own."""
        return edit_budget("post" if new else "edit", self._place.channel)

    def measure(self, text: str) -> int:
        """Return the code points (discord/discord-api-docs, issue 1315) of what is shown."""
        return len(tables_as_code(text))

    async def post(self, page: Page) -> str:
        """Send a message; sent again within minutes, the first one is changed instead."""
        try:
            message = await self._send(self._place, page)
        except NotPermitted as error:
            if self._parent is None or page.number > 0:
                raise
            _log.warning("the reply stands in the channel: %s", error)
            message = await self._send(self._parent, page)
            self._place = self._parent
        self._parent = None
        if _shows(message, page, self._turn_id):
            return str(message.id)
        # An earlier try got through after all, and Discord answers with what it sent.
        try:
            await self.edit(str(message.id), page)
        except MessageGone:
            # It was taken away since, by an answer that needed fewer pages.
            self._refusals += 1
            message = await self._send(self._place, page)
        return str(message.id)

    async def edit(self, message_id: str, page: Page) -> None:
        """Change a message, or delete it for a page without text.

        Its embeds stay suppressed, and its thread is unarchived.
        """
        try:
            await self._edit_where_it_stands(message_id, page)
        except WriteRefused:
            # The page is about to be sent anew, which must not find this message by its nonce.
            self._refusals += 1
            self._parent = None
            raise
        self._parent = None

    async def unarchive(self) -> None:
        """Open the archived thread again; PlaceGone where only moderators may."""
        try:
            async with translated():
                # `discord.Thread.edit` would have to look the thread up before.
                await self._client.http.edit_channel(self._place.channel, archived=False)
        except WriteRefused as error:
            raise PlaceGone(f"the thread stays archived: {error}") from error

    async def _edit_where_it_stands(self, message_id: str, page: Page) -> None:
        try:
            await self._edit_unarchived(message_id, page)
        except MessageGone:
            if self._parent is None:
                raise
            # An earlier try may have moved to the parent.
            await self._edit(self._parent, message_id, page)
            self._place = self._parent

    async def _edit_unarchived(self, message_id: str, page: Page) -> None:
        try:
            await self._edit(self._place, message_id, page)
        except ThreadArchived:
            await self.unarchive()
            await self._edit(self._place, message_id, page)

    async def _edit(self, place: ChannelPlace, message_id: str, page: Page) -> None:
        channel = self._client.get_partial_messageable(place.channel)
        message = channel.get_partial_message(int(message_id))
        async with translated():
            if page.text:
                await message.edit(
                    content=tables_as_code(page.text), view=_controls(self._turn_id, page)
                )
            else:
                await message.delete()

    async def _send(self, place: ChannelPlace, page: Page) -> discord.Message:
        channel = self._client.get_partial_messageable(place.channel)
        text, view = tables_as_code(page.text), _controls(self._turn_id, page)
        nonce = _nonce(self._turn_id, page.number, self._refusals)
        if place.question is None or page.number > 0:
            async with translated():
                return await channel.send(text, view=view, nonce=nonce, suppress_embeds=True)
        question = discord.MessageReference(
            message_id=place.question, channel_id=place.channel, fail_if_not_exists=False
        )
        async with translated():
            return await channel.send(
                text,
                view=view,
                nonce=nonce,
                suppress_embeds=True,
                reference=question,
                mention_author=False,
            )


class CommandSurface:
    """The original response to a slash command, then messages of its channel.

    Follow-ups take the channel's place where the bot is no member of it. Ids of what only the
    interaction's webhook can edit begin with `@`. The webhook has a rate limit of its own.
    """

    limit = _LIMIT

    def __init__(self, client: RestClient, *, place: CommandPlace, turn_id: str) -> None:
        self._http = client.http
        self._application = client.application_id
        self._place = place
        self._turn_id = turn_id
        self._channel = ChannelSurface(
            client,
            place=ChannelPlace(place.channel, None, opens_thread=False),
            parent=None,
            turn_id=turn_id,
        )
        self._refused = False

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        """Return the budget of the interaction's webhook, or for later pages the channel's."""
        if page.number > 0 or self._refused:
            return self._channel.budget(page, new=new)
        return edit_budget("ask", self._place.token)

    def measure(self, text: str) -> int:
        """Return the number of code points, as for any message."""
        return self._channel.measure(text)

    async def post(self, page: Page) -> str:
        """Fill the original response with the first page; send a message for any other.

        Where the response takes nothing, or no more, the first page is a message too.
        """
        if page.number == 0 and not self._refused and self._in_time():
            try:
                await self._answer(page)
            except WriteRefused as error:
                _log.warning("the answer to %s goes into the channel: %s", self._turn_id, error)
            else:
                return _ORIGINAL
        return await self._post_anew(page)

    async def edit(self, message_id: str, page: Page) -> None:
        """Change a response, a follow-up or a message; a response ages after 14 minutes."""
        if not message_id.startswith("@"):
            await self._channel.edit(message_id, page)
            return
        if not self._in_time():
            raise WriteRefused("the interaction is older than its token")
        try:
            await self._edit_unarchived(message_id, page)
        except WriteRefused:
            self._refused = True
            raise

    async def _answer(self, page: Page) -> None:
        # The turn is admitted before it is acknowledged, so that we may come too early.
        for pause in _DEFERRAL_PAUSES:
            try:
                return await self._edit_unarchived(_ORIGINAL, page)
            except NotAnswered:
                await asyncio.sleep(pause)
        return await self._edit_unarchived(_ORIGINAL, page)

    async def _post_anew(self, page: Page) -> str:
        try:
            return await self._channel.post(page)
        except PlaceGone as gone:
            if not self._in_time():
                raise
            try:
                return await self._follow_up(page)
            except WriteRefused:
                raise gone from None

    async def _edit_unarchived(self, message_id: str, page: Page) -> None:
        try:
            await self._edit_response(message_id, page)
        except ThreadArchived:
            await self._channel.unarchive()
            await self._edit_response(message_id, page)

    async def _edit_response(self, message_id: str, page: Page) -> None:
        name = message_id if message_id == _ORIGINAL else message_id.removeprefix("@")
        path = f"/messages/{name}"
        async with translated():
            if page.text:
                await self._http.request(self._route("PATCH", path), json=self._form(page))
            else:
                await self._http.request(self._route("DELETE", path))

    async def _follow_up(self, page: Page) -> str:
        async with translated():
            message = await self._http.request(self._route("POST", ""), json=self._form(page))
        return f"@{message['id']}"

    def _route(self, method: str, path: str) -> Route:
        return Route(
            method,
            "/webhooks/{webhook_id}/{webhook_token}" + path,
            webhook_id=self._application,
            webhook_token=self._place.token,
        )

    def _form(self, page: Page) -> dict[str, object]:
        return {
            "content": tables_as_code(page.text),
            "components": _controls(self._turn_id, page).to_components(),
            "allowed_mentions": discord.AllowedMentions.none().to_dict(),
            "flags": discord.MessageFlags(suppress_embeds=True).value,
        }

    def _in_time(self) -> bool:
        asked_at = discord.utils.snowflake_time(self._place.interaction)
        return discord.utils.utcnow() - asked_at < _TOKEN_LIFE


async def _in_thread(client: RestClient, place: ChannelPlace, *, name: str) -> ChannelPlace:
    """Return the thread of the question; the place itself where no thread can be opened."""
    if not place.opens_thread or place.question is None:
        return place
    try:
        async with translated():
            await client.http.start_thread_with_message(
                place.channel, place.question, name=name, auto_archive_duration=1440
            )
    except MessageGone as error:
        raise PlaceGone("the question was deleted") from error
    except WriteFailed as error:
        # Not in the channel now and in the thread after a restart: this is no answer yet.
        raise WriteFailed(f"the thread could not be opened yet: {error}") from error
    except (PlaceGone, WriteRefused) as error:
        if not _is_open_already(error):
            _log.warning("the reply stands in the channel, for no thread can be opened: %s", error)
            return place
    # A thread that was opened from a message has the message's id.
    return ChannelPlace(place.question, None, opens_thread=False)


def _is_open_already(error: SurfaceError) -> bool:
    cause = error.__cause__
    return isinstance(cause, discord.HTTPException) and cause.code == _ALREADY_OPEN


def _thread_name(question: str) -> str:
    words = " ".join(question.split())
    return textwrap.shorten(words, _NAME_LIMIT, placeholder="…").strip("…") or words[:_NAME_LIMIT]


@asynccontextmanager
async def _typing(client: RestClient, channel: int) -> AsyncIterator[None]:
    # Beside the body, which need not wait for it.
    task = asyncio.create_task(_type(client, channel))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _type(client: RestClient, channel: int) -> None:
    while True:
        try:
            if _is_due(client.typed_at, channel):
                async with translated():
                    await client.http.send_typing(channel)
        except PlaceGone:
            return
        except SurfaceError as error:
            _log.debug("typing was not shown: %s", error)
        await asyncio.sleep(_TYPING_PAUSE)


def _is_due(typed_at: dict[int, float], channel: int) -> bool:
    """Whether nobody types there just now; whoever asks is about to."""
    now = asyncio.get_running_loop().time()
    for one in [one for one, at in typed_at.items() if now - at >= _TYPING_GAP]:
        del typed_at[one]
    return typed_at.setdefault(channel, now) == now


def _shows(message: discord.Message, page: Page, turn_id: str) -> bool:
    wanted = [button.custom_id for button in _buttons(turn_id, page)]
    rows = [row for row in message.components if isinstance(row, discord.ActionRow)]
    shown = [it.custom_id for row in rows for it in row.children if isinstance(it, discord.Button)]
    # Discord drops the white space around a text.
    return message.content == tables_as_code(page.text).strip() and shown == wanted


def _buttons(turn_id: str, page: Page) -> list[discord.ui.Button[discord.ui.View]]:
    if not page.final:
        return [discord.ui.Button(label="Stop", custom_id=f"{STOP}{turn_id}")]
    if page.last:
        return [discord.ui.Button(label="Regenerate", custom_id=f"{REGENERATE}{turn_id}")]
    return []


def _controls(turn_id: str, page: Page) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for button in _buttons(turn_id, page):
        view.add_item(button)
    # The gateway hears the button by its custom_id, after a restart too; a view that is not
    # stopped would be kept by the library for ever.
    view.stop()
    return view


def _nonce(turn_id: str, number: int, refusals: int) -> str:
    # Discord takes 25 characters.
    written = f"{turn_id}/{number}/{refusals}".encode()
    return hashlib.blake2b(written, digest_size=12).hexdigest()
