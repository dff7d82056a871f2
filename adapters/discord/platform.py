"""Discord as a platform of the workers: the login, the surface of a turn, and its context."""

from __future__ import annotations

import asyncio
import logging
import textwrap
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import discord
from yarl import URL

from adapters.discord.gateway.connection import use_gateway
from adapters.discord.gateway.content import files_in
from adapters.discord.gateway.events import ASKS, HIDDEN, READS, context_message_in
from adapters.discord.gateway.listen import Listener
from adapters.discord.reply.channel import (
    ChannelAddress,
    ChannelSurface,
    Recovery,
    own_messages,
    reply_message_ids,
)
from adapters.discord.reply.command import ButtonPress, CommandAddress, CommandSurface
from adapters.discord.reply.message import is_unfinished
from adapters.discord.rest import (
    GLOBAL_LIMIT,
    Payload,
    RestClient,
    edit_budget,
    fail_at_once,
    fetch_message,
    fetch_messages,
    limit_requests,
    logged_in,
    request,
    translated,
)
from adapters.discord.settings import DiscordSettings
from adapters.discord.tuning import Tuning
from bot.concurrency import running
from bot.domain import ContextMessage, FileRef, Json, Place, Purpose, Turn
from bot.errors import MessageGone, PlaceGone, SurfaceError, WriteDelayed, WriteFailed, WriteRefused
from bot.files.download import download
from bot.ports import Earlier, ReadEarlier
from bot.reply.edit_budget import EditBudgets

_log = logging.getLogger(__name__)

_NAME_LIMIT = 100  # Discord's documentation, "Start Thread from Message"
_MOST_READ = 100  # messages of one request ("Get Channel Messages")
_ALREADY_OPEN = 160004  # "A thread has already been created for this message"
_ARCHIVE_AFTER = 1440  # minutes without a message
_THREADS = "/channels/{channel_id}/messages/{message_id}/threads"
# Discord's documentation, "CDN Data" and "Attachment Structure".
_FILE_HOSTS = ("cdn.discordapp.com", "media.discordapp.net")
_STARTER = discord.MessageType.thread_starter_message


@asynccontextmanager
async def connect(
    own: DiscordSettings,
    *,
    budgets: EditBudgets,
    rated: bool = False,
    leaves_other_servers: bool = False,
    tuning: Tuning | None = None,
) -> AsyncIterator[DiscordPlatform]:
    """Log in over REST; the addresses apply to the whole process.

    `budgets` count all requests, and learn the rate limits that Discord reports. With `rated`,
    answers have rating buttons. With `leaves_other_servers`, the bot leaves servers that are not
    allowed. Raises CannotStart if the token is refused, and Unreachable if Discord cannot be
    reached.
    """
    use_gateway(own.gateway_url)
    trace = limit_requests(fail_at_once(), budgets)
    async with logged_in(own, trace=trace, tuning=tuning, rated=rated) as client:
        yield DiscordPlatform(client, budgets, leaves_other_servers=leaves_other_servers)


