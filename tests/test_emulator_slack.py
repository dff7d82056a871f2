"""The Slack emulator tells, limits and refuses as Slack does, seen through Slack's libraries."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.app.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.webhook.async_client import AsyncWebhookClient

from tests.emulators.slack import EVENTS, Delivery, Rate, Shown, SlackEmulator
from tests.emulators.slack.spec import specification
from tests.emulators.slack.workspace import Payload
from tests.waiting import until

TRANSPORTS = pytest.mark.parametrize("transport", ["socket", "http"])
QUIET: Payload = {"unfurl_links": False, "unfurl_media": False}
STOP: Payload = {
    "type": "actions",
    "elements": [
        {"type": "button", "action_id": "stop", "text": {"type": "plain_text", "text": "Stop"}}
    ],
}


@dataclass
class Bot:
    """A bolt app that keeps what it hears; with `deaf` it refuses every event."""

    app: AsyncApp
    heard: list[Payload] = field(default_factory=list)
    deaf: bool = False

    def events(self, kind: str) -> list[Payload]:
        bodies = [body["event"] for body in self.heard if isinstance(body.get("event"), dict)]
        return [event for event in bodies if isinstance(event, dict) and event["type"] == kind]


@asynccontextmanager
async def bolt(slack: SlackEmulator, transport: str = "socket") -> AsyncIterator[Bot]:
    """Run an unmodified bolt app against the emulator."""
    client = AsyncWebClient(slack.bot_token, base_url=slack.api_url)
    app = AsyncApp(
        client=client,
        signing_secret=slack.signing_secret,
        process_before_response=True,
        ignoring_self_events_enabled=False,
    )
    bot = Bot(app)

    @app.event(re.compile(".*"))
    async def hear(body: Payload) -> None:
        bot.heard.append(body)
        if bot.deaf:
            raise ConnectionError

    async with AsyncExitStack() as stack:
        if transport == "socket":
            handler = AsyncSocketModeHandler(app, slack.app_token, ping_interval=0.1)
            await handler.connect_async()  # type: ignore[no-untyped-call]
            stack.push_async_callback(handler.close_async)
            await asyncio.wait_for(slack.connected.wait(), 2)
        else:
            slack.deliver_to(await served(app.web_app(), stack) + "slack/events")
        yield bot


async def served(app: web.Application, stack: AsyncExitStack) -> str:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}/"


@asynccontextmanager
async def writer(slack: SlackEmulator) -> AsyncIterator[AsyncWebClient]:
    """Open slack-sdk's client on one session."""
    async with aiohttp.ClientSession() as session:
        yield AsyncWebClient(slack.bot_token, base_url=slack.api_url, session=session)


async def post(
    client: AsyncWebClient,
    channel: str,
    text: str,
    *,
    blocks: list[Payload] | None = None,
    thread_ts: str | None = None,
) -> str:
    """Post without previews and return the message's ts."""
    posted = await client.chat_postMessage(
        channel=channel,
        text=text,
        blocks=blocks,
        thread_ts=thread_ts,
        unfurl_links=False,
        unfurl_media=False,
    )
    return str(posted["ts"])


async def refusal(client: AsyncWebClient, method: str, args: Mapping[str, object]) -> str:
    with pytest.raises(SlackApiError) as caught:
        await client.api_call(method, json=dict(args))
    return str(caught.value.response["error"])


def tries(slack: SlackEmulator, kind: str) -> list[Delivery]:
    return [delivery for delivery in slack.deliveries if delivery.kind == kind]


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


async def test_a_channel_without_the_bot_is_not_heard() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")

        await slack.say(slack.channel("secret", member=False), ann, slack.bot_mention)
        await slack.say(slack.dm(ann), ann, "hello")

        await until(lambda: bot.heard)
        assert [event["text"] for event in bot.events("message")] == ["hello"]


@TRANSPORTS
async def test_an_event_that_is_refused_comes_three_times_more(transport: str) -> None:
    slack = SlackEmulator(ack_within=0.1, retry_after=(0.01, 0.02, 0.03))
    async with slack, bolt(slack, transport) as bot:
        bot.deaf = True
        ann = slack.user("Ann")

        await slack.say(slack.dm(ann), ann, "hello")

        await until(lambda: len(slack.deliveries) == 4)
        assert [d.attempt for d in slack.deliveries] == [0, 1, 2, 3]
        assert {d.status for d in slack.deliveries} == {None if transport == "socket" else 500}
        assert len({body["event_id"] for body in bot.heard}) == 1


