"""The service, from a question on an emulated platform to the answer that stands there."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import REGISTRY

from bot import errors
from bot.app.service import LIMITS, choose_roles, until_stopped
from bot.domain import Person, ThreadKey, Turn
from bot.errors import CannotStart
from bot.platform_spec import Service
from bot.reply.draft import ANSWERED_BY, BUSY, STOPPED
from bot.store import Store
from bot.turns.queue import TurnQueue
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import How, ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.process import (
    ANSWER,
    PROCESS_LEASE,
    DiscordDm,
    DiscordMention,
    DiscordSlash,
    SlackDm,
    SlackMention,
    SlackSlash,
    Way,
    discord_variables,
    offers_another,
    remembered,
    shows,
    slack_variables,
    speak_slowly,
)
from tests.support.service import serving, serving_both, serving_discord, starting
from tests.support.settings import settings_of
from tests.support.waiting import until


class Jobs:
    """Jobs of a process, and how each of them ended."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.cancelled: list[str] = []
        self.drained = False

    async def listen(self, name: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise

    async def work(self) -> None:
        await self.stop.wait()
        await asyncio.sleep(0)
        self.drained = True

    async def fail(self) -> None:
        raise CannotStart("the token is refused")

    async def end(self) -> None:
        """Return at once, as a terminal whose input is at its end."""

    async def until_stopped(self, jobs: Mapping[str, Service]) -> None:
        async with asyncio.timeout(30):
            await until_stopped(jobs, self.stop)


async def test_a_listener_that_loses_its_cancellation_is_cancelled_again() -> None:
    cancellations = 0

    async def listen() -> None:
        nonlocal cancellations
        while cancellations < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancellations += 1
        raise asyncio.CancelledError

    stop = asyncio.Event()
    stop.set()

    async with asyncio.timeout(30):
        await until_stopped({"discord": listen()}, stop, cancel_seconds=0.01)

    assert cancellations == 2


async def test_a_listener_that_fails_ends_the_others_and_lets_replies_end() -> None:
    jobs = Jobs()

    with pytest.raises(CannotStart):
        await jobs.until_stopped(
            {"discord": jobs.fail(), "slack": jobs.listen("slack"), "worker": jobs.work()}
        )

    assert (jobs.cancelled, jobs.drained) == (["slack"], True)


async def test_the_end_of_the_terminal_ends_no_other_listener() -> None:
    jobs = Jobs()
    console = asyncio.Event()

    async def end() -> None:
        console.set()

    task = asyncio.create_task(
        jobs.until_stopped({"console": end(), "discord": jobs.listen("discord")})
    )
    await console.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    before = list(jobs.cancelled)

    jobs.stop.set()
    await task

    assert (before, jobs.cancelled) == ([], ["discord"])


async def test_the_end_of_a_terminal_that_is_alone_lets_its_replies_end() -> None:
    jobs = Jobs()

    await jobs.until_stopped({"console": jobs.end(), "worker": jobs.work()})

    assert jobs.drained


def test_a_service_without_a_platform_and_a_terminal_has_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(CannotStart, match="there is nothing to do"):
            choose_roles([], settings_of())


async def test_a_service_may_open_as_many_files_as_its_answers_need(
    own_store: Store, model: ModelEmulator
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    variables = {"MODEL_URL": model.url, "CAPACITY": "200"}
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        async with serving(own_store, "worker", variables=variables) as service:
            allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert allowed == 900
    assert "CAPACITY" not in service.text()


def prompts(model: ModelEmulator) -> list[list[tuple[str, str]]]:
    return [
        [(each["role"], each["content"]) for each in request.messages if each["role"] != "system"]
        for request in model.requests
    ]


async def hold_a_conversation(ways: list[Way], model: ModelEmulator) -> None:
    """Ask two questions in each place: the answer grows, and the second prompt holds the first."""
    speak_slowly(model, seconds=3)
    for way in ways:
        await way.ask(f"What is it, {way}?")
    for way in ways:
        await until(partial(shows, way, ANSWER), why=way.answers)
        growing = [state for state in way.answers()[-1][1] if state]
        assert len(growing) >= 4, growing
        assert sorted(growing, key=len) == growing

    model.delay = 0
    for way in ways:
        await way.ask("And then?")
    for way in ways:
        await until(partial(shows, way, ANSWER, ANSWER), why=way.answers)
        assert [
            ("user", f"What is it, {way}?"),
            ("assistant", ANSWER),
            ("user", "And then?"),
        ] in prompts(model)


async def test_both_platforms_answer_in_one_growing_message(
    own_store: Store, model: ModelEmulator
) -> None:
    async with serving_both(own_store, model) as (discord, slack, _):
        in_discord = [kind(discord) for kind in (DiscordMention, DiscordDm, DiscordSlash)]
        in_slack = [kind(slack) for kind in (SlackMention, SlackDm, SlackSlash)]
        await hold_a_conversation([*in_discord, *in_slack], model)

        assert (discord.pings, slack.pings, slack.unfurls) == ([], [], [])
    assert len(await remembered(own_store)) == 12


def over_http(slack: SlackEmulator) -> dict[str, str]:
    return {"SLACK_APP_TOKEN": "", "SLACK_SIGNING_SECRET": slack.signing_secret}


async def test_slack_answers_over_http(own_store: Store, model: ModelEmulator) -> None:
    async with SlackEmulator() as slack:
        variables = slack_variables(slack, model) | over_http(slack)
        async with serving(own_store, variables=variables) as service:
            await slack.verify(f"{service.address}/slack/events")
            ways: list[Way] = [kind(slack) for kind in (SlackMention, SlackDm, SlackSlash)]
            for way in ways:
                await way.ask("What is it?")
            for way in ways:
                await until(partial(shows, way, "You said: What is it?"))

        assert (slack.pings, slack.unfurls) == ([], [])
    assert len(await remembered(own_store)) == 3


@pytest.mark.parametrize("capacity", [3, 100])
async def test_as_many_questions_are_answered_at_once_as_the_capacity(
    capacity: int, own_store: Store, model: ModelEmulator
) -> None:
    everybody = asyncio.Event()
    model.fail("completions", "late", gate=everybody, times=capacity)
    variables = {"MODEL_URL": model.url, "MODEL_ID": "emulated", "CAPACITY": str(capacity)}
    async with serving(own_store, "worker", variables=variables):
        queue = TurnQueue(
            store=own_store,
            worker="test",
            limits=LIMITS,
            lease_seconds=PROCESS_LEASE,
            keep_seconds=60,
        )
        for number in range(capacity + 5):
            key = ThreadKey("console", "", "", str(number))
            person = Person(str(number), "Ann")
            await queue.admit(Turn(f"console:{number}", key, person, "Hi", {}, 0.0))
        await until(lambda: len(model.requests) == capacity)
        everybody.set()
        async with asyncio.timeout(60):
            while (await queue.load([])).open:
                await asyncio.sleep(0.02)

    assert model.most_running == capacity


async def test_an_event_delivered_three_times_is_answered_once(
    own_store: Store, model: ModelEmulator
) -> None:
    async with serving_both(own_store, model) as (discord, slack, _):
        in_discord, in_slack = DiscordMention(discord), SlackMention(slack)
        await in_discord.ask("What is it?")
        await in_slack.ask("What is it?")
        for _ in range(2):
            await discord.redeliver(in_discord.question)
            await slack.redeliver(str(in_slack.question))
        await until(lambda: in_discord.finals() and in_slack.finals())
        # A turn that is asked after the copies is answered after whatever they caused.
        await in_discord.ask("Last")
        await in_slack.ask("Last")
        expected = ["You said: What is it?", "You said: Last"]
        await until(partial(shows, in_discord, *expected), why=in_discord.answers)
        await until(partial(shows, in_slack, *expected), why=in_slack.answers)
    assert len(model.requests) == 4


def failures(kind: str) -> float:
    labels = {"kind": kind}
    samples = [one for metric in REGISTRY.collect() for one in metric.samples]
    return sum(
        one.value
        for one in samples
        if one.name == "parley_model_failures_total" and labels.items() <= one.labels.items()
    )


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (308, errors.ModelElsewhere),
        (401, errors.ModelDenied),
        (404, errors.ModelUnknown),
        (429, errors.ModelBusy),
        (503, errors.ModelLoading),
    ],
)
async def test_a_refusal_of_the_model_is_a_calm_apology_and_counted(
    status: int, error: type[errors.ModelError], own_store: Store, model: ModelEmulator
) -> None:
    before = failures(error.__name__)
    headers = {"Location": "/login"}
    model.fail("completions", status=status, body={"error": "no"}, headers=headers, times=99)
    async with serving_discord(own_store, model, REPLY_TIMEOUT="3") as (discord, service):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(lambda: way.finals() == [error.apology], why=way.answers)

    assert service.errors() == []
    assert await remembered(own_store) == []
    assert failures(error.__name__) == before + len(model.requests)


