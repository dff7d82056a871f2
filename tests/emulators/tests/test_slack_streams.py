"""Signs of life on the Slack emulator, and how a stream grows, ends and is seen."""

from __future__ import annotations

import pytest

from tests.emulators import specs
from tests.emulators.clock import Clock
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import STOP, section, talk


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


NOT_STREAMING = "message_not_in_streaming_state"


async def test_a_stream_grows_under_the_question_until_it_is_stopped() -> None:
    metadata = {"event_type": "answered", "event_payload": {"turn": "1"}}
    async with talk() as t:
        ts = await t.start()
        await t.append(ts, "One")
        early = [
            await t.refused("chat.update", channel=t.channel, ts=ts, text="new"),
            await t.refused("chat.delete", channel=t.channel, ts=ts),
        ]
        stopped = await t.stop(
            ts, ", two", blocks=[*section("Was it good?"), STOP], metadata=metadata
        )

        shown = t.slack.screen(t.channel, t.asked)[-1]
        texts = ["", "One", "One, two\nWas it good?"]
        moments = [(m.what, m.text) for m in t.slack.timeline(t.channel, t.asked)]
        message = stopped["message"]
        assert isinstance(message, dict)
        assert (shown.text, shown.buttons) == (texts[-1], ("stop",))
        assert t.slack.states(t.channel, ts) == texts
        assert moments[1:] == list(zip(("post", "edit", "edit"), texts, strict=True))
        assert (stopped["channel"], stopped["ts"]) == (t.channel, ts)
        assert (message["streaming_state"], message["thread_ts"]) == ("completed", t.asked)
        assert message["metadata"] == metadata
        assert early == ["streaming_state_conflict", "cant_delete_message"]
        place: Payload = {"channel": t.channel, "ts": ts}
        assert (await t.call("chat.update", **place, text="new"))["ok"]
        assert t.read() == "new"
        assert (await t.call("chat.delete", **place))["ok"]


@pytest.mark.parametrize("mode", ["plan", "timeline"])
async def test_tasks_change_where_they_stand_and_fail_if_they_are_left_undone(mode: str) -> None:
    def task(name: str, status: str) -> Payload:
        return {"type": "task_update", "id": name, "title": f"Task {name}", "status": status}

    def text(words: str) -> Payload:
        return {"type": "markdown_text", "text": words}

    async with talk() as t:
        begun = [{"type": "plan_update", "title": "Steps"}, task("1", "in_progress"), text("One")]
        ts = await t.start(chunks=begun, task_display_mode=mode)
        place: Payload = {"channel": t.channel, "ts": ts}
        more = [task("1", "complete"), text(", two"), task("2", "in_progress"), text("Three")]
        await t.call("chat.appendStream", **place, chunks=more)
        early = t.slack.screen(t.channel, t.asked)[-1].cards
        message = (await t.stop(ts))["message"]

        assert isinstance(message, dict)
        kinds = [block["type"] for block in message["blocks"]]
        assert early == (("Task 1", "complete"), ("Task 2", "in_progress"))
        assert t.slack.screen(t.channel, t.asked)[-1].cards[-1] == ("Task 2", "error")
        if mode == "plan":
            assert (t.read(), kinds) == ("One, twoThree", ["plan", "markdown"])
        else:
            cards = ["task_card", "markdown", "task_card", "markdown"]
            assert (t.read(), kinds) == ("One, two\nThree", cards)


async def test_a_message_takes_what_is_within_its_limits() -> None:
    def blocks(number: int) -> Payload:
        return {"chunks": [{"type": "blocks", "blocks": [{"type": "divider"}] * number}]}

    async with talk() as t:
        words = await t.start("é" * 5999)
        long = await t.start("x" * 10_001)
        parts: Payload = {"channel": t.channel, "ts": await t.start(**blocks(30))}

        assert (await t.append(words, "xy"))["ok"]
        assert (await t.append(words, "z"))["error"] == "msg_too_long"
        assert (await t.stop(words, "z"))["error"] == "msg_too_long"
        assert (await t.stop(long, blocks=section("x" * 3000)))["error"] == "msg_blocks_too_long"
        assert (await t.stop(long, blocks=section("x" * 2999)))["ok"]
        assert (await t.call("chat.appendStream", **parts, **blocks(20)))["ok"]
        below = [{"type": "divider"}] * 50
        assert (await t.call("chat.stopStream", **parts, blocks=below))["ok"]


@pytest.mark.skipif(specs.load("slack-web-openapi.json") is None, reason=specs.ABSENT)
async def test_streams_have_no_metadata_at_the_start_and_no_unfurl_switches() -> None:
    wrong = {"metadata": {}, "unfurl_links": False, "blocks": [], "text": "x"}

    async def call() -> None:
        async with talk() as t:
            await t.start(**wrong)

    with pytest.raises(AssertionError) as caught:
        await call()

    assert all(f"no argument is called {name}" in str(caught.value) for name in wrong)


async def test_a_stream_ends_after_five_minutes_however_busy_it_is() -> None:
    clock = Clock()
    async with talk(SlackEmulator(clock=clock)) as t:
        ts = await t.start("One")
        clock.advance(290)
        late = await t.append(ts, ", two")
        clock.advance(11)

        errors = [(await t.append(ts, "x"))["error"], (await t.stop(ts))["error"]]

        assert late["ok"]
        assert errors == [NOT_STREAMING] * 2
        assert t.read() == "One, two"
        assert (await t.call("chat.update", channel=t.channel, ts=ts, text="saved"))["ok"]