@TRANSPORTS
async def test_an_event_that_is_taken_at_last_does_not_come_again(transport: str) -> None:
    slack = SlackEmulator(ack_within=0.1, retry_after=(0.01, 0.02, 0.03))
    async with slack, bolt(slack, transport) as bot:
        bot.deaf = True
        ann = slack.user("Ann")
        await slack.say(slack.dm(ann), ann, "hello")
        await until(lambda: len(bot.heard) == 2)

        bot.deaf = False

        await until(lambda: slack.deliveries[-1].status == 200)
        await asyncio.sleep(0.15)
        assert len(slack.deliveries) <= 3


@TRANSPORTS
async def test_a_retry_says_which_and_why(transport: str) -> None:
    async with SlackEmulator() as slack, bolt(slack, transport) as bot:
        retries: list[tuple[str | None, str | None]] = []

        @bot.app.middleware
        async def note(req: object, next: Callable[[], object]) -> None:  # noqa: A002
            headers = req.headers  # type: ignore[attr-defined]
            number = headers.get("x-slack-retry-num", [None])[0]
            retries.append((number, headers.get("x-slack-retry-reason", [None])[0]))
            await next()  # type: ignore[misc]

        ann = slack.user("Ann")
        ts = await slack.say(slack.dm(ann), ann, "hello")
        await until(lambda: slack.deliveries)

        await slack.redeliver(ts)

        # Over a socket the first try has the fields too.
        first = ("0", "") if transport == "socket" else (None, None)
        assert retries == [first, ("1", "http_timeout")]
        assert len({d.event_id for d in slack.deliveries}) == 1


async def test_no_retry_follows_where_the_app_asks_for_none() -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"X-Slack-No-Retry": "1"})

    async with SlackEmulator(retry_after=(0.01,)) as slack, AsyncExitStack() as stack:
        app = web.Application()
        app.router.add_post("/", refuse)
        slack.deliver_to(await served(app, stack))
        ann = slack.user("Ann")

        await slack.say(slack.dm(ann), ann, "hello")

        await until(lambda: slack.deliveries)
        await asyncio.sleep(0.1)
        assert [d.status for d in slack.deliveries] == [503]


async def test_an_app_with_another_signing_secret_refuses_the_request() -> None:
    async with SlackEmulator(retry_after=()) as slack:
        slack_secret, slack.signing_secret = slack.signing_secret, "another"
        async with bolt(slack, "http"):
            slack.signing_secret = slack_secret
            ann = slack.user("Ann")

            await slack.say(slack.dm(ann), ann, "hello")

            await until(lambda: slack.deliveries)
            assert slack.deliveries[0].status == 401


async def test_nobody_listening_is_a_try_without_a_status() -> None:
    async with SlackEmulator(ack_within=0.05, retry_after=()) as slack:
        ann = slack.user("Ann")
        async with bolt(slack):
            pass
        await until(lambda: not slack.connected.is_set())

        await slack.say(slack.dm(ann), ann, "hello")

        await until(lambda: slack.deliveries)
        assert slack.deliveries[0].status is None


@pytest.mark.parametrize("reason", ["refresh_requested", None])
async def test_bolt_comes_back_after_a_disconnect(reason: str | None) -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")

        await slack.disconnect(reason)
        await until(lambda: [r.method for r in slack.requests].count("apps.connections.open") > 1)
        await slack.say(slack.dm(ann), ann, "hello")

        await until(lambda: bot.heard)
        await until(slack.connected.is_set)
        assert [event["text"] for event in bot.events("message")] == ["hello"]


async def test_a_socket_address_opens_one_connection_only() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        opened = await client.apps_connections_open(app_token=slack.app_token)
        address = str(opened["url"])

        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(address) as socket:
                hello = await socket.receive_json()
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(address)

        assert hello["type"] == "hello"


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


