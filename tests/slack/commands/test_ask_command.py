"""The command /ask of Slack, through the real slack-bolt."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from adapters.slack.limits import Limits
from bot.access.quotas import Quota
from bot.access.rules import AccessRules
from bot.commands.handlers import AWAY, excuse
from bot.domain import Person, ThreadKey
from bot.errors import PersonBusy, Refused, StoreUnavailable, ThreadBusy
from bot.store import Store
from tests.emulators.slack import SlackEmulator
from tests.support.fakes import FakeQueue, NotedIntake
from tests.support.slack_platform import (
    LIMITS,
    Transport,
    both_transports,
    heard,
    hearing,
    joined,
    send_body,
    serving,
)
from tests.support.waiting import until


@both_transports
async def test_ask_posts_the_question_and_is_answered_in_its_thread(transport: Transport) -> None:
    async with heard(transport) as (slack, intake, ann):
        delivery = await slack.slash(slack.channel_id, ann, "/ask", "why is <b> & so on?")

        [question] = slack.screen(slack.channel_id)
        turn = intake.last
        assert question.text == "Ann asks: why is <b> & so on?"
        assert (delivery.status, delivery.body.strip()) == (200, "")
        assert turn.id.startswith(f"slack:{slack.team_id}:cmd:")
        assert turn.key == ThreadKey("slack", slack.team_id, slack.channel_id, question.ts)
        assert turn.person == Person(ann, "Ann", slack.team_id)
        assert turn.text == "why is <b> & so on?"
        assert turn.place["thread"] == turn.place["question"] == question.ts


async def test_a_question_that_waits_for_a_worker_shows_that_it_was_heard() -> None:
    async with heard(limits=replace(LIMITS, sign_after=0.1)) as (slack, intake, ann):
        channel = slack.channel_id
        await slack.slash(channel, ann, "/ask", "one")
        await until(lambda: intake.asked_for_waits)
        intake.is_waiting = True
        # The top level of a DM has no line.
        await slack.say(slack.dm(ann), ann, "two")
        await until(lambda: "two" in intake.texts)
        await slack.slash(channel, ann, "/ask", "three")
        said = await slack.say(channel, ann, f"{slack.bot_mention} four")

        threads = [one.ts for one in slack.screen(channel)]
        await until(lambda: all(slack.status(channel, one) for one in threads[1:]))

        lines = [slack.status(channel, one) for one in threads]
        assert lines == [[], ["is thinking..."], ["is thinking..."]]
        assert threads[-1] == said
        assert sum("setStatus" in call.method for call in slack.requests) == 2


@both_transports
@pytest.mark.parametrize("text", ["a payload?", "why? " * 1000])
async def test_ask_shows_the_beginning_of_a_question_and_asks_all_of_it(
    transport: Transport, text: str
) -> None:
    async with heard(transport) as (slack, intake, ann):
        delivery = await slack.slash(slack.channel_id, ann, "/ask", text)

        [question] = slack.screen(slack.channel_id)
        assert delivery.status == 200
        assert question.text.startswith(f"Ann asks: {text[:10]}")
        assert question.text.endswith("…") == (len(text) > 1000)
        assert intake.texts == [text.strip()]


async def test_ask_in_a_dm_belongs_to_the_conversation_there() -> None:
    async with heard() as (slack, intake, ann):
        dm = slack.dm(ann)

        await slack.slash(dm, ann, "/ask", "why?")

        assert [shown.text for shown in slack.screen(dm)] == ["Ann asks: why?"]
        assert intake.last.key == ThreadKey("slack", slack.team_id, dm, dm)
        question = slack.screen(dm)[0].ts
        assert intake.last.place == {"channel": dm, "thread": None, "question": question}


async def test_ask_pings_nobody_shows_no_previews_and_turns_no_text_around() -> None:
    async with heard() as (slack, _, ann):
        bob = slack.user("\u202e<!here>")
        asked = f"<!channel> <@{ann}> \u2066https://a.example"

        await slack.slash(slack.channel_id, bob, "/ask", asked)

        [question] = slack.screen(slack.channel_id)
        assert question.text == "<!here> asks: @channel @Ann https://a.example"
        assert not slack.pings
        assert not slack.unfurls


@both_transports
async def test_ask_without_a_question_gets_a_line_of_help(transport: Transport) -> None:
    async with heard(transport) as (slack, _, ann):
        await slack.slash(slack.channel_id, ann, "/ask", "  ")

        assert slack.ephemerals[0].text.startswith("Ask me something: `/ask ")
        assert not slack.screen(slack.channel_id)


async def test_ask_without_membership_explains_how_to_invite_the_bot() -> None:
    async with heard() as (slack, intake, ann):
        elsewhere = slack.channel("elsewhere", member=False)

        await slack.slash(elsewhere, ann, "/ask", "why?")

        assert "/invite @parley" in slack.ephemerals[0].text
        assert not intake.asked


@pytest.mark.parametrize("refusal", [PersonBusy(), StoreUnavailable("no Redis")])
async def test_ask_posts_no_question_for_which_there_is_no_room(
    refusal: Refused | StoreUnavailable,
) -> None:
    intake = FakeQueue()
    intake.is_full = refusal
    async with SlackEmulator() as slack, hearing(slack, intake):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "why?")

        assert slack.ephemerals[0].text == excuse(refusal)
        assert not any(call.method.startswith("chat.post") for call in slack.requests)
        assert not intake.asked


@pytest.mark.parametrize("refusal", [ThreadBusy(), StoreUnavailable("no Redis")])
async def test_ask_takes_a_question_back_that_was_not_admitted(
    refusal: Refused | StoreUnavailable,
) -> None:
    async with heard(refuses=refusal) as (slack, _, ann):
        await slack.slash(slack.channel_id, ann, "/ask", "why?")
        await until(lambda: any(call.method == "chat.delete" for call in slack.requests))

        assert slack.ephemerals[0].text == excuse(refusal)
        assert not slack.screen(slack.channel_id)


async def test_a_command_that_is_sent_again_is_one_turn() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, joined(slack) as platform:
        names = {"user_id": slack.user("Ann"), "channel_id": slack.channel_id, "command": "/ask"}
        fields = {**names, "team_id": slack.team_id, "trigger_id": "1.2.3", "text": "why?"}
        body = urlencode(fields).encode()
        async with serving(platform.handler(intake.intake)) as url:
            for _ in range(2):
                await send_body(slack, url, body, kind="application/x-www-form-urlencoded")
            await until(lambda: any(call.method == "chat.delete" for call in slack.requests))

        assert [one.ts for one in slack.screen(slack.channel_id)] == [
            turn.place["question"] for turn in intake.turns
        ]


@pytest.mark.parametrize("error", [None, "is_archived", "msg_too_long"])
async def test_ask_apologizes_when_the_question_cannot_be_posted(error: str | None) -> None:
    async with heard() as (slack, intake, ann):
        slack.fail("chat.postMessage", error=error)

        delivery = await slack.slash(slack.channel_id, ann, "/ask", "why?")

        assert delivery.status == 200
        assert slack.ephemerals[0].text == AWAY
        assert not intake.asked


async def test_ask_apologizes_in_time_and_takes_a_late_question_back() -> None:
    intake, posted = FakeQueue(), asyncio.Event()
    # Long enough for a busy machine to begin the post.
    limits = replace(LIMITS, command_answered_within=1.0)
    async with SlackEmulator() as slack, hearing(slack, intake, limits=limits):
        slack.fail("chat.postMessage", "late", gate=posted)

        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "why?")
        apologies = [notice.text for notice in slack.ephemerals]
        posted.set()
        await until(lambda: any(call.method == "chat.delete" for call in slack.requests))

        assert apologies == [AWAY]
        assert not slack.screen(slack.channel_id)
        assert not intake.asked


async def test_ask_apologizes_if_admission_takes_too_long() -> None:
    intake = FakeQueue()
    intake.open.clear()
    limits = replace(LIMITS, command_answered_within=2.0)
    async with SlackEmulator() as slack, hearing(slack, intake, limits=limits):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "why?")
        await until(lambda: any(call.method == "chat.delete" for call in slack.requests))

        assert slack.ephemerals[0].text == AWAY
        assert not slack.screen(slack.channel_id)


def test_a_command_is_answered_before_slack_gives_it_up() -> None:
    # docs: Slash commands, "Confirming receipt": within 3 seconds.
    assert Limits().view_read_within < Limits().command_answered_within < 3.0


async def test_who_may_not_use_the_bot_costs_nothing_and_reads_one_sentence(store: Store) -> None:
    async with SlackEmulator() as slack:
        ann, eve = slack.user("Ann"), slack.user("Eve")
        intake = NotedIntake(store)
        intake.access.rules = AccessRules(people=frozenset({ann}))
        async with hearing(slack, intake):
            for text in ("why?", "stop", "really?"):
                await slack.say(slack.channel_id, eve, f"{slack.bot_mention} {text}")
            await slack.say(slack.channel_id, ann, f"{slack.bot_mention} and I?")
            await until(lambda: intake.turns and slack.ephemerals)
            told = len(slack.ephemerals)
            command = await slack.slash(slack.channel_id, eve, "/ask", "why?")

            assert intake.texts == ["and I?"]
            assert told == 1
            assert "may not answer you" in command.body
            # Nothing was posted, and nothing else is kept of the person.
            assert len(slack.screen(slack.channel_id)) == 4
            keys = [key for key in await store.command("KEYS", store.key("*")) if eve in key]
            assert keys == [store.key("warned", f"slack:{slack.team_id}::{eve}")]


async def test_a_used_quota_is_reported_to_the_person_alone(store: Store) -> None:
    async with SlackEmulator() as slack:
        ann, intake = slack.user("Ann"), NotedIntake(store)
        intake.access.rules = AccessRules(quota=Quota(1))
        async with hearing(slack, intake):
            for text in ("one", "two"):
                await slack.say(slack.channel_id, ann, f"{slack.bot_mention} {text}")
            await until(lambda: slack.ephemerals)
            command = await slack.slash(slack.channel_id, ann, "/ask", "three")

            assert len(intake.turns) == 1
            assert "again after 00:00 UTC, in " in command.body
            assert len(slack.screen(slack.channel_id)) == 2
