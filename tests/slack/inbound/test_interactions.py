"""Presses reach turns of their own place only; other interactions are acknowledged and left."""

from __future__ import annotations

import json
import logging

import pytest

from tests.emulators.slack import SlackEmulator
from tests.support.fakes import FakeQueue
from tests.support.slack_platform import (
    Transport,
    both_transports,
    hearing,
    joined,
    send_body,
    serving,
)
from tests.support.waiting import until

ORG = {"id": "E0ORG", "name": "Org"}


@pytest.mark.parametrize("action", ["stop", "regenerate"])
@pytest.mark.parametrize("way", ["mention", "command"])
async def test_a_press_reaches_no_turn_of_another_channel(action: str, way: str) -> None:
    async with SlackEmulator() as slack:
        intake = FakeQueue()
        async with hearing(slack, intake):
            await asks(slack, intake, way)
            bob = slack.user("Bob")

            delivery = await slack.interact(
                press(intake.last.id, action, channel=slack.dm(bob), user=bob)
            )
            await until(lambda: slack.ephemerals)

            assert delivery.status == 200
            assert not intake.stopped
            assert not intake.pressed


@pytest.mark.parametrize(
    "place",
    [
        {"team": {"id": "T0OTHER", "domain": "other"}},
        {"team": None},
        {"team": {}},
        {"team": "T0OTHER"},
        {"team": None, "enterprise": ORG, "is_enterprise_install": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("action", ["stop", "regenerate"])
async def test_a_press_in_another_workspace_reaches_no_turn(
    action: str, place: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    async with SlackEmulator() as slack:
        intake = FakeQueue()
        async with hearing(slack, intake):
            await asks(slack, intake)
            payload = press(intake.last.id, action, channel=slack.channel_id, user="U0FAR")

            delivery = await slack.interact({**payload, **place})

            assert delivery.status == 200
            assert not intake.stopped
            assert not intake.pressed
    assert [one.levelno for one in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("way", ["mention", "command"])
async def test_somebody_of_another_workspace_may_press_in_a_channel_that_both_share(
    way: str,
) -> None:
    async with SlackEmulator() as slack:
        intake = FakeQueue()
        async with hearing(slack, intake):
            await asks(slack, intake, way)
            payload = press(intake.last.id, "stop", channel=slack.channel_id, user="U0FAR")

            await slack.interact({**payload, "user": {"id": "U0FAR", "team_id": "T0OTHER"}})

            # The intake decides whether this person may.
            assert (intake.stopped, intake.stopped_by) == ([intake.last.id], ["U0FAR"])


@pytest.mark.parametrize(
    "happened",
    [
        {"type": "agent_session_stopped", "thread_ts": "1700000000.000100"},
        {"type": "message", "subtype": "message_deleted", "deleted_ts": "1700000000.000100"},
        {
            "type": "message",
            "subtype": "message_changed",
            "message": {"subtype": "tombstone", "ts": "1700000000.000100"},
        },
    ],
    ids=str,
)
async def test_what_happens_in_another_workspace_ends_and_forgets_nothing_here(
    happened: dict[str, object],
) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, joined(slack) as platform:
        there = {"channel": slack.channel_id, "user": "U1", "ts": "1700000001.000100"}
        event = {**there, **happened}
        payload = {"type": "event_callback", "team_id": "T0OTHER", "event": event}
        async with serving(platform.handler(intake.intake)) as url:
            status = await send_body(slack, url, json.dumps(payload).encode())

        assert status == 200
        assert not intake.stopped_threads
        assert not intake.forgotten


@both_transports
@pytest.mark.parametrize(
    "body",
    [
        {"type": "block_actions", "actions": []},
        {"type": "view_submission", "view": {"callback_id": "x"}},
        {"type": "view_closed", "view": {"callback_id": "x"}},
        {"type": "message_action", "callback_id": "x", "message": {"text": "why?"}},
        {"type": "something_new"},
        {"token": "x"},
    ],
    ids=str,
)
async def test_an_interaction_that_is_none_of_ours_is_acknowledged_with_one_line_in_the_log(
    body: dict[str, object], transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    intake = FakeQueue()
    payload = {"team": {"id": SlackEmulator.team_id}, "user": {"id": "U1"}, **body}
    async with SlackEmulator() as slack, hearing(slack, intake, transport):
        delivery = await slack.interact(payload)

        assert delivery.status == 200
        assert not intake.stopped
    assert [(one.levelno, one.exc_info) for one in caplog.records] == [(logging.WARNING, None)]
    assert "why?" not in caplog.text


async def asks(slack: SlackEmulator, intake: FakeQueue, way: str = "mention") -> None:
    """Let Ann ask something in the first channel."""
    ann = slack.user("Ann")
    if way == "command":
        await slack.slash(slack.channel_id, ann, "/ask", "why?")
    else:
        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
    await until(lambda: intake.turns)


def press(turn_id: str, action: str, *, channel: str, user: str) -> dict[str, object]:
    """What tells of a press on a button of ours; its value comes from the person's client."""
    return {
        "type": "block_actions",
        "trigger_id": "12.34.abc",
        "team": {"id": SlackEmulator.team_id, "domain": "parley"},
        "enterprise": None,
        "is_enterprise_install": False,
        "user": {"id": user, "team_id": SlackEmulator.team_id},
        "container": {"type": "message", "channel_id": channel, "message_ts": "2.1"},
        "channel": {"id": channel},
        "actions": [{"type": "button", "action_id": action, "block_id": "b", "value": turn_id}],
    }
