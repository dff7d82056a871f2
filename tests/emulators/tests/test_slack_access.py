"""Who may call the Slack emulator, and how a call must look."""

from __future__ import annotations

from typing import Literal

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient

from tests.emulators.slack import SCOPES, SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import EVERY_SCOPE, bolt, endpoint, post, refusal, refused, writer
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("method", "token", "error"),
    [
        ("auth.test", "", "not_authed"),
        ("auth.test", "xoxb-wrong", "invalid_auth"),
        ("auth.test", "app", "not_allowed_token_type"),
        ("apps.connections.open", "bot", "not_allowed_token_type"),
    ],
)
async def test_a_wrong_token_is_refused(method: str, token: str, error: str) -> None:
    async with SlackEmulator() as slack:
        known = {"app": slack.app_token, "bot": slack.bot_token}
        client = AsyncWebClient(known.get(token, token), base_url=slack.api_url)

        code = await refusal(client, method, {})

        assert code == error
        assert (slack.requests[0].ok, slack.requests[0].error) == (False, error)


@pytest.mark.parametrize("error", ["account_inactive", "token_revoked", "token_expired"])
async def test_a_dead_token_earns_its_error_in_its_workspace_only(
    error: Literal["account_inactive", "token_revoked", "token_expired"],
) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        other = slack.install("Umbrella")

        slack.revoke(other.team_id, error=error)

        async with writer(slack, other.bot_token) as dead:
            assert await refusal(dead, "auth.test", {}) == error
        assert (await client.auth_test())["ok"]


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        ("account_inactive", ["tokens_revoked", "app_uninstalled"]),
        ("token_revoked", ["tokens_revoked"]),
        ("token_expired", []),
    ],
)
async def test_an_app_is_told_that_its_token_is_dead(
    error: Literal["account_inactive", "token_revoked", "token_expired"], kinds: list[str]
) -> None:
    async with SlackEmulator() as slack, endpoint(slack):
        slack.revoke(error=error)
        await slack.open_home(slack.user("Ann"))

        later = [] if error == "account_inactive" else ["app_home_opened"]
        await until(lambda: len(slack.deliveries) == len(kinds + later))
        assert {delivery.kind for delivery in slack.deliveries} == {*kinds, *later}


async def test_a_method_needs_its_scope() -> None:
    async with SlackEmulator(scopes={"im:history"}) as slack, writer(slack) as client:
        args = {"channel": slack.channel_id, "text": "x"}

        response = await refused(client, "chat.postMessage", args)

        told = (response["error"], response["needed"], response["provided"])
        assert told == ("missing_scope", "chat:write", "im:history")


async def test_reading_needs_the_scope_of_that_kind_of_conversation() -> None:
    async with SlackEmulator(scopes={"im:history"}) as slack, writer(slack) as client:
        ann = slack.user("Ann")
        places = {
            slack.channel_id: "channels:history",
            slack.channel("secret", private=True): "groups:history",
            slack.group_dm(ann, slack.user("Ben")): "mpim:history",
        }

        needed = {
            place: (await refused(client, "conversations.history", {"channel": place}))["needed"]
            for place in places
        }
        read = await client.conversations_history(channel=slack.dm(ann))

        assert needed == places
        assert read["messages"] == []


async def test_an_event_needs_its_scope() -> None:
    scopes = SCOPES - {"channels:history"}
    async with SlackEmulator(scopes=scopes) as slack, bolt(slack) as bot:
        await slack.say(slack.channel_id, slack.user("Ann"), f"hello {slack.bot_mention}")

        await until(lambda: bot.heard)
        assert [event["type"] for event in bot.all_events()] == ["app_mention"]


async def test_a_private_channel_is_hidden_from_a_bot_that_is_not_in_it() -> None:
    async with SlackEmulator(scopes=EVERY_SCOPE) as slack, writer(slack) as client:
        secret = {"channel": slack.channel("secret", private=True, member=False)}
        public = {"channel": slack.channel("away", member=False)}

        hidden = [
            await refusal(client, "chat.postMessage", {**secret, "text": "x"}),
            await refusal(client, "conversations.info", secret),
            await refusal(client, "conversations.history", secret),
        ]
        seen = (await client.conversations_info(channel=public["channel"]))["channel"]

        assert hidden == ["channel_not_found"] * 3
        assert seen["is_member"] is False


