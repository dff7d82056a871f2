"""What the Slack emulator tells an app of that people and the bot write."""

from __future__ import annotations

import pytest

from tests.emulators.slack import EVENTS, SCOPES, SlackEmulator
from tests.support.slack_app import (
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


async def test_a_persons_upload_is_a_file_share_with_a_bot_id_of_null_and_no_mention() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann, text = slack.user("Ann"), f"{slack.bot_mention} we got one!"

        await slack.say(slack.channel_id, ann, text, files=("ghost.png",))
        await slack.say(slack.channel_id, ann, slack.bot_mention)
        await until(lambda: bot.events("app_mention") and len(bot.events("message")) == 2)

        [mention], [event, _] = bot.events("app_mention"), bot.events("message")
        assert mention["text"] == slack.bot_mention
        assert event["subtype"] == "file_share"
        assert (event["upload"], event["bot_id"], event["user"]) == (True, None, ann)
        assert isinstance(event["files"], list)
        assert [file["name"] for file in event["files"]] == ["ghost.png"]


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


async def test_a_deleted_message_is_gone_and_the_parent_of_a_thread_becomes_a_tombstone() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann, place = slack.user("Ann"), slack.channel_id
        parent = await slack.say(place, ann, "never mind")
        reply = await slack.say(place, ann, "more", thread_ts=parent)

        await slack.delete(place, parent)
        thread = [shown.text for shown in slack.screen(place, parent)]
        await slack.delete(place, reply)

        await until(lambda: len(bot.heard) == 4)
        changed, deleted = bot.events("message")[2:]
        assert changed["subtype"] == "message_changed"
        assert changed["message"]["subtype"] == "tombstone"  # type: ignore[index]
        assert thread == ["This message was deleted.", "more"]
        assert (deleted["subtype"], deleted["deleted_ts"]) == ("message_deleted", reply)
        left = [shown.text for shown in slack.screen(place, parent)]
        assert left == ["This message was deleted."]


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


async def test_events_of_all_workspaces_come_with_their_own_team() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        other = slack.install("Umbrella")
        people = [slack.user("Ann"), slack.user("Bob", other.team_id)]

        for person in people:
            await slack.say(slack.dm(person), person, "hello")

        await until(lambda: len(bot.heard) == 2)
        bots = {body["team_id"]: body["authorizations"][0]["user_id"] for body in bot.heard}  # type: ignore[index]
        assert bots == {slack.team_id: slack.bot_user_id, other.team_id: other.bot_user_id}
        wrapper = {"team_id", "api_app_id", "event_id", "event_time", "context_team_id"}
        assert all(wrapper <= set(body) for body in bot.heard)


@pytest.mark.parametrize(
    "terms",
    [
        {"subscribed": EVENTS - {"message.channels"}},
        {"scopes": SCOPES - {"channels:history"}},
    ],
    ids=["subscription", "scope"],
)
async def test_an_app_hears_what_it_subscribed_to_and_has_the_scope_for(
    terms: dict[str, frozenset[str]],
) -> None:
    async with SlackEmulator(**terms) as slack, bolt(slack) as bot:  # type: ignore[arg-type]
        ann = slack.user("Ann")

        await slack.say(slack.channel("secret", member=False), ann, slack.bot_mention)
        await slack.say(slack.channel_id, ann, f"hello {slack.bot_mention}")
        await slack.say(slack.dm(ann), ann, "done")

        await until(lambda: len(bot.heard) == 2)
        assert sorted(str(event["type"]) for event in bot.all_events()) == [
            "app_mention",
            "message",
        ]
