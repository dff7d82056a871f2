"""Signs of life on the Slack emulator: statuses and agent sessions."""

from __future__ import annotations

import pytest

from tests.emulators.clock import Clock
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import talk


async def test_a_stream_makes_its_session_process_until_it_ends() -> None:
    clock = Clock()
    async with talk(SlackEmulator(clock=clock)) as t:
        first = await t.start("One")
        states = [t.slack.session(t.channel, t.asked)]
        await t.stop(first, session_status="suspended")
        states.append(t.slack.session(t.channel, t.asked)[-1:])
        await t.start("Two")
        clock.advance(301)
        states.append(t.slack.session(t.channel, t.asked)[-2:])

        assert states == [["processing"], ["suspended"], ["processing", "active"]]


async def test_a_session_is_active_after_an_hour_of_processing() -> None:
    clock = Clock()
    async with talk(SlackEmulator(clock=clock)) as t:
        place: Payload = {"channel_id": t.channel, "thread_ts": t.asked}
        await t.call("agents.sessions.setStatus", **place, status="processing")
        clock.advance(3601)

        assert t.slack.session(t.channel, t.asked) == ["processing", "active"]
        with pytest.raises(LookupError):
            await t.slack.stop(t.channel, t.asked, t.ann)


async def test_a_status_is_a_session_and_goes_when_emptied_late_or_streamed_over() -> None:
    clock = Clock()
    async with talk(SlackEmulator(clock=clock)) as t:

        async def set_status(status: str) -> str:
            place: Payload = {"channel_id": t.channel, "thread_ts": t.asked}
            await t.call("assistant.threads.setStatus", **place, status=status)
            return t.slack.shown_status(t.channel, t.asked)

        shown = [await set_status(status) for status in ("is thinking", "")]
        assert t.slack.session(t.channel, t.asked) == ["processing", "active"]
        shown.append(await set_status("is thinking"))
        clock.advance(119)
        shown.append(t.slack.shown_status(t.channel, t.asked))
        clock.advance(2)
        shown.append(t.slack.shown_status(t.channel, t.asked))
        shown.append(await set_status("is thinking"))
        await t.start()
        shown.append(t.slack.shown_status(t.channel, t.asked))

        assert shown == ["is thinking", "", "is thinking", "is thinking", "", "is thinking", ""]
        said = ["is thinking", "", "is thinking", "is thinking"]
        assert t.slack.status(t.channel, t.asked) == said
