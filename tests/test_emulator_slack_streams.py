"""The Slack emulator streams, and shows signs of life, as Slack does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
from slack_sdk.models.messages.chunk import MarkdownTextChunk, TaskUpdateChunk
from slack_sdk.web.async_client import AsyncWebClient

from tests.emulators import specs
from tests.emulators.clock import Clock
from tests.emulators.slack import EVENTS, SlackEmulator
from tests.emulators.slack.methods import SCOPES
from tests.emulators.slack.payload import Payload
from tests.slack_app import STOP, bolt, post, refusal, section, writer
from tests.waiting import until

NOT_STREAMING = "message_not_in_streaming_state"


@dataclass
class Talk:
    """Ann has asked something in a channel; what the app says is said by raw HTTP."""

    slack: SlackEmulator
    session: aiohttp.ClientSession
    channel: str
    ann: str
    asked: str

    async def call(self, method: str, **args: object) -> Payload:
        """Call a method with JSON and return the whole answer."""
        headers = {"Authorization": f"Bearer {self.slack.bot_token}"}
        url = self.slack.api_url + method
        async with self.session.post(url, json=args, headers=headers) as response:
            answer: Payload = await response.json()
            return answer

    async def refused(self, method: str, **args: object) -> str:
        """Call a method and return the error."""
        return str((await self.call(method, **args)).get("error"))

    async def form(self, method: str, args: Mapping[str, str]) -> Payload:
        """Call a method with a form and return the whole answer."""
        data = {**args, "token": self.slack.bot_token}
        async with self.session.post(self.slack.api_url + method, data=data) as response:
            answer: Payload = await response.json()
            return answer

    @property
    def place(self) -> Payload:
        """What a stream needs in a channel."""
        return {
            "channel": self.channel,
            "thread_ts": self.asked,
            "recipient_user_id": self.ann,
            "recipient_team_id": self.slack.team_id,
        }

    async def start(self, **args: object) -> str:
        """Start a stream in Ann's thread and return its ts."""
        answer = await self.call("chat.startStream", **{**self.place, **args})
        assert answer["ok"], answer
        return str(answer["ts"])

    async def append(self, ts: str, words: str) -> Payload:
        return await self.call(
            "chat.appendStream", channel=self.channel, ts=ts, markdown_text=words
        )

    async def stop(self, ts: str, **args: object) -> Payload:
        return await self.call("chat.stopStream", channel=self.channel, ts=ts, **args)

    def read(self) -> str:
        """What stands under Ann's question."""
        return self.slack.screen(self.channel, self.asked)[-1].text


@asynccontextmanager
async def talk(slack: SlackEmulator | None = None) -> AsyncIterator[Talk]:
    async with slack or SlackEmulator() as running, aiohttp.ClientSession() as session:
        ann = running.user("Ann")
        asked = await running.say(running.channel_id, ann, "hello?")
        yield Talk(running, session, running.channel_id, ann, asked)


async def stream(client: AsyncWebClient, slack: SlackEmulator, ann: str, asked: str) -> str:
    started = await client.chat_startStream(
        channel=slack.channel_id,
        thread_ts=asked,
        recipient_user_id=ann,
        recipient_team_id=slack.team_id,
        markdown_text="One",
    )
    return str(started["ts"])


# What a stream needs


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
        ({"chunks": [{"type": "plan_update", "title": "x" * 257}]}, "invalid_chunks"),
        ({"chunks": [{"type": "task_update", "id": "1", "title": "x"}]}, "invalid_chunks"),
        (
            {"chunks": [{"type": "task_update", "id": "1", "title": "x", "status": "lost"}]},
            "invalid_chunks",
        ),
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


# Appends


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


async def test_a_task_changes_in_its_place_and_fails_if_it_is_left_open() -> None:
    async with talk() as t:
        ts = await t.start(
            chunks=[
                {"type": "plan_update", "title": "Looking"},
                {
                    "type": "task_update",
                    "id": "1",
                    "title": "Reading",
                    "status": "in_progress",
                    "details": "a",
                },
                {"type": "markdown_text", "text": "So far."},
            ]
        )
        update = {
            "type": "task_update",
            "id": "1",
            "title": "Read",
            "status": "in_progress",
            "details": "b",
        }
        await t.call("chat.appendStream", channel=t.channel, ts=ts, chunks=[update])
        message = (await t.stop(ts))["message"]

        assert t.read() == "Looking\nRead\nSo far."
        assert isinstance(message, dict)
        card = message["blocks"][1]
        assert (card["status"], card["details"]) == ("error", "ab")


