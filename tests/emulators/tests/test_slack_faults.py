"""What goes wrong on purpose on the Slack emulator, and what it notices itself."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from tests.emulators import specs
from tests.emulators.slack import SCOPES, Rate, SlackEmulator, people
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.workspace import Workspace
from tests.support.slack_app import post, refusal, writer
from tests.support.waiting import at_least


async def test_a_method_fails_as_often_as_was_wished() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        slack.fail("auth.test", status=503, times=2, after=1)

        statuses = [await status_of(client) for _ in range(4)]

        assert statuses == [200, 503, 503, 200]
        assert [(call.ok, call.status) for call in slack.requests] == [
            (True, 200),
            (False, 503),
            (False, 503),
            (True, 200),
        ]


async def test_headers_of_a_test_stand_beside_those_of_a_rate_limit() -> None:
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        slack.fail("auth.test", status=429, retry_after=7, headers={"X-Slack-Req-Id": "1"})

        async with session.post(f"{slack.api_url}auth.test") as response:
            headers = response.headers

        assert (headers["Retry-After"], headers["X-Slack-Req-Id"]) == ("7", "1")


async def test_an_error_of_the_emulators_own_fails_the_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_home: Workspace, _args: Payload) -> Payload:
        raise ZeroDivisionError

    monkeypatch.setitem(people.METHODS, "auth.test", broken)
    slack = SlackEmulator()

    async def call() -> None:
        async with slack, writer(slack) as client:
            assert await status_of(client) == 500

    with pytest.raises(AssertionError, match=r"the emulator failed: auth\.test: ZeroDivision"):
        await call()

    assert [(call.call, call.status) for call in slack.requests] == [("auth.test", 500)]


async def test_a_healed_slack_answers_again() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        slack.fail("auth.test", times=99)
        before = await status_of(client)

        slack.heal()

        assert (before, await status_of(client)) == (500, 200)


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
        assert [call.limited for call in slack.requests] == [False, True]


async def test_a_failure_may_have_a_body_and_headers_of_its_own() -> None:
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        slack.fail("auth.test", status=502, body="<html>", headers={"Content-Type": "text/html"})

        async with session.post(f"{slack.api_url}auth.test") as response:
            text = await response.text()

        assert (response.status, response.content_type, text) == (502, "text/html", "<html>")


async def test_a_dropped_call_may_have_been_applied() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        client.retry_handlers.clear()
        slack.fail("chat.postMessage", "drop", applied=True)

        with pytest.raises(aiohttp.ClientConnectionError):
            await post(client, slack.channel_id, "x")

        assert [shown.text for shown in slack.screen(slack.channel_id)] == ["x"]
        assert (slack.requests[0].error, slack.requests[0].status) == ("dropped", None)


async def test_a_hanging_call_is_not_answered() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        # It would try again what was not answered.
        client.retry_handlers.clear()
        slack.fail("auth.test", "hang")

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.auth_test(), 0.1)

        assert [(call.call, call.status) for call in slack.requests] == [("auth.test", None)]
        assert (await client.auth_test())["ok"]


async def test_a_late_call_is_answered_rightly_after_a_while() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        slack.fail("auth.test", "late", seconds=0.1)
        start = time.monotonic()

        answer = await client.auth_test()

        assert answer["ok"]
        assert time.monotonic() - start >= at_least(0.1)


async def test_latency_is_felt_on_each_call_from_now_on() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        slack.latency = 0.1
        start = time.monotonic()

        await client.auth_test()

        assert time.monotonic() - start >= at_least(0.1)


async def test_a_fault_that_never_struck_fails_the_test() -> None:
    async def ask() -> None:
        async with SlackEmulator() as slack:
            slack.fail("auth.test")

    with pytest.raises(AssertionError, match=r"never struck: \['auth\.test'\]"):
        await ask()


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


@pytest.mark.parametrize("error", [None, LookupError("the test's own")])
async def test_a_violation_fails_the_test_and_hides_no_other_error(error: Exception | None) -> None:
    async def violate() -> None:
        async with SlackEmulator() as slack:
            slack.violations.append("something")
            if error:
                raise error

    with pytest.raises(type(error) if error else AssertionError, match=r"something|the test's own"):
        await violate()
