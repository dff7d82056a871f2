"""The menu of a message in Slack: a question about it, and a summary from there on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from adapters.slack.manifest import ASK_ABOUT_ID, SUMMARISE_ID
from bot.commands.handlers import ASK_ABOUT, SUMMARY_QUESTION
from bot.domain import Turn
from bot.errors import PersonBusy, StoreUnavailable
from bot.store import Store
from tests.emulators.slack import SCOPES, SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.fakes import FakeQueue, NotedIntake
from tests.support.slack_commands import AWAY
from tests.support.slack_platform import LIMITS, Transport, both_transports, heard, hearing
from tests.support.waiting import until


@both_transports
async def test_a_question_about_a_message_is_asked_in_its_thread(transport: Transport) -> None:
    async with heard(transport) as (slack, intake, ann):
        bob, place = slack.user("Bob"), slack.channel_id
        root = await slack.say(place, bob, "It is <!here> the 5 < 6th & more")

        await slack.choose(place, root, ann, ASK_ABOUT_ID)
        form = slack.modal(ann)
        assert form is not None
        title = form.title
        await slack.submit(ann, question="What does <!channel> that mean?")

        turn = intake.last
        question = slack.screen(place, root)[-1]
        assert title == ASK_ABOUT
        assert question.text == "Ann asks: What does @channel that mean?"
        assert turn.text == "What does @channel that mean?"
        assert turn.place == {"channel": place, "thread": root, "question": question.ts}
        assert (turn.key.channel, turn.key.thread) == (place, root)
        assert turn.quote is not None
        assert turn.quote.id == f"slack:{slack.team_id}:{place}:{root}"
        assert turn.quote.person is not None
        assert turn.quote.person.id == bob
        assert turn.quote.text == "It is @here the 5 < 6th & more"
        assert turn.person.id == ann
        assert form.texts == [
            "I have posted your question in the thread of this message, and answer it there."
        ]
        assert not slack.pings


@pytest.mark.parametrize("callback", [ASK_ABOUT_ID, SUMMARISE_ID])
async def test_the_menu_reads_an_alert(callback: str, store: Store) -> None:
    intake = NotedIntake(store)
    attachment: Payload = {"title": "CPU high", "fields": [{"title": "Host", "value": "web-1"}]}
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann, place = slack.user("Ann"), slack.channel_id
        alert = slack.message_of_another(place, None, "", attachments=[attachment])

        await slack.choose(place, alert, ann, callback)
        if callback == ASK_ABOUT_ID:
            await slack.submit(ann, question="Why?")

        [turn] = intake.turns
        assert said(turn) == ["CPU high\nHost: web-1"]


@pytest.mark.parametrize("callback", [ASK_ABOUT_ID, SUMMARISE_ID])
async def test_the_menu_brings_the_files_of_the_message(callback: str, store: Store) -> None:
    intake = NotedIntake(store)
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann, place = slack.user("Ann"), slack.channel_id
        ts = await slack.say(place, ann, "Look!", files=("notes.txt",))

        await slack.choose(place, ts, ann, callback)
        if callback == ASK_ABOUT_ID:
            await slack.submit(ann, question="Why?")

        [turn] = intake.turns
        assert turn.quote
        assert [file.name for file in turn.quote.files] == ["notes.txt"]


async def test_a_question_about_a_reply_is_asked_in_the_same_thread(store: Store) -> None:
    intake = NotedIntake(store)
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        place = slack.channel_id
        root = await slack.say(place, ann, "Good morning")
        reply = await slack.say(place, ann, "It rains", thread_ts=root)

        await slack.choose(place, reply, ann, ASK_ABOUT_ID)
        await slack.submit(ann, question="Why?")

        [turn] = intake.turns
        assert turn.place["thread"] == root
        assert turn.quote is not None
        assert turn.quote.text == "It rains"


async def test_a_form_that_is_sent_twice_asks_once(store: Store) -> None:
    intake = NotedIntake(store)
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        place = slack.channel_id
        root = await slack.say(place, ann, "Good morning")
        await slack.choose(place, root, ann, ASK_ABOUT_ID)
        form = slack.modal(ann)
        assert form is not None
        asked = dict(form.shown)

        await slack.submit(ann, question="Why?")
        form.shown = asked
        await slack.submit(ann, question="Why?")
        await until(lambda: any(call.method == "chat.delete" for call in slack.requests))

        assert len(intake.turns) == 1
        assert len(slack.screen(place, root)) == 2


@pytest.mark.parametrize("when", ["chosen", "submitted"])
async def test_without_the_store_a_shortcut_says_so(when: str) -> None:
    async with heard() as (slack, intake, ann):
        ts = await slack.say(slack.channel_id, ann, "Good morning")
        away = StoreUnavailable("no Redis")
        intake.refuses = away if when == "chosen" else None

        await slack.choose(slack.channel_id, ts, ann, ASK_ABOUT_ID)
        intake.refuses = away
        if when == "submitted":
            await slack.submit(ann, question="Why?")

        assert shown(slack, ann) == [AWAY]
        assert len(slack.screen(slack.channel_id, ts)) == 1


async def test_a_question_about_a_message_that_is_not_kept_any_more_says_so() -> None:
    async with heard() as (slack, intake, ann):
        ts = await slack.say(slack.channel_id, ann, "Good morning")
        await slack.choose(slack.channel_id, ts, ann, ASK_ABOUT_ID)
        intake.history.kept.clear()

        await slack.submit(ann, question="Why?")

        assert shown(slack, ann) == ["This form has expired. Please choose the message again."]


@pytest.mark.parametrize("callback", [ASK_ABOUT_ID, SUMMARISE_ID])
async def test_where_the_bot_is_no_member_it_asks_to_be_invited(callback: str) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann, place = slack.user("Ann"), slack.channel("elsewhere", member=False)
        ts = await slack.say(place, ann, "Good morning")

        await slack.choose(place, ts, ann, callback)
        if callback == ASK_ABOUT_ID:
            await slack.submit(ann, question="Why?")

        assert "/invite @parley" in shown(slack, ann)[0]
        assert not intake.asked


@pytest.mark.parametrize("callback", [ASK_ABOUT_ID, SUMMARISE_ID])
async def test_a_person_who_may_not_ask_now_reads_why(callback: str) -> None:
    intake = FakeQueue()
    intake.is_full = PersonBusy()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "Good morning")

        await slack.choose(slack.channel_id, ts, ann, callback)
        if callback == ASK_ABOUT_ID:
            await slack.submit(ann, question="Why?")

        assert shown(slack, ann) == [PersonBusy.apology]
        assert len(slack.screen(slack.channel_id, ts)) == 1


async def test_a_summary_reads_the_channel_from_the_message_on(store: Store) -> None:
    intake = NotedIntake(store)
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        place = slack.channel_id
        await slack.say(place, ann, "Before")
        start = await slack.say(place, ann, "Shall we meet?")
        await slack.say(place, bob, "On Thursday")

        await slack.choose(place, start, ann, SUMMARISE_ID)

        [turn] = intake.turns
        assert slack.modal(ann) is None
        assert slack.screen(place, start)[-1].text == "Ann asks for a summary from here"
        assert turn.text == SUMMARY_QUESTION
        assert turn.place["thread"] == start
        assert said(turn) == ["Shall we meet?", "On Thursday"]


async def test_of_more_than_may_be_read_a_summary_has_the_newest_and_says_so(store: Store) -> None:
    intake = NotedIntake(store)
    async with SlackEmulator(unlisted=True) as slack, hearing(slack, intake):
        ann, place = slack.user("Ann"), slack.channel_id
        start = await slack.say(place, ann, "Shall we meet?")
        for number in range(20):
            await slack.say(place, ann, str(number))

        await slack.choose(place, start, ann, SUMMARISE_ID)

        [turn] = intake.turns
        assert said(turn) == ["Shall we meet?", *map(str, range(5, 20))]
        note = "Ann asks for a summary from here, of which I can read only a part"
        assert slack.screen(place, start)[-1].text == note


@pytest.mark.parametrize(
    ("chosen", "read"),
    [(0, ["Shall we meet?", "On Thursday", "At noon"]), (1, ["On Thursday", "At noon"])],
)
async def test_a_summary_in_a_thread_reads_the_thread_from_the_message_on(
    store: Store, chosen: int, read: list[str]
) -> None:
    intake = NotedIntake(store)
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann, place = slack.user("Ann"), slack.channel_id
        root = await slack.say(place, ann, "Shall we meet?")
        replies = [
            await slack.say(place, ann, text, thread_ts=root) for text in ("On Thursday", "At noon")
        ]
        await slack.say(place, ann, "Elsewhere")

        await slack.choose(place, (root, *replies)[chosen], ann, SUMMARISE_ID)

        [turn] = intake.turns
        assert turn.place["thread"] == root
        assert said(turn) == read


async def test_a_summary_without_the_scope_names_it() -> None:
    intake = FakeQueue()
    scopes = SCOPES - {"channels:history"}
    async with SlackEmulator(scopes=scopes) as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "Good morning")

        await slack.choose(slack.channel_id, ts, ann, SUMMARISE_ID)

        assert "channels:history" in shown(slack, ann)[0]


async def test_a_question_that_cannot_be_stored_in_time_is_taken_back() -> None:
    limits = replace(LIMITS, command_answered_within=0.5)
    async with heard(limits=limits) as (slack, intake, ann):
        ts = await slack.say(slack.channel_id, ann, "Good morning")
        await slack.choose(slack.channel_id, ts, ann, ASK_ABOUT_ID)
        intake.open.clear()

        await slack.submit(ann, question="Why?")
        await until(lambda: any(call.method == "chat.delete" for call in slack.requests))

        assert shown(slack, ann) == [AWAY]
        assert len(slack.screen(slack.channel_id, ts)) == 1


def said(turn: Turn) -> list[str]:
    """What the prompt shows before the question, the message that was chosen first."""
    assert turn.quote is not None
    return [turn.quote.text, *(one.text for one in turn.context or ())]


def shown(slack: SlackEmulator, user: str) -> Sequence[str]:
    """What the person's modal says."""
    modal = slack.modal(user)
    assert modal
    return modal.texts
