"""Edits of messages reach the intake, and only those that their author made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.errors import StoreUnavailable
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.fakes import FakeQueue
from tests.support.slack_platform import heard, hearing
from tests.support.waiting import until


def edits(intake: FakeQueue) -> list[str]:
    return [turn.text for turn, _ in intake.edits]


async def tell_change(slack: SlackEmulator, dm: str, message: Payload, before: Payload) -> None:
    """Tell of a change of a message as Slack does."""
    event: Payload = {
        "type": "message",
        "subtype": "message_changed",
        "hidden": True,
        "channel": dm,
        "channel_type": "im",
        "ts": "1700000009.000000",
        "event_ts": "1700000009.000000",
        "message": message,
        "previous_message": before,
    }
    body: Payload = {"type": "event_callback", "team_id": slack.team_id, "event": event}
    assert (await slack.deliver(body)).status == 200


async def test_an_edited_dm_is_the_turn_that_it_was_with_another_text() -> None:
    async with heard() as (slack, intake, ann):
        ts = await slack.say(slack.dm(ann), ann, "why?")
        await until(lambda: intake.turns)

        await slack.edit(slack.dm(ann), ts, "why not?")
        await until(lambda: intake.edits)

        ((turn, edited_at),) = intake.edits
        now = replace(intake.turns[0], person=turn.person, zone=turn.zone)
        assert turn == replace(now, text="why not?")
        assert turn.person.id == ann
        assert edited_at == pytest.approx(float(ts), abs=60)


async def test_a_message_that_mentions_the_bot_only_now_is_an_edit() -> None:
    async with heard() as (slack, intake, ann):
        ts = await slack.say(slack.channel_id, ann, "why?")

        await slack.edit(slack.channel_id, ts, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        assert (set(edits(intake)), intake.asked) == ({"why?"}, [])


async def test_a_question_whose_mention_is_edited_away_is_still_one() -> None:
    async with heard() as (slack, intake, ann):
        ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        await slack.edit(slack.channel_id, ts, "why not?")
        await until(lambda: intake.edits)

        assert edits(intake) == ["why not?"]


@pytest.mark.parametrize("subscribed", [{"app_mention"}, {"message.channels"}])
async def test_an_edited_mention_is_heard_by_either_event(subscribed: set[str]) -> None:
    intake = FakeQueue()
    async with SlackEmulator(subscribed=subscribed) as slack, hearing(slack, intake):
        said = f"{slack.bot_mention} why?"
        ts = await slack.say(slack.channel_id, slack.user("Ann"), said)

        await slack.edit(slack.channel_id, ts, f"{said} Now?")
        await until(lambda: intake.edits)

        assert edits(intake) == ["why? Now?"]


@pytest.mark.parametrize(
    ("change", "before"),
    [
        ({"attachments": [{"from_url": "https://example.org"}]}, {}),
        ({"edited": {"user": "UANN", "ts": "1700000001.000000"}, "attachments": []}, {}),
        ({"edited": {"user": "UBEN", "ts": "1700000001.000000"}, "text": "b"}, {}),
        ({"edited": {"user": "UANN", "ts": "1700000001.000000"}, "text": "b", "bot_id": "B1"}, {}),
        ({"agent_session": {"state": "idle"}}, {"agent_session": {"state": "processing"}}),
    ],
    ids=["preview", "same text", "by another", "a bot's", "session"],
)
async def test_changes_that_are_no_edits_of_the_author_are_not_for_us(
    change: Payload, before: Payload
) -> None:
    async with heard() as (slack, intake, ann):
        dm = slack.dm(ann)
        message: Payload = {
            "type": "message", "user": "UANN", "text": "a", "ts": "1700000000.000001"
        }  # fmt: skip

        await tell_change(slack, dm, message | change, message | before)
        edited: Payload = {"text": "c", "edited": {"user": "UANN", "ts": "1700000002.000000"}}
        await tell_change(slack, dm, message | edited, message)

        assert edits(intake) == ["c"]


async def test_an_edit_that_was_not_stored_is_sent_again() -> None:
    intake = FakeQueue()
    async with SlackEmulator(retry_after=(0.0,)) as slack, hearing(slack, intake):
        ann = slack.user("Ann")
        ts = await slack.say(slack.dm(ann), ann, "why?")
        await until(lambda: intake.turns)
        intake.refuses = StoreUnavailable("away")

        await slack.edit(slack.dm(ann), ts, "why not?")
        await until(lambda: intake.refusals)
        intake.refuses = None
        await until(lambda: intake.edits)

        assert edits(intake) == ["why not?"]