class DiscordPlatform:
    """Discord, reached over REST; the gateway only while its `listener` listens."""

    name = "discord"

    def __init__(
        self, client: RestClient, budgets: EditBudgets, *, leaves_other_servers: bool
    ) -> None:
        self._client = client
        self._budgets = budgets
        self._typed_at: dict[int, float] = {}  # by channel, in loop time
        self.listener = Listener(
            client, budgets, leaves_other_servers=leaves_other_servers, on_waiting=self.type_once
        )

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[ChannelSurface | CommandSurface]:
        """Open the surface of a turn's reply.

        A thread is opened if the turn asks for one and Discord accepts it soon. Typing is shown
        during the block, unless the reply has ended. Raises PlaceGone; WriteFailed or WriteDelayed
        if it is unknown whether the thread exists.
        """
        tried_at = turn.asked_at if purpose.recovers else None
        match _address(turn):
            case CommandAddress() as command:
                # Discord shows "thinking" until the first edit.
                yield CommandSurface(
                    self._client,
                    address=command,
                    turn_id=turn.id,
                    tried_at=tried_at,
                    question=turn.text if turn.place.get(ASKS) else None,
                )
            case ChannelAddress() as asked:
                address = _thread_of(asked)
                if purpose is not Purpose.RESTORE and not turn.place.get("continues"):
                    address = await self._open_or_find_thread(turn, asked)
                parent = None if address is asked else asked
                recovery = Recovery(
                    self._client,
                    turn_id=turn.id,
                    tried_at=tried_at,
                    alone=address.question is None,
                    above=_above(turn),
                )
                typing = None if purpose.has_ended else self._type(address.channel)
                async with running(typing) if typing else nullcontext():
                    yield ChannelSurface(self._client, address, recovery, parent=parent)

    async def tell(self, person: str, text: str) -> None:
        """Send a person a direct message (docs: Create DM, Create Message). Raises SurfaceError."""
        body = {"recipient_id": person}
        channel = await request(self._client, "POST", "/users/@me/channels", body=body)
        ids = {"channel_id": channel["id"]}
        mentions: dict[str, Json] = {"parse": []}
        said: dict[str, Json] = {"content": text, "allowed_mentions": mentions}
        await request(self._client, "POST", "/channels/{channel_id}/messages", ids, body=said)

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return the messages before a question, by one request if possible; raises SurfaceError.

        In a Discord thread these are its messages, with the one from which it was opened; if there
        are more than `most`, that one is read by another request. In a channel they are read if the
        question replies to a message and begins a thread. A private question in a thread reads the
        thread. Nothing is read if the person lacks the permission Read Message History.
        """
        if turn.place.get(HIDDEN):
            return ()
        address, reads = parse_address(turn.place), _id(turn.place, READS)
        channel = reads or address.channel
        if channel is None:
            return ()
        asked = _number(turn.id)
        quote = _number(turn.quote.id) if turn.quote and not turn.quote.text else 0
        if not reads and not _is_in_thread(turn, channel):
            replies = isinstance(address, ChannelAddress) and address.question is not None
            most = most if replies and turn.quote and not since else 0
        if most and quote:
            # If the quoted message is old, these lack the newest before the question.
            found = await fetch_messages(self._client, channel, limit=most, around=quote)
        elif most:
            found = await fetch_messages(self._client, channel, limit=most, before=asked)
        elif quote:
            found = [await fetch_message(self._client, channel, quote)]
        else:
            return ()
        in_thread = _is_in_thread(turn, channel)
        if in_thread and most and not since and len(found) == most:
            found += await self._starter(turn, channel, found)
        after = _number(since) if since else 0
        ours = [one for one in found if after < int(one["id"]) < asked or int(one["id"]) == quote]
        found_said = (context_message_in(self._client, one) for one in reversed(ours))
        return [
            replace(said, in_thread=in_thread and said.in_thread) for said in found_said if said
        ]

    def earlier(self, turn: Turn) -> ReadEarlier | None:
        """Return what reads the channel or thread of a question.

        None in a DM, where the bot is no member, and for a person without the permission Read
        Message History. A private question in a thread reads the thread.
        """
        if turn.place.get(HIDDEN) or turn.key.workspace == "dm":
            return None
        channel = _id(turn.place, READS) or parse_address(turn.place).channel
        return partial(self._read_earlier, channel, _number(turn.id)) if channel else None

    async def _read_earlier(self, channel: int, asked: int, before: float, most: int) -> Earlier:
        behind = discord.utils.time_snowflake(datetime.fromtimestamp(before, UTC))
        behind, most = max(min(behind, asked), 0), min(most, _MOST_READ)
        found = await fetch_messages(self._client, channel, limit=most, before=behind)
        ids = [int(one["id"]) for one in reversed(found)]
        said = (context_message_in(self._client, one) for one in reversed(found))
        return Earlier(
            [(_time(id_), one) for id_, one in zip(ids, said, strict=True) if one],
            unread_before=_time(ids[0]) if len(ids) == most else 0.0,
        )

    async def _starter(
        self, turn: Turn, thread: int, found: Sequence[Payload]
    ) -> Sequence[Payload]:
        """Return the message from which a thread was opened, unless `found` refers to it.

        It has the thread's id, and everyone in the thread may read it.
        """
        if any(one.get("type") == _STARTER.value for one in found):
            return ()
        try:
            return [await fetch_message(self._client, int(turn.key.channel), thread)]
        except SurfaceError as error:
            _log.info("Thread %d: cannot read its first message: %s", thread, error)
            return ()

    async def fetch_file(self, file: FileRef) -> AsyncGenerator[bytes]:
        """Yield the bytes of a file from Discord's hosts, to which no token is sent.

        The address of a message's file is asked for anew once it has expired, after about a day.
        That of a command is taken if there is no message, or none that the bot may read. Raises
        SurfaceError.
        """
        signed, address = str(file.place.get("signed") or ""), file.place.get("url")
        if _is_fresh(signed):
            with suppress(MessageGone):
                async with aclosing(self._download(signed)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
        if channel := _id(file.place, "channel"):
            try:
                message = await fetch_message(self._client, channel, _number(file.message))
            except PlaceGone:
                if not address:
                    raise
            else:
                wanted = str(_number(file.id))
                address = next((it["url"] for it in files_in(message) if it["id"] == wanted), "")
        if not address:
            raise MessageGone("the file was taken from its message")
        async with aclosing(self._download(str(address))) as chunks:
            async for chunk in chunks:
                yield chunk

    def _download(self, address: str) -> AsyncGenerator[bytes]:
        return download(address, hosts=_FILE_HOSTS, api_url=self._client.own.api_url)

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the messages that surely belong to a turn's reply, except those in `but`.

        Nonces prevent late duplicates, but an earlier attempt may have posted more pages. A message
        in `but` is returned all the same if it is unfinished. Raises SurfaceError.
        """
        asked = _address(turn)
        if isinstance(asked, CommandAddress):
            return []  # follow-ups of other commands look the same
        found, unfinished = list[str](), set[str]()
        for address in dict.fromkeys((_thread_of(asked), asked)):
            own = await own_messages(self._client, address, turn_id=turn.id)
            found += reply_message_ids(own, address, turn_id=turn.id, alone=False)
            unfinished |= {str(one["id"]) for one in own if is_unfinished(one)}
        return [one for one in found if one not in but or one in unfinished]

    async def type_once(self, turn: Turn) -> None:
        """Show typing once for a turn that waits for a worker, if the rate limit allows it.

        Commands need none, because Discord shows "thinking". Failures are only logged.
        """
        try:
            if isinstance(address := parse_address(turn.place), ChannelAddress):
                await self._show_typing(address.channel)
        except SurfaceError as error:
            _log.debug("Turn %s: cannot show typing: %s", turn.id, error)

    async def _open_or_find_thread(self, turn: Turn, address: ChannelAddress) -> ChannelAddress:
        """Return the thread of the question, or the address itself if no thread can be opened."""
        thread = _thread_of(address)
        if thread is address:
            return address
        try:
            await self._open_thread(turn, address)
        except MessageGone as error:
            raise PlaceGone("the question was deleted") from error
        except SurfaceError as error:
            if await _is_open(self._client, thread.channel, error):
                return thread
            if isinstance(error, WriteFailed):
                # Otherwise a restart could move the reply from the channel to the thread.
                raise WriteFailed(f"the thread could not be opened yet: {error}") from error
            _log.warning(
                "Turn %s: the reply is posted in channel %d, because no thread can be opened: %s",
                *(turn.id, address.channel, error),
            )
            return address
        return thread

    async def _open_thread(self, turn: Turn, address: ChannelAddress) -> None:
        """Open a thread when the rate limit allows it; raises WriteDelayed if that is not soon."""
        budget, now = edit_budget("thread", address.channel), asyncio.get_running_loop().time
        deadline = now() + self._client.tuning.thread_patience
        ids = {"channel_id": address.channel, "message_id": address.question}
        line = " ".join(turn.text.split())
        name = textwrap.shorten(line, _NAME_LIMIT, placeholder="…").strip("…") or line[:_NAME_LIMIT]
        body: dict[str, Json] = {"name": name, "auto_archive_duration": _ARCHIVE_AFTER}
        while True:
            await self._budgets.call(budget, deadline=deadline)
            try:
                await request(self._client, "POST", _THREADS, ids, body=body)
            except WriteDelayed as error:
                await self._budgets.pause(budget, error.retry_after)
                if now() + error.retry_after > deadline:
                    raise
            else:
                return

    async def _type(self, channel: int) -> None:
        tuning = self._client.tuning
        while True:
            pause = tuning.typing_every
            try:
                if not await self._show_typing(channel):
                    pause = tuning.typing_gap
            except PlaceGone:
                return
            except SurfaceError as error:
                _log.debug("Channel %d: cannot show typing: %s", channel, error)
            await asyncio.sleep(pause)

    async def _show_typing(self, channel: int) -> bool:
        """Show typing if it is due; False if no slot is free. Raises SurfaceError."""
        now, gap = asyncio.get_running_loop().time(), self._client.tuning.typing_gap
        self._typed_at = {one: at for one, at in self._typed_at.items() if now - at < gap}
        if channel not in self._typed_at:
            self._typed_at[channel] = now
            if not await self._budgets.spare(GLOBAL_LIMIT):
                self._typed_at.pop(channel, None)
                return False
            async with translated():
                await self._client.get_partial_messageable(channel).typing()
        return True