@TRANSPORTS
async def test_a_slash_command_is_answered_in_its_ack_and_later(transport: str) -> None:
    async with SlackEmulator() as slack, bolt(slack, transport) as bot:
        commands: list[Payload] = []

        @bot.app.command("/ask")
        async def ask(ack: Callable[[str], object], command: Payload) -> None:
            commands.append(command)
            await ack("one moment")  # type: ignore[misc]

        ann = slack.user("Ann")
        away = slack.channel("away", member=False)

        delivery = await slack.slash(away, ann, "/ask", "why & how?")
        later = AsyncWebhookClient(str(commands[0]["response_url"]))
        await later.send(text="because", response_type="in_channel")

        assert delivery.status == 200
        assert delivery.seconds < 1
        assert commands[0]["text"] == "why &amp; how?"
        assert commands[0]["trigger_id"]
        assert [(e.user_id, e.text) for e in slack.ephemerals] == [(ann, "one moment")]
        assert [shown.text for shown in slack.screen(away)] == ["because"]


async def test_a_slash_command_that_is_not_answered_in_time_is_not_tried_again() -> None:
    async with SlackEmulator(ack_within=0.05, retry_after=(0.01,)) as slack, bolt(slack):
        delivery = await slack.slash(slack.channel_id, slack.user("Ann"), "/unknown", "")

        await asyncio.sleep(0.1)

        assert delivery.status is None
        assert tries(slack, "slash_commands") == [delivery]


async def test_a_response_url_takes_five_answers() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        url = await command_url(slack, bot)
        later = AsyncWebhookClient(url)

        answers = [await later.send(text=f"answer {number}") for number in range(6)]

        assert [answer.status_code for answer in answers] == [200] * 5 + [404]
        assert "used_url" in answers[5].body
        assert len(slack.ephemerals) == 5


async def test_a_response_url_is_over_after_half_an_hour() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        url = await command_url(slack, bot)

        slack.expire_response_urls()
        answer = await AsyncWebhookClient(url).send(text="too late")

        assert (answer.status_code, "expired_url" in answer.body) == (404, True)
        assert slack.ephemerals == []


async def command_url(slack: SlackEmulator, bot: Bot) -> str:
    """Use a command and return its response_url."""
    urls: list[str] = []

    @bot.app.command("/ask")
    async def ask(ack: Callable[[], object], command: dict[str, str]) -> None:
        urls.append(command["response_url"])
        await ack()  # type: ignore[misc]

    await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "")
    return urls[0]


@TRANSPORTS
async def test_a_click_carries_the_message_and_may_replace_it(transport: str) -> None:
    async with SlackEmulator() as slack, bolt(slack, transport) as bot:
        clicks: list[Payload] = []

        @bot.app.action("stop")
        async def stop(ack: Callable[[], object], body: Payload) -> None:
            await ack()  # type: ignore[misc]
            clicks.append(body)

        ann = slack.user("Ann")
        asked = await slack.say(slack.channel_id, ann, "hello")
        client = bot.app.client
        ts = await post(client, slack.channel_id, "growing", blocks=[STOP], thread_ts=asked)

        delivery = await slack.click(slack.channel_id, ts, ann, "stop")
        await AsyncWebhookClient(str(clicks[0]["response_url"])).send(
            text="stopped", replace_original=True
        )

        container = {"message_ts": ts, "thread_ts": asked}
        assert delivery.status == 200
        assert container.items() <= clicks[0]["container"].items()  # type: ignore[attr-defined]
        assert clicks[0]["message"]["text"] == "growing"  # type: ignore[index]
        assert clicks[0]["actions"][0]["action_id"] == "stop"  # type: ignore[index]
        assert slack.screen(slack.channel_id, asked)[1].text == "stopped"


async def test_a_button_that_nobody_sees_cannot_be_pressed() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ts = await post(client, slack.channel_id, "x", blocks=[STOP])
        await client.chat_update(channel=slack.channel_id, ts=ts, text="x", blocks=[])

        with pytest.raises(LookupError):
            await slack.click(slack.channel_id, ts, slack.user("Ann"), "stop")


