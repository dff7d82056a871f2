"""What the Slack emulator lets a bot read."""

from __future__ import annotations

import pytest

from tests.emulators.slack import SlackEmulator
from tests.support.slack_app import EVERY_SCOPE, post, refusal, writer


async def test_auth_test_tells_who_the_bot_is() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        who = await client.auth_test()

        told = (who["team_id"], who["user_id"], who["bot_id"])
        assert told == (slack.team_id, slack.bot_user_id, slack.bot_id)


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


async def test_a_parent_tells_of_its_replies() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "question")
        reply = await post(client, slack.channel_id, "answer", thread_ts=ts)

        read = await client.conversations_history(channel=slack.channel_id)

        [parent] = read["messages"]
        assert (parent["reply_count"], parent["latest_reply"]) == (1, reply)
        assert parent["reply_users"] == [slack.bot_user_id]


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


async def test_a_thread_is_read_by_the_thousand() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "0")
        for number in range(1000):
            await slack.say(slack.channel_id, ann, str(number), thread_ts=ts)

        page = await client.conversations_replies(channel=slack.channel_id, ts=ts, limit=1001)

        assert (len(page["messages"]), page["has_more"]) == (1000, True)


async def test_a_channel_is_read_by_the_hundred() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")
        for number in range(101):
            await slack.say(slack.channel_id, ann, str(number))

        read = await client.conversations_history(channel=slack.channel_id)

        assert (len(read["messages"]), read["has_more"]) == (100, True)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"ts": "1700000000.000001"}, "thread_not_found"),
        ({"cursor": "2"}, "invalid_cursor"),
        ({"limit": "0"}, "invalid_arguments"),
    ],
)
async def test_a_thread_that_cannot_be_read_is_refused(args: dict[str, str], error: str) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "question")
        full = {"channel": slack.channel_id, "ts": ts, **args}

        assert await refusal(client, "conversations.replies", full) == error


@pytest.mark.parametrize("asked", [True, False])
async def test_metadata_is_read_by_who_asks_for_it(asked: bool) -> None:
    metadata = {"event_type": "turn", "event_payload": {"id": 1}}
    async with SlackEmulator() as slack, writer(slack) as client:
        await client.chat_postMessage(channel=slack.channel_id, text="x", metadata=metadata)

        read = await client.conversations_history(
            channel=slack.channel_id, include_all_metadata=asked
        )

        assert read["messages"][0].get("metadata") == (metadata if asked else None)


async def test_people_and_their_dms_can_be_looked_up() -> None:
    async with SlackEmulator(scopes=EVERY_SCOPE) as slack, writer(slack) as client:
        ann = slack.user("Ann")

        opened = await client.conversations_open(users=ann)
        who = await client.users_info(user=ann)

        assert opened["channel"]["id"] == slack.dm(ann)
        assert who["user"]["profile"]["display_name"] == "Ann"
        assert await refusal(client, "users.info", {"user": "U404"}) == "user_not_found"
        assert await refusal(client, "conversations.open", {"users": "U404"}) == "user_not_found"
        assert await refusal(client, "conversations.open", {}) == "users_list_not_supplied"