def _address(turn: Turn) -> ChannelAddress | CommandAddress:
    """Return the address of the reply, which quotes its question if several were waiting."""
    address = parse_address(turn.place)
    # Only turns of messages may join.
    refers = turn.place.get("refers") is True and turn.joins
    if not (refers and isinstance(address, ChannelAddress) and address.question is None):
        return address
    return ChannelAddress(address.channel, _number(turn.id), opens_thread=False)


def _above(turn: Turn) -> int:
    """Return the id of the message above the reply; 0 if there is none."""
    # A message of a webhook has an `@` before its id.
    return _number(str(turn.place.get("above")).removeprefix("@"))


def _thread_of(address: ChannelAddress) -> ChannelAddress:
    """Return the thread that is opened from the question, or the address itself."""
    if not address.opens_thread or address.question is None:
        return address
    # A thread that was opened from a message has the message's id.
    return ChannelAddress(address.question, None, opens_thread=False)


async def _is_open(client: RestClient, thread: int, error: SurfaceError) -> bool:
    """Whether the thread exists after a failed request: an earlier attempt may have opened it.

    Also checked after a refusal: the permission may be gone since then. Raises SurfaceError.
    """
    cause = error.__cause__
    if isinstance(cause, discord.HTTPException) and cause.code == _ALREADY_OPEN:
        return True
    with suppress(MessageGone, PlaceGone, WriteRefused):
        await request(client, "GET", "/channels/{channel_id}", {"channel_id": thread})
        return True
    return False


