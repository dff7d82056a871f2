"""What others see and hear of a stream on the Slack emulator, slack-sdk among them."""

from __future__ import annotations

import pytest
from slack_sdk.models.messages.chunk import BlocksChunk, MarkdownTextChunk

from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import bolt, section, stream, talk, writer
from tests.support.waiting import until


@pytest.mark.parametrize("transport", ["socket", "http"])
async def test_the_app_hears_of_a_stream_when_it_begins_and_when_it_is_stopped(
    transport: str,
) -> None:
    async with SlackEmulator() as slack, bolt(slack, transport) as bot:
        ann = slack.user("Ann")
        asked = await slack.say(slack.channel_id, ann, "hello?")
        client = bot.app.client
        ts = await stream(client, slack, ann, asked)
        await client.chat_appendStream(channel=slack.channel_id, ts=ts, markdown_text=", two")
        await client.chat_stopStream(channel=slack.channel_id, ts=ts)

        def heard() -> list[Payload]:
            events = bot.events("message")
            nested = [event.get("message", event) for event in events]
            return [m for m in nested if isinstance(m, dict) and m["ts"] == ts]

        await until(lambda: len(heard()) == 2)
        told = [(m.get("subtype"), m["streaming_state"], m["text"]) for m in heard()]
        assert sorted(told, key=str) == [
            (None, "completed", "One, two"),
            (None, "in_progress", "One"),
        ]


async def test_a_channel_sees_a_running_stream_only_when_it_is_over() -> None:
    async with talk() as t:
        bob = t.slack.user("Bob")
        ts = await t.start(markdown_text="One")

        def seen(viewer: str) -> str:
            return t.slack.screen(t.channel, t.asked, viewer=viewer)[-1].text

        running = [seen(t.ann), seen(bob)]
        await t.stop(ts)

        assert running == ["One", "Thinking…"]
        assert [seen(t.ann), seen(bob)] == ["One", "One"]


async def test_what_streams_ping_and_preview_is_kept() -> None:
    async with talk() as t:
        ts = await t.start(markdown_text="hey <!chan")
        await t.append(ts, "nel> see https://example.com/a ")
        await t.append(ts, "and more")
        await t.stop(ts, blocks=section("<https://example.com/b>"))

        assert t.slack.pings == ["<!channel>"]
        assert t.slack.unfurls == ["https://example.com/a", "https://example.com/b"]


async def test_slack_sdks_client_streams() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        asked = await slack.say(slack.channel_id, ann, "hello?")
        ts = await stream(client, slack, ann, asked)
        await client.chat_appendStream(channel=slack.channel_id, ts=ts, markdown_text=", two")

        await client.chat_stopStream(
            channel=slack.channel_id, ts=ts, blocks=section("Bye"), session_status="closed"
        )

        assert slack.screen(slack.channel_id, asked)[-1].text == "One, two\nBye"
        assert slack.session(slack.channel_id, asked) == ["processing", "closed"]


async def test_slack_sdks_helper_streams() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        asked = await slack.say(slack.channel_id, ann, "hello?")
        helper = await client.chat_stream(
            channel=slack.channel_id,
            thread_ts=asked,
            recipient_user_id=ann,
            recipient_team_id=slack.team_id,
            task_display_mode="plan",
            buffer_size=4,
        )

        await helper.append(markdown_text="Hello")
        block = BlocksChunk(blocks=section("Look"))
        await helper.append(chunks=[MarkdownTextChunk(text=" you. "), block])
        await helper.append(markdown_text="Bye")
        await helper.stop(blocks=section("?"))

        methods = [call.method for call in slack.requests]
        assert methods == [
            "chat.startStream",
            "chat.appendStream",
            "chat.stopStream",
        ]
        assert slack.screen(slack.channel_id, asked)[-1].text == "Hello you. \nLook\nBye\n?"
