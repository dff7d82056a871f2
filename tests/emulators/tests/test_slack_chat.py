"""What the Slack emulator lets a bot write and read, and what people then see."""

from __future__ import annotations

import pytest

from tests.emulators.slack import Shown, SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import QUIET, STOP, markdown, post, section, talk, writer


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


async def test_links_are_previewed_unless_both_switches_are_off() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        place, text = slack.channel_id, "see https://example.com/a"

        await client.chat_postMessage(
            channel=place, text=text, unfurl_links=False, unfurl_media=False
        )
        await client.chat_postMessage(channel=place, text=text, unfurl_links=False)
        await client.chat_postMessage(channel=place, text=text)

        assert slack.unfurls == ["https://example.com/a"] * 2


@pytest.mark.parametrize("text", ["x" * 4000, "é" * 2000, "&lt;" * 1000, "&" * 800])
async def test_an_update_takes_4000_bytes_after_escaping(text: str) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ts = await post(client, slack.channel_id, "x")

        await client.chat_update(channel=slack.channel_id, ts=ts, text=text)

        assert len(slack.states(slack.channel_id, ts)) == 2


@pytest.mark.parametrize(
    ("args", "noted", "shown"),
    [
        ({"text": "x" * 40_001}, "cuts 40001 characters", 40_000),
        ({"text": "x" * 4001}, "splits 4001 characters", 4001),
        ({"text": "x", "thread_ts": "<reply>"}, "is a reply's", 1),
        ({"text": "x", "username": "true"}, "username is not emulated", 1),
        ({"text": "x", "parse": "full"}, "parse is not emulated", 1),
        ({"text": "x", "attachments": "true"}, "attachments is not emulated", 1),
    ],
)
async def test_what_slack_would_show_otherwise_than_meant_is_a_violation(
    args: Payload, noted: str, shown: int
) -> None:
    async with talk() as t:
        reply = await t.slack.say(t.channel, t.ann, "more", thread_ts=t.asked)
        given = {key: reply if value == "<reply>" else value for key, value in args.items()}

        answer = await t.call("chat.postMessage", channel=t.channel, **QUIET, **given)

        assert noted in t.slack.violations.pop()
        assert len(t.slack.states(t.channel, str(answer["ts"]))[0]) == shown


async def test_a_thread_is_read_oldest_first_and_page_by_page() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "0")
        for number in range(1, 5):
            await slack.say(slack.channel_id, ann, str(number), thread_ts=ts)

        pages = [
            [message["text"] for message in page["messages"]]
            async for page in await client.conversations_replies(
                channel=slack.channel_id, ts=ts, limit=2
            )
        ]

        assert pages == [["0", "1"], ["2", "3"], ["4"]]


async def test_a_channel_is_read_newest_first_and_between_two_times() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        stamps = [await slack.say(slack.channel_id, ann, str(number)) for number in range(4)]

        read = await client.conversations_history(
            channel=slack.channel_id, oldest=stamps[1], latest=stamps[3], inclusive=True
        )

        assert [message["text"] for message in read["messages"]] == ["3", "2", "1"]


async def test_a_channel_is_read_upwards_from_the_oldest_alone() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        stamps = [await slack.say(slack.channel_id, ann, str(number)) for number in range(6)]

        pages = [
            [message["text"] for message in page["messages"]]
            async for page in await client.conversations_history(
                channel=slack.channel_id, oldest=stamps[0], limit=2
            )
        ]

        assert pages == [["2", "1"], ["4", "3"], ["5"]]


@pytest.mark.parametrize(
    ("unlisted", "in_thread", "most"),
    [(False, True, 1000), (False, False, 100), (True, True, 15), (True, False, 15)],
)
async def test_a_page_has_only_so_many_messages(
    *, unlisted: bool, in_thread: bool, most: int
) -> None:
    async with SlackEmulator(unlisted=unlisted) as slack, writer(slack) as client:
        ann, place = slack.user("Ann"), slack.channel_id
        ts = await slack.say(place, ann, "0")
        for number in range(most):
            await slack.say(place, ann, str(number), thread_ts=ts if in_thread else None)

        if in_thread:
            page = await client.conversations_replies(channel=place, ts=ts, limit=1001)
        else:
            page = await client.conversations_history(channel=place)

        assert (len(page["messages"]), page["has_more"]) == (most, True)
