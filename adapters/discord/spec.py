"""Discord, as a process sees it: its settings, and how they are asked for, checked and used."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TextIO

from bot.domain import Finding
from bot.errors import CannotStart
from bot.platform_spec import Command, Connected, PlatformSpec, Process, Question
from config.settings import PlatformSettings, Settings
from config.variables import IdForm, like, setting, switch, url, word

_ID = r"[0-9]{15,20}"
_snowflake = like(_ID, "is not an id of Discord, which has 15 to 20 digits")


def _shards(text: str) -> tuple[tuple[int, ...], int]:
    parts = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?/([0-9]{1,5})", text)
    if parts:
        first, last, count = int(parts[1]), int(parts[2] or parts[1]), int(parts[3])
        if first <= last < count:
            return tuple(range(first, last + 1)), count
    raise ValueError("is not like 0-3/8 or 4/8: the first, the last, and how many there are")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscordSettings(PlatformSettings):
    """The variables DISCORD_*; the bot runs in Discord if it has a token."""

    name: ClassVar[str] = "discord"
    needs: ClassVar[tuple[tuple[str, str], ...]] = (("shards", "token"),)

    token: str = setting("", word, "Discord bot token", secret=True)
    threads: bool = setting(
        True, switch, "on: a mention in a channel opens a thread; off: it is answered by a reply"
    )
    shards: tuple[tuple[int, ...], int] | None = setting(
        None,
        _shards,
        "which of the bot's shards this process serves, such as 0-3/8; empty means it has one",
    )
    command_server: str = setting(
        "",
        _snowflake,
        "id of one server in which the commands are registered, to try changes; empty: everywhere",
    )
    api_url: str = setting(
        "", url("http", "https", beside_token=True), "another address of Discord's REST API"
    )
    gateway_url: str = setting(
        "", url("ws", "wss", beside_token=True), "another address of Discord's gateway"
    )

    @property
    def is_configured(self) -> bool:
        """Whether there is a token."""
        return bool(self.token)

    def mistakes(self, settings: Settings) -> Iterator[str]:
        """Yield that all servers would be left."""
        if settings.leave_other_servers and not PLATFORM.own_ids(settings.allowed_servers):
            yield "LEAVE_OTHER_SERVERS=on needs a Discord server in ALLOWED_SERVERS"


@asynccontextmanager
async def _connect(process: Process) -> AsyncIterator[Connected]:
    from adapters.discord.platform import connect

    settings, own = process.settings, DiscordSettings.of(process.settings)
    async with connect(
        token=own.token,
        api_url=own.api_url,
        gateway_url=own.gateway_url,
        threads=own.threads,
        budgets=process.budgets,
        rated=settings.rates(usual=False),
        command_server=own.command_server,
        leaves_other_servers=settings.leave_other_servers,
    ) as platform:
        listen = partial(platform.listen, process.intake, store=process.store, shards=own.shards)
        yield Connected(platform, listen, platform.downtime)


def _examine(settings: Settings) -> AsyncIterator[Finding]:
    from adapters.discord.setup import examine

    own = DiscordSettings.of(settings)
    return examine(
        token=own.token,
        api_url=own.api_url,
        servers=PLATFORM.own_ids(settings.allowed_servers),
        channels=PLATFORM.own_ids(settings.allowed_channels),
        sharded=own.shards is not None,
    )


async def _invitation(settings: Settings) -> str:
    from adapters.discord.setup import invite

    own = DiscordSettings.of(settings)
    if not own.token:
        raise CannotStart("set DISCORD_TOKEN: the address names its application")
    return await invite(token=own.token, api_url=own.api_url)


async def _welcome(settings: Settings) -> AsyncIterator[Finding]:
    yield Finding("Discord", f"Add the bot to a server: {await _invitation(settings)}")


async def _invite(settings: Settings, _: Namespace, output: TextIO) -> None:
    output.write(f"{await _invitation(settings)}\n")


PLATFORM = PlatformSpec(
    title="Discord",
    where="Discord",
    settings=DiscordSettings,
    connect=_connect,
    ids=dict.fromkeys(("server", "channel", "person", "role"), IdForm(_ID, "123456789012345678")),
    ids_help="Discord's have 15 to 20 digits (Copy ID, in its developer mode)",
    # Threads of `/ask`: `ask-<person>`, `private-<channel>-<person>`.
    own_names=("-{id}:",),
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
