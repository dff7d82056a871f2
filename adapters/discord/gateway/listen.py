"""Listens to Discord: one gateway for each shard, and the tasks at the start."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial

import discord
from prometheus_client import Gauge

from adapters.discord.gateway.client import Gateway
from adapters.discord.gateway.inbox import Inbox
from adapters.discord.gateway.servers import OwnServers
from adapters.discord.gateway.session_store import SavedSession
from adapters.discord.gateway.shard import CONNECTION_ERRORS, UNREACHABLE, Shard
from adapters.discord.registration import register
from adapters.discord.rest import REFUSED, RestClient, own_id, request, translated
from bot.concurrency import running, together
from bot.domain import Turn
from bot.errors import CannotStart, PlaceGone, StoreUnavailable, SurfaceError
from bot.intake.intake import Intake
from bot.reply.edit_budget import EditBudgets
from bot.store import Store

_log = logging.getLogger(__name__)

_PAGE = 200  # servers, the most of one request ("Get Current User Guilds")
# Errors that no retry can fix ("Opcodes and Status Codes", gateway close event codes).
_FINAL = {
    4004: REFUSED,
    4010: "DISCORD_SHARDS is refused by Discord: every process needs the same count",
    4011: "Discord wants the bot in several shards: set DISCORD_SHARDS, for example 0-1/2",
}
_CONNECTED = Gauge(
    "parley_discord_shard_connected", "1 if this process hears the shard's events", ["shard"]
)
_STARTS = Gauge(
    "parley_discord_session_starts_remaining",
    "Sessions that the bot may still begin, as Discord said before the shard's last one",
    ["shard"],
)


class Listener:
    """Passes Discord events to the intake.

    `on_waiting` is called with turns that no worker takes soon.
    """

    def __init__(
        self,
        client: RestClient,
        budgets: EditBudgets,
        *,
        leaves_other_servers: bool,
        on_waiting: Callable[[Turn], Awaitable[None]],
    ) -> None:
        self._client = client
        self._budgets = budgets
        self._leaves_other_servers = leaves_other_servers
        self._on_waiting = on_waiting
        self._shards: list[Shard] = []
        self._intents = discord.Intents(
            guilds=True, guild_messages=True, dm_messages=True, message_content=True
        )

    async def listen(self, intake: Intake, *, store: Store) -> None:
        """Pass events to the intake until cancelled.

        Continues where the previous process stopped, and registers the commands. Raises CannotStart
        if the token, or the shards, are refused.
        """
        numbers, count = self._client.own.shards or ((None,), None)
        holder, tuning = secrets.token_hex(8), self._client.tuning
        self._shards = []
        for number in numbers:
            saved = SavedSession(
                store=store,
                application=str(self._client.application_id),
                shard="all" if number is None else f"{number}/{count}",
                holder=holder,
            )
            shard = Shard(number=number, count=count, saved=saved, tuning=tuning)
            self._shards.append(shard)
            label = str(number or 0)
            _CONNECTED.labels(label).set_function(partial(_is_connected, shard))
            _STARTS.labels(label).set_function(shard.starts_remaining)
        own = OwnServers(self._client, intake, store)
        servers = UnlistedServers(
            self._client,
            allowed=intake.access.rules.servers,
            leaves=self._leaves_other_servers,
            on_left=own.forget,
        )
        async with (
            running(self._register(store)),
            running(self._introduce()),
            running(servers.check_all()),
        ):
            tasks = [self._serve(intake, shard, servers, own) for shard in self._shards]
            await together(*map(asyncio.create_task, tasks))

    def downtime(self) -> float:
        """Return the seconds without a connection of some shard; 0 if all are connected."""
        return max((each.downtime.seconds() for each in self._shards), default=math.inf)

    async def _introduce(self) -> None:
        """Log the bot's name and intents; failures are ignored."""
        with suppress(SurfaceError):
            async with translated():
                about = await self._client.application_info()
            flags = about.flags
            reads = flags.gateway_message_content or flags.gateway_message_content_limited
            _log.info(
                "Discord: logged in as %s (%s), in %s servers; Message Content Intent is %s",
                *(self._client.user, own_id(self._client)),
                *(about.approximate_guild_count, "on" if reads else "off"),
            )

    async def _register(self, store: Store) -> None:
        for pause in self._client.tuning.register_retry.pauses():
            try:
                await register(self._client, store, server=self._client.own.command_server)
            except (SurfaceError, StoreUnavailable) as error:
                _log.warning("Cannot register the Discord commands, will retry: %s", error)
            else:
                _log.info("Registered the Discord commands")
                return
            await asyncio.sleep(pause)

    async def _serve(
        self, intake: Intake, shard: Shard, servers: UnlistedServers, own: OwnServers
    ) -> None:
        inbox = Inbox(shard.tuning)
        while True:
            gateway = Gateway(
                self._client,
                intake,
                inbox=inbox,
                shard=shard,
                servers=own,
                on_server=servers.check,
                budgets=self._budgets,
                on_waiting=self._on_waiting,
                intents=copy.copy(self._intents),
            )
            try:
                await gateway.serve(self._client.own.token)
            except discord.PrivilegedIntentsRequired:
                self._drop_message_content_intent()
                continue
            except discord.LoginFailure as error:
                raise CannotStart(REFUSED) from error
            except discord.ConnectionClosed as error:
                if reason := _FINAL.get(error.code):
                    raise CannotStart(reason) from error
                _log.warning("Shard %s: the gateway was closed: %s", shard.number, error)
            except CONNECTION_ERRORS as error:
                _log.warning(UNREACHABLE, shard.number, str(error) or type(error).__name__)
            except Exception:
                _log.exception("Shard %s: the gateway failed", shard.number)
            await asyncio.sleep(shard.tuning.client_pause)

    def _drop_message_content_intent(self) -> None:
        if self._intents.message_content:  # else another shard has already
            self._intents.message_content = False
            _log.warning(
                "Only messages that mention the bot arrive: switch on "
                '"Message Content Intent" under Bot at https://discord.com/developers'
            )


