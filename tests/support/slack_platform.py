"""The Slack platform against the emulator, while people are heard and while they are not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import aiohttp
import pytest
from aiohttp import web

from adapters.slack.inbound.outage import OutageRecord
from adapters.slack.limits import Limits
from adapters.slack.platform import SlackPlatform, connect
from adapters.slack.settings import SlackSettings
from bot.concurrency import running
from bot.domain import EditBudget, Page
from bot.errors import WriteDelayed
from bot.intake.intake import Intake
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from bot.turns.queue import TurnQueue
from bot.turns.records import History
from bot.turns.script import Limits as QueueLimits
from tests.emulators.serving import served
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.rates import Rate, per_minute
from tests.support.fakes import EmptyStore, FakeQueue, NoLimits, door
from tests.support.waiting import until

Transport = Literal["socket", "http"]
# On a busy machine, nothing may be too late that no test holds back.
LIMITS = Limits(
    heartbeat_interval=0.02,
    name_timeout=30.0,
    lookup_timeout=60.0,
    view_read_within=30.0,
    command_answered_within=30.0,
)
ACK_SECONDS = 30.0  # by the emulator's clock, which is advanced past it
TEAM = SlackEmulator.team_id
UNLIMITED = Rate(calls=1000, seconds=1.0, burst=1000)
# Of these 15 messages are a page, and Slack is as patient as with others.
SHORT_PAGES = {"conversations.history": per_minute(50), "conversations.replies": per_minute(50)}
both_transports = pytest.mark.parametrize("transport", ["socket", "http"])


class Slots(NoLimits):
    """Edit budgets with so many slots left, and none after Slack asked for a pause."""

    def __init__(self, left: int) -> None:
        self.left = left

    async def final(self, budget: EditBudget | None, *, deadline: float) -> None:
        if not self.left:
            raise WriteDelayed("no slot", retry_after=1.0)
        self.left -= 1

    async def pause(self, budget: EditBudget, seconds: float) -> None:
        self.left = 0


@asynccontextmanager
async def joined(
    slack: SlackEmulator,
    *,
    budgets: EditBudgets | None = None,
    limits: Limits = LIMITS,
    prompts: Sequence[tuple[str, str]] = (),
) -> AsyncIterator[SlackPlatform]:
    own = SlackSettings(
        bot_token=slack.bot_token,
        app_token=slack.app_token,
        signing_secret=slack.signing_secret,
        api_url=slack.api_url,
        suggested_prompts=tuple(prompts),
    )
    async with connect(own, budgets=budgets or NoLimits(), limits=limits) as platform:
        yield platform


@asynccontextmanager
async def hearing(
    slack: SlackEmulator,
    intake: Intake | FakeQueue,
    transport: Transport = "socket",
    *,
    store: Store | None = None,
    sockets: int = 2,
    **options: Any,
) -> AsyncIterator[SlackPlatform]:
    """Receive events, by so many sockets, until the block ends like a process at SIGTERM.

    The options are those of `joined`.
    """
    async with joined(slack, **options) as platform:
        if transport == "http":
            async with serving(platform.handler(door(intake))) as url:
                await slack.verify(url)
                yield platform
            return
        before = slack.sockets
        async with running(platform.listen(door(intake), store=store or EmptyStore())) as task:
            await until(lambda: slack.sockets == before + sockets or task.done())
            yield platform


@asynccontextmanager
async def heard(
    transport: Transport = "socket",
    *,
    limits: Limits = LIMITS,
    refuses: Exception | None = None,
    slack: SlackEmulator | None = None,
) -> AsyncIterator[tuple[SlackEmulator, FakeQueue, str]]:
    """A Slack where the bot listens, what it asks of the queue, and Ann, a person there."""
    queue = FakeQueue()
    queue.refuses = refuses
    running = slack or SlackEmulator()
    async with running, hearing(running, queue, transport, limits=limits):
        yield running, queue, running.user("Ann")


@asynccontextmanager
async def serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """The address of a server where everything goes to this handler."""
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    async with served(app, auto_decompress=False) as url:
        yield f"{url}/"


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
        session.post(url, data=io.BytesIO(body), headers=sent) as answer,
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


def quiet(*, unlisted: bool = False, rates: dict[str, Rate] | None = None) -> SlackEmulator:
    """Slack, which sends an event that is not acknowledged twice at once and never again."""
    return SlackEmulator(ack_within=ACK_SECONDS, retry_after=(0.0,), unlisted=unlisted, rates=rates)


def listening(
    slack: SlackEmulator, intake: FakeQueue, store: Store, **options: Any
) -> AbstractAsyncContextManager[object]:
    """Listen like a process of its own, with budgets that all processes share."""
    options = {"budgets": EditBudgets(store=store)} | options
    return hearing(slack, intake, store=store, **options)


async def used(store: Store, *conversations: tuple[str, str]) -> None:
    """Let people have talked with the bot there, the last one last."""
    record = make_record(store)
    for channel, thread in conversations:
        record.note(channel, thread)
        await record.heartbeat()


def make_record(store: Store) -> OutageRecord:
    return OutageRecord(store, team=TEAM, limits=LIMITS)


async def missed(slack: SlackEmulator, store: Store, *texts: str, name: str = "Ann") -> str:
    """Let a person say this in a DM that was used before, while nobody hears; return the DM."""
    person = slack.user(name)
    dm = slack.dm(person)
    await used(store, (dm, ""))
    for text in texts:
        await slack.say(dm, person, text)
    await lost(slack, events=len(texts))
    await passed(store, 60)
    return dm


async def missed_from_each(slack: SlackEmulator, store: Store, *names: str) -> None:
    """Let people say their names in DMs of their own, while nobody hears."""
    for name in names:
        person = slack.user(name)
        await used(store, (slack.dm(person), ""))
        await slack.say(slack.dm(person), person, name)
    await lost(slack, events=len(names))
    await passed(store, 60)


async def missed_in_thread(
    slack: SlackEmulator, store: Store, texts: Sequence[str], *, talk: int
) -> None:
    """Let a person ask this in a thread, amid others' talk, while nobody hears."""
    ann = slack.user("Ann")
    place = slack.channel_id
    root = await slack.say(place, ann, "Good morning")
    await used(store, (place, root))
    for _ in range(talk):
        await slack.say(place, ann, "not for the bot", thread_ts=root)
    for text in texts:
        await slack.say(place, ann, f"{slack.bot_mention} {text}", thread_ts=root)
    # A mention arrives as a mention and as a message.
    await lost(slack, events=1 + talk + 2 * len(texts))
    await passed(store, 60)