async def test_slacks_own_stop_button_is_there_while_a_session_is_processing() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "hello")
        say = bot.app.client.agents_sessions_setStatus
        await say(channel_id=slack.channel_id, thread_ts=ts, status="processing")

        await slack.stop(slack.channel_id, ts, ann)
        await say(channel_id=slack.channel_id, thread_ts=ts, status="active")

        await until(lambda: bot.events("agent_session_stopped"))
        assert slack.session(slack.channel_id, ts) == ["processing", "active"]
        args = {"channel_id": slack.channel_id, "thread_ts": ts, "status": "busy"}
        refused = await refusal(bot.app.client, "agents.sessions.setStatus", args)
        assert refused == "invalid_arguments"
        with pytest.raises(LookupError):
            await slack.stop(slack.channel_id, ts, ann)


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

        refused = await refusal(client, method, {})

        assert refused == error
        assert (slack.requests[0].ok, slack.requests[0].error) == (False, error)


async def test_auth_test_tells_who_the_bot_is() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        who = await client.auth_test()

        told = (who["team_id"], who["user_id"], who["bot_id"])
        assert told == (slack.team_id, slack.bot_user_id, slack.bot_id)


def markdown(text: str) -> list[Payload]:
    return [{"type": "markdown", "text": text}]


def section(text: str) -> list[Payload]:
    return [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"text": ""}, "no_text"),
        ({"blocks": []}, "no_text"),
        ({"channel": "C404", "text": "x"}, "channel_not_found"),
        ({"text": "x" * 40_001}, "msg_too_long"),
        ({"markdown_text": "x" * 12_001}, "msg_too_long"),
        ({"markdown_text": "x", "text": "x"}, "markdown_text_conflict"),
        ({"blocks": markdown("x" * 12_001)}, "invalid_blocks"),
        ({"blocks": markdown("x" * 6001) + markdown("x" * 6000)}, "invalid_blocks"),
        ({"blocks": markdown("")}, "invalid_blocks"),
        ({"blocks": section("x" * 3001)}, "invalid_blocks"),
        ({"blocks": section("x" * 3000) * 5}, "msg_blocks_too_long"),
        ({"blocks": section("x") * 51}, "invalid_blocks"),
        ({"blocks": [{"type": "bold"}]}, "invalid_blocks"),
        ({"blocks": [{**block, "block_id": "a"} for block in section("x") * 2]}, "invalid_blocks"),
        ({"blocks": [{"type": "actions", "elements": []}]}, "invalid_blocks"),
        ({"blocks": "{}"}, "invalid_blocks_format"),
    ],
)
async def test_a_post_that_slack_would_not_take_is_refused(args: Payload, error: str) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        full = {"channel": slack.channel_id, **QUIET, **args}

        refused = await refusal(client, "chat.postMessage", full)

        assert refused == error
        assert slack.screen(slack.channel_id) == []


@pytest.mark.parametrize(
    "args",
    [
        {"text": "x" * 4000},
        {"markdown_text": "x" * 12_000},
        {"text": "x", "blocks": markdown("x" * 12_000)},
        {"text": "x", "blocks": section("x") * 50},
        {"text": "x", "blocks": json.dumps(section("x"))},
    ],
)
async def test_a_post_at_the_limit_is_taken(args: Payload) -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        await client.api_call("chat.postMessage", json={"channel": slack.channel_id, **args})

        assert len(slack.screen(slack.channel_id)) == 1


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


async def test_updates_are_limited_for_the_whole_workspace() -> None:
    rate = Rate(calls=1, seconds=30.0, burst=2)
    async with SlackEmulator(updates=rate) as slack, writer(slack) as client:
        places = [slack.channel_id, slack.channel("other")]
        posts = [(place, await post(client, place, "x")) for place in places]
        for place, ts in posts:
            await client.chat_update(channel=place, ts=ts, text="y")

        with pytest.raises(SlackApiError) as limited:
            await client.chat_update(channel=places[0], ts=posts[0][1], text="z")

        response = limited.value.response
        assert (response.status_code, response["error"]) == (429, "ratelimited")
        assert response.headers["Retry-After"] == "30"
        assert slack.states(*posts[0]) == ["x", "y"]


async def test_posts_are_limited_for_each_channel_and_the_bucket_fills_again() -> None:
    rate = Rate(calls=1, seconds=0.2, burst=1)
    async with SlackEmulator(posts=rate) as slack, writer(slack) as client:
        other = slack.channel("other")
        await post(client, slack.channel_id, "x")
        await post(client, other, "x")
        args = {"channel": slack.channel_id, "text": "y", **QUIET}

        refused = await refusal(client, "chat.postMessage", args)
        await asyncio.sleep(0.21)
        await client.api_call("chat.postMessage", json=args)

        assert refused == "ratelimited"
        assert [shown.text for shown in slack.screen(slack.channel_id)] == ["x", "y"]


