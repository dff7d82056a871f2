"""What the Slack emulator refuses, and with which error."""

from __future__ import annotations

from collections.abc import Iterator

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient

from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import (
    EVERY_SCOPE,
    QUIET,
    post,
    refusal,
    refused,
    said,
    section,
    talk,
    writer,
)

Row = tuple[str, Payload, str]
HERE: Payload = {"channel": "<channel>"}
NOWHERE = "1700000000.000001"
DIVIDERS: list[Payload] = [{"type": "divider"}] * 51
CHUNK: Payload = {"type": "markdown_text", "text": "x"}
TASK: Payload = {"type": "task_update", "id": "1", "title": "Search", "status": "complete"}


def rows(method: str, base: Payload, *changes: tuple[Payload, str]) -> Iterator[Row]:
    """Yield the calls of a method with what is changed in each; None leaves an argument out."""
    for change, error in changes:
        args = {key: value for key, value in (base | change).items() if value is not None}
        yield method, args, error


def blocks(kind: str, number: int = 1) -> Payload:
    return {"chunks": [{"type": "blocks", "blocks": [{"type": kind}] * number}]}


CALLS = [
    *rows(
        "chat.postMessage",
        HERE | QUIET | {"text": "x"},
        ({"text": ""}, "no_text"),
        ({"text": "  \n"}, "no_text"),
        ({"text": None, "blocks": []}, "no_text"),
        ({"channel": "C404"}, "channel_not_found"),
        ({"channel": "<secret>"}, "channel_not_found"),
        ({"channel": "<theirs>"}, "channel_not_found"),
        ({"channel": "<away>"}, "not_in_channel"),
        ({"metadata": "{"}, "invalid_metadata_format"),
        ({"metadata": "[]"}, "invalid_metadata_format"),
        ({"metadata": {"event_type": "turn"}}, "invalid_metadata_schema"),
        ({"metadata": {"event_type": "turn", "event_payload": "1"}}, "invalid_metadata_schema"),
    ),
    *rows(
        "chat.postEphemeral",
        HERE | {"user": "<ann>", "text": "psst"},
        ({"user": "<stranger>"}, "user_not_in_channel"),
        ({"channel": "<away>"}, "not_in_channel"),
    ),
    *rows(
        "chat.update",
        HERE | {"ts": "<own>", "text": "y"},
        ({"text": "x" * 4001}, "msg_too_long"),
        ({"text": "é" * 2001}, "msg_too_long"),
        ({"text": "&lt;" * 1001}, "msg_too_long"),
        ({"text": "&" * 801}, "msg_too_long"),
        ({"ts": "<asked>"}, "cant_update_message"),
        ({"ts": "<gone>"}, "message_not_found"),
        ({"ts": "<running>"}, "streaming_state_conflict"),
    ),
    *rows(
        "chat.delete",
        HERE,
        ({"ts": "<asked>"}, "cant_delete_message"),
        ({"ts": "<gone>"}, "message_not_found"),
        ({"ts": "<running>"}, "cant_delete_message"),
    ),
    *rows(
        "conversations.replies",
        HERE | {"ts": "<asked>"},
        ({"ts": NOWHERE}, "thread_not_found"),
        ({"cursor": "2"}, "invalid_cursor"),
        ({"limit": "0"}, "invalid_arguments"),
    ),
    *rows(
        "conversations.history",
        {},
        ({"channel": "<away>"}, "not_in_channel"),
        ({"channel": "<secret>"}, "channel_not_found"),
    ),
    ("conversations.info", {"channel": "<secret>"}, "channel_not_found"),
    ("conversations.info", {"channel": "<theirs>"}, "channel_not_found"),
    ("users.info", {"user": "U404"}, "user_not_found"),
    ("users.info", {"user": "<stranger>"}, "user_not_found"),
    *rows(
        "assistant.threads.setStatus",
        {"channel_id": "<channel>", "thread_ts": "<asked>", "status": "x"},
        ({"thread_ts": "<reply>"}, "invalid_thread_ts"),
        ({"thread_ts": NOWHERE}, "invalid_thread_ts"),
        ({"thread_ts": ""}, "invalid_arguments"),
        ({"status": None}, "invalid_arguments"),
        ({"status": "x" * 51}, "invalid_arguments"),
    ),
    *rows(
        "assistant.threads.setSuggestedPrompts",
        {"channel_id": "<dm>"},
        ({"prompts": [{"title": "Hi", "message": "Hello?"}] * 5}, "invalid_arguments"),
        ({"prompts": [{"title": "", "message": "Hello?"}]}, "invalid_arguments"),
    ),
    *rows(
        "agents.sessions.setStatus",
        {"channel_id": "<channel>", "thread_ts": "<plain>", "status": "active"},
        ({"channel_id": "C404"}, "channel_not_found"),
        ({"channel_id": "<away>"}, "not_authorized"),
        ({"thread_ts": None}, "thread_ts_required"),
        ({"status": "is thinking..."}, "invalid_arguments"),
    ),
    *rows(
        "agents.sessions.rename",
        {"channel_id": "<channel>", "thread_ts": "<asked>", "title": "Hello"},
        ({"thread_ts": "<plain>"}, "session_not_found"),
        ({"title": "x" * 201}, "invalid_arguments"),
    ),
    *rows(
        "chat.startStream",
        HERE
        | {"thread_ts": "<asked>", "recipient_user_id": "<ann>", "recipient_team_id": "<team>"},
        ({"thread_ts": None}, "invalid_thread_ts"),
        ({"thread_ts": None, "channel": "<dm>"}, "invalid_thread_ts"),
        ({"thread_ts": NOWHERE}, "invalid_thread_ts"),
        ({"thread_ts": "<reply>"}, "invalid_thread_ts"),
        ({"thread_ts": ""}, "invalid_arguments"),
        ({"recipient_team_id": None}, "missing_recipient_team_id"),
        ({"recipient_user_id": None}, "missing_recipient_user_id"),
        ({"recipient_team_id": "T404"}, "team_not_found"),
        ({"recipient_user_id": "U404"}, "user_not_found"),
        ({"channel": "C404"}, "channel_not_found"),
        ({"channel": "<away>"}, "not_in_channel"),
        (said("x" * 12_001), "msg_too_long"),
        ({"chunks": "not json"}, "invalid_chunks"),
        ({"chunks": [{"type": "song"}]}, "invalid_chunks"),
        ({"chunks": [{**CHUNK, "text": ""}]}, "invalid_chunks"),
        ({"chunks": [{**TASK, "status": "completed"}]}, "invalid_chunks"),
        ({"chunks": [{**TASK, "title": ""}]}, "invalid_chunks"),
        ({"chunks": [{**TASK, "id": None}]}, "invalid_chunks"),
        ({"chunks": [{"type": "plan_update"}]}, "invalid_chunks"),
        ({"chunks": [{**TASK, "id": str(number)} for number in range(51)]}, "msg_too_long"),
        ({"chunks": [CHUNK, {**TASK, "title": "é" * 5300}]}, "msg_too_long"),
        ({"task_display_mode": "song"}, "invalid_arguments"),
        (blocks("song"), "invalid_blocks"),
        (blocks("divider", 51), "msg_blocks_too_many"),
    ),
    *rows(
        "chat.appendStream",
        HERE | {"ts": "<running>"} | said("x"),
        ({"ts": NOWHERE}, "message_not_found"),
        ({"ts": "<asked>"}, "message_not_owned_by_app"),
        ({"ts": "<own>"}, "message_not_in_streaming_state"),
        ({"ts": "<stopped>"}, "message_not_in_streaming_state"),
        ({"chunks": None}, "no_text"),
        ({"chunks": []}, "no_text"),
        (said("x" * 12_001), "msg_too_long"),
        # "One" stands there already.
        (said("é" * 5999), "msg_too_long"),
        ({"ts": "<pieces>", **blocks("divider", 21)}, "msg_blocks_too_many"),
    ),
    *rows(
        "chat.stopStream",
        HERE | {"ts": "<running>"},
        ({"ts": "<stopped>"}, "message_not_in_streaming_state"),
        ({"blocks": DIVIDERS}, "msg_blocks_too_many"),
        ({"blocks": section("x" * 3000) * 5}, "msg_blocks_too_long"),
        ({"blocks": [{"type": "song"}]}, "invalid_blocks"),
        ({"blocks": "not json"}, "invalid_blocks_format"),
        ({"metadata": {"event_type": "answered"}}, "invalid_metadata_schema"),
        ({"session_status": "tired"}, "invalid_arguments"),
        (said("x" * 12_001), "msg_too_long"),
    ),
    *rows(
        "views.publish",
        {"user_id": "<ann>"},
        ({"user_id": "U404", "view": {"type": "home", "blocks": []}}, "invalid_arguments"),
        ({"view": {"type": "home", "title": "x", "blocks": []}}, "invalid_arguments"),
    ),
    ("views.open", {"trigger_id": "1.2.3", "view": {}}, "invalid_trigger_id"),
]


