"""Discord as a platform of the core: the login, surfaces, and the gateway's sessions."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import discord
from discord.http import Route

from adapters.discord.errors import fail_at_once, translated
from adapters.discord.gateway.client import Gateway
from adapters.discord.gateway.connection import begin_at
from adapters.discord.gateway.inbox import Backlog
from adapters.discord.gateway.session_store import SavedSession
from adapters.discord.gateway.shard import ON_THE_WAY, UNREACHABLE, Shard
from adapters.discord.rate_limits import Budgets, counted
from adapters.discord.reply.open import open_surface, strays
from adapters.discord.rest import RestClient
from bot.concurrency import together
from bot.domain import Purpose, Turn
from bot.errors import CannotStart, SurfaceError, Unreachable, WriteDelayed, WriteFailed
from bot.hearing import Hearing
from bot.ports import Surface
from bot.store import Store
from bot.turns.intake import Intake

_log = logging.getLogger(__name__)

_API_URL = Route.BASE
_RECONNECT_PAUSE = 5.0  # seconds, after what discord.py does not mend by itself
_REFUSED = (
    "DISCORD_TOKEN is refused by Discord: copy the bot's token from https://discord.com/developers"
)
# What no other try will mend ("Opcodes and Status Codes", gateway close event codes).
_FINAL = {
    4004: _REFUSED,
    4010: "DISCORD_SHARDS is refused by Discord: every process needs the same count",
    4011: "Discord wants the bot in several shards: set DISCORD_SHARDS, for example 0-1/2",
}

Shards = tuple[tuple[int, ...], int]


@asynccontextmanager
async def connect(
    *, token: str, api_url: str, gateway_url: str, threads: bool, budgets: Budgets
) -> AsyncIterator[DiscordPlatform]:
    """Log in over REST; empty addresses mean Discord's own.

    `threads` lets a mention in a channel open a Discord thread; `budgets` count all requests, and
    learn of the rate limits that Discord tells of. The addresses hold for the whole process. Raises
    CannotStart when the token is refused, and Unreachable when Discord cannot be reached.
    """
    Route.BASE = api_url or _API_URL
    begin_at(gateway_url)
    # We never speak, and an operator need not hear of what voice lacks.
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    client = RestClient(
        intents=discord.Intents(guilds=True),  # not used; discord.py warns where it is missing
        allowed_mentions=discord.AllowedMentions.none(),
        max_messages=None,
        http_trace=counted(fail_at_once(), budgets),
    )
    try:
        await _login(client, token)
        yield DiscordPlatform(client, token=token, threads=threads, budgets=budgets)
    finally:
        await client.close()


class DiscordPlatform:
    """Discord, reached over REST; the gateway only while `listen` runs."""

    name = "discord"

    def __init__(self, client: RestClient, *, token: str, threads: bool, budgets: Budgets) -> None:
        self._client = client
        self._token = token
        self._threads = threads
        self._budgets = budgets
        self._hearings: list[Hearing] = []
        self._intents = discord.Intents(
            guilds=True, guild_messages=True, dm_messages=True, message_content=True
        )

    def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AbstractAsyncContextManager[Surface]:
        """Open the surface of a turn's reply, its Discord thread included."""
        return open_surface(self._client, turn, self._budgets, purpose)

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the messages that tries at a turn may have left besides these; SurfaceError.

        What lands late has the nonce of a message that is there, and is none; but an answer may
        need fewer pages than an earlier try had posted.
        """
        return await strays(self._client, turn, but=but)

    async def listen(
        self, intake: Intake, *, store: Store | None = None, shards: Shards | None = None
    ) -> None:
        """Hand over what people do to the intake, until cancelled.

        With a store it goes on where the process before it stopped. `shards` are the numbers that
        are ours and how many there are; None means that the bot has one. Registers the command
        /ask. Raises CannotStart when the token, or the shards, are refused.
        """
        numbers, count = shards or ((None,), None)
        holder = secrets.token_hex(8)
        ours = [
            Shard(number=number, count=count, saved=self._saved(store, number, count, holder))
            for number in numbers
        ]
        self._hearings = [shard.hearing for shard in ours]
        tasks = [
            asyncio.create_task(self._attend(intake, shard, registers=shard is ours[0]))
            for shard in ours
        ]
        await together(*tasks)

    def silence(self) -> float:
        """Return for how many seconds a shard of ours has not been connected; 0 if all are."""
        return max((each.silence() for each in self._hearings), default=math.inf)

    def _saved(
        self, store: Store | None, number: int | None, count: int | None, holder: str
    ) -> SavedSession | None:
        if store is None:
            return None
        application = str(self._client.application_id)
        name = "all" if number is None else f"{number}/{count}"
        return SavedSession(store=store, application=application, shard=name, holder=holder)

    async def _attend(self, intake: Intake, shard: Shard, *, registers: bool) -> None:
        backlog = Backlog()
        while True:
            gateway = Gateway(
                intake=intake,
                backlog=backlog,
                shard=shard,
                budgets=self._budgets,
                threads=self._threads,
                intents=copy.copy(self._intents),
            )
            try:
                await gateway.serve(self._token, registers=registers)
            except discord.PrivilegedIntentsRequired:
                self._read_less()
                continue
            except discord.LoginFailure as error:
                raise _wrong_token() from error
            except discord.ConnectionClosed as error:
                if why := _FINAL.get(error.code):
                    raise CannotStart(why) from error
                _log.warning("the gateway was closed: %s", error)
            except ON_THE_WAY as error:
                _log.warning(UNREACHABLE, str(error) or type(error).__name__)
            except Exception:
                _log.exception("the gateway failed")
            await asyncio.sleep(_RECONNECT_PAUSE)

    def _read_less(self) -> None:
        if self._intents.message_content:
            self._intents.message_content = False
            _log.warning(
                "Discord keeps messages that do not mention the bot from it: switch on "
                '"Message Content Intent" under Bot at https://discord.com/developers'
            )


async def _login(client: discord.Client, token: str) -> None:
    try:
        async with translated():
            await client.login(token)
    except ValueError as error:  # characters that no header can carry
        raise _wrong_token() from error
    except SurfaceError as error:
        if isinstance(error.__cause__, discord.LoginFailure):
            raise _wrong_token() from error
        passing = isinstance(error, WriteDelayed | WriteFailed)
        kind = Unreachable if passing else CannotStart
        raise kind(f"cannot log in at {Route.BASE}: {error}") from error


def _wrong_token() -> CannotStart:
    return CannotStart(_REFUSED)
