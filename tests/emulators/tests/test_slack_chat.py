"""What the Slack emulator lets a bot write, and what people then see."""

from __future__ import annotations

import pytest

from tests.emulators.slack import Shown, SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import (
    QUIET,
    STOP,
    markdown,
    post,
    refusal,
    section,
    writer,
)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"text": ""}, "no_text"),
        ({"text": "  \n"}, "no_text"),
        ({"blocks": []}, "no_text"),
        ({"channel": "C404", "text": "x"}, "channel_not_found"),
        ({"markdown_text": "x" * 12_001}, "msg_too_long"),
        ({"markdown_text": "x", "text": "x"}, "markdown_text_conflict"),
        ({"markdown_text": "x", "blocks": section("x")}, "markdown_text_conflict"),
        ({"text": "x", "metadata": "{"}, "invalid_metadata_format"),
        ({"text": "x", "metadata": "[]"}, "invalid_metadata_format"),
        ({"text": "x", "metadata": {"event_type": "turn"}}, "invalid_metadata_schema"),
        (
            {"text": "x", "metadata": {"event_type": "turn", "event_payload": "1"}},
            "invalid_metadata_schema",
        ),
    ],
)
async def test_a_post_that_slack_would_not_take_is_refused(args: Payload, error: str) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        full = {"channel": slack.channel_id, **QUIET, **args}

        code = await refusal(client, "chat.postMessage", full)

        assert code == error
        assert slack.screen(slack.channel_id) == []


@pytest.mark.parametrize(
    "args",
    [
        {"text": "x" * 4000},
        {"markdown_text": "x" * 12_000},
        {"text": "x", "metadata": {"event_type": "turn", "event_payload": {"id": 1}}},
    ],
)
async def test_a_post_at_the_limit_is_taken(args: Payload) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        await client.api_call("chat.postMessage", json={"channel": slack.channel_id, **args})

        assert len(slack.screen(slack.channel_id)) == 1


async def test_a_text_that_slack_would_cut_is_cut_and_a_violation() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        await post(client, slack.channel_id, "x" * 40_001)

        assert "cuts 40001 characters" in slack.violations.pop()
        assert len(slack.screen(slack.channel_id)[0].text) == 40_000


async def test_a_text_that_slack_would_split_is_a_violation() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        await post(client, slack.channel_id, "x" * 4001)

        assert "splits 4001 characters" in slack.violations.pop()


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("x" * 4000, True),
        ("x" * 4001, False),
        ("é" * 2000, True),
        ("é" * 2001, False),
        ("&lt;" * 1000, True),
        ("&lt;" * 1001, False),
        ("&" * 800, True),
        ("&" * 801, False),
    ],
)
async def test_an_update_takes_4000_bytes_after_escaping(text: str, *, taken: bool) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ts = await post(client, slack.channel_id, "x")
        args = {"channel": slack.channel_id, "ts": ts, "text": text}

        if taken:
            await client.api_call("chat.update", json=args)
        else:
            assert await refusal(client, "chat.update", args) == "msg_too_long"

        assert len(slack.states(slack.channel_id, ts)) == 1 + taken


async def test_only_the_bots_own_messages_can_be_changed() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "mine")
        args = {"channel": slack.channel_id, "ts": ts}

        updated = await refusal(client, "chat.update", {**args, "text": "yours"})
        deleted = await refusal(client, "chat.delete", args)

        assert (updated, deleted) == ("cant_update_message", "cant_delete_message")


async def test_a_deleted_message_cannot_be_changed() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ts = await post(client, slack.channel_id, "x")
        args = {"channel": slack.channel_id, "ts": ts}
        await client.chat_delete(channel=slack.channel_id, ts=ts)

        errors = {
            await refusal(client, "chat.update", {**args, "text": "y"}),
            await refusal(client, "chat.delete", args),
        }

        assert errors == {"message_not_found"}