def _is_connected(shard: Shard) -> bool:
    return not shard.downtime.seconds()


class UnlistedServers:
    """The servers that are not in ALLOWED_SERVERS; there are none if that is empty."""

    def __init__(
        self,
        client: discord.Client,
        *,
        allowed: Collection[str],
        leaves: bool,
        on_left: Callable[[str], Awaitable[None]],
    ) -> None:
        self._client = client
        self._allowed = allowed
        self._leaves = leaves
        self._on_left = on_left
        self._known: set[str] = set()  # servers that were reported, or are being left

    async def check_all(self) -> None:
        """Check all servers of the bot; failures are logged."""
        if not self._allowed:
            return
        try:
            async for server, name in self._servers():
                await self.check(server, name)
        except SurfaceError as error:
            _log.warning("Cannot list the bot's servers: %s", error)

    async def check(self, server: str, name: str) -> None:
        """Report a server that is not allowed once, or leave it whenever it adds the bot."""
        if not self._allowed or server in self._allowed or server in self._known:
            return
        self._known.add(server)
        if not self._leaves:
            _log.warning(
                "Server %s (%s) is not in ALLOWED_SERVERS: nobody is answered there "
                "(LEAVE_OTHER_SERVERS=on leaves it)",
                *(server, name),
            )
            return
        try:
            ids = {"guild_id": int(server)}
            await request(self._client, "DELETE", "/users/@me/guilds/{guild_id}", ids)
            _log.warning("Left server %s (%s): it is not in ALLOWED_SERVERS", server, name)
            # Discord tells of it, too, but perhaps before a session begins.
            with suppress(StoreUnavailable):
                await self._on_left(server)
        except PlaceGone:
            pass  # left already
        except SurfaceError as error:
            # It is tried again when Discord sends the server again.
            _log.warning("Cannot leave server %s (%s): %s", server, name, error)
        self._known.discard(server)

    async def _servers(self) -> AsyncGenerator[tuple[str, str]]:
        after = 0
        while True:
            query = {"limit": _PAGE, "after": after}
            page = await request(self._client, "GET", "/users/@me/guilds", query=query)
            for one in page:
                yield str(one["id"]), str(one.get("name"))
            if len(page) < _PAGE:
                return
            after = int(page[-1]["id"])
