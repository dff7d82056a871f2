"""The service in the test's own process, connected to emulators."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot.app.platforms import load_settings
from bot.app.service import DRAIN_SECONDS, choose_roles, serve
from bot.store import Store
from config.settings import Settings
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import PROCESS_LEASE, discord_variables, slack_variables
from tests.support.waiting import until

NO_FILE = Path("no such file")


@dataclass(slots=True)
class Service:
    """A running service; `address` is that of its HTTP server."""

    stop: asyncio.Event
    task: asyncio.Task[None]
    records: list[logging.LogRecord] = field(default_factory=list)
    address: str = ""

    def text(self) -> str:
        """Return its log."""
        return "\n".join(record.getMessage() for record in self.records)

    def errors(self) -> list[str]:
        return [each.getMessage() for each in self.records if each.levelno >= logging.ERROR]


class _Collector(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


def make_settings(store: Store, variables: Mapping[str, str]) -> Settings:
    """Return settings as a process would read them; several services share the store's server."""
    defaults = {"LEASE_SECONDS": str(PROCESS_LEASE), "PORT": "0", "REDIS_URL": store.url}
    return load_settings({**defaults, **variables}, NO_FILE)


@asynccontextmanager
async def starting(
    store: Store, *roles: str, variables: Mapping[str, str], drain_seconds: float = DRAIN_SECONDS
) -> AsyncIterator[Service]:
    """Start serving; at the end of the block the service is stopped and its error raised."""
    settings = make_settings(store, variables)
    stop, records = asyncio.Event(), list[logging.LogRecord]()

    def started(address: str) -> None:
        service.address = address or "none"

    service = Service(
        stop,
        asyncio.create_task(
            serve(
                settings,
                stop,
                roles=choose_roles(roles, settings),
                need_all=bool(roles),
                started=started,
                drain_seconds=drain_seconds,
            )
        ),
        records,
    )
    handler, root = _Collector(records), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield service
    finally:
        stop.set()
        try:
            async with asyncio.timeout(60):
                await service.task
        finally:
            root.removeHandler(handler)
            root.setLevel(level)


@asynccontextmanager
async def serving(store: Store, *roles: str, **options: Any) -> AsyncIterator[Service]:
    """Serve until the end of the block, which begins when the start is complete."""
    async with starting(store, *roles, **options) as service:
        await until(lambda: service.address or service.task.done(), why=service.text)
        yield service


@asynccontextmanager
async def serving_discord(
    store: Store, model: ModelEmulator, **variables: str
) -> AsyncIterator[tuple[DiscordEmulator, Service]]:
    async with DiscordEmulator() as discord:
        variables = discord_variables(discord, model) | variables
        async with serving(store, variables=variables) as service:
            await until(discord.connected.is_set, why=service.text)
            yield discord, service


@asynccontextmanager
async def serving_both(
    store: Store, model: ModelEmulator | None, **variables: str
) -> AsyncIterator[tuple[DiscordEmulator, SlackEmulator, Service]]:
    async with AsyncExitStack() as stack:
        discord = await stack.enter_async_context(DiscordEmulator())
        slack = await stack.enter_async_context(SlackEmulator())
        both = discord_variables(discord, model) | slack_variables(slack, model) | variables
        service = await stack.enter_async_context(serving(store, variables=both))
        await until(discord.connected.is_set, why=service.text)
        if both["SLACK_APP_TOKEN"]:
            await until(slack.connected.is_set, why=service.text)
        yield discord, slack, service
