"""What the Slack emulator takes as a stream."""

from __future__ import annotations

import json

import pytest

from tests.emulators import specs
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.methods import SCOPES
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import post, talk, writer

NOT_STREAMING = "message_not_in_streaming_state"


async def test_a_stream_grows_under_the_question_until_it_is_stopped() -> None:
    async with talk() as t:
        ts = await t.start(markdown_text="One")
        shown = [t.read()]
        await t.append(ts, ", two")
        shown.append(t.read())
        stopped = await t.stop(ts, markdown_text=" and three.")
        shown.append(t.read())

        assert shown == ["One", "One, two", "One, two and three."]
        assert t.slack.states(t.channel, ts) == shown
        moments = [(m.what, m.text) for m in t.slack.timeline(t.channel, t.asked)]
        assert moments[1:] == list(zip(("post", "edit", "edit"), shown, strict=True))
        assert (stopped["channel"], stopped["ts"]) == (t.channel, ts)
        message = stopped["message"]
        assert isinstance(message, dict)
        assert message["text"] == "One, two and three."
        assert message["streaming_state"] == "completed"
        assert message["thread_ts"] == t.asked


async def test_a_stream_may_begin_with_nothing() -> None:
    async with talk() as t:
        ts = await t.start()
        await t.append(ts, "One")

        assert t.slack.states(t.channel, ts) == ["", "One"]


async def test_a_stream_needs_a_question() -> None:
    async with talk() as t:
        reply = await t.slack.say(t.channel, t.ann, "more", thread_ts=t.asked)
        place = {key: value for key, value in t.place.items() if key != "thread_ts"}
        dm = t.slack.dm(t.ann)

        errors = [
            await t.refused("chat.startStream", **place),
            await t.refused("chat.startStream", channel=dm),
            await t.refused("chat.startStream", **place, thread_ts="1700000000.000001"),
            await t.refused("chat.startStream", **place, thread_ts=reply),
            await t.refused("chat.startStream", **place, thread_ts=""),
        ]

        assert errors == ["invalid_thread_ts"] * 4 + ["invalid_arguments"]


async def test_a_stream_in_a_channel_needs_its_reader() -> None:
    async with talk() as t:
        where = {"channel": t.channel, "thread_ts": t.asked}
        team = {"recipient_team_id": t.slack.team_id}

        errors = [
            await t.refused("chat.startStream", **where, recipient_user_id=t.ann),
            await t.refused("chat.startStream", **where, **team),
            await t.refused(
                "chat.startStream", **where, recipient_user_id=t.ann, recipient_team_id="T404"
            ),
            await t.refused("chat.startStream", **where, **team, recipient_user_id="U404"),
        ]

        assert errors == [
            "missing_recipient_team_id",
            "missing_recipient_user_id",
            "team_not_found",
            "user_not_found",
        ]


async def test_a_stream_in_a_dm_needs_no_reader() -> None:
    async with talk() as t:
        dm = t.slack.dm(t.ann)
        asked = await t.slack.say(dm, t.ann, "psst")

        started = await t.call("chat.startStream", channel=dm, thread_ts=asked)

        assert started["ok"]


async def test_a_stream_needs_a_channel_that_the_app_is_in() -> None:
    async with talk() as t:
        elsewhere = t.slack.channel("elsewhere", member=False)

        errors = [
            await t.refused("chat.startStream", **{**t.place, "channel": "C404"}),
            await t.refused("chat.startStream", **{**t.place, "channel": elsewhere}),
        ]

        assert errors == ["channel_not_found", "not_in_channel"]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"markdown_text": "x" * 12_001}, "msg_too_long"),
        (
            {"markdown_text": "x", "chunks": [{"type": "markdown_text", "text": "y"}]},
            "cannot_provide_both_markdown_text_and_chunks",
        ),
        ({"task_display_mode": "tree"}, "invalid_arguments"),
        ({"chunks": "not json"}, "invalid_chunks"),
        ({"chunks": [{"type": "song"}]}, "invalid_chunks"),
        ({"chunks": [{"type": "markdown_text", "text": ""}]}, "invalid_chunks"),
        ({"chunks": [{"type": "blocks", "blocks": [{"type": "song"}]}]}, "invalid_blocks"),
        (
            {"chunks": [{"type": "blocks", "blocks": [{"type": "divider"}] * 51}]},
            "msg_blocks_too_many",
        ),
    ],
)
async def test_a_start_that_slack_refuses_leaves_nothing(args: Payload, error: str) -> None:
    async with talk() as t:
        assert await t.refused("chat.startStream", **t.place, **args) == error

        assert len(t.slack.screen(t.channel, t.asked)) == 1


@pytest.mark.skipif(specs.load("slack-web-openapi.json") is None, reason=specs.ABSENT)
async def test_streams_have_no_metadata_at_the_start_and_no_unfurl_switches() -> None:
    wrong = {"metadata": {}, "unfurl_links": False, "blocks": [], "text": "x"}

    async def call() -> None:
        async with talk() as t:
            await t.start(**wrong)

    with pytest.raises(AssertionError) as caught:
        await call()

    assert all(f"no argument is called {name}" in str(caught.value) for name in wrong)