async def test_a_message_can_be_edited_as_long_as_the_workspace_allows() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ts = await post(client, slack.channel_id, "x")
        args = {"channel": slack.channel_id, "ts": ts}
        slack.edit_seconds = 300.0
        slack.clock.advance(200.0)
        await client.api_call("chat.update", json={**args, "text": "y"})

        slack.clock.advance(100.0)
        code = await refusal(client, "chat.update", {**args, "text": "z"})

        assert code == "edit_window_closed"
        assert slack.states(slack.channel_id, ts) == ["x", "y"]


async def test_only_an_edit_of_the_text_is_marked_as_one() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ts = await post(client, slack.channel_id, "x", blocks=section("x"))
        place = {"channel": slack.channel_id, "ts": ts}

        with_blocks = await client.api_call(
            "chat.update", json={**place, "text": "y", "blocks": section("y")}
        )
        without = await client.api_call("chat.update", json={**place, "text": "z"})

        assert "edited" not in with_blocks["message"]
        assert without["message"]["edited"]["user"] == slack.bot_user_id


async def test_metadata_stays_until_an_update_brings_other_or_none() -> None:
    metadata = {"event_type": "turn", "event_payload": {"id": 1}}
    async with SlackEmulator() as slack, writer(slack) as client:
        posted = await client.chat_postMessage(
            channel=slack.channel_id, text="x", metadata=metadata
        )
        args = {"channel": slack.channel_id, "ts": posted["ts"], "text": "y"}

        kept = await client.api_call("chat.update", json=args)
        taken = await client.api_call("chat.update", json={**args, "metadata": {}})

        assert kept["message"]["metadata"] == metadata
        assert "metadata" not in taken["message"]


async def test_an_ephemeral_needs_somebody_who_is_there() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        other = slack.install("Umbrella")
        bob = slack.user("Bob", other.team_id)
        args = {"channel": slack.channel_id, "user": bob, "text": "psst"}

        code = await refusal(client, "chat.postEphemeral", args)

        assert code == "user_not_in_channel"
        assert slack.ephemerals == []


@pytest.mark.parametrize("opened", [True, False])
async def test_an_ephemeral_is_seen_in_a_thread_that_is_open_already(*, opened: bool) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        place, ann = slack.channel_id, slack.user("Ann")
        asked = await slack.say(place, ann, "question")
        if opened:
            await slack.say(place, ann, "and more", thread_ts=asked)

        await client.chat_postEphemeral(channel=place, user=ann, text="psst", thread_ts=asked)

        seen = [(words.text, words.thread_ts) for words in slack.ephemerals]
        assert seen == ([("psst", asked)] if opened else [])


@pytest.mark.parametrize("name", ["attachments", "reply_broadcast", "username"])
async def test_an_argument_that_is_not_emulated_is_a_violation(name: str) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        args = {"channel": slack.channel_id, "text": "x", name: "true"}

        await client.api_call("chat.postMessage", json=args)

        assert f"{name} is not emulated" in slack.violations
        slack.violations.clear()


async def test_a_channel_without_the_bot_takes_no_words() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        away, ann = slack.channel("away", member=False), slack.user("Ann")

        errors = {
            await refusal(client, "chat.postMessage", {"channel": away, "text": "x"}),
            await refusal(
                client, "chat.postEphemeral", {"channel": away, "user": ann, "text": "x"}
            ),
            await refusal(client, "conversations.history", {"channel": away}),
        }

        assert errors == {"not_in_channel"}


async def test_a_text_takes_the_place_of_blocks_and_blocks_of_a_text() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        blocks = [*markdown("**1** &lt; 2"), *section("more"), STOP]
        ts = await post(client, slack.channel_id, "fallback", blocks=blocks)
        (with_blocks,) = slack.screen(slack.channel_id)

        await client.chat_update(channel=slack.channel_id, ts=ts, text="a &amp; b")

        (without,) = slack.screen(slack.channel_id)
        assert (with_blocks.text, with_blocks.buttons) == ("**1** < 2\nmore", ("stop",))
        shown = Shown(ts, slack.channel_id, slack.bot_id, "a & b", (), None)
        assert without == shown


