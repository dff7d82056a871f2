"""Discord as a platform of the core: the login, surfaces, and the gateway's sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from adapters.discord.backlog import Backlog
from adapters.discord.errors import fail_at_once, translated
from adapters.discord.gateway import Gateway
from adapters.discord.limits import Budgets, counted
from adapters.discord.surface import open_surface
from bot.domain import Turn
from bot.errors import CannotStart, SurfaceError
from bot.intake import Intake
from bot.ports import Surface

_log = logging.getLogger(__name__)
_library_log = logging.getLogger("discord.client")

_API_URL = Route.BASE
_GATEWAY_URL = DiscordWebSocket.DEFAULT_GATEWAY
_UNREACHABLE = "the gateway cannot be reached: %s"
_RECONNECT_PAUSE = 5.0  # seconds, after what discord.py does not mend by itself
_WRONG_TOKEN = 4004  # "Opcodes and Status Codes", gateway close event codes
# What discord.py 2.7.1 lets out, or tries again after, when the way to Discord is the trouble.
_ON_THE_WAY = (
    OSError,
    aiohttp.ClientError,
    discord.ConnectionClosed,
    discord.GatewayNotFound,
    discord.HTTPException,
)


@asynccontextmanager
async def connect(
    *, token: str, api_url: str, gateway_url: str, threads: bool, budgets: Budgets
) -> AsyncIterator[DiscordPlatform]:
    """Log in over REST; empty addresses mean Discord's own.

    `threads` lets a mention in a channel open a Discord thread; `budgets` count all requests, and
    learn of the rate limits that Discord tells of. The addresses hold for the whole process. Raises
    CannotStart when the token is refused or Discord cannot be reached.
    """
    Route.BASE = api_url or _API_URL
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway_url) if gateway_url else _GATEWAY_URL
    # A filter is held once, however often it is added.
    _library_log.addFilter(_tell_briefly)
    # We never speak, and an operator need not hear of what voice lacks.
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    client = discord.Client(
        intents=discord.Intents(guilds=True),  # not used; discord.py warns where it is missing
        allowed_mentions=discord.AllowedMentions.none(),
        max_messages=None,
        http_trace=counted(fail_at_once(), budgets),
    )
    try:
        await _login(client, token)
        yield DiscordPlatform(client, token=token, threads=threads)
    finally:
        await client.close()


class DiscordPlatform:
    """Discord, reached over REST; the gateway only while `listen` runs."""

    name = "discord"

    def __init__(self, client: discord.Client, *, token: str, threads: bool) -> None:
        self._client = client
        self._token = token
        self._threads = threads

    def surface(self, turn: Turn) -> AbstractAsyncContextManager[Surface]:
        """Open the surface of a turn's reply, its Discord thread included."""
        return open_surface(self._client, turn)

    async def listen(self, intake: Intake) -> None:
        """Hand over what people do to the intake, until cancelled.

        Registers the command /ask. Raises CannotStart when the token is refused.
        """
        backlog = Backlog()
        working = asyncio.create_task(backlog.work())
        try:
            await self._sessions(intake, backlog)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _sessions(self, intake: Intake, backlog: Backlog) -> None:
        intents = discord.Intents(
            guilds=True, guild_messages=True, dm_messages=True, message_content=True
        )
        while True:
            gateway = Gateway(
                intake=intake, backlog=backlog, threads=self._threads, intents=intents
            )
            try:
                await gateway.serve(self._token)
            except discord.PrivilegedIntentsRequired:
                intents.message_content = False
                _log.warning(
                    "Discord keeps messages that do not mention the bot from it: switch on "
                    '"Message Content Intent" under Bot at https://discord.com/developers'
                )
                continue
            except discord.LoginFailure as error:
                raise _wrong_token() from error
            except discord.ConnectionClosed as error:
                if error.code == _WRONG_TOKEN:
                    raise _wrong_token() from error
                _log.warning("the gateway was closed: %s", error)
            except _ON_THE_WAY as error:
                _log.warning(_UNREACHABLE, _cause(error))
            except Exception as error:
                if not _never_connected(error):
                    _log.exception("the gateway failed")
            await asyncio.sleep(_RECONNECT_PAUSE)


def _tell_briefly(record: logging.LogRecord) -> bool:
    """Make a sentence of the traceback that discord.py 2.7.1 logs before it connects again."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, _ON_THE_WAY):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = _UNREACHABLE, (_cause(error),)
        record.exc_info = None
    return True


def _cause(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _never_connected(error: Exception) -> bool:
    # discord.py 2.7.1 logs the refusal of its first connection, and then asks for what only a
    # second one would have.
    return isinstance(error, AttributeError) and error.obj is None and error.name == "sequence"


async def _login(client: discord.Client, token: str) -> None:
    try:
        async with translated():
            await client.login(token)
    except ValueError as error:  # characters that no header can carry
        raise _wrong_token() from error
    except SurfaceError as error:
        if isinstance(error.__cause__, discord.LoginFailure):
            raise _wrong_token() from error
        raise CannotStart(f"cannot log in at {Route.BASE}: {error}") from error


def _wrong_token() -> CannotStart:
    return CannotStart(
        "DISCORD_TOKEN is refused by Discord: copy the bot's token from "
        "https://discord.com/developers"
    )
