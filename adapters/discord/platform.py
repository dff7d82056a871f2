"""Discord as a platform of the core: the login, surfaces, and the gateway's sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route

from adapters.discord.backlog import Backlog
from adapters.discord.errors import fail_at_once, translated
from adapters.discord.gateway import Gateway
from adapters.discord.surface import open_surface
from bot.domain import Turn
from bot.errors import CannotStart, SurfaceError
from bot.intake import Intake
from bot.ports import Surface

_log = logging.getLogger(__name__)

_API_URL = Route.BASE
_GATEWAY_URL = DiscordWebSocket.DEFAULT_GATEWAY
_RECONNECT_PAUSE = 5.0  # seconds, after what discord.py does not mend by itself
_WRONG_TOKEN = 4004  # "Opcodes and Status Codes", gateway close event codes


@asynccontextmanager
async def connect(
    *, token: str, api_url: str, gateway_url: str, threads: bool
) -> AsyncIterator[DiscordPlatform]:
    """Log in over REST; empty addresses mean Discord's own.

    `threads` lets a mention in a channel open a Discord thread. The addresses hold for the whole
    process. Raises CannotStart when the token is refused or Discord cannot be reached.
    """
    Route.BASE = api_url or _API_URL
    DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway_url) if gateway_url else _GATEWAY_URL
    # We never speak, and an operator need not hear of what voice lacks.
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    client = discord.Client(
        intents=discord.Intents(guilds=True),  # not used; discord.py warns where it is missing
        allowed_mentions=discord.AllowedMentions.none(),
        max_messages=None,
        http_trace=fail_at_once(),
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
            except Exception:
                # discord.py 2.7.1 fails so when the gateway's first connection is refused, too.
                _log.exception("the gateway failed")
            await asyncio.sleep(_RECONNECT_PAUSE)


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
