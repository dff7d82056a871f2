"""Commands, buttons and response_url on the Slack emulator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from slack_sdk.webhook.async_client import AsyncWebhookClient

from tests.emulators.slack import SCOPES, SlackEmulator
from tests.emulators.slack.payload import Payload
from tests.support.slack_app import (
    STOP,
    TRANSPORTS,
    SlackBot,
    bolt,
    post,
    refusal,
    writer,
)
from tests.support.waiting import until


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
    async with SlackEmulator(ack_within=0.05) as slack, bolt(slack):
        delivery = await slack.slash(slack.channel_id, slack.user("Ann"), "/unknown", "")

        slack.clock.advance(3600.0)
        await asyncio.sleep(0.05)

        assert delivery.status is None
        assert slack.deliveries == [delivery]


async def test_an_answer_with_an_unknown_field_is_a_violation() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        [url] = await command_urls(slack, bot)

        await AsyncWebhookClient(url).send_dict({"text": "x", "silent": True, "mrkdwn": "maybe"})

        noted, slack.violations[:] = list(slack.violations), []
        assert noted == [
            "response_url: no argument is called silent",
            "response_url: mrkdwn='maybe' is not of type boolean",
        ]


async def command_urls(slack: SlackEmulator, bot: SlackBot, *, uses: int = 1) -> list[str]:
    """Use a command and return its response_urls."""
    urls: list[str] = []

    @bot.app.command("/ask")
    async def ask(ack: Callable[[], object], command: dict[str, str]) -> None:
        urls.append(command["response_url"])
        await ack()  # type: ignore[misc]

    for _ in range(uses):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "")
    return urls


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


async def test_a_response_url_takes_five_answers_in_half_an_hour() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        url, other = await command_urls(slack, bot, uses=2)
        answers = [await AsyncWebhookClient(url).send(text=str(number)) for number in range(6)]
        strange = await AsyncWebhookClient(f"{url}0").send(text="hello")
        slack.clock.advance(1800.1)
        late = await AsyncWebhookClient(other).send(text="too late")

        assert [answer.status_code for answer in answers] == [200] * 5 + [404]
        assert "used_url" in answers[5].body
        assert (strange.status_code, "no_such_hook" in strange.body) == (404, True)
        assert (late.status_code, "expired_url" in late.body) == (404, True)
        assert len(slack.ephemerals) == 5


async def test_a_command_needs_its_scope_and_no_thread_takes_one() -> None:
    async with SlackEmulator(scopes=SCOPES - {"commands"}) as slack:
        with pytest.raises(LookupError, match="needs the scope commands"):
            await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "why?")
    async with SlackEmulator() as slack:
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "hello")
        with pytest.raises(LookupError, match="not supported in threads"):
            await slack.slash(slack.channel_id, ann, "/ask", "why?", thread_ts=ts)
