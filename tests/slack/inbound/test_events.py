"""What people do in Slack becomes turns and words to the intake, through the real slack-bolt."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from bot.domain import Person, ThreadKey
from bot.errors import HasEnded, NotTheLast, Refused, StoreUnavailable, ThreadBusy
from tests.emulators.slack import SlackEmulator
from tests.support.fakes import FakeQueue
from tests.support.slack_platform import (
    LIMITS,
    Transport,
    both_transports,
    dm_event,
    fast,
    first,
    heard,
    hearing,
    joined,
    send,
    serving,
)
from tests.support.waiting import until


@both_transports
async def test_a_mention_is_a_turn_that_is_answered_in_its_thread(transport: Transport) -> None:
    async with heard(transport) as (slack, intake, ann):
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why is the sky blue?")
        await until(lambda: intake.turns)

        turn = intake.last
        assert turn.id == f"slack:{slack.team_id}:{slack.channel_id}:{ts}"
        assert turn.key == ThreadKey("slack", slack.team_id, slack.channel_id, ts)
        assert turn.person.id == ann
        assert turn.text == "why is the sky blue?"
        assert turn.place == {"channel": slack.channel_id, "thread": ts, "question": ts}
        assert turn.asked_at == float(ts)


@both_transports
async def test_a_mention_is_admitted_once_however_often_it_arrives(transport: Transport) -> None:
    async with heard(transport) as (slack, intake, ann):
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: len(slack.deliveries) == 2)
        kinds, once = sorted(one.kind for one in slack.deliveries), len(intake.asked)

        await slack.redeliver(ts)
        await slack.redeliver(ts)

        assert (kinds, once) == (["app_mention", "message"], 1)
        assert (len(intake.asked), len(intake.turns)) == (3, 1)
        assert {delivery.status for delivery in slack.deliveries} == {200}


@both_transports
async def test_a_dm_is_answered_at_its_top_level(transport: Transport) -> None:
    async with heard(transport) as (slack, intake, ann):
        dm = slack.dm(ann)

        ts = await slack.say(dm, ann, "why?")
        await until(lambda: intake.turns)

        assert intake.last.key == ThreadKey("slack", slack.team_id, dm, dm)
        assert intake.last.place == {"channel": dm, "thread": None, "question": ts}


IMPATIENT = replace(LIMITS, name_timeout=0.0)


async def test_a_dm_waits_for_no_late_name_and_the_next_question_has_it_with_the_zone() -> None:
    intake, answered = FakeQueue(), asyncio.Event()
    async with SlackEmulator() as slack, hearing(slack, intake, limits=IMPATIENT) as platform:
        ann = slack.user("Ann")
        slack.set_zone(ann, "Asia/Tokyo")
        slack.fail("users.info", "late", gate=answered)

        await slack.say(slack.dm(ann), ann, "why?")
        await until(lambda: intake.turns)
        answered.set()
        await until(lambda: platform.workspace.directory.cached(ann))
        await slack.say(slack.dm(ann), ann, "and how?")
        await until(lambda: len(intake.turns) == 2)

        await until(lambda: intake.named)
        first, second = intake.turns
        assert (first.person, first.zone) == (Person(ann, ann, slack.team_id), "")
        assert intake.named == [(first.key, Person(ann, "Ann"))]
        assert (second.person, second.zone) == (Person(ann, "Ann", slack.team_id), "Asia/Tokyo")


async def test_a_thread_of_a_dm_is_answered_there() -> None:
    async with heard() as (slack, intake, ann):
        dm = slack.dm(ann)
        parent = await slack.say(dm, ann, "why?")

        await slack.say(dm, ann, "and how?", thread_ts=parent)
        await until(lambda: len(intake.turns) == 2)

        asked = {turn.text: turn for turn in intake.turns}["and how?"]
        assert asked.key == ThreadKey("slack", slack.team_id, dm, parent)
        assert asked.place["thread"] == parent


async def test_messages_without_a_mention_are_acknowledged_and_ignored() -> None:
    async with heard() as (slack, intake, ann):
        await slack.say(slack.channel_id, ann, "lunch?")
        await until(lambda: slack.deliveries)

        assert slack.deliveries[0].status == 200
        assert not intake.asked


@pytest.mark.parametrize(
    "change",
    [
        {"bot_id": "B0OTHER"},
        {"subtype": "bot_message", "bot_id": "B0OTHER", "user": None},
        {"subtype": "channel_join"},
        {"subtype": ["file_share"]},
        {"subtype": "message_changed", "message": {"text": "new", "ts": "1.0"}},
        {"user": SlackEmulator.bot_user_id},
        {"user": "USLACKBOT"},
        {"user": "USLACK"},
        {"type": "app_home_opened"},
        {"type": "tokens_revoked"},
        {"type": "something_new"},
    ],
    ids=str,
)
async def test_what_no_person_wrote_is_acknowledged_and_ignored(change: dict[str, object]) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake.intake)) as url:
            status = await send(slack, url, {**dm_event(slack), **change})

        assert status == 200
        assert not intake.asked
        assert not slack.screen(slack.dm(slack.user("Ann")))


@pytest.mark.parametrize("text", ["We got one!", ""])
async def test_what_a_person_uploads_in_a_dm_is_a_turn(text: str) -> None:
    async with heard() as (slack, intake, ann):
        await slack.say(slack.dm(ann), ann, text, files=("ghost.png",))
        await until(lambda: intake.turns)

        assert intake.last.text == f"{text}\n[file: ghost.png]".strip()


async def test_a_group_dm_needs_a_mention() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, joined(slack) as platform:
        event = {**dm_event(slack), "channel": slack.channel_id, "channel_type": "mpim"}
        text = f"{slack.bot_mention} why?"

        async with serving(platform.handler(intake.intake)) as url:
            await send(slack, url, event)
            await send(slack, url, {**event, "text": text, "ts": "1700000001.000100"})
            await send(slack, url, {**event, "text": text, "type": "app_mention"})

        assert [turn.text for turn in intake.turns] == ["why?", "why?"]
        assert intake.last.key.thread == intake.last.place["thread"] == "1700000000.000100"


async def test_people_are_called_by_their_names() -> None:
    async with heard() as (slack, intake, ann):
        bob = slack.user("Bob")
        ts = await slack.say(slack.channel_id, ann, "lunch?")

        for user, words in ((ann, f"is <@{bob}> & <b> ok?"), (bob, "am I?")):
            said = f"{slack.bot_mention} {words}"
            await slack.say(slack.channel_id, user, said, thread_ts=ts)
            await until(lambda: intake.turns and intake.last.person.id == user)  # noqa: B023

        assert [turn.person.name for turn in intake.turns] == ["Ann", "Bob"]
        assert [turn.text for turn in intake.turns] == ["is @Bob & <b> ok?", "am I?"]
        assert looked_up(slack) == 2


async def test_many_questions_of_a_person_cost_one_look_up() -> None:
    async with heard() as (slack, intake, ann):
        named = asyncio.Event()
        held = slack.fail("users.info", "late", gate=named)

        for number in range(10):
            await slack.say(slack.dm(ann), ann, f"{number}?")
        await until(lambda: held.struck)
        named.set()
        await until(lambda: len(intake.turns) == 10)

        assert {turn.person.name for turn in intake.turns} == {"Ann"}
        assert looked_up(slack) == 1


async def test_after_a_429_nobody_is_looked_up_until_slack_allows_it() -> None:
    async with heard() as (slack, intake, _):
        slack.fail("users.info", status=429, retry_after=600.0)

        for name in ("Ann", "Bob", "Cy"):
            person = slack.user(name)
            await slack.say(slack.dm(person), person, f"<@{person}> asks")
            await until(lambda: intake.turns and intake.last.person.id == person)  # noqa: B023

        assert [turn.person.name for turn in intake.turns] == [
            turn.person.id for turn in intake.turns
        ]
        assert looked_up(slack) == 1


async def test_of_many_people_in_a_message_nobody_is_called_by_an_id() -> None:
    async with heard() as (slack, intake, ann):
        ann, *others = [slack.user(f"Person {number}") for number in range(50)]

        await slack.say(slack.dm(ann), ann, " ".join(f"<@{one}>" for one in others))
        await until(lambda: intake.turns)

        assert intake.last.text.startswith("@Person 1 @Person 2 ")
        assert intake.last.text.endswith(" @somebody")
        assert "U0" not in intake.last.text


def looked_up(slack: SlackEmulator) -> int:
    """How often a person was looked up."""
    return sum(call.method == "users.info" for call in slack.requests)


@pytest.mark.parametrize(
    "how",
    [
        {"error": "missing_scope"},
        {"status": 500},
        {"how": "hang"},
        {"status": 200, "body": {"ok": True}},
        {"status": 200, "body": {"ok": True, "user": ["Ann"]}},
    ],
    ids=str,
)
async def test_a_person_without_a_name_is_called_by_the_id(how: dict[str, object]) -> None:
    intake, limits = FakeQueue(), replace(LIMITS, name_timeout=0.1, job_grace=0.0)
    async with SlackEmulator() as slack, hearing(slack, intake, limits=limits):
        ann = slack.user("Ann")
        slack.fail("users.info", times=10, **how)  # type: ignore[arg-type]

        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} hello <@U0NOBODY>")
        await until(lambda: intake.turns)

        assert intake.last.person == Person(ann, ann, slack.team_id)
        assert intake.last.text == "hello @somebody"


@both_transports
async def test_an_empty_mention_gets_one_line_of_help_in_its_thread(transport: Transport) -> None:
    async with heard(transport) as (slack, intake, ann):
        ts = await slack.say(slack.channel_id, ann, slack.bot_mention)
        await until(lambda: len(slack.screen(slack.channel_id, ts)) == 2)

        await slack.redeliver(ts)
        await slack.redeliver(ts)

        assert slack.screen(slack.channel_id, ts)[1].text.startswith("Ask me something")
        assert (posts(slack), intake.asked) == (1, [])


async def test_an_empty_mention_that_is_sent_twice_at_once_gets_one_line() -> None:
    async with SlackEmulator() as slack:
        ann, place = slack.user("Ann"), slack.channel_id
        root = await slack.say(place, ann, "Good morning")
        said = {"user": ann, "text": slack.bot_mention, "ts": "1700000000.000100"}
        event: dict[str, object] = {
            "type": "app_mention",
            "channel": place,
            "thread_ts": root,
            **said,
        }
        # Each waits for the name of one of several speakers.
        slack.latency = 0.3
        async with joined(slack) as platform, serving(platform.handler(FakeQueue().intake)) as url:
            await asyncio.gather(*(send(slack, url, event) for _ in range(2)))

        # Who leaves lets the words be shown that were begun.
        assert posts(slack) == 1


async def test_an_empty_mention_that_becomes_a_question_is_a_turn() -> None:
    async with heard() as (slack, intake, ann):
        ts = await slack.say(slack.channel_id, ann, slack.bot_mention)
        await until(lambda: posts(slack))

        await slack.edit(slack.channel_id, ts, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        assert [(turn.text, turn.place["question"]) for turn in intake.turns] == [("why?", ts)]
        assert posts(slack) == 1


async def test_an_edited_question_is_the_turn_that_it_was() -> None:
    async with heard() as (slack, intake, ann):
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        await slack.edit(slack.channel_id, ts, f"{slack.bot_mention} why not?")
        await until(lambda: intake.edits)

        assert intake.texts == ["why?"]
        (edited, *_) = [turn for turn, _ in intake.edits]
        now = replace(intake.turns[0], person=edited.person, zone=edited.zone)
        assert edited == replace(now, text="why not?")


async def test_a_notice_that_slack_is_slow_to_post_delays_no_acknowledgement() -> None:
    limits = replace(LIMITS, job_grace=0.0)
    async with SlackEmulator() as slack, hearing(slack, FakeQueue(), limits=limits):
        slack.fail("chat.postMessage", "hang")

        await slack.say(slack.channel_id, slack.user("Ann"), slack.bot_mention)
        await until(lambda: posts(slack) and tries(slack))

        assert tries(slack) == [200]


async def test_a_refused_mention_gets_an_apology_that_only_the_asker_sees() -> None:
    async with heard(refuses=ThreadBusy()) as (slack, _, ann):
        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: slack.ephemerals)
        await until(lambda: len(slack.deliveries) == 2)

        [word] = slack.ephemerals
        assert (word.channel_id, word.user_id) == (slack.channel_id, ann)
        assert word.text == ThreadBusy.apology
        assert {delivery.status for delivery in slack.deliveries} == {200}


async def test_notices_that_slack_is_slow_to_post_do_not_pile_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = FakeQueue()
    intake.refuses = ThreadBusy()
    limits = replace(LIMITS, notices_in_flight=2, job_grace=0.0)
    caplog.set_level(logging.INFO, "adapters.slack.inbound.events")
    async with SlackEmulator() as slack:
        slack.fail("chat.postEphemeral", "hang", times=1000)
        event = {"type": "app_mention", "channel": slack.channel_id, "text": "why?"}
        async with (
            joined(slack, limits=limits) as platform,
            serving(platform.handler(intake.intake)) as url,
        ):
            for number in range(5):
                user, ts = slack.user(f"P{number}"), f"1700000000.{number:06}"
                await send(slack, url, {**event, "user": user, "ts": ts})
            await until(lambda: len(caplog.records) == 3)

            assert {one.levelno for one in caplog.records} == {logging.INFO}
            assert [one.method for one in slack.requests].count("chat.postEphemeral") <= 2


async def test_refused_dms_get_one_apology_as_a_message() -> None:
    async with heard(refuses=ThreadBusy()) as (slack, intake, ann):
        dm = slack.dm(ann)
        ts = await slack.say(dm, ann, "one?")
        await until(lambda: len(slack.screen(dm)) == 2)
        await slack.say(dm, ann, "two?")
        # The apology is an event, too.
        await until(lambda: len(slack.deliveries) == 3)
        intake.refuses = None

        await slack.redeliver(ts)

        assert slack.screen(dm)[1].text == ThreadBusy.apology
        assert (posts(slack), intake.turns) == (1, [])


@both_transports
async def test_an_event_is_sent_again_while_the_store_is_away(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    async with heard(transport, refuses=StoreUnavailable("no Redis")) as (slack, intake, ann):
        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        # The second try follows the first at once, the third a minute later.
        for count in (1, 2):
            await until(lambda: intake.refusals >= count)  # noqa: B023
            if transport == "socket":
                slack.clock.advance(3.0)
            await until(lambda: len(tries(slack)) >= count)  # noqa: B023
        intake.refuses = None
        slack.clock.advance(60.0)
        await until(lambda: intake.turns)
        await until(lambda: tries(slack)[-1] == 200)

        assert tries(slack)[0] == (503 if transport == "http" else None)
        assert len(intake.turns) == 1
    assert not [one for one in caplog.records if one.exc_info]


async def test_an_event_is_acknowledged_only_after_admission() -> None:
    intake = FakeQueue()
    intake.open.clear()
    async with SlackEmulator() as slack, hearing(slack, intake):
        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)
        # Its delivery as a message is acknowledged meanwhile.
        await until(lambda: slack.deliveries)
        early = tries(slack)
        intake.open.set()
        await until(lambda: tries(slack))

        assert (early, tries(slack)) == ([], [200])


@both_transports
async def test_an_event_not_admitted_before_shutdown_is_sent_to_the_next_process(
    transport: Transport,
) -> None:
    limits = replace(LIMITS, job_grace=0.1)
    leaving, following = FakeQueue(), FakeQueue()
    leaving.open.clear()
    async with SlackEmulator() as slack:
        async with hearing(slack, leaving, transport, limits=limits):
            await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
            await until(lambda: leaving.turns)
        left_open = slack.sockets
        leaving.open.set()
        slack.clock.advance(3.0)
        # Over HTTP the second try fails at once, and the third comes a minute later.
        await until(lambda: len(tries(slack)) == (2 if transport == "http" else 1))

        async with hearing(slack, following, transport):
            if transport == "http":
                slack.clock.advance(60.0)
            await until(lambda: tries(slack)[-1] == 200)

        assert (left_open, tries(slack)[0], following.texts) == (0, None, ["why?"])


@pytest.mark.parametrize("has_replies", [False, True])
async def test_a_deleted_question_is_forgotten(has_replies: bool) -> None:
    intake = FakeQueue()
    async with fast() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)
        if has_replies:
            async with platform.surface(intake.last) as surface:
                await surface.post(first("Because", final=True))

        await slack.delete(slack.channel_id, ts)
        await until(lambda: intake.forgotten)

        assert intake.forgotten == [intake.last.id]


async def test_a_deleted_message_of_an_app_is_ignored() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            message = await surface.post(first("Because", final=True))

        await slack.delete(*message.split(":"))
        await slack.delete(slack.channel_id, ts)
        await until(lambda: intake.forgotten)

        assert intake.forgotten == [intake.last.id]


async def test_a_question_deleted_while_it_is_read_is_forgotten_by_its_turns_id() -> None:
    intake, named = FakeQueue(), asyncio.Event()
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        held = slack.fail("users.info", "late", gate=named)
        root = await slack.say(slack.channel_id, ann, "lunch?")
        secret = f"{slack.bot_mention} my password is 1234"
        ts = await slack.say(slack.channel_id, ann, secret, thread_ts=root)
        await until(lambda: held.struck)

        await slack.delete(slack.channel_id, ts)
        await until(lambda: intake.forgotten)
        early = list(intake.asked)
        named.set()
        await until(lambda: intake.asked)

        assert not early
        assert intake.forgotten == intake.asked


async def test_a_question_that_is_not_admitted_gets_no_reply() -> None:
    intake = FakeQueue()
    intake.knows_all = True
    async with SlackEmulator() as slack, hearing(slack, intake):
        ts = await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: tries(slack))

        assert tries(slack) == [200]
        assert len(slack.screen(slack.channel_id, ts)) == 1
        assert not slack.ephemerals


@both_transports
async def test_the_stop_button_stops_its_turn(transport: Transport) -> None:
    intake = FakeQueue()
    async with fast() as slack, hearing(slack, intake, transport) as platform:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        ts = await slack.say(dm, ann, "why?")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            message_id = await surface.post(first("Because"))

            delivery = await slack.click(dm, message_id.split(":")[1], ann, "stop")

        assert delivery.status == 200
        assert intake.stopped == [f"slack:{slack.team_id}:{dm}:{ts}"]


@both_transports
async def test_slacks_own_stop_stops_a_reply_that_streams(transport: Transport) -> None:
    intake = FakeQueue()
    async with fast() as slack, hearing(slack, intake, transport) as platform:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            await surface.post(first("Because"))

            await slack.stop(slack.channel_id, ts, ann)
            await until(lambda: intake.stopped_threads)

        assert intake.stopped_threads == [intake.last.key]


@both_transports
async def test_the_regenerate_button_names_the_person_and_the_press(transport: Transport) -> None:
    intake = FakeQueue()
    async with fast() as slack, hearing(slack, intake, transport) as platform:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            message_id = await surface.post(first("Because", last=True))
        shown = message_id.split(":")[1]

        deliveries = [
            await slack.click(slack.channel_id, shown, ann, "regenerate") for _ in range(2)
        ]

        turn_id = f"slack:{slack.team_id}:{slack.channel_id}:{ts}"
        assert [delivery.status for delivery in deliveries] == [200, 200]
        assert [(turn, person) for turn, person, _ in intake.pressed] == [(turn_id, ann)] * 2
        assert len({press for _, _, press in intake.pressed}) == 2
        assert not slack.ephemerals


@pytest.mark.parametrize(
    ("direct", "button", "refusal"),
    [
        (False, "regenerate", NotTheLast()),
        (True, "regenerate", NotTheLast()),
        (True, "regenerate", StoreUnavailable("away")),
        (True, "stop", HasEnded()),
        (True, "stop", StoreUnavailable("away")),
    ],
)
async def test_a_press_without_effect_is_explained_to_the_person_only(
    direct: bool, button: str, refusal: Refused | StoreUnavailable
) -> None:
    intake = FakeQueue()
    async with fast() as slack, hearing(slack, intake) as platform:
        ann = slack.user("Ann")
        channel = slack.dm(ann) if direct else slack.channel_id
        ts = await slack.say(channel, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)
        async with platform.surface(intake.last) as surface:
            written = await surface.post(first("Because", last=button != "stop"))
        intake.refuses = refusal

        delivery = await slack.click(channel, written.split(":")[1], ann, button)
        await until(lambda: slack.ephemerals)

        (notice,) = slack.ephemerals
        assert delivery.status == 200
        assert (notice.channel_id, notice.user_id, notice.text) == (channel, ann, refusal.apology)
        assert notice.thread_ts == (None if direct else ts)


def tries(slack: SlackEmulator) -> list[int | None]:
    """How the tries to deliver a mention ended."""
    return [d.status for d in slack.deliveries if d.kind == "app_mention"]


def posts(slack: SlackEmulator) -> int:
    """How often we tried to post a message."""
    return sum(call.method == "chat.postMessage" for call in slack.requests)
