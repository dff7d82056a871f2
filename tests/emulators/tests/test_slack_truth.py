"""The Slack emulator notices where the bot or itself is not like Slack's own descriptions."""

from __future__ import annotations

import pytest

from tests.emulators import specs
from tests.emulators.slack import SCOPES, Rate, SlackEmulator, events, people
from tests.emulators.slack.methods import METHODS
from tests.emulators.slack.payload import Payload
from tests.emulators.slack.truth import Truth
from tests.support.slack_app import refusal, socket, writer

pytestmark = pytest.mark.skipif(specs.load("slack-web-openapi.json") is None, reason=specs.ABSENT)

WHO: Payload = {
    "ok": True,
    "url": "https://parley.slack.test/",
    "team": "Parley",
    "user": "parley",
    "team_id": "T0PARLEY001",
    "user_id": "U0PARLEY001",
}


@pytest.mark.parametrize(
    ("method", "answer", "why"),
    [
        ("auth.test", {**WHO, "team": 1}, "/team: 1 is not of type 'string'"),
        ("auth.test", {**WHO, "mood": "good"}, "'mood' was unexpected"),
        ("auth.test", {"ok": True}, "'url' is a required property"),
        ("auth.test", {"ok": False, "error": "tired"}, "no error is called tired"),
        ("chat.startStream", {"ok": False, "error": "tired"}, "no error is called tired"),
        ("chat.startStream", {"ok": True, "channel": 1}, "1 is not of type 'string'"),
        ("apps.connections.open", {"ok": True, "uri": "ws://"}, "'uri' was unexpected"),
    ],
)
def test_an_answer_that_is_not_slacks_is_a_violation(
    method: str, answer: Payload, why: str
) -> None:
    truth = Truth([])

    truth.answered(method, answer)

    assert truth.violations[0].startswith(f"the emulator answers {method} wrongly: ")
    assert any(why in violation for violation in truth.violations)


@pytest.mark.parametrize("error", ["not_authed", "token_expired", "missing_scope"])
def test_every_method_may_answer_what_all_may(error: str) -> None:
    truth = Truth([])

    for method in METHODS:
        truth.answered(method, {"ok": False, "error": error})

    assert truth.violations == []


async def test_a_wrong_answer_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(people.METHODS, "auth.test", lambda _home, _args: {"mood": "good"})

    async def call() -> None:
        async with SlackEmulator() as slack, writer(slack) as client:
            await client.auth_test()

    with pytest.raises(AssertionError, match=r"answers auth\.test wrongly: .*'mood'"):
        await call()


async def test_a_wrong_event_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "VERIFICATION_TOKEN", 7)

    async def tell() -> None:
        async with SlackEmulator() as slack, socket(slack) as connection:
            ann = slack.user("Ann")
            await slack.say(slack.dm(ann), ann, "hello")
            await connection.receive_json(timeout=30)

    with pytest.raises(AssertionError, match="tells an event wrongly: /token: 7 is not"):
        await tell()


@pytest.mark.parametrize("lost", ["token", "team_id", "event_id", "event"])
async def test_an_event_whose_wrapper_lacks_something_is_a_violation(lost: str) -> None:
    event: Payload = {
        "token": "t",
        "team_id": "T0PARLEY001",
        "api_app_id": "A0PARLEY001",
        "event": {"type": "message", "event_ts": "1700000000.000001"},
        "type": "event_callback",
        "event_id": "Ev1",
        "event_time": 1_700_000_000,
    }
    truth = Truth([])

    truth.told(event)
    truth.told({name: value for name, value in event.items() if name != lost})

    [violation] = truth.violations
    assert violation.startswith("the emulator tells an event wrongly: ")
    assert f"'{lost}' is a required property" in violation


async def test_a_method_that_is_not_emulated_fails_the_test() -> None:
    async def call() -> None:
        async with SlackEmulator() as slack, writer(slack) as client:
            assert await refusal(client, "pins.add", {}) == "unknown_method"

    with pytest.raises(AssertionError, match=r"pins\.add"):
        await call()


async def test_arguments_are_held_against_slacks_description() -> None:
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