async def test_a_thread_is_shown_with_its_parent_first() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "question")
        await slack.say(slack.channel_id, ann, "elsewhere")

        await post(client, slack.channel_id, "answer", thread_ts=ts)

        thread, top = slack.screen(slack.channel_id, ts), slack.screen(slack.channel_id)
        assert [(shown.text, shown.thread_ts) for shown in thread] == [
            ("question", None),
            ("answer", ts),
        ]
        assert [shown.text for shown in top] == ["question", "elsewhere"]


async def test_a_thread_that_does_not_exist_is_accepted_and_the_post_stands_in_the_channel() -> (
    None
):
    async with SlackEmulator() as slack, writer(slack) as client:
        await post(client, slack.channel_id, "answer", thread_ts="1700000000.000001")

        assert [shown.text for shown in slack.screen(slack.channel_id)] == ["answer"]


async def test_a_reply_is_no_parent() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "question")
        reply = await slack.say(slack.channel_id, ann, "and", thread_ts=ts)

        await post(client, slack.channel_id, "answer", thread_ts=reply)

        assert "is a reply's" in slack.violations.pop()
        assert len(slack.screen(slack.channel_id, ts)) == 3


@pytest.mark.parametrize(
    "spoken", ["<!here>", "<!channel|all>", "<!subteam^S123>", "<@U0PARLEY001>"]
)
@pytest.mark.parametrize("place", ["text", "markdown", "section"])
async def test_what_would_notify_is_kept(spoken: str, place: str) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        words = f"dear {spoken}, `code` &lt;!everyone&gt;"
        makers = {"markdown": markdown, "section": section}
        blocks = makers[place](words) if place in makers else None
        text = words if place == "text" else "plain"

        await post(client, slack.channel_id, text, blocks=blocks)

        assert slack.pings == [spoken]


async def test_an_update_and_an_ephemeral_notify_too() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        place, ann = slack.channel_id, slack.user("Ann")
        ts = await post(client, place, "x")

        await client.chat_update(channel=place, ts=ts, text="<!everyone>")
        await client.chat_postEphemeral(channel=place, user=ann, text="@here", parse="full")

        assert slack.pings == ["<!everyone>", "@here"]
        assert [words.text for words in slack.ephemerals] == ["@here"]


async def test_links_are_previewed_unless_both_switches_are_off() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        place, text = slack.channel_id, "see https://example.com/a"

        await client.chat_postMessage(
            channel=place, text=text, unfurl_links=False, unfurl_media=False
        )
        await client.chat_postMessage(channel=place, text=text, unfurl_links=False)
        await client.chat_postMessage(channel=place, text=text)

        assert slack.unfurls == ["https://example.com/a"] * 2


async def test_a_post_to_a_person_is_a_dm() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")

        await post(client, ann, "psst")

        assert [shown.text for shown in slack.screen(slack.dm(ann))] == ["psst"]


async def test_the_status_of_a_thread_is_kept() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "hello")

        for status in ("is thinking", ""):
            await client.assistant_threads_setStatus(
                channel_id=slack.channel_id, thread_ts=ts, status=status
            )

        assert slack.status(slack.channel_id, ts) == ["is thinking", ""]
        args = {"channel_id": slack.channel_id, "thread_ts": "", "status": "x"}
        refused = await refusal(client, "assistant.threads.setStatus", args)
        assert refused == "invalid_arguments"


async def test_the_timeline_has_what_changed_and_when() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        place, ann = slack.channel_id, slack.user("Ann")
        asked = await slack.say(place, ann, "question")
        await client.assistant_threads_setStatus(
            channel_id=place, thread_ts=asked, status="is thinking"
        )
        ts = await post(client, place, "an", thread_ts=asked)
        await client.chat_update(channel=place, ts=ts, text="answer")
        await client.chat_delete(channel=place, ts=ts)

        thread, top = slack.timeline(place, asked), slack.timeline(place)

        assert [(moment.what, moment.message, moment.text) for moment in thread] == [
            ("post", asked, "question"),
            ("sign", "", "is thinking"),
            ("post", ts, "an"),
            ("edit", ts, "answer"),
            ("delete", ts, ""),
        ]
        assert [moment.at for moment in thread] == sorted(moment.at for moment in thread)
        assert [moment.message for moment in top] == [asked]