@pytest.mark.parametrize(
    ("how", "error"), [("hang", errors.ModelSilent), ("drop", errors.ModelUnavailable)]
)
async def test_a_model_that_breaks_off_leaves_the_text_so_far(
    how: How, error: type[errors.ModelError], own_store: Store, model: ModelEmulator
) -> None:
    model.fail("completions", how, at_delta=2, times=2)
    async with serving_discord(own_store, model, REPLY_TIMEOUT="2") as (discord, service):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(
            lambda: way.finals() == [f"You said: What i\n\n{error.apology}"], why=way.answers
        )

    assert service.errors() == []
    assert [exchange.answer for exchange in await remembered(own_store)] == ["You said: What i"]


async def test_a_blank_answer_is_shown_as_no_answer(own_store: Store, model: ModelEmulator) -> None:
    model.answer, model.chunk = " \n\u200b\n", 1
    async with serving_discord(own_store, model) as (discord, service):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(lambda: way.finals() == [errors.EmptyAnswer.apology], why=service.text)

    assert await remembered(own_store) == []


async def test_an_answer_that_may_not_go_on_says_so(own_store: Store, model: ModelEmulator) -> None:
    model.answer = "The quick brown fox jumps over the lazy dog again. " * 60
    model.chunk, model.delay = 100, 0.1
    async with serving_discord(own_store, model) as (discord, service):
        way = DiscordMention(discord)
        await way.ask("What is it?")
        await until(lambda: way.finals())
        discord.forbid_writing(discord.channel_id, in_threads=True)
        await until(lambda: offers_another(way), why=way.answers)

    (shown,) = way.finals()
    words, _, apology = shown.rpartition("\n\n")
    assert model.answer.startswith(words)
    assert len(words) > 1500
    assert apology == errors.PlaceGone.apology
    assert [button for _, button in way.buttons() if button.startswith("stop")] == []
    assert "Send Messages in Threads" in service.text()
    assert [exchange.answer for exchange in await remembered(own_store)] == [words]


