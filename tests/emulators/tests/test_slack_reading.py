"""What the Slack emulator lets a bot read."""

from __future__ import annotations

import pytest

from tests.emulators.slack import SlackEmulator
from tests.support.slack_app import writer


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