# Stops


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
        ts = await t.start(markdown_text="x" * 9000)

        refused = (await t.stop(ts, blocks=section("x" * 3000) * 2))["error"]

        assert refused == "msg_blocks_too_long"


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


# How a stream ends otherwise


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


# How often


async def test_a_workspace_takes_so_many_streams_and_appends_a_minute() -> None:
    clock = Clock()
    async with talk(SlackEmulator(clock=clock)) as t:
        starts = [await t.call("chat.startStream", **t.place) for _ in range(21)]
        ts = str(starts[0]["ts"])
        appends = [await t.append(ts, "x") for _ in range(101)]
        stops = [await t.stop(str(started["ts"])) for started in starts[:20]]
        stops.append(await t.stop(ts))
        clock.advance(3)
        later = await t.call("chat.startStream", **t.place)

        assert [call.limited for call in t.slack.requests].count(True) == 3
        for calls in (starts, appends, stops):
            assert all(answer["ok"] for answer in calls[:-1])
            assert calls[-1]["error"] == "ratelimited"
        assert later["ok"]


async def test_a_stream_needs_the_scope_to_write() -> None:
    async with talk(SlackEmulator(scopes=SCOPES - {"chat:write"})) as t:
        errors = [
            await t.refused("chat.startStream", **t.place),
            (await t.append(t.asked, "x"))["error"],
            (await t.stop(t.asked))["error"],
        ]

        assert errors == ["missing_scope"] * 3


# What others are told and see


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


# slack-sdk's own


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
        task = TaskUpdateChunk(id="1", title="Look", status="complete")
        await helper.append(chunks=[MarkdownTextChunk(text=" you. "), task])
        await helper.append(markdown_text="Bye")
        await helper.stop(blocks=section("?"))

        methods = [call.method for call in slack.requests]
        assert methods == [
            "chat.startStream",
            "chat.appendStream",
            "chat.stopStream",
        ]
        assert slack.screen(slack.channel_id, asked)[-1].text == "Hello you. \nLook\nBye\n?"


# Statuses


async def test_a_status_stands_until_the_app_answers_in_the_thread() -> None:
    async with talk() as t, writer(t.slack) as client:
        other = await t.slack.say(t.channel, t.ann, "and this?")
        place: Payload = {"channel_id": t.channel, "thread_ts": t.asked}
        await t.call("assistant.threads.setStatus", **place, status="is thinking")

        def shown() -> str:
            return t.slack.shown_status(t.channel, t.asked)

        await post(client, t.channel, "elsewhere", thread_ts=other)
        before = shown()
        await post(client, t.channel, "here", thread_ts=t.asked)

        assert (before, shown()) == ("is thinking", "")
        assert t.slack.status(t.channel, t.asked) == ["is thinking"]
        moments = [(m.what, m.text) for m in t.slack.timeline(t.channel, t.asked)]
        assert moments == [("post", "hello?"), ("sign", "is thinking"), ("post", "here")]


async def test_an_empty_status_and_a_stream_take_the_status_away() -> None:
    async with talk() as t:
        place: Payload = {"channel_id": t.channel, "thread_ts": t.asked}
        shown = []
        await t.call("assistant.threads.setStatus", **place, status="is thinking")
        await t.call("assistant.threads.setStatus", **place, status="")
        shown.append(t.slack.shown_status(t.channel, t.asked))
        await t.call("assistant.threads.setStatus", **place, status="is thinking")
        await t.start()
        shown.append(t.slack.shown_status(t.channel, t.asked))

        assert shown == ["", ""]


async def test_a_status_is_gone_after_two_minutes() -> None:
    clock = Clock()
    async with talk(SlackEmulator(clock=clock)) as t:
        place: Payload = {"channel_id": t.channel, "thread_ts": t.asked}
        await t.call("assistant.threads.setStatus", **place, status="is thinking")
        clock.advance(119)
        before = t.slack.shown_status(t.channel, t.asked)
        clock.advance(2)

        assert (before, t.slack.shown_status(t.channel, t.asked)) == ("is thinking", "")


