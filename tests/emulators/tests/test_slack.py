"""What the Slack emulator tells an app of that people and the bot write."""

from __future__ import annotations

import pytest

from tests.emulators.slack import EVENTS, SCOPES, SlackEmulator
from tests.support.slack_app import endpoint
from tests.support.waiting import until


async def test_a_mention_in_a_channel_arrives_as_message_and_as_app_mention() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        text = f"{slack.bot_mention} is 1 < 2 & see https://example.com"

        ts = await slack.say(slack.channel_id, slack.user("Ann"), text)

        await until(lambda: len(slack.deliveries) == 2)
        (mention,), (message,) = app.events("app_mention"), app.events("message")
        assert mention["ts"] == message["ts"] == ts
        assert mention["text"] == f"{slack.bot_mention} is 1 &lt; 2 &amp; see <https://example.com>"
        assert [d.status for d in slack.deliveries] == [200, 200]
        assert slack.screen(slack.channel_id)[0].text == text


async def test_a_persons_upload_is_a_file_share_with_a_bot_id_of_null_and_no_mention() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        ann, text = slack.user("Ann"), f"{slack.bot_mention} we got one!"

        await slack.say(slack.channel_id, ann, text, files=("ghost.png",))
        await slack.say(slack.channel_id, ann, slack.bot_mention)
        await until(lambda: app.events("app_mention") and len(app.events("message")) == 2)

        [mention], [event, _] = app.events("app_mention"), app.events("message")
        assert mention["text"] == slack.bot_mention
        assert event["subtype"] == "file_share"
        assert (event["upload"], event["bot_id"], event["user"]) == (True, None, ann)
        assert isinstance(event["files"], list)
        assert [file["name"] for file in event["files"]] == ["ghost.png"]


async def test_a_deleted_message_is_gone_and_the_parent_of_a_thread_becomes_a_tombstone() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        ann, place = slack.user("Ann"), slack.channel_id
        parent = await slack.say(place, ann, "never mind")
        reply = await slack.say(place, ann, "more", thread_ts=parent)

        await slack.delete(place, parent)
        thread = [shown.text for shown in slack.screen(place, parent)]
        await slack.delete(place, reply)

        await until(lambda: len(app.told) == 4)
        changed, deleted = app.events("message")[2:]
        assert changed["subtype"] == "message_changed"
        assert changed["message"]["subtype"] == "tombstone"  # type: ignore[index]
        assert thread == ["This message was deleted.", "more"]
        assert (deleted["subtype"], deleted["deleted_ts"]) == ("message_deleted", reply)
        left = [shown.text for shown in slack.screen(place, parent)]
        assert left == ["This message was deleted."]


@pytest.mark.parametrize("first", [f"{SlackEmulator.bot_mention} hi", "hello"])
async def test_an_edited_mention_arrives_as_a_mention_again(first: str) -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, first)

        await slack.edit(slack.channel_id, ts, f"{slack.bot_mention} why?")

        await until(lambda: [event for event in app.events("app_mention") if "edited" in event])
        [mention] = [event for event in app.events("app_mention") if "edited" in event]
        assert (mention["ts"], mention["text"]) == (ts, f"{slack.bot_mention} why?")
        assert mention["edited"]["user"] == ann  # type: ignore[index]
        assert mention["edited"]["ts"].endswith(".000000")  # type: ignore[index]


@pytest.mark.parametrize(
    "terms",
    [{"subscribed": EVENTS - {"message.channels"}}, {"scopes": SCOPES - {"channels:history"}}],
    ids=["subscription", "scope"],
)
async def test_an_app_hears_what_it_subscribed_to_and_has_the_scope_for(
    terms: dict[str, frozenset[str]],
) -> None:
    async with SlackEmulator(**terms) as slack, endpoint(slack) as app:  # type: ignore[arg-type]
        ann = slack.user("Ann")

        await slack.say(slack.channel("secret", member=False), ann, slack.bot_mention)
        await slack.say(slack.channel_id, ann, f"hello {slack.bot_mention}")
        await slack.say(slack.dm(ann), ann, "done")

        await until(lambda: len(app.told) == 2)
        assert sorted(str(event["type"]) for event in app.events()) == ["app_mention", "message"]
