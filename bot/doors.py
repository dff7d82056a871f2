"""The platforms of a process: where replies are shown, and where events come in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bot import http
from bot.budget import EditBudgets
from bot.errors import CannotStart
from bot.intake import Intake
from bot.mind import IDLE_SECONDS, Mind
from bot.ports import Platform
from bot.store import Store
from config.settings import Settings

Job = Coroutine[Any, Any, None]


@dataclass(slots=True)
class Doors:
    """The platforms of this process: where replies are shown, and where events come in."""

    platforms: dict[str, Platform] = field(default_factory=dict)
    listeners: dict[str, Callable[[Intake], Job]] = field(default_factory=dict)
    posts: dict[str, Callable[[Intake], http.Handler]] = field(default_factory=dict)
    # For how many seconds each platform has not been heard that comes to us by connections of ours.
    silences: dict[str, Callable[[], float]] = field(default_factory=dict)


async def open_doors(
    settings: Settings,
    roles: frozenset[str],
    store: Store,
    budgets: EditBudgets,
    mind: Mind | None,
    stack: AsyncExitStack,
) -> Doors:
    """Connect what the roles need; a process imports only the platforms that it runs."""
    doors = Doors()
    chat = settings.chat_platforms if "worker" in roles else ()
    if "discord" in roles or "discord" in chat:
        await _open_discord(settings, doors, store, budgets, stack, listens="discord" in roles)
    if "slack" in roles or "slack" in chat:
        await _open_slack(settings, doors, store, budgets, stack, listens="slack" in roles)
    if mind:
        from adapters.console import ConsolePlatform

        console = ConsolePlatform(
            store=store,
            banner=f"Parley. Answers come from {mind.label}.",
            patience=settings.reply_timeout + IDLE_SECONDS,
            stdin=sys.stdin,
            stdout=sys.stdout,
        )
        doors.platforms["console"] = console
        if "console" in roles:
            doors.listeners["console"] = console.listen
    return doors


async def _open_discord(
    settings: Settings,
    doors: Doors,
    store: Store,
    budgets: EditBudgets,
    stack: AsyncExitStack,
    *,
    listens: bool,
) -> None:
    from adapters import discord

    if not settings.discord_token:
        raise CannotStart("the role discord needs DISCORD_TOKEN")
    platform = await stack.enter_async_context(
        discord.connect(
            token=settings.discord_token,
            api_url=settings.discord_api_url,
            gateway_url=settings.discord_gateway_url,
            threads=settings.discord_threads,
            budgets=budgets,
        )
    )
    doors.platforms["discord"] = platform
    if listens:
        shards = settings.discord_shards
        doors.listeners["discord"] = partial(platform.listen, store=store, shards=shards)
        doors.silences["discord"] = platform.silence


async def _open_slack(
    settings: Settings,
    doors: Doors,
    store: Store,
    budgets: EditBudgets,
    stack: AsyncExitStack,
    *,
    listens: bool,
) -> None:
    from adapters import slack

    if not settings.slack_bot_token:
        raise CannotStart("the role slack needs SLACK_BOT_TOKEN")
    if listens and not (settings.slack_app_token or settings.slack_signing_secret):
        raise CannotStart("the role slack needs SLACK_APP_TOKEN or SLACK_SIGNING_SECRET")
    platform = await stack.enter_async_context(
        slack.connect(
            bot_token=settings.slack_bot_token,
            app_token=settings.slack_app_token,
            signing_secret=settings.slack_signing_secret,
            api_url=settings.slack_api_url,
            budgets=budgets,
        )
    )
    doors.platforms["slack"] = platform
    if listens and settings.slack_app_token:
        doors.listeners["slack"] = partial(platform.listen, store=store)
        doors.silences["slack"] = platform.silence
    elif listens:
        doors.posts["/slack/events"] = platform.handler
