"""Discord, as a process sees it: its settings, and how they are asked for, checked and used."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TextIO

from adapters.discord.settings import ID, DiscordSettings
from bot.domain import Finding
from bot.errors import CannotStart
from bot.platform_spec import Command, Connected, PlatformSpec, Process, Question
from config.settings import Settings
from config.variables import IdForm


@asynccontextmanager
async def _connect(process: Process) -> AsyncIterator[Connected]:
    from adapters.discord.platform import connect

    settings = process.settings
    async with connect(
        DiscordSettings.of(settings),
        budgets=process.budgets,
        rated=settings.rates(usual=False),
        leaves_other_servers=settings.leave_other_servers,
    ) as platform:
        listener = platform.listener
        listen = partial(listener.listen, process.intake, store=process.store)
        yield Connected(platform, listen, listener.downtime, tell=platform.tell)


def _examine(settings: Settings) -> AsyncIterator[Finding]:
    from adapters.discord.setup import examine

    return examine(
        DiscordSettings.of(settings),
        servers=PLATFORM.own_ids(settings.allowed_servers),
        channels=PLATFORM.own_ids(settings.allowed_channels),
    )


async def _invitation(settings: Settings) -> str:
    from adapters.discord.setup import invite

    own = DiscordSettings.of(settings)
    if not own.token:
        raise CannotStart("set DISCORD_TOKEN: the address names its application")
    return await invite(own)


async def _welcome(settings: Settings) -> AsyncIterator[Finding]:
    yield Finding("Discord", f"Add the bot to a server: {await _invitation(settings)}")


async def _invite(settings: Settings, _: Namespace, output: TextIO) -> None:
    output.write(f"{await _invitation(settings)}\n")


PLATFORM = PlatformSpec(
    title="Discord",
    where="Discord",
    settings=DiscordSettings,
    connect=_connect,
    ids=dict.fromkeys(("server", "channel", "person", "role"), IdForm(ID, "123456789012345678")),
    ids_help="Discord's have 15 to 20 digits (Copy ID, in its developer mode)",
    # Threads of `/ask`: `ask-<person>`, `private-<channel>-<person>`.
    own_names=("-{id}:",),
    sessions=("gateway:*:session",),
    credential="DISCORD_TOKEN",
    examine=_examine,
    welcome=_welcome,
    questions=(
        Question(
            "DISCORD_TOKEN",
            "Discord: the bot's token",
            secret=True,
            before="For Discord, create an application at https://discord.com/developers; its "
            "token is under Bot.",
            check=_examine,
        ),
    ),
    commands=(
        Command("invite", "print the address that adds the bot to a Discord server", _invite),
    ),
    tokens=(("token", "api_url"), ("token", "gateway_url")),
    loggers=("discord",),
)
