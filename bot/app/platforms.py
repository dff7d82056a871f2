"""The platforms of a process: where replies are shown, and where events come in."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web

from bot.app import http
from bot.app.assistant import IDLE_SECONDS, Assistant
from bot.errors import CannotStart, Unreachable
from bot.ports import Platform
from bot.proxy import warn_if_readable
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from bot.turns.intake import Intake
from config.settings import Settings

log = logging.getLogger(__name__)

Job = Coroutine[Any, Any, None]
RETRY_SECONDS = 10.0  # between two tries to reach a platform while another one runs


@dataclass(slots=True)
class Platforms:
    """The platforms of this process: where replies are shown, and where events come in.

    `off` are those that should run and do not, each with the reason. One that could not be reached
    is tried again by its listener, and is among `platforms` from then on.
    """

    platforms: dict[str, Platform] = field(default_factory=dict)
    listeners: dict[str, Callable[[Intake], Job]] = field(default_factory=dict)
    posts: dict[str, Callable[[Intake], http.Handler]] = field(default_factory=dict)
    # For how many seconds each platform that has a listener has not been heard.
    silences: dict[str, Callable[[], float]] = field(default_factory=dict)
    off: dict[str, CannotStart] = field(default_factory=dict)


async def open_doors(
    settings: Settings,
    roles: frozenset[str],
    store: Store,
    budgets: EditBudgets,
    mind: Assistant | None,
    stack: AsyncExitStack,
    *,
    apart: bool,
    retry_seconds: float = RETRY_SECONDS,
) -> Platforms:
    """Connect what the roles need; a process imports only the platforms that it runs.

    With `apart`, a platform that cannot start is off as long as another one runs. Raises
    CannotStart, with a line for each platform that failed; so do the listeners.
    """
    if mistakes := list(_missing(settings, roles)):
        raise CannotStart("\n".join(mistakes))
    _warn_of_readable_tokens(settings)
    doors = Platforms()
    wanted = roles | (set(settings.chat_platforms) if "worker" in roles else set())
    openers: dict[str, _Opener] = {
        "discord": partial(_open_discord, settings, store, budgets, stack),
        "slack": partial(_open_slack, settings, store, budgets, stack),
    }
    names = [name for name in openers if name in wanted]
    # How many have to be off before the process ends.
    most = len(names) if apart else 1
    opened = [
        _Door(name, openers[name], doors, most=most, retry_seconds=retry_seconds) for name in names
    ]
    for door in opened:
        await door.open()
        if door.name in roles:
            doors.listeners[door.name] = door.listen
            doors.silences[door.name] = door.silence
    if "slack" in roles and not settings.slack_app_token:
        doors.posts["/slack/events"] = opened[-1].handler
    if len(doors.off) >= max(most, 1):
        raise _failure(doors)
    for door in opened:
        door.tell()
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


@dataclass(frozen=True, slots=True)
class _Opened:
    """A connected platform, and the ways in which it hears people; `handler` is one over HTTP."""

    platform: Platform
    listen: Callable[[Intake], Job]
    silence: Callable[[], float]
    handler: Callable[[Intake], http.Handler] | None = None


_Opener = Callable[[], Awaitable[_Opened]]


class _Door:
    """One platform, connected again and again while it cannot be reached and others run."""

    def __init__(
        self, name: str, opener: _Opener, doors: Platforms, *, most: int, retry_seconds: float
    ) -> None:
        self.name = name
        self._opener = opener
        self._doors = doors
        self._most = most
        self._retry_seconds = retry_seconds
        self._opened: _Opened | None = None
        self._told = ""

    async def open(self) -> None:
        """Connect, or note why that cannot be done."""
        try:
            await self._connected()
        except CannotStart as error:
            self._doors.off[self.name] = error

    async def listen(self, intake: Intake) -> None:
        """Hear people until cancelled; CannotStart when too many platforms are off."""
        while True:
            if error := self._doors.off.get(self.name):
                if not isinstance(error, Unreachable):
                    await asyncio.Event().wait()
                await asyncio.sleep(self._retry_seconds)
            try:
                opened = await self._connected()
                await opened.listen(intake)
            except CannotStart as error:
                self._note(error)

    def handler(self, intake: Intake) -> http.Handler:
        """Return a handler that answers 503 while the platform is off: its sender tries again."""
        handle: http.Handler | None = None

        async def handle_if_open(request: web.Request) -> web.StreamResponse:
            nonlocal handle
            if self._opened is None or self._opened.handler is None:
                return web.Response(status=503)
            handle = handle or self._opened.handler(intake)
            return await handle(request)

        return handle_if_open

    def silence(self) -> float:
        """Return for how many seconds the platform was not heard: for ever if it is off."""
        if self._opened is None or self.name in self._doors.off:
            return math.inf
        return self._opened.silence()

    async def _connected(self) -> _Opened:
        self._opened = self._opened or await self._opener()
        self._doors.platforms[self.name] = self._opened.platform
        if self._doors.off.pop(self.name, None):
            log.info("%s can be reached now", self.name.capitalize())
        return self._opened

    def tell(self) -> None:
        """Log why the platform is off, if it is; the same reason is told once."""
        error = self._doors.off.get(self.name)
        if error and str(error) != self._told:
            self._told = str(error)
            again = " (another try follows)" if isinstance(error, Unreachable) else ""
            log.error("%s is off%s: %s", self.name.capitalize(), again, error)

    def _note(self, error: CannotStart) -> None:
        self._doors.off[self.name] = error
        if len(self._doors.off) >= self._most:
            raise _failure(self._doors) from error
        self.tell()


def _failure(doors: Platforms) -> CannotStart:
    return CannotStart("\n".join(map(str, doors.off.values())))


def _missing(settings: Settings, roles: frozenset[str]) -> Iterator[str]:
    if "discord" in roles and not settings.discord_token:
        yield "the role discord needs DISCORD_TOKEN"
    if "slack" in roles and not settings.slack_bot_token:
        yield "the role slack needs SLACK_BOT_TOKEN"
    if "slack" in roles and not (settings.slack_app_token or settings.slack_signing_secret):
        yield "the role slack needs SLACK_APP_TOKEN or SLACK_SIGNING_SECRET"


def _warn_of_readable_tokens(settings: Settings) -> None:
    if settings.discord_token:
        discord = {"DISCORD_API_URL": settings.discord_api_url}
        discord["DISCORD_GATEWAY_URL"] = settings.discord_gateway_url
        for by, url in discord.items():
            warn_if_readable("DISCORD_TOKEN", by=by, url=url)
    if settings.slack_bot_token:
        warn_if_readable("SLACK_BOT_TOKEN", by="SLACK_API_URL", url=settings.slack_api_url)


async def _open_discord(
    settings: Settings, store: Store, budgets: EditBudgets, stack: AsyncExitStack
) -> _Opened:
    from adapters import discord

    platform = await stack.enter_async_context(
        discord.connect(
            token=settings.discord_token,
            api_url=settings.discord_api_url,
            gateway_url=settings.discord_gateway_url,
            threads=settings.discord_threads,
            budgets=budgets,
        )
    )
    listen = partial(platform.listen, store=store, shards=settings.discord_shards)
    return _Opened(platform, listen, platform.silence)


async def _open_slack(
    settings: Settings, store: Store, budgets: EditBudgets, stack: AsyncExitStack
) -> _Opened:
    from adapters import slack

    platform = await stack.enter_async_context(
        slack.connect(
            bot_token=settings.slack_bot_token,
            app_token=settings.slack_app_token,
            signing_secret=settings.slack_signing_secret,
            api_url=settings.slack_api_url,
            budgets=budgets,
        )
    )
    if settings.slack_app_token:
        return _Opened(platform, partial(platform.listen, store=store), platform.silence)
    return _Opened(platform, _by_http, _never_silent, platform.handler)


async def _by_http(_: Intake) -> None:
    """Leave the listening to the handler of POSTs."""
    await asyncio.Event().wait()


def _never_silent() -> float:
    """Over HTTP Slack comes to us whenever it has something to say."""
    return 0.0
