"""Slack, and what people say there while nobody hears it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from adapters.slack.inbound.outage import OutageRecord
from adapters.slack.limits import Limits
from adapters.slack.workspace import Budgets
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.rates import Rate
from tests.support.fakes import FakeIntake
from tests.support.slack_platform import LIMITS, hearing

ACK_SECONDS = 30.0  # by the emulator's clock, which is advanced past it
TEAM = SlackEmulator.team_id


def quiet(*, unlisted: bool = False, rates: dict[str, Rate] | None = None) -> SlackEmulator:
    """Slack, which sends an event that is not acknowledged twice at once and never again."""
    return SlackEmulator(ack_within=ACK_SECONDS, retry_after=(0.0,), unlisted=unlisted, rates=rates)


def listening(
    slack: SlackEmulator,
    intake: FakeIntake,
    store: Store,
    *,
    budgets: Budgets | None = None,
    limits: Limits = LIMITS,
) -> AbstractAsyncContextManager[object]:
    """Listen like a process of its own, with budgets that all processes share."""
    budgets = budgets or EditBudgets(store=store)
    return hearing(slack, intake, store=store, budgets=budgets, limits=limits)


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
