"""Discord as a platform of the core: the login, surfaces, and the gateway's shards."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace

import discord

from adapters.discord.gateway.client import Gateway
from adapters.discord.gateway.connection import use_gateway
from adapters.discord.gateway.events import HIDDEN, READS, said_in
from adapters.discord.gateway.inbox import Inbox
from adapters.discord.gateway.session_store import SavedSession
from adapters.discord.gateway.shard import CONNECTION_ERRORS, UNREACHABLE, Shard
from adapters.discord.registration import register
from adapters.discord.reply.channel import ChannelAddress
from adapters.discord.reply.open import open_surface, orphaned_messages, parse_address, type_once
from adapters.discord.rest import (
    REFUSED,
    Payload,
    RestClient,
    counted,
    fail_at_once,
    fetch_messages,
    log_in,
    own_id,
    request,
    translated,
    use_api,
)
from adapters.discord.servers import OtherServers
from adapters.discord.tuning import Tuning
from bot.concurrency import running, together
from bot.domain import ContextMessage, Purpose, Turn
from bot.errors import CannotStart, StoreUnavailable, SurfaceError
from bot.ports import Surface
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from bot.turns.intake import Intake

_log = logging.getLogger(__name__)

# Errors that no retry can cure ("Opcodes and Status Codes", gateway close event codes).
_FINAL = {
    4004: REFUSED,
    4010: "DISCORD_SHARDS is refused by Discord: every process needs the same count",
    4011: "Discord wants the bot in several shards: set DISCORD_SHARDS, for example 0-1/2",
}

_MESSAGE = "/channels/{channel_id}/messages/{message_id}"

_STARTER = discord.MessageType.thread_starter_message

Shards = tuple[tuple[int, ...], int]


@asynccontextmanager
async def connect(
    *,
    token: str,
    api_url: str,
    gateway_url: str,
    threads: bool,
    budgets: EditBudgets,
    rated: bool = False,
    command_server: str = "",
    leaves_other_servers: bool = False,
    tuning: Tuning | None = None,
) -> AsyncIterator[DiscordPlatform]:
    """Log in over REST; empty addresses mean Discord's own.

    `threads` lets a mention in a channel open a Discord thread; `budgets` count all requests, and
    learn the rate limits that Discord reports. If answers are `rated`, buttons for that are below
    them. The commands are registered in the server `command_server`, or everywhere if it is empty.
    If it `leaves_other_servers`, the bot leaves those in which nobody is answered.
    The addresses hold for the whole process. Raises CannotStart if the token is refused, and
    Unreachable if Discord cannot be reached.
    """
    use_api(api_url)
    use_gateway(gateway_url)
    # The bot never speaks, and an operator need not read what voice lacks.
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    client = RestClient(
        tuning=tuning or Tuning(),
        rated=rated,
        intents=discord.Intents(guilds=True),  # not used; discord.py warns if it is missing
        allowed_mentions=discord.AllowedMentions.none(),
        max_messages=None,
        http_trace=counted(fail_at_once(), budgets),
    )
    try:
        await log_in(client, token, api_url)
        yield DiscordPlatform(
            client,
            token=token,
            threads=threads,
            budgets=budgets,
            command_server=command_server,
            leaves_other_servers=leaves_other_servers,
        )
    finally:
        await client.close()


class DiscordPlatform:
    """Discord, reached over REST; the gateway only while `listen` runs."""

    name = "discord"

    def __init__(
        self,
        client: RestClient,
        *,
        token: str,
        threads: bool,
        budgets: EditBudgets,
        command_server: str,
        leaves_other_servers: bool,
    ) -> None:
        self._client = client
        self._token = token
        self._threads = threads
        self._budgets = budgets
        self._command_server = command_server
        self._leaves_other_servers = leaves_other_servers
        self._shards: list[Shard] = []
        self._intents = discord.Intents(
            guilds=True, guild_messages=True, dm_messages=True, message_content=True
        )

    def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AbstractAsyncContextManager[Surface]:
        """Open the surface of a turn's reply, its Discord thread included."""
        return open_surface(self._client, turn, self._budgets, purpose)

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return what was said before a question, by one request if possible; raises SurfaceError.

        In a Discord thread that is the thread, with the message from which it was opened: of more
        than `most` messages another request reads that one. In a
        channel it is the channel, if the question replies to one of its messages and begins a
        thread of ours. A private question in a thread reads the thread. Nothing is read for a
        person who lacks the permission Read Message History.
        """
        if turn.place.get(HIDDEN):
            return ()
        address, reads = parse_address(turn.place), turn.place.get(READS)
        channel = int(reads) if isinstance(reads, str) and reads.isdecimal() else address.channel
        if channel is None:
            return ()
        asked = _number(turn.id)
        quote = _number(turn.quote.id) if turn.quote and not turn.quote.text else 0
        if not reads and not _is_in_thread(turn, channel):
            replies = isinstance(address, ChannelAddress) and address.question is not None
            most = most if replies and turn.quote and not since else 0
        if most and quote:
            # Of the messages around one that is old, the newest before the question are missing.
            found = await fetch_messages(self._client, channel, limit=most, around=quote)
        elif most:
            found = await fetch_messages(self._client, channel, limit=most, before=asked)
        elif quote:
            ids = {"channel_id": channel, "message_id": quote}
            found = [await request(self._client, "GET", _MESSAGE, ids)]
        else:
            return ()
        in_thread = _is_in_thread(turn, channel)
        if in_thread and most and not since and len(found) == most:
            found += await self._starter(turn, channel, found)
        after = _number(since) if since else 0
        ours = [one for one in found if after < int(one["id"]) < asked or int(one["id"]) == quote]
        found_said = (said_in(self._client, channel, one) for one in reversed(ours))
        return [
            replace(said, in_thread=in_thread and said.in_thread) for said in found_said if said
        ]

    async def _starter(
        self, turn: Turn, thread: int, found: Sequence[Payload]
    ) -> Sequence[Payload]:
        """Return the message from which a thread was opened, unless it is found or there is none.

        It has the thread's id, and who may read the thread may read it.
        """
        if any(one.get("type") == _STARTER.value for one in found):
            return ()
        ids: dict[str, str | int] = {"channel_id": turn.key.channel, "message_id": thread}
        try:
            return [await request(self._client, "GET", _MESSAGE, ids)]
        except SurfaceError as error:
            _log.info("Thread %d is shown without its first message: %s", thread, error)
            return ()

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the messages, except these, that attempts at a turn may have left behind.

        Raises SurfaceError.
        """
        return await orphaned_messages(self._client, turn, but=but)

    async def listen(self, intake: Intake, *, store: Store, shards: Shards | None = None) -> None:
        """Hand what people do to the intake, until cancelled.

        Goes on where the process before stopped. `shards` are the numbers of this process and the
        count of all; None means that the bot has one shard. Registers the commands. Raises
        CannotStart if the token, or the shards, are refused.
        """
        numbers, count = shards or ((None,), None)
        holder, tuning = secrets.token_hex(8), self._client.tuning
        self._shards = []
        for number in numbers:
            saved = SavedSession(
                store=store,
                application=str(self._client.application_id),
                shard="all" if number is None else f"{number}/{count}",
                holder=holder,
            )
            self._shards.append(Shard(number=number, count=count, saved=saved, tuning=tuning))
        servers = OtherServers(
            self._client, allowed=intake.access.servers, leaves=self._leaves_other_servers
        )
        async with (
            running(self._register(store)),
            running(self._introduce()),
            running(servers.check_all()),
        ):
            tasks = [self._serve(intake, shard, servers) for shard in self._shards]
            await together(*map(asyncio.create_task, tasks))

    def downtime(self) -> float:
        """Return for how many seconds a shard has not been connected; 0 if all are."""
        return max((each.downtime.seconds() for each in self._shards), default=math.inf)

    async def _introduce(self) -> None:
        """Log who the bot is; a failure is only one line less."""
        with suppress(SurfaceError):
            async with translated():
                about = await self._client.application_info()
            flags = about.flags
            reads = flags.gateway_message_content or flags.gateway_message_content_limited
            _log.info(
                "Discord: I am %s (%s), in %s servers; Message Content Intent is %s",
                *(self._client.user, own_id(self._client)),
                *(about.approximate_guild_count, "on" if reads else "off"),
            )

    async def _register(self, store: Store) -> None:
        for pause in self._client.tuning.register_retry.pauses():
            try:
                if await register(self._client, store, server=self._command_server):
                    _log.info("The commands were registered")
            except (SurfaceError, StoreUnavailable) as error:
                _log.warning("The commands are not registered yet: %s", error)
            else:
                return
            await asyncio.sleep(pause)

    async def _serve(self, intake: Intake, shard: Shard, servers: OtherServers) -> None:
        inbox = Inbox(shard.tuning)
        while True:
            gateway = Gateway(
                intake=intake,
                inbox=inbox,
                shard=shard,
                servers=servers,
                budgets=self._budgets,
                on_waiting=lambda turn: type_once(self._client, turn, self._budgets),
                threads=self._threads,
                rated=self._client.rated,
                intents=copy.copy(self._intents),
            )
            try:
                await gateway.serve(self._token)
            except discord.PrivilegedIntentsRequired:
                self._read_less()
                continue
            except discord.LoginFailure as error:
                raise CannotStart(REFUSED) from error
            except discord.ConnectionClosed as error:
                if reason := _FINAL.get(error.code):
                    raise CannotStart(reason) from error
                _log.warning("Shard %s: the gateway was closed: %s", shard.number, error)
            except CONNECTION_ERRORS as error:
                _log.warning(UNREACHABLE, str(error) or type(error).__name__)
            except Exception:
                _log.exception("Shard %s: the gateway failed", shard.number)
            await asyncio.sleep(shard.tuning.client_pause)

    def _read_less(self) -> None:
        if self._intents.message_content:  # else another shard has found out
            self._intents.message_content = False
            _log.warning(
                "Discord keeps messages that do not mention the bot from it: switch on "
                '"Message Content Intent" under Bot at https://discord.com/developers'
            )


def _is_in_thread(turn: Turn, channel: int) -> bool:
    """Whether a turn belongs to a Discord thread, where it was asked."""
    return turn.key.workspace != "dm" and turn.key.thread == str(channel)


def _number(turn: str) -> int:
    """Return the snowflake in the id of a turn; 0 if there is none."""
    number = turn.rpartition(":")[2]
    return int(number) if number.isdecimal() else 0