async def test_the_stop_button_ends_a_pause(own_store: Store, model: ModelEmulator) -> None:
    model.fail("completions", "drop", at_delta=2)
    model.fail("completions", status=503, retry_after=40)
    async with serving_discord(own_store, model) as (discord, service):
        way = DiscordDm(discord)
        await way.ask("What is it?")
        await until(lambda: way.buttons() and len(model.requests) == 2, why=service.text)
        await way.press()
        await until(lambda: way.finals() == [f"You said: What i\n\n{STOPPED}"], why=service.text)


@pytest.mark.parametrize("kind", [DiscordMention, DiscordSlash, SlackDm])
async def test_an_answer_written_anew_takes_the_place_of_the_first_in_the_next_prompt(
    kind: Callable[..., Way], own_store: Store, model: ModelEmulator
) -> None:
    async with serving_both(own_store, model) as (discord, slack, _):
        way = kind(slack if kind is SlackDm else discord)
        model.answer = "The first answer, which is somewhat longer."
        await way.ask("What is it?")
        await until(lambda: offers_another(way), why=way.answers)
        (former,) = way.buttons()

        model.answer = "Another answer."
        await way.press()
        await until(lambda: shows(way, "Another answer.") and offers_another(way))
        assert way.buttons() == [former]
        model.answer = "More."
        await way.ask("And then?")
        await until(lambda: shows(way, "Another answer.", "More."), why=way.answers)

    first = ("user", "What is it?")
    following = [first, ("assistant", "Another answer."), ("user", "And then?")]
    assert prompts(model) == [[first], [first], following]
    assert len(await remembered(own_store)) == 2