@pytest.mark.parametrize(("method", "args", "error"), CALLS, ids=[f"{m}-{e}" for m, _, e in CALLS])
async def test_what_slack_refuses_is_refused_and_changes_nothing(
    method: str, args: Payload, error: str
) -> None:
    async with talk(SlackEmulator(scopes=EVERY_SCOPE)) as t, writer(t.slack) as client:
        slack, channel = t.slack, t.channel
        other = slack.install("Umbrella")
        ids = {"<channel>": channel, "<asked>": t.asked, "<ann>": t.ann, "<team>": slack.team_id}
        ids |= {"<dm>": slack.dm(t.ann), "<stranger>": slack.user("Bob", other.team_id)}
        ids["<theirs>"] = slack.channel("labs", team_id=other.team_id)
        ids["<away>"] = slack.channel("away", member=False)
        ids["<secret>"] = slack.channel("secret", member=False, private=True)
        ids["<plain>"] = await slack.say(channel, t.ann, "plain")
        ids["<reply>"] = await slack.say(channel, t.ann, "more", thread_ts=t.asked)
        ids["<own>"] = await post(client, channel, "x", thread_ts=t.asked)
        ids["<gone>"] = await post(client, channel, "x")
        await client.chat_delete(channel=channel, ts=ids["<gone>"])
        ids["<stopped>"] = await t.start("One")
        await t.stop(ids["<stopped>"])
        ids["<running>"] = await t.start("One")
        ids["<pieces>"] = await t.start(**blocks("divider", 30))
        before = slack.screen(channel), slack.screen(channel, t.asked)
        sessions = slack.session(channel, t.asked)
        given = {k: ids.get(v, v) if isinstance(v, str) else v for k, v in args.items()}

        assert await refusal(client, method, given) == error
        assert (slack.screen(channel), slack.screen(channel, t.asked)) == before
        assert slack.session(channel, t.asked) == sessions
        assert slack.session(channel, ids["<plain>"]) == slack.status(channel, t.asked) == []
        assert slack.ephemerals == []


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

        assert await refusal(client, method, {}) == error
        assert (slack.requests[0].ok, slack.requests[0].error) == (False, error)