async def test_a_stream_needs_the_scope_to_write() -> None:
    async with talk(SlackEmulator(scopes=SCOPES - {"chat:write"})) as t:
        errors = [
            await t.refused("chat.startStream", **t.place),
            (await t.append(t.asked, "x"))["error"],
            (await t.stop(t.asked))["error"],
        ]

        assert errors == ["missing_scope"] * 3


async def test_an_append_must_find_a_running_stream_of_the_app() -> None:
    async with talk() as t, writer(t.slack) as client:
        plain = await post(client, t.channel, "plain", thread_ts=t.asked)
        stopped = await t.start(markdown_text="One")
        await t.stop(stopped)

        errors = [
            (await t.append("1700000000.000001", "x"))["error"],
            (await t.append(t.asked, "x"))["error"],
            (await t.append(plain, "x"))["error"],
            (await t.append(stopped, "x"))["error"],
        ]

        assert errors == [
            "message_not_found",
            "message_not_owned_by_app",
            NOT_STREAMING,
            NOT_STREAMING,
        ]


async def test_an_append_needs_a_text() -> None:
    async with talk() as t:
        ts = await t.start(markdown_text="One")

        errors = [
            (await t.append(ts, ""))["error"],
            await t.refused("chat.appendStream", channel=t.channel, ts=ts, chunks=[]),
        ]

        assert errors == ["no_text", "no_text"]


async def test_the_first_content_says_what_kind_the_rest_must_be() -> None:
    async with talk() as t:
        place = {"channel": t.channel}
        chunks = [{"type": "markdown_text", "text": "x"}]
        texts, pieces, bare = await t.start(markdown_text="x"), await t.start(chunks=chunks), ""
        bare = await t.start()
        await t.append(bare, "x")

        errors = [
            await t.refused("chat.appendStream", **place, ts=texts, chunks=chunks),
            await t.refused("chat.appendStream", **place, ts=pieces, markdown_text="x"),
            await t.refused("chat.stopStream", **place, ts=bare, chunks=chunks),
        ]

        assert errors == ["streaming_mode_mismatch"] * 3
        assert (await t.append(texts, "y"))["ok"]


async def test_a_message_takes_twelve_thousand_bytes() -> None:
    async with talk() as t:
        ts = await t.start(markdown_text="é" * 5999)

        refused = (await t.append(ts, "xyz"))["error"]
        fits = await t.append(ts, "xy")

        assert refused == "msg_too_long"
        assert fits["ok"]


async def test_a_message_takes_only_so_much_over_all_calls() -> None:
    async with talk() as t:
        t.slack.streams.size = 100
        ts = await t.start(markdown_text="é" * 40)

        errors = [
            (await t.append(ts, "x" * 21))["error"],
            (await t.stop(ts, markdown_text="x" * 21))["error"],
        ]
        fits = await t.append(ts, "x" * 20)

        assert errors == ["msg_too_long", "msg_too_long"]
        assert fits["ok"]
        assert t.read() == "é" * 40 + "x" * 20


@pytest.mark.parametrize("kind", ["markdown_text", "chunks"])
async def test_a_call_takes_only_so_much(kind: str) -> None:
    async with talk() as t:
        t.slack.streams.size = 50_000
        words = "x" * 12_000

        def said(text: str) -> Payload:
            chunks = [{"type": "markdown_text", "text": text}]
            return {kind: text if kind == "markdown_text" else chunks}

        place = {"channel": t.channel, "ts": await t.start()}

        assert await t.refused("chat.appendStream", **place, **said(words + "x")) == "msg_too_long"
        assert (await t.call("chat.appendStream", **place, **said(words)))["ok"]


async def test_a_message_takes_fifty_blocks_over_all_calls() -> None:
    def blocks(number: int) -> Payload:
        return {"chunks": [{"type": "blocks", "blocks": [{"type": "divider"}] * number}]}

    async with talk() as t:
        place = {"channel": t.channel, "ts": await t.start(**blocks(30))}

        refused = await t.refused("chat.appendStream", **place, **blocks(21))
        fits = await t.call("chat.appendStream", **place, **blocks(20))
        below = await t.call("chat.stopStream", **place, blocks=[{"type": "divider"}] * 50)

        assert refused == "msg_blocks_too_many"
        assert fits["ok"]
        assert below["ok"]


async def test_chunks_may_come_in_a_form() -> None:
    async with talk() as t:
        place = {key: str(value) for key, value in t.place.items()}
        chunks = [{"type": "markdown_text", "text": "One"}]

        started = await t.form("chat.startStream", {**place, "chunks": json.dumps(chunks)})

        assert started["ok"]
        assert t.read() == "One"


@pytest.mark.parametrize("kind", ["plan_update", "task_update"])
async def test_a_chunk_that_is_not_emulated_fails_the_test(kind: str) -> None:
    async def call() -> None:
        async with talk() as t:
            await t.refused("chat.startStream", **t.place, chunks=[{"type": kind, "title": "x"}])

    with pytest.raises(AssertionError, match=f"{kind} is not emulated"):
        await call()
