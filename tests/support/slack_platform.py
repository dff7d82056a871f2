"""Our platform against the emulated Slack, and what its tests tell it and let it show."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import aiohttp
import pytest
from aiohttp import web

from adapters.slack import SlackPlatform, connect
from adapters.slack.limits import Limits
from adapters.slack.workspace import Budgets
from bot.concurrency import running
from bot.domain import EditBudget, Page
from bot.errors import WriteDelayed
from bot.store import Store
from bot.turns.history import History
from bot.turns.intake import Intake
from bot.turns.queue import Limits as QueueLimits
from bot.turns.queue import TurnQueue
from tests.emulators.slack import Rate, SlackEmulator
from tests.emulators.slack.rates import per_minute
from tests.support.fakes import NoLimits
from tests.support.waiting import until

Transport = Literal["socket", "http"]
LIMITS = Limits(heartbeat_interval=0.02)
UNLIMITED = Rate(calls=1000, seconds=1.0, burst=1000)
# Of these 15 messages are a page, and Slack is as patient as with others.
SHORT_PAGES = {"conversations.history": per_minute(50), "conversations.replies": per_minute(50)}
both_transports = pytest.mark.parametrize("transport", ["socket", "http"])


class Slots(NoLimits):
    """Edit budgets with so many slots left, and none after Slack asked for a pause."""

    def __init__(self, left: int) -> None:
        self.left = left

    async def final(self, budget: EditBudget, *, deadline: float) -> None:
        if not self.left:
            raise WriteDelayed("no slot", retry_after=1.0)
        self.left -= 1

    async def pause(self, budget: EditBudget, seconds: float) -> None:
        self.left = 0


@asynccontextmanager
async def joined(
    slack: SlackEmulator, *, budgets: Budgets | None = None, limits: Limits = LIMITS
) -> AsyncIterator[SlackPlatform]:
    async with connect(
        bot_token=slack.bot_token,
        app_token=slack.app_token,
        signing_secret=slack.signing_secret,
        api_url=slack.api_url,
        budgets=budgets or NoLimits(),
        limits=limits,
    ) as platform:
        yield platform


@asynccontextmanager
async def hearing(
    slack: SlackEmulator,
    intake: Intake,
    transport: Transport = "socket",
    *,
    store: Store | None = None,
    budgets: Budgets | None = None,
    limits: Limits = LIMITS,
    sockets: int = 2,
) -> AsyncIterator[SlackPlatform]:
    """Receive events, by so many sockets, until the block ends like a process at SIGTERM."""
    async with joined(slack, budgets=budgets, limits=limits) as platform:
        if transport == "http":
            async with serving(platform.handler(intake)) as url:
                await slack.verify(url)
                yield platform
            return
        before = slack.sockets
        async with running(platform.listen(intake, store=store)) as task:
            await until(lambda: slack.sockets == before + sockets or task.done())
            yield platform


@asynccontextmanager
async def serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """The address of a server where everything goes to this handler."""
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def make_intake(store: Store) -> Intake:
    """The intake of one process."""
    queue = TurnQueue(
        store=store,
        worker="w1",
        limits=QueueLimits(100, 100, 100, 100),
        lease_seconds=1,
        keep_seconds=60,
    )
    return Intake(queue=queue, history=History(store=store, keep_seconds=60))


def fast() -> SlackEmulator:
    return SlackEmulator(rates={"chat.update": UNLIMITED, "chat.postMessage": UNLIMITED})


def first(text: str, *, final: bool = False, last: bool = False) -> Page:
    done = final or last
    return Page(0, text, done, said="" if done else text, last=last)


def dm_event(slack: SlackEmulator) -> dict[str, object]:
    ann = slack.user("Ann")
    return {
        "type": "message",
        "channel": slack.dm(ann),
        "channel_type": "im",
        "user": ann,
        "text": "why?",
        "ts": "1700000000.000100",
        "event_ts": "1700000000.000100",
    }


async def send(
    slack: SlackEmulator,
    url: str,
    event: dict[str, object],
    *,
    headers: dict[str, str | None] | None = None,
) -> int:
    """Send an event as Slack does, with these headers instead, and return the status."""
    wrapped = {"type": "event_callback", "team_id": slack.team_id, "event": event}
    return await send_body(slack, url, json.dumps(wrapped).encode(), headers=headers)


async def send_body(
    slack: SlackEmulator,
    url: str,
    body: bytes,
    *,
    kind: str = "application/json",
    headers: dict[str, str | None] | None = None,
) -> int:
    signature = {**signed(slack, body), "Content-Type": kind}
    chosen: dict[str, str | None] = {**signature, **(headers or {})}
    sent = {name: value for name, value in chosen.items() if value is not None}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=sent) as answer,
    ):
        return answer.status


def signed(slack: SlackEmulator, body: bytes) -> dict[str, str]:
    now = str(int(time.time()))
    key, text = slack.signing_secret.encode(), f"v0:{now}:".encode() + body
    return {
        "Content-Type": "application/json",
        "X-Slack-Request-Timestamp": now,
        "X-Slack-Signature": f"v0={hmac.new(key, text, hashlib.sha256).hexdigest()}",
    }
