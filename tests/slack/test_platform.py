"""The start, what is believed over HTTP, and the sockets, through the real slack-bolt."""

from __future__ import annotations

import asyncio
import json
import logging

import aiohttp
import pytest
from aiohttp import web

from bot.domain import Person, ThreadKey, Turn
from bot.errors import CannotStart, PlaceGone
from tests.emulators.faults import How
from tests.emulators.slack import SlackEmulator
from tests.support.fakes import EmptyStore, FakeQueue
from tests.support.slack_platform import (
    Transport,
    both_transports,
    dm_event,
    heard,
    hearing,
    joined,
    send,
    send_body,
    serving,
    signed,
)
from tests.support.waiting import until


async def test_a_refused_bot_token_stops_the_start() -> None:
    async with SlackEmulator() as slack:
        slack.bot_token = "xoxb-wrong"

        with pytest.raises(CannotStart, match="SLACK_BOT_TOKEN: invalid_auth"):
            async with joined(slack):
                pass


async def test_a_refused_app_token_stops_listening() -> None:
    async with SlackEmulator() as slack:
        slack.app_token = "xapp-wrong"
        async with joined(slack) as platform:
            with pytest.raises(CannotStart, match="SLACK_APP_TOKEN: invalid_auth"):
                await platform.listen(FakeQueue().intake, store=EmptyStore())


async def test_a_token_of_a_person_stops_the_start() -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"ok": True, "team_id": "T1", "user_id": "U1", "user": "ann"})

    async with SlackEmulator() as slack, serving(answer) as url:
        slack.api_url = url

        with pytest.raises(CannotStart, match="SLACK_BOT_TOKEN is not a bot token"):
            async with joined(slack):
                pass


@pytest.mark.parametrize(("how", "status"), [("status", 503), ("status", 429), ("drop", 0)])
async def test_a_slack_in_trouble_is_not_blamed_on_the_token(how: How, status: int) -> None:
    async with SlackEmulator() as slack:
        slack.fail("auth.test", how, status=status)

        with pytest.raises(CannotStart, match="cannot be reached"):
            async with joined(slack):
                pass


async def test_a_slack_that_cannot_be_reached_stops_the_start() -> None:
    async with SlackEmulator() as slack:
        pass

    with pytest.raises(
        CannotStart, match=r"cannot be reached at http://127[^ ]+: Cannot connect to host 127"
    ):
        async with joined(slack):
            pass


async def test_a_proxy_that_refuses_its_login_is_named_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    monkeypatch.setenv("https_proxy", f"http://bot:s3cret@{host}:{port}")
    async with SlackEmulator() as slack, server:
        slack.api_url = "https://slack.invalid/api/"

        with pytest.raises(CannotStart, match="HTTP 407") as caught:
            async with joined(slack):
                pass

    assert "s3cret" not in str(caught.value)


async def test_http_needs_a_signing_secret() -> None:
    async with SlackEmulator() as slack:
        slack.signing_secret = ""
        async with joined(slack) as platform:
            with pytest.raises(CannotStart, match="SLACK_SIGNING_SECRET"):
                platform.handler(FakeQueue().intake)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Slack-Signature": "v0=0000"},
        {"X-Slack-Signature": "v0=é"},
        {"X-Slack-Request-Timestamp": "tomorrow"},
        {"X-Slack-Request-Timestamp": "1"},
        {"X-Slack-Request-Timestamp": "1" * 310},
        {"X-Slack-Request-Timestamp": None},
        {"X-Slack-Signature": None},
    ],
    ids=str,
)
async def test_a_request_that_slack_did_not_sign_is_refused(
    headers: dict[str, str | None], caplog: pytest.LogCaptureFixture
) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(intake.intake)) as url:
            status = await send(slack, url, dm_event(slack), headers=headers)

        assert status == 401
        assert not intake.asked
        assert not caplog.records


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(FakeQueue().intake)) as url:
            status = await send_body(slack, url, b"a" * (2**20 + 1))

        assert status == 413


