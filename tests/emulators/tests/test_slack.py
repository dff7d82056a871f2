"""What the Slack emulator tells an app of that people and the bot write."""

from __future__ import annotations

import pytest

from tests.emulators.slack import EVENTS, SCOPES, SlackEmulator
from tests.support.slack_app import (
    EVERY_SCOPE,
    TRANSPORTS,
    bolt,
    post,
)
from tests.support.waiting import until


@TRANSPORTS
async def test_a_mention_in_a_channel_is_told_as_message_and_as_app_mention(transport: str) -> None:
    async with SlackEmulator() as slack, bolt(slack, transport) as bot:
        text = f"{slack.bot_mention} is 1 < 2 & see https://example.com"

        ts = await slack.say(slack.channel_id, slack.user("Ann"), text)

        await until(lambda: len(slack.deliveries) == 2)
        (mention,), (message,) = bot.events("app_mention"), bot.events("message")
        assert mention["ts"] == message["ts"] == ts
        assert mention["text"] == f"{slack.bot_mention} is 1 &lt; 2 &amp; see <https://example.com>"
        assert [d.status for d in slack.deliveries] == [200, 200]
        assert slack.screen(slack.channel_id)[0].text == text


async def test_a_persons_upload_is_a_file_share_with_a_bot_id_of_null() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")

        await slack.say(slack.dm(ann), ann, "We got one!", files=("ghost.png",))
        await until(lambda: slack.deliveries)

        [event] = bot.events("message")
        assert event["subtype"] == "file_share"
        assert (event["upload"], event["bot_id"], event["user"]) == (True, None, ann)
        assert isinstance(event["files"], list)
        assert [file["name"] for file in event["files"]] == ["ghost.png"]


async def test_an_event_comes_in_the_full_wrapper() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")

        await slack.say(slack.dm(ann), ann, "hello")

        await until(lambda: bot.heard)
        body = bot.heard[0]
        assert {"team_id", "api_app_id", "event_id", "event_time", "context_team_id"} <= set(body)
        authorization = {"team_id": slack.team_id, "user_id": slack.bot_user_id, "is_bot": True}
        assert authorization.items() <= body["authorizations"][0].items()  # type: ignore[index]


@pytest.mark.parametrize(
    ("subscribed", "kinds"),
    [(EVENTS, ["app_mention", "message"]), (EVENTS - {"message.channels"}, ["app_mention"])],
)
async def test_an_app_hears_what_it_has_subscribed_to(
    subscribed: frozenset[str], kinds: list[str]
) -> None:
    async with SlackEmulator(subscribed=subscribed) as slack, bolt(slack):
        ann = slack.user("Ann")

        await slack.say(slack.channel_id, ann, f"hello {slack.bot_mention}")

        await until(lambda: len(slack.deliveries) == len(kinds))
        assert sorted(delivery.kind for delivery in slack.deliveries) == kinds


async def test_a_dm_is_a_message_and_no_mention() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")

        await slack.say(slack.dm(ann), ann, f"hello {slack.bot_mention}")
        await slack.say(slack.channel_id, ann, slack.bot_mention)

        await until(lambda: len(slack.deliveries) == 3)
        assert [event.get("channel_type") for event in bot.events("message")] == ["im", "channel"]
        assert [event["channel"] for event in bot.events("app_mention")] == [slack.channel_id]


@pytest.mark.parametrize("kind", ["group", "mpim"])
async def test_private_places_are_heard_by_their_own_subscriptions(kind: str) -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")
        place = {
            "group": lambda: slack.channel("secret", private=True),
            "mpim": lambda: slack.group_dm(ann, slack.user("Ben")),
        }[kind]()

        await slack.say(place, ann, f"hello {slack.bot_mention}")

        await until(lambda: len(bot.heard) == 2)
        [message], [mention] = bot.events("message"), bot.events("app_mention")
        assert (message["channel_type"], message["channel"]) == (kind, place)
        assert mention["ts"] == message["ts"]


async def test_opening_the_apps_place_is_told_with_the_tab() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")

        await slack.open_home(ann)

        await until(lambda: bot.heard)
        [event] = bot.events("app_home_opened")
        assert (event["tab"], event["user"], event["channel"]) == ("messages", ann, slack.dm(ann))


async def test_a_person_who_joins_is_told_as_a_message_with_a_subtype() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")

        await slack.join(slack.channel_id, ann)

        await until(lambda: bot.heard)
        [event] = bot.events("message")
        assert (event["subtype"], event["user"]) == ("channel_join", ann)
        assert event["text"] == f"<@{ann}> has joined the channel"


