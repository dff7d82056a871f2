"""One app in several workspaces of the Slack emulator: each sees what is its own."""

from __future__ import annotations

from tests.emulators.slack import SlackEmulator
from tests.support.slack_app import EVERY_SCOPE, bolt, post, refusal, writer
from tests.support.waiting import until


async def test_each_token_belongs_to_its_workspace() -> None:
    async with SlackEmulator() as slack:
        other = slack.install("Umbrella")

        async with writer(slack) as first, writer(slack, other.bot_token) as second:
            tellers = [await first.auth_test(), await second.auth_test()]

        ids = [(who["team_id"], who["user_id"], who["bot_id"]) for who in tellers]
        assert ids == [
            (slack.team_id, slack.bot_user_id, slack.bot_id),
            (other.team_id, other.bot_user_id, other.bot_id),
        ]
        assert [who["team"] for who in tellers] == ["Parley", "Umbrella"]


async def test_a_token_sees_nothing_of_another_workspace() -> None:
    async with SlackEmulator(scopes=EVERY_SCOPE) as slack:
        other = slack.install("Umbrella")
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "ours")
        place = {"channel": slack.channel_id}

        async with writer(slack, other.bot_token) as client:
            errors = [
                await refusal(client, "chat.postMessage", {**place, "text": "x"}),
                await refusal(client, "chat.update", {**place, "ts": ts, "text": "x"}),
                await refusal(client, "conversations.replies", {**place, "ts": ts}),
                await refusal(client, "conversations.info", place),
                await refusal(client, "chat.postMessage", {"channel": ann, "text": "x"}),
            ]
            unknown = await refusal(client, "users.info", {"user": ann})

        assert errors == ["channel_not_found"] * 5
        assert unknown == "user_not_found"


async def test_events_of_all_workspaces_come_over_one_socket_with_their_own_team() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        other = slack.install("Umbrella")
        people = [slack.user("Ann"), slack.user("Bob", other.team_id)]

        for person in people:
            await slack.say(slack.dm(person), person, "hello")

        await until(lambda: len(bot.heard) == 2)
        bots = {body["team_id"]: body["authorizations"][0]["user_id"] for body in bot.heard}  # type: ignore[index]
        assert bots == {slack.team_id: slack.bot_user_id, other.team_id: other.bot_user_id}


async def test_the_verbs_find_the_workspace_by_the_channel() -> None:
    async with SlackEmulator() as slack:
        other = slack.install("Umbrella")
        bob = slack.user("Bob", other.team_id)
        away = slack.channel("labs", team_id=other.team_id)
        asked = await slack.say(away, bob, f"<@{other.bot_user_id}> hello")

        async with writer(slack, other.bot_token) as client:
            await post(client, away, "answer", thread_ts=asked)
        await slack.edit(away, asked, "hello?")

        shown = [(shown.author, shown.text) for shown in slack.screen(away, asked)]
        assert shown == [(bob, "hello?"), (other.bot_id, "answer")]