async def test_a_method_needs_its_scope_and_reading_that_of_its_conversation() -> None:
    async with SlackEmulator(scopes={"im:history"}) as slack, writer(slack) as client:
        ann = slack.user("Ann")
        reading = "conversations.history"
        needed = {
            ("chat.postMessage", slack.channel_id): "chat:write",
            ("chat.startStream", slack.channel_id): "chat:write",
            (reading, slack.channel_id): "channels:history",
            (reading, slack.channel("secret", private=True)): "groups:history",
            (reading, slack.group_dm(ann, slack.user("Ben"))): "mpim:history",
        }

        told = {}
        for method, place in needed:
            answer = await refused(client, method, {"channel": place, "text": "x"})
            told[method, place] = answer["needed"]
            assert (answer["error"], answer["provided"]) == ("missing_scope", "im:history")
        read = await client.conversations_history(channel=slack.dm(ann))
        slack.violations.clear()

        assert told == needed
        assert read["messages"] == []
        assert read.headers["X-OAuth-Scopes"] == "im:history"


@pytest.mark.parametrize(
    ("content_type", "body", "error"),
    [
        ("application/json", '{"channel": ', "invalid_json"),
        ("application/json", '["C1", "x"]', "json_not_object"),
        ("application/xml", "<text/>", "invalid_post_type"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    content_type: str, body: str, error: str
) -> None:
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {slack.bot_token}", "Content-Type": content_type}
        url = f"{slack.api_url}chat.postMessage"

        async with session.post(url, data=body.encode(), headers=headers) as response:
            answer = await response.json()

        assert (response.status, answer["error"]) == (200, error)


@pytest.mark.parametrize("style", ["json", "query", "get"])
async def test_arguments_are_read_wherever_a_method_looks_for_them(style: str) -> None:
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        url, args = f"{slack.api_url}users.info", {"user": slack.user("Ann")}
        headers = {"Authorization": f"Bearer {slack.bot_token}"}
        calls = {
            "json": lambda: session.post(url, json=args, headers=headers),
            "query": lambda: session.post(url, params=args, headers=headers),
            "get": lambda: session.get(url, params=args, headers=headers),
        }

        async with calls[style]() as response:
            answer = await response.json()

        # A reading method does not see a body of JSON.
        assert answer["ok"] is (style != "json")
        assert slack.requests[0].body == args


@pytest.mark.parametrize("style", ["json", "params"])
async def test_a_token_counts_in_the_header_only(style: str) -> None:
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        token = {"token": slack.bot_token}
        async with session.post(f"{slack.api_url}auth.test", **{style: token}) as response:  # type: ignore[arg-type]
            assert await response.json() == {"ok": False, "error": "not_authed"}
