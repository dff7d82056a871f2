"""Commands, buttons and response_url on the Slack emulator."""

from __future__ import annotations

import asyncio

from slack_sdk.webhook.async_client import AsyncWebhookClient

from tests.emulators.slack import SlackEmulator
from tests.support.slack_app import endpoint


async def test_a_slash_command_that_is_not_answered_in_time_is_not_tried_again() -> None:
    async with SlackEmulator(ack_within=0.05) as slack, endpoint(slack) as app:
        app.seconds = 30.0
        delivery = await slack.slash(slack.channel_id, slack.user("Ann"), "/unknown", "")

        slack.clock.advance(3600.0)
        await asyncio.sleep(0.05)

        assert delivery.status is None
        assert slack.deliveries == [delivery]


async def test_an_answer_with_an_unknown_field_is_a_violation() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "")
        later = AsyncWebhookClient(str(app.last["response_url"]))

        await later.send_dict({"text": "x", "silent": True, "mrkdwn": "maybe"})

        noted, slack.violations[:] = list(slack.violations), []
        assert noted == [
            "response_url: no argument is called silent",
            "response_url: mrkdwn='maybe' is not of type boolean",
        ]


async def test_a_response_url_takes_five_answers_in_half_an_hour() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        urls = []
        for _ in range(2):
            await slack.slash(slack.channel_id, slack.user("Ann"), "/ask", "")
            urls.append(str(app.last["response_url"]))
        url, other = urls
        answers = [await AsyncWebhookClient(url).send(text=str(number)) for number in range(6)]
        strange = await AsyncWebhookClient(f"{url}0").send(text="hello")
        slack.clock.advance(1800.1)
        late = await AsyncWebhookClient(other).send(text="too late")

        assert [answer.status_code for answer in answers] == [200] * 5 + [404]
        assert "used_url" in answers[5].body
        assert (strange.status_code, "no_such_hook" in strange.body) == (404, True)
        assert (late.status_code, "expired_url" in late.body) == (404, True)
        assert len(slack.ephemerals) == 5
