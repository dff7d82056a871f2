"""What people wrote while nobody heard Slack is heard, through the real slack-bolt and a store."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from adapters.slack import connect
from adapters.slack.listening import PLACES, Listening
from bot.errors import StoreUnavailable
from bot.store import Store
from bot.store import connect as connect_store
from tests.emulators.clock import Clock
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.fakes import FakeIntake, NoLimits
from tests.process import SlackDm, bot, slack_variables
from tests.waiting import until

TEAM = SlackEmulator.team_id


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.slack.watch._BEAT_SECONDS", 0.02)


def quiet(clock: Clock | None = None, *, unlisted: bool = False) -> SlackEmulator:
    """Slack, which tells again what nobody heard only when its clock is put forward."""
    return SlackEmulator(clock=clock, ack_within=0.05, unlisted=unlisted)


@asynccontextmanager
async def a_process(slack: SlackEmulator, intake: FakeIntake, store: Store) -> AsyncIterator[None]:
    """Listen like a process of its own, which ends as one does on SIGTERM."""
    async with connect(
        bot_token=slack.bot_token,
        app_token=slack.app_token,
        signing_secret=slack.signing_secret,
        api_url=slack.api_url,
        budgets=NoLimits(),
    ) as platform:
        task = asyncio.create_task(platform.listen(intake, store=store))
        try:
            await until(lambda: slack.sockets == 2 or task.done())
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def passed(store: Store, seconds: int) -> None:
    """Let Slack have been heard last so long ago."""
    now = (await store.command("TIME"))[0]
    await store.command("SET", store.key("slack", TEAM, "heard"), now - seconds)


async def until_noted(store: Store, kind: str, place: str) -> None:
    async with asyncio.timeout(60):
        while not await store.command("ZSCORE", store.key("slack", TEAM, kind), place):
            await asyncio.sleep(0.01)


async def until_heard(store: Store) -> None:
    """Wait until a process that has looked for what was missed says that it hears Slack."""
    key = store.key("slack", TEAM, "heard")
    async with asyncio.timeout(60):
        while (await store.command("TIME"))[0] - int(await store.command("GET", key) or 0) > 1:
            await asyncio.sleep(0.01)


def reads(slack: SlackEmulator) -> list[str]:
    """The methods by which messages were read."""
    methods = (call.method for call in slack.requests)
    return [one for one in methods if one in ("conversations.history", "conversations.replies")]


async def lost(slack: SlackEmulator, *, events: int = 1) -> None:
    """Wait until Slack has told in vain, twice, of what was said."""
    await until(lambda: [one.status for one in slack.deliveries].count(None) == 2 * events)


# After an outage


async def test_a_dm_that_nobody_heard_is_a_turn(store: Store) -> None:
    before, after = FakeIntake(), FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        async with a_process(slack, before, store):
            await slack.say(dm, ann, "one")
            await until_noted(store, "dms", f"{dm}:")
        await slack.say(dm, ann, "two")
        await slack.say(dm, ann, "three")
        await lost(slack, events=2)
        await passed(store, 60)

        async with a_process(slack, after, store):
            await until(lambda: "three" in after.texts)

    assert [text for text in after.texts if text != "one"] == ["two", "three"]
    assert after.last.place["thread"] is None
    assert before.last.key == after.last.key


@pytest.mark.parametrize("direct", [True, False])
async def test_a_question_in_a_thread_that_nobody_heard_is_a_turn(
    store: Store, direct: bool
) -> None:
    before, after = FakeIntake(), FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        place = slack.dm(ann) if direct else slack.channel_id
        mention = "" if direct else f"{slack.bot_mention} "
        async with a_process(slack, before, store):
            root = await slack.say(place, ann, f"{mention}one")
            await until(lambda: before.turns)
            await slack.say(place, ann, f"{mention}two", thread_ts=root)
            await until_noted(store, "threads", f"{place}:{root}")
        await slack.say(place, ann, f"{mention}three", thread_ts=root)
        if not direct:
            await slack.say(place, ann, "not for the bot", thread_ts=root)
        # A mention is told as what it is and as a message.
        await lost(slack, events=1 if direct else 3)
        await passed(store, 60)

        async with a_process(slack, after, store):
            await until(lambda: "three" in after.texts)
            await until_heard(store)

    assert [text for text in after.texts if text not in ("one", "two")] == ["three"]
    assert after.last.key == before.last.key


async def test_a_question_that_has_replies_by_now_is_answered_where_it_was_asked(
    store: Store,
) -> None:
    after = FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        async with a_process(slack, FakeIntake(), store):
            await slack.say(dm, ann, "one")
            await until_noted(store, "dms", f"{dm}:")
        root = await slack.say(dm, ann, "two")
        await slack.say(dm, ann, "and quickly", thread_ts=root)
        await lost(slack, events=2)
        await passed(store, 60)

        async with a_process(slack, after, store):
            await until(lambda: after.turns and after.last.text == "two")

    assert after.last.place["thread"] is None


async def test_a_process_that_lost_its_sockets_looks_for_what_it_missed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.sockets._PAUSES", (0.0, 0.0, 0.05))
    intake = FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        async with a_process(slack, intake, store):
            await slack.say(dm, ann, "one")
            await until_noted(store, "dms", f"{dm}:")
            slack.fail("apps.connections.open", status=500, times=1000)
            await slack.cut()
            await until(lambda: slack.sockets == 0)
            await slack.say(dm, ann, "two")
            await lost(slack)
            await passed(store, 60)
            await asyncio.sleep(0.1)
            assert reads(slack) == []

            slack.heal()
            await until(lambda: "two" in intake.texts)

    assert intake.texts == ["one", "two"]


async def test_the_question_that_began_a_thread_is_not_read_as_one_that_was_missed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.watch.PATIENCE", 0.0)
    before, after = FakeIntake(), FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        async with a_process(slack, before, store):
            root = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} one")
            await until_noted(store, "threads", f"{slack.channel_id}:{root}")
        await passed(store, 60)

        async with a_process(slack, after, store):
            await until(lambda: reads(slack))
            await until_heard(store)

    assert after.texts == []


async def test_nobody_is_answered_who_does_not_wait_any_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.watch.PATIENCE", 0.0)
    before, after = FakeIntake(), FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        async with a_process(slack, before, store):
            await slack.say(dm, ann, "one")
            await until_noted(store, "dms", f"{dm}:")
        await slack.say(dm, ann, "two")
        await lost(slack)
        await passed(store, 3600)

        async with a_process(slack, after, store):
            await until(lambda: reads(slack))
            await until_heard(store)

    assert after.texts == []


async def test_a_bot_that_starts_for_the_first_time_reads_nothing(store: Store) -> None:
    intake = FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        await slack.say(slack.dm(ann), ann, "hello?")
        await lost(slack)

        async with a_process(slack, intake, store):
            await until_heard(store)

        assert (reads(slack), intake.texts) == ([], [])


async def test_a_bot_that_was_away_for_seconds_reads_nothing(store: Store) -> None:
    async with quiet() as slack:
        ann = slack.user("Ann")
        async with a_process(slack, FakeIntake(), store):
            await slack.say(slack.dm(ann), ann, "one")
            await until_noted(store, "dms", f"{slack.dm(ann)}:")
        await passed(store, 3)

        async with a_process(slack, FakeIntake(), store):
            await until_heard(store)

        assert reads(slack) == []


# Within Slack's limits


async def test_fifty_places_are_read_once_and_no_more(store: Store) -> None:
    listening = Listening(store, team=TEAM)
    await listening.beat()
    for number in range(PLACES + 5):
        listening.note(f"D{number:03d}", "")
        listening.note(f"C{number:03d}", "1700000000.000100")
        await listening.beat()
    await passed(store, 60)

    async with quiet() as slack, a_process(slack, FakeIntake(), store):
        await until_heard(store)
        await passed(store, 60)
        await asyncio.sleep(0.1)

        counts = [reads(slack).count(method) for method in sorted(set(reads(slack)))]
        assert counts == [PLACES, PLACES]
    assert 2 * PLACES == 50


async def test_the_latest_places_come_first_and_old_ones_are_forgotten(store: Store) -> None:
    listening = Listening(store, team=TEAM)
    for number in range(PLACES + 5):
        listening.note(f"D{number:03d}", "")
        await listening.beat()
    listening.note("D007", "")
    await listening.beat()

    dms, threads = await listening.places()

    newest = [f"D{number:03d}" for number in (7, *range(PLACES + 4, 7, -1))]
    assert [channel for channel, _ in dms][:5] == newest[:5]
    assert (len(dms), threads) == (PLACES, [])


async def test_places_that_nobody_saves_do_not_pile_up(store: Store) -> None:
    listening = Listening(store, team=TEAM)

    for number in range(10_000):
        listening.note(f"D{number}", "")

    assert len(listening._noted) == 2 * PLACES


async def test_where_slack_asks_for_a_pause_no_more_is_read(store: Store) -> None:
    before, after = FakeIntake(), FakeIntake()
    async with quiet(unlisted=True) as slack:
        people = [slack.user(name) for name in ("Ann", "Ben", "Cleo")]
        async with a_process(slack, before, store):
            for person in people:
                await slack.say(slack.dm(person), person, "one")
                await until_noted(store, "dms", f"{slack.dm(person)}:")
        for person in people:
            await slack.say(slack.dm(person), person, "two")
        await lost(slack, events=3)
        await passed(store, 60)

        async with a_process(slack, after, store):
            await until(lambda: "two" in after.texts)
            await until_heard(store)

        assert reads(slack) == ["conversations.history"] * 2
    assert after.texts.count("two") == 1


async def test_a_place_that_cannot_be_read_hides_no_other(store: Store) -> None:
    before, after = FakeIntake(), FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        async with a_process(slack, before, store):
            await slack.say(slack.dm(ann), ann, "one")
            await until_noted(store, "dms", f"{slack.dm(ann)}:")
        await slack.say(slack.dm(ann), ann, "two")
        await lost(slack)
        listening = Listening(store, team=TEAM)
        listening.note("D0GONE", "")
        await listening.beat()
        await passed(store, 60)

        async with a_process(slack, after, store):
            await until(lambda: "two" in after.texts)

        assert len(reads(slack)) == 2


async def test_a_slack_that_is_silent_is_not_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.missed._TOGETHER", 0.1)
    listening = Listening(store, team=TEAM)
    listening.note("D001", "")
    await listening.beat()
    await passed(store, 60)

    async with quiet() as slack:
        slack.fail("conversations.history", "hang")
        async with a_process(slack, FakeIntake(), store):
            await until_heard(store)

            assert reads(slack) == ["conversations.history"]
        slack.heal()


async def test_a_store_that_is_away_during_the_look_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.slack.listening._LOOK_SECONDS", 1)
    before, after = FakeIntake(), FakeIntake()
    async with quiet() as slack:
        ann = slack.user("Ann")
        async with a_process(slack, before, store):
            await slack.say(slack.dm(ann), ann, "one")
            await until_noted(store, "dms", f"{slack.dm(ann)}:")
        await slack.say(slack.dm(ann), ann, "two")
        await lost(slack)
        await passed(store, 60)

        after.refuses = StoreUnavailable("away")
        async with a_process(slack, after, store):
            await until(lambda: after.refusals)
            after.refuses = None
            await until(lambda: "two" in after.texts)


async def test_one_of_several_processes_looks(store: Store) -> None:
    several = [Listening(store, team=TEAM) for _ in range(5)]
    await several[0].beat()
    await passed(store, 60)

    told = await asyncio.gather(*(one.beat() for one in several))
    await several[0].begin()
    then = await asyncio.gather(*(one.beat() for one in several))

    assert sorted(told)[:4] == [0, 0, 0, 0]
    assert 60 <= max(told) <= 62
    assert then == [0] * 5


# As processes


@pytest.mark.process
async def test_what_is_said_while_a_killed_process_is_away_is_answered() -> None:
    async with quiet() as slack, ModelEmulator() as model:
        variables = slack_variables(slack, model)
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            data_dir, way = Path(folder), SlackDm(slack)
            async with connect_store(url="", data_dir=data_dir) as store:
                async with bot(data_dir=data_dir, variables=variables) as first:
                    await until(lambda: slack.sockets == 2)
                    await way.ask("one")
                    await until(lambda: way.finals() == ["You said: one"])
                    await until_noted(store, "dms", f"{way.channel}:")
                    first.kill()
                    await first.process.wait()
                await way.ask("two")
                await lost(slack)
                await passed(store, 60)

                async with bot(data_dir=data_dir, variables=variables):
                    await until(lambda: way.finals() == ["You said: one", "You said: two"])

    assert len(model.requests) == 2