@pytest.mark.parametrize("style", ["json", "form", "query", "get"])
async def test_arguments_are_read_wherever_they_are(style: str) -> None:
    async with SlackEmulator(scopes=EVERY_SCOPE) as slack, aiohttp.ClientSession() as session:
        url, args = f"{slack.api_url}conversations.open", {"users": slack.user("Ann")}
        headers = {"Authorization": f"Bearer {slack.bot_token}"}
        with_token = {**args, "token": slack.bot_token}
        calls = {
            "json": lambda: session.post(url, json=args, headers=headers),
            "form": lambda: session.post(url, data=with_token),
            "query": lambda: session.post(url, params=args, headers=headers),
            "get": lambda: session.get(url, params=args, headers=headers),
        }

        async with calls[style]() as response:
            answer = await response.json()

        assert answer["channel"]["id"] == slack.dm(args["users"])
        assert slack.requests[0].body == args


@pytest.mark.parametrize("style", ["json", "query"])
async def test_a_token_counts_in_the_header_or_in_a_form_only(style: str) -> None:
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        url, token = f"{slack.api_url}auth.test", {"token": slack.bot_token}
        calls = {
            "json": lambda: session.post(url, json=token),
            "query": lambda: session.post(url, params=token),
        }

        async with calls[style]() as response:
            answer = await response.json()

        assert answer == {"ok": False, "error": "not_authed"}


@pytest.mark.parametrize(
    ("content_type", "body", "error"),
    [
        ("application/json", '{"channel": ', "invalid_json"),
        ("application/json", '["C1", "x"]', "json_not_object"),
        ("application/xml", "<text/>", "invalid_post_type"),
        ("", "text=x", "missing_post_type"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    content_type: str, body: str, error: str
) -> None:
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {slack.bot_token}", "Content-Type": content_type}
        skipped = () if content_type else ("Content-Type",)
        if not content_type:
            del headers["Content-Type"]

        async with session.post(
            f"{slack.api_url}chat.postMessage",
            data=body.encode(),
            headers=headers,
            skip_auto_headers=skipped,
        ) as response:
            answer = await response.json()

        assert (response.status, answer["error"]) == (200, error)


async def test_a_reading_method_does_not_see_a_json_body() -> None:
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {slack.bot_token}"}
        args: Payload = {"user": slack.user("Ann")}
        url = f"{slack.api_url}users.info"

        async with session.post(url, json=args, headers=headers) as response:
            as_json = await response.json()
        async with session.post(url, data=args, headers=headers) as response:
            as_form = await response.json()

        assert as_json == {"ok": False, "error": "user_not_found"}
        assert as_form["user"]["id"] == args["user"]


async def test_an_answer_names_the_scopes_of_the_token() -> None:
    async with SlackEmulator(scopes={"chat:write", "commands"}) as slack, writer(slack) as client:
        answer = await client.auth_test()

        assert answer.headers["X-OAuth-Scopes"] == "chat:write,commands"


async def test_a_bot_that_is_revoked_stops_to_hear_of_that_workspace() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        other = slack.install("Umbrella")
        ann, bob = slack.user("Ann"), slack.user("Bob", other.team_id)

        slack.revoke(other.team_id)
        await slack.say(slack.dm(bob), bob, "nobody hears this")
        await slack.say(slack.dm(ann), ann, "hello")

        await until(lambda: bot.events("message"))
        assert [event["text"] for event in bot.events("message")] == ["hello"]


async def test_what_a_dead_token_posted_stays() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        await post(client, slack.channel_id, "before")

        slack.revoke()
        error = await refusal(client, "chat.postMessage", {"channel": slack.channel_id})

        assert error == "account_inactive"
        assert [shown.text for shown in slack.screen(slack.channel_id)] == ["before"]
