"""How the Slack emulator delivers: over sockets and signed HTTP, in time and again."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from tests.emulators.serving import served
from tests.emulators.slack import SlackEmulator
from tests.support.slack_app import StillClock, endpoint, socket, writer
from tests.support.waiting import until


async def test_an_event_that_is_refused_comes_at_once_after_a_minute_and_after_five() -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        app.status = 500
        ann = slack.user("Ann")

        await slack.say(slack.dm(ann), ann, "hello")
        for tries, early, rest in ((2, 50.0, 10.0), (3, 250.0, 50.0), (4, 1800.0, 1800.0)):
            await until(lambda tries=tries: len(slack.deliveries) >= tries)  # type: ignore[misc]
            slack.clock.advance(early)
            await asyncio.sleep(0.05)
            assert len(app.told) == tries
            slack.clock.advance(rest)

        await asyncio.sleep(0.05)
        assert [d.attempt for d in slack.deliveries] == [0, 1, 2, 3]
        assert {d.status for d in slack.deliveries} == {500}
        assert len({body["event_id"] for _, body in app.told}) == 1


@pytest.mark.parametrize(
    ("status", "seconds", "reason"),
    [(500, 0.0, "http_error"), (404, 0.0, "http_error"), (200, 30.0, "http_timeout")],
)
async def test_a_retry_by_http_tells_what_the_last_try_met(
    status: int, seconds: float, reason: str
) -> None:
    async with SlackEmulator() as slack, endpoint(slack) as app:
        app.status, app.seconds = status, seconds
        ann = slack.user("Ann")

        await slack.say(slack.dm(ann), ann, "hello")
        await until(lambda: app.told)
        slack.clock.advance(seconds)

        await until(lambda: len(app.told) == 2)
        assert app.told[1][0]["X-Slack-Retry-Reason"] == reason
        assert [d.status for d in slack.deliveries][:1] == [None if seconds else status]


async def test_an_answer_after_three_seconds_is_too_late() -> None:
    async with SlackEmulator(clock=StillClock()) as slack, endpoint(slack) as app:
        app.seconds = 30.0
        ann = slack.user("Ann")
        await slack.say(slack.dm(ann), ann, "hello")
        await until(lambda: app.told)

        slack.clock.advance(2.9)
        await asyncio.sleep(0.02)
        early = list(slack.deliveries)
        slack.clock.advance(0.2)

        await until(lambda: slack.deliveries)
        assert early == []
        assert slack.deliveries[0].status is None


async def test_what_a_lost_connection_took_with_it_comes_on_another() -> None:
    async with SlackEmulator() as slack, socket(slack) as first:
        ann = slack.user("Ann")
        await slack.say(slack.dm(ann), ann, "hello")
        lost = await first.receive_json(timeout=30)

        await slack.cut()
        async with socket(slack) as second:
            slack.clock.advance(3.0)
            again = await second.receive_json(timeout=30)

        assert lost["payload"]["event_id"] == again["payload"]["event_id"]
        assert lost["envelope_id"] != again["envelope_id"]
        assert (again["retry_attempt"], again["retry_reason"]) == (1, "timeout")


async def test_a_socket_address_opens_one_connection_and_is_good_for_half_a_minute() -> None:
    async with SlackEmulator() as slack, writer(slack) as client:
        used, old = [
            str((await client.apps_connections_open(app_token=slack.app_token))["url"])
            for _ in range(2)
        ]

        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(used) as connection:
                hello = await connection.receive_json()
            slack.clock.advance(31.0)
            for address in (used, old):
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await session.ws_connect(address)

        assert hello["type"] == "hello"


async def test_an_app_that_does_not_return_the_challenge_gets_nothing_by_http() -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_post("/", answer)
    async with SlackEmulator() as slack, served(app) as url:
        with pytest.raises(ValueError, match="did not return the challenge"):
            await slack.verify(url)