async def test_a_method_fails_as_often_as_was_wished() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        slack.fail("auth.test", status=503, times=2, after=1)

        statuses = [await status_of(client) for _ in range(4)]

        assert statuses == [200, 503, 503, 200]
        assert [call.ok for call in slack.requests] == [True, False, False, True]


async def status_of(client: AsyncWebClient) -> int:
    try:
        return (await client.auth_test()).status_code
    except SlackApiError as error:
        return int(error.response.status_code)


async def test_a_failure_may_be_an_error_or_a_rate_limit() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        slack.fail("auth.test", error="team_access_not_granted")
        slack.fail("auth.test", status=429, retry_after=7)

        with pytest.raises(SlackApiError) as refused:
            await client.auth_test()
        with pytest.raises(SlackApiError) as limited:
            await client.auth_test()

        assert refused.value.response["error"] == "team_access_not_granted"
        assert refused.value.response.status_code == 200
        assert limited.value.response.headers["Retry-After"] == "7"
        assert limited.value.response["error"] == "ratelimited"


async def test_a_dropped_call_may_have_been_applied() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        client.retry_handlers.clear()
        slack.fail("chat.postMessage", status=None, applied=True)

        with pytest.raises(aiohttp.ClientConnectionError):
            await post(client, slack.channel_id, "x")

        assert [shown.text for shown in slack.screen(slack.channel_id)] == ["x"]
        assert slack.requests[0].error == "dropped"


async def test_a_hanging_call_is_not_answered() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        slack.fail("auth.test", hang=True)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.auth_test(), 0.1)

        assert (await client.auth_test())["ok"]


async def test_latency_is_felt_on_each_call() -> None:
    async with SlackEmulator(latency=0.1) as slack, writer(slack) as client:
        start = time.monotonic()

        await client.auth_test()

        assert time.monotonic() - start >= 0.1


@pytest.mark.parametrize(
    "spoken", ["<!here>", "<!channel|all>", "<!subteam^S123>", "<@U0PARLEYBOT>"]
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


@pytest.mark.parametrize("style", ["json", "form", "query", "get"])
async def test_arguments_are_read_wherever_they_are(style: str) -> None:
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        url, args = f"{slack.api_url}conversations.info", {"channel": slack.channel_id}
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

        assert answer["channel"]["name"] == "general"
        assert slack.requests[0].body == args


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


async def test_people_and_their_dms_can_be_looked_up() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        ann = slack.user("Ann")

        opened = await client.conversations_open(users=ann)
        who = await client.users_info(user=ann)

        assert opened["channel"]["id"] == slack.dm(ann)
        assert who["user"]["profile"]["display_name"] == "Ann"
        assert await refusal(client, "users.info", {"user": "U404"}) == "user_not_found"
        assert await refusal(client, "conversations.open", {"users": "U404"}) == "user_not_found"


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


async def test_a_method_that_is_not_emulated_fails_the_test() -> None:
    async def call() -> None:
        async with SlackEmulator() as slack, writer(slack) as client:
            assert await refusal(client, "pins.add", {}) == "unknown_method"

    with pytest.raises(AssertionError, match=r"pins\.add"):
        await call()


async def test_arguments_are_held_against_slacks_description() -> None:
    if specification() is None:
        pytest.skip("put slack-web-openapi.json into a folder `specs` beside the repository")
    async with SlackEmulator() as slack, writer(slack) as client:
        args = {"channel": slack.channel_id, "text": "x", "silent": True, "mrkdwn": "maybe"}

        await client.api_call("chat.postMessage", json=args)

        noted, slack.violations[:] = list(slack.violations), []
        assert noted == [
            "chat.postMessage: no argument is called silent",
            "chat.postMessage: mrkdwn='maybe' is not of type boolean",
        ]


@pytest.mark.parametrize("error", [None, LookupError("the test's own")])
async def test_a_violation_fails_the_test_and_hides_no_other_error(error: Exception | None) -> None:
    async def violate() -> None:
        async with SlackEmulator() as slack:
            slack.violations.append("something")
            if error:
                raise error

    with pytest.raises(type(error) if error else AssertionError, match=r"something|the test's own"):
        await violate()
