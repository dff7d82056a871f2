"""What goes wrong on purpose on the Slack emulator, and what it notices itself."""

from __future__ import annotations

import pytest

from tests.emulators import specs
from tests.emulators.slack import SCOPES, Rate, SlackEmulator
from tests.support.slack_app import refusal, writer


async def test_a_method_that_is_not_emulated_fails_the_test() -> None:
    async def call() -> None:
        async with SlackEmulator() as slack, writer(slack) as client:
            assert await refusal(client, "pins.add", {}) == "unknown_method"

    with pytest.raises(AssertionError, match=r"pins\.add"):
        await call()


async def test_arguments_are_held_against_slacks_description() -> None:
    if specs.load("slack-web-openapi.json") is None:
        pytest.skip(specs.ABSENT)
    async with SlackEmulator() as slack, writer(slack) as client:
        args = {"channel": slack.channel_id, "text": "x", "silent": True, "mrkdwn": "maybe"}

        await client.api_call("chat.postMessage", json=args)

        noted, slack.violations[:] = list(slack.violations), []
        assert noted == [
            "chat.postMessage: no argument is called silent",
            "chat.postMessage: mrkdwn='maybe' is not of type boolean",
        ]


@pytest.mark.parametrize("how", ["token", "scope", "rate", "fault"])
async def test_arguments_are_looked_at_even_where_the_call_is_refused(how: str) -> None:
    if specs.load("slack-web-openapi.json") is None:
        pytest.skip(specs.ABSENT)
    scopes = SCOPES - {"chat:write"} if how == "scope" else SCOPES
    rates = {"chat.postMessage": Rate(calls=1, seconds=60.0, burst=0)} if how == "rate" else {}
    async with SlackEmulator(scopes=scopes, rates=rates) as slack:
        if how == "fault":
            slack.fail("chat.postMessage")
        async with writer(slack, "xoxb-stranger" if how == "token" else None) as client:
            args = {"channel": slack.channel_id, "text": "x", "silent": True}
            await refusal(client, "chat.postMessage", args)

        noted, slack.violations[:] = list(slack.violations), []
        assert noted == ["chat.postMessage: no argument is called silent"]