async def passed(store: Store, seconds: int) -> None:
    """Let Slack have been heard last so long ago."""
    now = (await store.command("TIME"))[0]
    await store.command("SET", store.key("slack", TEAM, "heard"), now - seconds)


async def silence(store: Store) -> int:
    """Return for how many seconds nobody has said that Slack was heard."""
    heard = int(await store.command("GET", store.key("slack", TEAM, "heard")) or 0)
    return int((await store.command("TIME"))[0]) - heard


async def until_noted(store: Store, kind: str, place: str) -> None:
    async with asyncio.timeout(60):
        while not await store.command("ZSCORE", store.key("slack", TEAM, kind), place):
            await asyncio.sleep(0.01)


async def until_heard(store: Store) -> None:
    """Wait until a process that has looked for what was missed says that it hears Slack."""
    async with asyncio.timeout(60):
        while await silence(store) > 1:
            await asyncio.sleep(0.01)


def reads(slack: SlackEmulator) -> list[str]:
    """The methods by which messages were read."""
    methods = (call.method for call in slack.requests)
    return [one for one in methods if one in ("conversations.history", "conversations.replies")]


async def lost(slack: SlackEmulator, *, events: int = 1) -> None:
    """Let Slack's retries of so many events end in vain; nothing else may be in flight."""

    def given_up() -> set[str]:
        return {one.event_id for one in slack.deliveries if one.attempt == 1 and one.status is None}

    async with asyncio.timeout(60):
        while len(given_up()) < events:
            slack.clock.advance(ACK_SECONDS)
            await asyncio.sleep(0.005)
