"""The title of a thread's agent session, which is its first question."""

from __future__ import annotations

import time

import pytest

from bot.domain import Person, Purpose, ThreadKey, Turn
from tests.emulators.slack import SlackEmulator
from tests.support.slack_platform import fast, first, joined
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("why is the sky blue?", "why is the sky blue?"),
        ("why\nis <!channel>\tit?", "why is (!channel) it?"),
        ("why " * 100, "why " * 19 + "why…"),
    ],
)
async def test_the_first_question_of_a_thread_is_its_title(question: str, title: str) -> None:
    async with fast() as slack, joined(slack) as platform:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), question)

        async with platform.surface(turn_in(slack, question, thread=ts, ts=ts)) as surface:
            await until(lambda: slack.status(slack.channel_id, ts))
            await surface.post(first("Because.", final=True))
        await until(lambda: slack.session_title(slack.channel_id, ts))

        assert slack.session_title(slack.channel_id, ts) == title


async def test_later_questions_keep_the_title() -> None:
    async with fast() as slack, joined(slack) as platform:
        ann = slack.user("Ann")
        root = await slack.say(slack.channel_id, ann, "Good morning")
        ts = await slack.say(slack.channel_id, ann, "why?", thread_ts=root)

        async with platform.surface(turn_in(slack, "why?", thread=root, ts=ts)) as surface:
            await until(lambda: slack.status(slack.channel_id, root))
            await surface.post(first("Because.", final=True))

    assert not renames(slack)


async def test_a_reply_does_not_wait_for_a_title_that_is_refused() -> None:
    async with fast() as slack, joined(slack) as platform:
        slack.fail("agents.sessions.rename", error="session_not_found")
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "why?")
        turn = turn_in(slack, "why?", thread=ts, ts=ts)

        async with platform.surface(turn) as surface:
            await surface.post(first("Because.", final=True))
        async with platform.surface(turn, Purpose.RESTORE):
            await until(lambda: renames(slack))

        assert slack.screen(slack.channel_id, ts)[-1].text == "Because."
        assert slack.session_title(slack.channel_id, ts) == ""


def turn_in(slack: SlackEmulator, text: str, *, thread: str, ts: str) -> Turn:
    channel = slack.channel_id
    return Turn(
        id=f"slack:{slack.team_id}:{channel}:{ts}",
        key=ThreadKey("slack", slack.team_id, channel, thread),
        person=Person("U1", "Ann"),
        text=text,
        place={"channel": channel, "thread": thread, "question": ts},
        asked_at=time.time(),
    )


def renames(slack: SlackEmulator) -> int:
    return sum(call.method == "agents.sessions.rename" for call in slack.requests)