async def test_a_status_needs_a_thread_and_few_words() -> None:
    async with talk() as t:
        method, place = "assistant.threads.setStatus", {"channel_id": t.channel}
        reply = await t.slack.say(t.channel, t.ann, "more", thread_ts=t.asked)
        root = {**place, "thread_ts": t.asked}

        errors = [
            await t.refused(method, **place, thread_ts=reply, status="x"),
            await t.refused(method, **place, thread_ts="1700000000.000001", status="x"),
            await t.refused(method, **place, thread_ts="", status="x"),
            await t.refused(method, **root),
            await t.refused(method, **root, status="x" * 51),
            await t.refused(method, **root, status="x", loading_messages=["x"] * 11),
            await t.refused(method, **root, status="x", loading_messages=["x" * 51]),
        ]

        assert errors == ["invalid_thread_ts"] * 2 + ["invalid_arguments"] * 5
        assert t.slack.status(t.channel, t.asked) == []


# Sessions


async def test_a_stream_makes_its_session_process_until_it_ends() -> None:
    clock = Clock()
    async with talk(SlackEmulator(clock=clock)) as t:
        first = await t.start(markdown_text="One")
        states = [t.slack.session(t.channel, t.asked)]
        await t.stop(first, session_status="suspended")
        states.append(t.slack.session(t.channel, t.asked)[-1:])
        await t.start(markdown_text="Two")
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


async def test_a_status_is_a_session_too() -> None:
    async with talk() as t:
        place: Payload = {"channel_id": t.channel, "thread_ts": t.asked}

        for status in ("is thinking", "is writing", ""):
            await t.call("assistant.threads.setStatus", **place, status=status)

        assert t.slack.session(t.channel, t.asked) == ["processing", "active"]


async def test_a_session_keeps_the_title_of_its_beginning() -> None:
    async with talk() as t:
        place: Payload = {"channel_id": t.channel, "thread_ts": t.asked, "status": "active"}

        first = await t.call("agents.sessions.setStatus", **place, title="Diving")
        second = await t.call("agents.sessions.setStatus", **place, title="Climbing")

        told: Payload = {"status": "active", "agent_status": "active", "title": "Diving"}
        assert first == second == {"ok": True, **told}


async def test_a_session_needs_its_channel_thread_and_state() -> None:
    async with talk() as t:
        method = "agents.sessions.setStatus"
        elsewhere = t.slack.channel("elsewhere", member=False)
        root: Payload = {"channel_id": t.channel, "thread_ts": t.asked}

        errors = [
            await t.refused(method, **{**root, "channel_id": "C404"}, status="active"),
            await t.refused(method, **{**root, "channel_id": elsewhere}, status="active"),
            await t.refused(method, channel_id=t.channel, status="active"),
            await t.refused(method, **root, status="is thinking..."),
            await t.refused(method, **root, status="active", initiator_user_id="U404"),
            await t.refused(method, **root, status="active", title="x" * 201),
        ]

        assert errors == [
            "channel_not_found",
            "not_authorized",
            "thread_ts_required",
            "invalid_arguments",
            "user_not_found",
            "invalid_arguments",
        ]
        assert t.slack.session(t.channel, t.asked) == []


async def test_an_app_that_cannot_be_stopped_is_warned_and_shows_no_button() -> None:
    deaf = SlackEmulator(subscribed=EVENTS - {"agent_session_stopped"})
    async with talk(deaf) as t:
        place: Payload = {"channel_id": t.channel, "thread_ts": t.asked}

        answer = await t.call("agents.sessions.setStatus", **place, status="processing")

        assert answer["warning"] == "missing_agent_session_stopped_event_subscription"
        with pytest.raises(LookupError):
            await t.slack.stop(t.channel, t.asked, t.ann)


async def test_a_session_changes_the_question_without_changing_what_it_says() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")
        asked = await slack.say(slack.channel_id, ann, "hello?")

        await bot.app.client.agents_sessions_setStatus(
            channel_id=slack.channel_id, thread_ts=asked, status="processing"
        )

        await until(lambda: len(bot.events("message")) == 2)
        change = next(e for e in bot.events("message") if e.get("subtype") == "message_changed")
        now, before = change["message"], change["previous_message"]
        assert isinstance(now, dict)
        assert isinstance(before, dict)
        assert now["text"] == before["text"] == "hello?"
        assert now["agent_session"]["status"] == "processing"
        assert "edited" not in now
