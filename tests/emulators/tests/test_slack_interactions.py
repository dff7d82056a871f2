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


async def test_a_thread_knows_no_slash_commands() -> None:
    async with SlackEmulator() as slack, bolt(slack):
        ann = slack.user("Ann")
        ts = await slack.say(slack.channel_id, ann, "hello")

        with pytest.raises(LookupError, match="not supported in threads"):
            await slack.slash(slack.channel_id, ann, "/ask", "why?", thread_ts=ts)


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

        slack.clock.advance(1800.1)
        answer = await AsyncWebhookClient(url).send(text="too late")

        assert (answer.status_code, "expired_url" in answer.body) == (404, True)
        assert slack.ephemerals == []


async def test_a_response_url_that_was_never_given_is_none() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        url = await command_url(slack, bot)

        answer = await AsyncWebhookClient(f"{url}0").send(text="hello")

        assert (answer.status_code, "no_such_hook" in answer.body) == (404, True)


@pytest.mark.parametrize("text", ["", "x" * 4001])
async def test_a_response_url_has_the_limits_of_a_message(text: str) -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot, writer(slack) as client:
        ts = await post(client, slack.channel_id, "growing", blocks=[STOP])
        url = await button_url(slack, bot, ts)

        answer = await AsyncWebhookClient(url).send(text=text, replace_original=True)

        assert answer.status_code == 404
        assert slack.states(slack.channel_id, ts) == ["growing"]


async def test_a_response_url_may_take_the_message_away() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot, writer(slack) as client:
        ts = await post(client, slack.channel_id, "growing", blocks=[STOP])
        url = await button_url(slack, bot, ts)

        await AsyncWebhookClient(url).send(delete_original=True)

        assert slack.screen(slack.channel_id) == []


async def test_an_answer_with_an_unknown_field_is_a_violation() -> None:
    async with SlackEmulator() as slack, bolt(slack) as bot:
        url = await command_url(slack, bot)

        await AsyncWebhookClient(url).send_dict({"text": "x", "silent": True, "mrkdwn": "maybe"})

        noted, slack.violations[:] = list(slack.violations), []
        assert noted == [
            "response_url: no argument is called silent",
            "response_url: mrkdwn='maybe' is not of type boolean",
        ]


async def test_a_command_needs_its_scope() -> None:
    async with SlackEmulator(scopes=SCOPES - {"commands"}) as slack:
        with pytest.raises(LookupError, match="needs the scope commands"):
            await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "why?")


async def button_url(slack: SlackEmulator, bot: SlackBot, ts: str) -> str:
    """Press the button of a message and return its response_url."""
    urls: list[str] = []

    @bot.app.action("stop")
    async def stop(ack: Callable[[], object], body: dict[str, str]) -> None:
        urls.append(body["response_url"])
        await ack()  # type: ignore[misc]

    await slack.click(slack.channel_id, ts, slack.user("Ann"), "stop")
    return urls[0]


async def command_url(slack: SlackEmulator, bot: SlackBot) -> str:
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