@pytest.mark.parametrize(
    ("kind", "bodies"),
    [
        ("application/json", ["", "{", "[]", "null", "5", "{}", "payload=x", "[" * 100_000]),
        ("application/x-www-form-urlencoded", ["", "payload=x", "payload=[]", "payload=null"]),
    ],
)
async def test_what_slack_signed_but_nobody_can_read_is_a_bad_request(
    kind: str, bodies: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with SlackEmulator() as slack, joined(slack) as platform:
        async with serving(platform.handler(FakeQueue().intake)) as url:
            answers = [await send_body(slack, url, body.encode(), kind=kind) for body in bodies]

        assert set(answers) == {400}
        assert "Traceback" not in caplog.text


@both_transports
async def test_an_event_that_cannot_be_read_is_acknowledged_with_one_line_in_the_log(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    ours = {"type": "event_callback", "team_id": SlackEmulator.team_id}
    async with heard(transport) as (slack, intake, _):
        for event in ({**dm_event(slack), "type": 5}, "why?", None):
            delivery = await slack.deliver({**ours, "event": event})

            assert delivery.status == 200
        assert not intake.asked
    assert [one.levelno for one in caplog.records] == [logging.WARNING] * 3
    assert "why?" not in caplog.text


@both_transports
async def test_a_rate_limit_notice_is_a_warning_with_the_minute(
    transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    limited = {"type": "app_rate_limited", "token": "x", "minute_rate_limited": 1518467820}
    async with SlackEmulator() as slack, hearing(slack, FakeQueue(), transport):
        delivery = await slack.deliver({**limited, "team_id": slack.team_id, "api_app_id": "A1"})

        assert delivery.status == 200
    assert [one.levelno for one in caplog.records] == [logging.WARNING]
    assert "2018-02-12T20:37" in caplog.text
    assert SlackEmulator.team_id in caplog.text


@pytest.mark.parametrize(
    ("wrapper", "ours"),
    [
        ({"team_id": "T0OTHER"}, False),
        ({"team_id": None}, False),
        ({"team_id": "T0OTHER", "authorizations": [{"team_id": "T0OTHER"}]}, False),
        ({"team_id": "T0OTHER", "context_team_id": SlackEmulator.team_id}, True),
        ({"team_id": "T0OTHER", "authorizations": [{"team_id": SlackEmulator.team_id}]}, True),
    ],
    ids=str,
)
async def test_only_events_of_our_workspace_are_admitted(
    wrapper: dict[str, object], ours: bool
) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack, joined(slack) as platform:
        wrapped = {"type": "event_callback", "event": dm_event(slack), **wrapper}
        async with serving(platform.handler(intake.intake)) as url:
            status = await send_body(slack, url, json.dumps(wrapped).encode())

        assert status == 200
        assert bool(intake.asked) == ours


async def test_slacks_check_of_the_address_is_answered() -> None:
    body = json.dumps({"type": "url_verification", "challenge": "3eZbrw1a"}).encode()
    async with (
        SlackEmulator() as slack,
        joined(slack) as platform,
        serving(platform.handler(FakeQueue().intake)) as url,
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=signed(slack, body)) as answer,
    ):
        assert "3eZbrw1a" in await answer.text()


async def test_slacks_check_of_the_certificate_is_answered_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    form, kind = b"ssl_check=1&token=x", "application/x-www-form-urlencoded"
    async with (
        SlackEmulator() as slack,
        joined(slack) as platform,
        serving(platform.handler(FakeQueue().intake)) as url,
    ):
        status = await send_body(slack, url, form, kind=kind)

    assert status == 200
    assert not caplog.records


async def test_proxy_variables_do_not_reach_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with heard() as (slack, intake, ann):
        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        assert intake.last.text == "why?"


async def test_a_turn_without_a_place_in_slack_has_none() -> None:
    async with SlackEmulator() as slack, joined(slack) as platform:
        key = ThreadKey("slack", "T", "C", "1")
        turn = Turn("slack:1", key, Person("U", "U"), "Hi", {"channel": 7}, 1.0)

        with pytest.raises(PlaceGone):
            async with platform.surface(turn):
                pass