async def test_the_bot_hears_of_a_channel_from_when_it_joins() -> None:
    scopes, subscribed = EVERY_SCOPE | SCOPES, EVENTS | {"member_joined_channel"}
    slack = SlackEmulator(scopes=scopes, subscribed=subscribed)
    async with slack, bolt(slack) as bot:
        ann, place = slack.user("Ann"), slack.channel("late", member=False)
        await slack.say(place, ann, "before")

        await slack.join(place, slack.bot_user_id, inviter=ann)
        await slack.say(place, ann, "after")

        await until(lambda: len(bot.heard) == 3)
        texts = [event["text"] for event in bot.events("message")]
        assert texts == [f"{slack.bot_mention} has joined the channel", "after"]
        assert bot.events("app_mention") == []
        assert bot.events("member_joined_channel")[0]["inviter"] == ann


async def test_a_channel_without_the_bot_is_not_heard() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")

        await slack.say(slack.channel("secret", member=False), ann, slack.bot_mention)
        await slack.say(slack.dm(ann), ann, "hello")

        await until(lambda: bot.heard)
        assert [event["text"] for event in bot.events("message")] == ["hello"]


async def test_the_bots_own_words_come_back_with_its_bot_id() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        client = bot.app.client
        ts = await post(client, slack.channel_id, "one")

        await client.chat_update(channel=slack.channel_id, ts=ts, text="two")

        await until(lambda: len(bot.heard) == 2)
        message, changed = bot.events("message")
        assert (message["bot_id"], message["user"]) == (slack.bot_id, slack.bot_user_id)
        assert changed["subtype"] == "message_changed"
        assert changed["message"]["text"] == "two"  # type: ignore[index]
        assert changed["previous_message"]["text"] == "one"  # type: ignore[index]


async def test_a_deleted_message_is_told_and_gone() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "never mind")

        await slack.delete(slack.channel_id, ts)

        await until(lambda: len(bot.heard) == 2)
        deleted = bot.events("message")[1]
        assert (deleted["subtype"], deleted["deleted_ts"]) == ("message_deleted", ts)
        assert slack.screen(slack.channel_id) == []


async def test_a_deleted_parent_stays_as_a_tombstone_and_is_told_as_changed() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "never mind")
        await slack.say(slack.channel_id, ann, "more", thread_ts=ts)

        await slack.delete(slack.channel_id, ts)

        await until(lambda: len(bot.heard) == 3)
        changed = bot.events("message")[2]
        assert changed["subtype"] == "message_changed"
        assert changed["message"]["subtype"] == "tombstone"  # type: ignore[index]
        thread = [shown.text for shown in slack.screen(slack.channel_id, ts)]
        assert thread == ["This message was deleted.", "more"]


async def test_an_edited_message_is_told_with_both_texts() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ts = await slack.say(slack.channel_id, slack.user("Ann"), "one")

        await slack.edit(slack.channel_id, ts, "two")

        await until(lambda: len(bot.heard) == 2)
        assert bot.events("message")[1]["message"]["text"] == "two"  # type: ignore[index]
        assert slack.states(slack.channel_id, ts) == ["one", "two"]


@pytest.mark.parametrize("first", [f"{SlackEmulator.bot_mention} hi", "hello"])
async def test_an_edited_mention_is_told_as_a_mention_again(first: str) -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, first)

        await slack.edit(slack.channel_id, ts, f"{slack.bot_mention} why?")

        await until(lambda: [event for event in bot.events("app_mention") if "edited" in event])
        [mention] = [event for event in bot.events("app_mention") if "edited" in event]
        assert (mention["ts"], mention["text"]) == (ts, f"{slack.bot_mention} why?")
        assert mention["edited"]["user"] == ann  # type: ignore[index]
        assert mention["edited"]["ts"].endswith(".000000")  # type: ignore[index]


async def test_a_person_who_edits_a_mention_away_or_a_dm_mentions_nobody() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")
        dm = slack.dm(ann)
        asked = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        direct = await slack.say(dm, ann, "why?")

        await slack.edit(slack.channel_id, asked, "never mind")
        await slack.edit(dm, direct, f"{slack.bot_mention} why?")

        await until(lambda: len(bot.heard) == 5)
        assert ["edited" in event for event in bot.events("app_mention")] == [False]


async def test_a_persons_words_come_as_rich_text_too() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")

        await slack.say(
            slack.dm(ann), ann, f"{slack.bot_mention} <!here> <https://a.example|a> & b"
        )

        await until(lambda: bot.heard)
        blocks = bot.events("message")[0]["blocks"]
        assert isinstance(blocks, list)
        [block] = blocks
        [section] = block["elements"]
        assert (block["type"], section["type"]) == ("rich_text", "rich_text_section")
        assert [element["type"] for element in section["elements"]] == [
            "user",
            "text",
            "broadcast",
            "text",
            "link",
            "text",
        ]
        assert section["elements"][-1]["text"] == " & b"
