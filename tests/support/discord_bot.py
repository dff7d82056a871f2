"""The unmodified discord.py, and bare HTTP, against the Discord emulator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeVar

import aiohttp
import discord
import pytest
import yarl

from tests.emulators.discord import DiscordEmulator

WAIT = 5.0  # seconds within which everything here must happen
Client = TypeVar("Client", bound=discord.Client)

READABLE = discord.Intents.default() | discord.Intents(message_content=True)
BLIND = discord.Intents.default()


class DiscordBot(discord.Client):
    """A bot that only listens: what it heard waits in `messages` and `interactions`."""

    def __init__(self, *, intents: discord.Intents, heartbeat_timeout: float = 60.0) -> None:
        super().__init__(
            intents=intents, guild_ready_timeout=0.05, heartbeat_timeout=heartbeat_timeout
        )
        self.messages: asyncio.Queue[discord.Message] = asyncio.Queue()
        self.interactions: asyncio.Queue[discord.Interaction[DiscordBot]] = asyncio.Queue()
        self.heard: list[str] = []
        self.tree = discord.app_commands.CommandTree(self)

    async def on_message(self, message: discord.Message) -> None:
        self.messages.put_nowait(message)

    async def on_interaction(self, interaction: discord.Interaction[DiscordBot]) -> None:
        self.interactions.put_nowait(interaction)

    async def on_socket_event_type(self, name: str) -> None:
        self.heard.append(name)

    def place(self, channel_id: str) -> discord.PartialMessageable:
        return self.get_partial_messageable(int(channel_id))

    async def next_message(self) -> discord.Message:
        return await asyncio.wait_for(self.messages.get(), WAIT)

    async def next_interaction(self) -> discord.Interaction[DiscordBot]:
        return await asyncio.wait_for(self.interactions.get(), WAIT)


@contextlib.asynccontextmanager
async def bot_of(
    emulator: DiscordEmulator, *, intents: discord.Intents = READABLE, listens: bool = False
) -> AsyncIterator[DiscordBot]:
    """A DiscordBot that is logged in and pointed at the emulator while this is open."""
    async with client_of(emulator, DiscordBot(intents=intents), listens=listens) as bot:
        yield bot


@contextlib.asynccontextmanager
async def client_of(
    emulator: DiscordEmulator, client: Client, *, listens: bool = True
) -> AsyncIterator[Client]:
    """The real library, logged in and pointed at the emulator while this is open."""
    base, gateway = discord.http.Route.BASE, discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY
    discord.http.Route.BASE = emulator.api_url
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(emulator.gateway_url)
    try:
        async with asyncio.timeout(WAIT), client:
            await client.login(emulator.token)
            async with asyncio.TaskGroup() as group:
                if listens:
                    group.create_task(client.connect())
                    await emulator.connected.wait()
                yield client
                await client.close()
    finally:
        discord.http.Route.BASE = base
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = gateway


@contextlib.asynccontextmanager
async def http_of(emulator: DiscordEmulator) -> AsyncIterator[aiohttp.ClientSession]:
    """Bare HTTP with the bot's token, for what the library hides."""
    headers = {"Authorization": f"Bot {emulator.token}"}
    timeout = aiohttp.ClientTimeout(total=WAIT)
    base = emulator.api_url + "/"
    async with aiohttp.ClientSession(base, headers=headers, timeout=timeout) as session:
        yield session


async def register(bot: DiscordBot) -> None:
    """Register /ask, which does nothing."""

    async def ask(interaction: discord.Interaction[DiscordBot], prompt: str) -> None:
        del interaction, prompt

    bot.tree.add_command(
        discord.app_commands.Command(name="ask", description="Ask", callback=ask), override=True
    )
    await bot.tree.sync()


async def ask_and_defer(
    emulator: DiscordEmulator, bot: DiscordBot
) -> discord.Interaction[DiscordBot]:
    """Return an interaction of /ask that says "thinking" to everybody."""
    await register(bot)
    await emulator.slash(emulator.channel_id, emulator.user("ann"), "ask", prompt="why")
    interaction = await bot.next_interaction()
    await interaction.response.defer(thinking=True)
    return interaction


def raises(code: int) -> pytest.RaisesExc[discord.HTTPException]:
    """Expect Discord's refusal with this error code."""
    return pytest.RaisesExc(discord.HTTPException, check=lambda error: error.code == code)


def stop_button() -> discord.ui.View:
    """Return a row with one button."""
    button: discord.ui.Button[discord.ui.View] = discord.ui.Button(label="Stop", custom_id="stop")
    return discord.ui.View(timeout=None).add_item(button)