async def test_a_stop_during_the_start_ends_it(own_store: Store, model: ModelEmulator) -> None:
    async with DiscordEmulator() as discord:
        discord.fail("GET /users/@me", "hang")
        variables = discord_variables(discord, model)
        async with starting(own_store, "worker", variables=variables) as service:
            await until(lambda: discord.requests, why=service.text)
            service.stop.set()
            async with asyncio.timeout(30):
                await service.task

            assert service.address == ""


async def test_events_that_arrive_during_the_stop_are_answered_by_the_next_service(
    own_store: Store, model: ModelEmulator
) -> None:
    model.answer = ANSWER
    go_on = asyncio.Event()
    model.fail("completions", "late", gate=go_on)
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        variables = slack_variables(slack, model) | over_http(slack)
        first, second = SlackDm(slack), SlackMention(slack)
        async with serving(own_store, variables=variables) as service:
            await slack.verify(f"{service.address}/slack/events")
            await first.ask("What is it?")
            await until(lambda: model.requests)
            service.stop.set()
            ready = await status(session, f"{service.address}/readyz")
            await second.ask("And what now?")
            go_on.set()
            await service.task
        async with serving(own_store, "worker", variables=variables):
            await until(partial(shows, second, ANSWER), why=second.answers)

        assert ready == 503
        assert first.finals() == [ANSWER]


async def status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        return answer.status


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"DISCORD_TOKEN": "secret-1"}, "there is no model"),
        ({"SLACK_BOT_TOKEN": "xoxb-1", "MODEL_ID": "demo"}, "SLACK_APP_TOKEN"),
    ],
)
async def test_a_start_that_cannot_work_says_why(
    variables: dict[str, str], sentence: str, own_store: Store, model: ModelEmulator
) -> None:
    with pytest.raises(CannotStart, match=sentence):
        async with serving(own_store, variables=variables):
            pass


async def test_a_stop_ends_a_service_whose_gateway_is_lost(
    own_store: Store, model: ModelEmulator
) -> None:
    async with serving_discord(own_store, model) as (discord, service):
        discord.refuse_connections()
        await discord.cut()

        service.stop.set()
        async with asyncio.timeout(30):
            await service.task


async def test_a_reply_that_takes_too_long_is_handed_over_and_ended_by_the_next_service(
    own_store: Store, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=600)
    async with DiscordEmulator() as discord:
        way = DiscordDm(discord)
        # With a lease so long, the next service answers in time only what was handed over.
        variables = discord_variables(discord, model) | {"LEASE_SECONDS": "600"}
        async with serving(own_store, variables=variables, drain_seconds=0.1) as service:
            await until(discord.connected.is_set)
            await way.ask("What is it?")
            await until(way.finals)
            service.stop.set()
            await service.task
        half_written = way.finals()
        model.delay = 0
        async with serving(own_store, variables=variables):
            await until(partial(shows, way, ANSWER), why=way.answers)

    assert half_written != [ANSWER]


async def test_a_stop_in_a_pause_between_attempts_hands_the_turn_over_at_once(
    own_store: Store, model: ModelEmulator
) -> None:
    model.fail("completions", "reset", times=99)
    async with DiscordEmulator() as discord:
        way = DiscordDm(discord)
        variables = discord_variables(discord, model)
        # Only the hand-over ends the service in time: the drain takes an hour.
        async with serving(own_store, variables=variables, drain_seconds=3600) as first:
            await until(discord.connected.is_set)
            await way.ask("What is it?")
            await until(lambda: len(model.requests) >= 2)
            first.stop.set()
            async with asyncio.timeout(60):
                await first.task
        before = way.finals()
        model.heal()
        async with serving(own_store, variables=variables) as second:
            await until(partial(shows, way, "You said: What is it?"), why=second.text)

    assert before == []
    assert first.errors() == []