def _is_fresh(address: str) -> bool:
    """Whether an address is valid for another minute (docs: Signed Attachment CDN URLs)."""
    try:
        return int(URL(address).query["ex"], 16) > time.time() + 60
    except (ValueError, KeyError):
        return False


def _is_in_thread(turn: Turn, channel: int) -> bool:
    """Whether a turn belongs to a Discord thread, where it was asked."""
    return turn.key.workspace != "dm" and turn.key.thread == str(channel)


def _time(snowflake: int) -> float:
    """Return when a message was written, in seconds since the epoch."""
    return discord.utils.snowflake_time(snowflake).timestamp()


def _number(name: str) -> int:
    """Return the snowflake in the id of a turn or a message; 0 if there is none."""
    number = name.rpartition(":")[2]
    return int(number) if number.isdecimal() else 0


def parse_address(place: Place) -> ChannelAddress | CommandAddress:
    """Return the address in a turn; raises PlaceGone if it is not one of Discord's."""
    channel, interaction = _id(place, "channel"), _id(place, "interaction")
    match place:
        case {"token": str(token)} if interaction:
            private = place.get("private") is True
            return CommandAddress(channel, interaction, token, press=_press(place), private=private)
        case {"opens_thread": bool(opens)} if channel:
            return ChannelAddress(channel, _id(place, "question"), opens_thread=opens)
    raise PlaceGone("the turn has no address in Discord")


def _press(place: Place) -> ButtonPress | None:
    match place.get("press"):
        case {"interaction": str(interaction), "token": str(token), "message": str(message)}:
            return ButtonPress(int(interaction), token, int(message))
    return None


def _id(place: Mapping[str, Json], name: str) -> int | None:
    found = place.get(name)
    return int(found) if isinstance(found, str) and found.isdecimal() else None
