"""How a stream ends on the Slack emulator."""

from __future__ import annotations

import pytest

from tests.emulators.clock import Clock
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import STOP, bolt, refusal, section, stream, talk, writer
from tests.support.waiting import until

NOT_STREAMING = "message_not_in_streaming_state"


async def test_blocks_stand_below_the_streamed_text() -> None:
    async with talk() as t:
        ts = await t.start(markdown_text="One")

        await t.stop(ts, markdown_text=", two", blocks=[*section("Was it good?"), STOP])

        shown = t.slack.screen(t.channel, t.asked)[-1]
        assert shown.text == "One, two\nWas it good?"
        assert shown.buttons == ("stop",)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"blocks": [{"type": "divider"}] * 51}, "msg_blocks_too_many"),
        ({"blocks": section("x" * 3000) * 5}, "msg_blocks_too_long"),
        ({"blocks": [{"type": "song"}]}, "invalid_blocks"),
        ({"blocks": "not json"}, "invalid_blocks_format"),
        ({"metadata": {"event_type": "answered"}}, "invalid_metadata_schema"),
        ({"session_status": "tired"}, "invalid_arguments"),
        ({"markdown_text": "x" * 12_001}, "msg_too_long"),
    ],
)
async def test_a_stop_that_slack_refuses_stops_nothing(args: Payload, error: str) -> None:
    async with talk() as t:
        ts = await t.start(markdown_text="One")

        refused = (await t.stop(ts, **args))["error"]

        assert refused == error
        assert (await t.append(ts, ", two"))["ok"]


async def test_text_and_blocks_together_have_a_limit() -> None:
    async with talk() as t:
        ts = await t.start(markdown_text="x" * 10_001)

        refused = (await t.stop(ts, blocks=section("x" * 3000)))["error"]
        fits = await t.stop(ts, blocks=section("x" * 2999))

        assert refused == "msg_blocks_too_long"
        assert fits["ok"]


async def test_metadata_of_a_stop_is_found_again() -> None:
    async with talk() as t, writer(t.slack) as client:
        metadata = {"event_type": "answered", "event_payload": {"turn": "1"}}
        ts = await t.start(markdown_text="One")

        await t.stop(ts, metadata=metadata)

        read = await client.conversations_replies(
            channel=t.channel, ts=t.asked, include_all_metadata=True
        )
        assert read["messages"][-1]["metadata"] == metadata


async def test_only_a_stopped_stream_can_be_changed_and_deleted() -> None:
    async with talk() as t:
        place: Payload = {"channel": t.channel, "ts": await t.start(markdown_text="One")}
        early = [
            await t.refused("chat.update", **place, text="new"),
            await t.refused("chat.delete", **place),
        ]
        await t.stop(str(place["ts"]))

        again = (await t.stop(str(place["ts"])))["error"]
        updated = await t.call("chat.update", **place, text="new")

        assert early == ["streaming_state_conflict", "cant_delete_message"]
        assert again == NOT_STREAMING
        assert updated["ok"]
        assert t.read() == "new"
        assert (await t.call("chat.delete", **place))["ok"]


async def test_a_stream_ends_after_five_minutes_however_busy_it_is() -> None:
    clock = Clock()
    async with talk(SlackEmulator(clock=clock)) as t:
        ts = await t.start(markdown_text="One")
        clock.advance(290)
        late = await t.append(ts, ", two")
        clock.advance(11)

        errors = [(await t.append(ts, "x"))["error"], (await t.stop(ts))["error"]]

        assert late["ok"]
        assert errors == [NOT_STREAMING] * 2
        assert t.read() == "One, two"
        assert (await t.call("chat.update", channel=t.channel, ts=ts, text="saved"))["ok"]


async def test_the_life_of_a_stream_can_be_set() -> None:
    clock = Clock()
    async with talk(SlackEmulator(clock=clock)) as t:
        t.slack.streams.seconds = 5
        ts = await t.start(markdown_text="One")
        clock.advance(6)

        assert (await t.append(ts, "x"))["error"] == NOT_STREAMING


async def test_a_stream_that_a_person_deletes_is_not_there_any_more() -> None:
    async with talk() as t:
        ts = await t.start(markdown_text="One")
        await t.slack.delete(t.channel, ts)

        errors = [(await t.append(ts, "x"))["error"], (await t.stop(ts))["error"]]

        assert errors == ["message_not_found"] * 2
        assert t.slack.streams.stop(t.channel, t.asked) == []


async def test_a_press_of_stop_ends_the_streams_of_its_thread() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")
        asked = [await slack.say(slack.channel_id, ann, text) for text in ("one?", "two?")]
        client = bot.app.client
        over = await stream(client, slack, ann, asked[0])
        await client.chat_stopStream(channel=slack.channel_id, ts=over)
        here, there = [await stream(client, slack, ann, ts) for ts in asked]

        await slack.stop(slack.channel_id, asked[0], ann)

        place = {"channel": slack.channel_id, "ts": here}
        errors = [
            await refusal(client, "chat.appendStream", {**place, "markdown_text": "x"}),
            await refusal(client, "chat.stopStream", place),
        ]
        await until(lambda: bot.events("agent_session_stopped"))
        told = bot.events("agent_session_stopped")[0]
        assert told["streaming_message_ts"] == [here]
        assert errors == ["stopped_by_user", NOT_STREAMING]
        await client.chat_appendStream(channel=slack.channel_id, ts=there, markdown_text="!")
        assert slack.session(slack.channel_id, asked[0])[-1] == "processing"


async def test_a_press_of_stop_may_leave_the_streams_to_the_app() -> None:
    async with talk() as t:
        t.slack.streams.stop_ends = False
        ts = await t.start(markdown_text="One")

        await t.slack.stop(t.channel, t.asked, t.ann)

        assert (await t.append(ts, ", two"))["ok"]
        assert (await t.stop(ts))["ok"]