async def test_a_model_that_is_away_gets_an_apology_and_is_asked_again_by_a_button(
    own_store: Store, model: ModelEmulator
) -> None:
    away = errors.ModelUnavailable.apology
    await model.refuse_connections()
    async with serving_discord(own_store, model, REPLY_TIMEOUT="4") as (discord, service):
        way, other = DiscordDm(discord), DiscordMention(discord)
        await way.ask("one")
        await until(lambda: shows(way, away), why=service.text)
        await way.ask("two")
        await other.ask("three")
        await until(lambda: shows(way, away, away) and shows(other, away), why=service.text)
        await until(lambda: offers_another(way), why=way.buttons)
        assert await remembered(own_store) == []

        await model.accept_connections()
        while not model.requests:
            # Until the circuit breaker allows an attempt, the apology comes again at once.
            await until(lambda: offers_another(way), why=way.buttons)
            # Seldom enough for Discord's limits.
            await asyncio.sleep(1)
            await way.press()
        await until(partial(shows, way, away, "You said: two"), why=service.text)
        await other.ask("four")
        await until(partial(shows, other, away, "You said: four"), why=service.text)

    assert service.errors() == []


async def test_a_model_that_dies_in_mid_answer_and_comes_back_gives_one_whole_answer(
    own_store: Store, model: ModelEmulator
) -> None:
    model.answer, model.delay = ANSWER, 0.03
    model.fail("completions", "drop", at_delta=25, times=2)
    model.fail("completions", "reset", times=4)
    async with serving_both(own_store, model) as (discord, slack, service):
        ways: list[Way] = [DiscordMention(discord), SlackMention(slack)]
        for way in ways:
            await way.ask("What is it?")
        for way in ways:
            await until(partial(shows, way, ANSWER), why=service.text)
            await until(partial(offers_another, way), why=service.text)
            # On a busy machine the pauses may be long enough for a sign of life.
            states = [state.removesuffix(f"\n\n{BUSY}") for state in way.answers()[0][1] if state]
            assert sorted(states, key=len) == states
            assert all(ANSWER.startswith(state.rstrip()) for state in states)
    assert [exchange.answer for exchange in await remembered(own_store)] == [ANSWER] * 2
    assert service.errors() == []


async def test_an_answer_that_is_another_when_asked_anew_takes_the_place_of_the_broken_one(
    own_store: Store, model: ModelEmulator
) -> None:
    whole = "Another " * 30 + "end."
    answers = iter(["One thing " * 20] * 2 + [whole] * 2)
    model.answer, model.delay = lambda _: next(answers), 0.03
    model.fail("completions", "reset", at_delta=20, times=2)
    async with serving_both(own_store, model) as (discord, slack, service):
        ways: list[Way] = [DiscordMention(discord), SlackMention(slack)]
        for way in ways:
            await way.ask("What is it?")
        for way in ways:
            await until(partial(shows, way, whole), why=service.text)

    assert [exchange.answer for exchange in await remembered(own_store)] == [whole] * 2


async def test_the_next_model_answers_for_one_that_nobody_serves(own_store: Store) -> None:
    async with ModelEmulator(flavour="router") as model:
        model.models = ("org/second", "org/third")
        async with serving_discord(
            own_store, model, MODEL_ID="org/first", MODEL_FALLBACKS="org/second"
        ) as (discord, service):
            way = DiscordDm(discord)
            await way.ask("What is it?")
            said = "You said: What is it?"
            by = ANSWERED_BY.format(model="org/second")
            await until(lambda: way.finals() == [f"{said}\n\n{by}"], why=service.text)

    assert [exchange.answer for exchange in await remembered(own_store)] == [said]
