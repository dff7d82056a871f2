"""Slack's sockets: one is always open, and deployments may overlap, through the real slack-bolt."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.socket_mode.async_internals import run_async_bolt_app, send_async_response
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest

from adapters.slack.inbound.socket import greeted
from bot.errors import WriteFailed
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.socket import Reason
from tests.support.fakes import FakeIntake
from tests.support.process import SlackDm, SlackMention, bot, slack_variables
from tests.support.slack_app import StillClock, served, socket
from tests.support.slack_platform import hearing, joined
from tests.support.waiting import until


@asynccontextmanager
async def listening(
    slack: SlackEmulator, intake: FakeIntake, *, store: Store | None = None
) -> AsyncIterator[None]:
    """Hear Slack with both sockets."""
    async with hearing(slack, intake, store=store):
        await until(lambda: slack.sockets == 2)
        yield


async def fewest(slack: SlackEmulator) -> int:
    """Return how many sockets there were at least, when this is cancelled."""
    least = slack.sockets
    try:
        while True:
            least = min(least, slack.sockets)
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        return least


def opened(slack: SlackEmulator) -> int:
    return sum(call.method == "apps.connections.open" for call in slack.requests)


# One is always open


@pytest.mark.parametrize("reason", ["refresh_requested", "warning", "link_disabled"])
async def test_a_refresh_leaves_no_moment_without_a_socket(reason: Reason) -> None:
    async with SlackEmulator(clock=StillClock()) as slack, listening(slack, FakeIntake()):
        counting = asyncio.create_task(fewest(slack))

        closing = asyncio.create_task(slack.disconnect(reason))
        await until(lambda: slack.sockets == 4)
        slack.clock.advance(10.0)
        await closing
        await until(lambda: slack.sockets == 2)
        counting.cancel()

        assert await counting == 2


async def test_a_socket_that_is_being_replaced_is_heard_until_slack_closes_it() -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, listening(slack, intake):
        ann = slack.user("Ann")
        closing = asyncio.create_task(slack.disconnect("warning"))
        await until(lambda: slack.sockets == 4)

        for number in range(8):
            await slack.say(slack.dm(ann), ann, f"question {number}")
        await until(lambda: len(intake.turns) == 8)
        await until(lambda: len(slack.deliveries) == 8)

        assert [(each.attempt, each.status) for each in slack.deliveries] == [(0, 200)] * 8
        slack.clock.advance(10.0)
        await closing


async def test_what_is_said_during_a_refresh_is_heard() -> None:
    intake = FakeIntake()
    questions = [f"question {number}" for number in range(30)]
    async with SlackEmulator(ack_within=0.2) as slack, listening(slack, intake):
        ann = slack.user("Ann")

        closing = asyncio.create_task(slack.disconnect())
        for question in questions:
            await slack.say(slack.dm(ann), ann, question)
            await asyncio.sleep(0.02)
        await closing
        await until(lambda: len(intake.turns) == len(questions))

        assert sorted(intake.texts) == sorted(questions)


async def test_a_socket_that_slack_does_not_close_is_left_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.socket._LINGER", 0.05)
    async with SlackEmulator(clock=StillClock()) as slack, listening(slack, FakeIntake()):
        closing = asyncio.create_task(slack.disconnect("warning"))

        await until(lambda: (slack.sockets, opened(slack)) == (2, 4))

        await closing


async def test_slack_is_silent_while_no_socket_is_open() -> None:
    async with SlackEmulator() as slack, joined(slack) as platform:
        at_first = platform.silence()
        task = asyncio.create_task(platform.listen(FakeIntake()))
        try:
            # A socket still being opened would outlive the cut.
            await until(lambda: platform.silence() == 0 and slack.sockets == 2)
            slack.fail("apps.connections.open", status=500, times=1000)
            await slack.cut()
            await until(lambda: platform.silence() > 0)
            slack.heal()
            await until(lambda: platform.silence() == 0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        assert at_first == math.inf
        assert platform.silence() > 0


async def test_sockets_that_are_cut_off_are_replaced() -> None:
    intake = FakeIntake()
    async with SlackEmulator(ack_within=0.5) as slack, listening(slack, intake):
        await slack.cut()
        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        await until(lambda: (slack.sockets, opened(slack)) == (2, 4))


async def test_sockets_that_fall_silent_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.slack.inbound.sockets._PING_INTERVAL", 0.2)
    intake = FakeIntake()
    async with SlackEmulator(ack_within=0.5) as slack, listening(slack, intake):
        await slack.stall()
        await until(lambda: opened(slack) >= 4)
        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")

        await until(lambda: intake.turns)
        await slack.cut()


async def test_a_socket_that_cannot_be_opened_is_tried_again_calmly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.sockets._PAUSES", (0.0, 0.0, 0.01))
    async with SlackEmulator() as slack, listening(slack, FakeIntake()):
        slack.fail("apps.connections.open", status=500, times=6)

        await slack.cut()
        await until(lambda: opened(slack) == 10)

        await until(lambda: slack.sockets == 2)
    told = [one for one in caplog.records if one.name.startswith("adapters.slack")]
    assert any("cannot be opened, and will be tried again" in one.message for one in told)
    assert not [one for one in told if one.exc_info or one.levelno > logging.WARNING]


async def test_slack_is_not_hammered_while_no_socket_can_be_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.sockets._PAUSES", (0.0, 0.0, 1000.0))
    async with SlackEmulator() as slack, listening(slack, FakeIntake()):
        slack.fail("apps.connections.open", status=500, times=1000)

        await slack.cut()
        await until(lambda: opened(slack) == 4)
        await asyncio.sleep(0.3)

        assert opened(slack) == 4


async def test_a_socket_that_has_lasted_is_replaced_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.sockets._PAUSES", (0.0, 1000.0))
    monkeypatch.setattr("adapters.slack.inbound.sockets._LASTING", 0.0)
    async with SlackEmulator() as slack, listening(slack, FakeIntake()):
        for _ in range(3):
            before = opened(slack)
            await slack.disconnect()

            await until(partial(both_are_new, slack, before))


def both_are_new(slack: SlackEmulator, before: int) -> bool:
    return (slack.sockets, opened(slack)) == (2, before + 2)


async def test_a_socket_that_is_closed_before_a_greeting_is_not_taken() -> None:
    async def close(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/", close)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        connection = await stack.enter_async_context(session.ws_connect(await served(app, stack)))

        with pytest.raises(WriteFailed, match="it was closed"):
            await greeted(connection)


async def test_an_app_with_ten_sockets_waits_for_one_to_be_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.slack.inbound.socket._CROWDED", 0.05)
    intake = FakeIntake()
    async with SlackEmulator() as slack, AsyncExitStack() as stack:
        for _ in range(9):
            await stack.enter_async_context(socket(slack))
        async with hearing(slack, intake):
            await until(lambda: slack.sockets == 10)
            await until(lambda: opened(slack) >= 12)

            await stack.aclose()

            await until(lambda: slack.sockets == 2)


async def test_an_app_with_ten_sockets_is_not_asked_for_more_at_once() -> None:
    async with SlackEmulator() as slack, AsyncExitStack() as stack:
        for _ in range(9):
            await stack.enter_async_context(socket(slack))
        async with hearing(slack, FakeIntake()):
            await until(lambda: opened(slack) == 11)

            await asyncio.sleep(0.3)

            assert (slack.sockets, opened(slack)) == (10, 11)


async def test_an_acknowledgement_that_is_too_late_is_one_calm_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    intake = FakeIntake()
    intake.open.clear()
    async with SlackEmulator(ack_within=0.5) as slack, listening(slack, intake):
        ann = slack.user("Ann")
        await slack.say(slack.dm(ann), ann, "why?")
        await until(lambda: intake.turns)

        await slack.cut()
        await until(lambda: opened(slack) == 4)
        intake.open.set()
        await until(lambda: [one.status for one in slack.deliveries] == [None, 200])

        assert intake.texts == ["why?"]
    told = [one for one in caplog.records if one.name.startswith("adapters.slack")]
    assert [one.message for one in told if "it comes again" in one.message] == [
        "a socket closed before Slack heard that an event was taken: it comes again"
    ]
    assert not [one for one in told if one.exc_info or one.levelno > logging.INFO]


async def test_what_is_being_admitted_when_we_leave_is_acknowledged(store: Store) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack:
        async with listening(slack, intake, store=store):
            ann = slack.user("Ann")
            held, passable = asyncio.Event(), intake.open
            for gate, admitted in ((held, 2), (passable, 4)):
                intake.open = gate
                # One on each socket.
                for text in ("why?", "how?"):
                    await slack.say(slack.dm(ann), ann, text)
                await until(partial(has_heard, intake, admitted))
            await until(lambda: len(slack.deliveries) == 2)
            asyncio.get_running_loop().call_later(0.05, held.set)

        await until(lambda: len(slack.deliveries) == 4)

        assert [one.status for one in slack.deliveries] == [200] * 4


def has_heard(intake: FakeIntake, count: int) -> bool:
    return len(intake.turns) == count


async def test_a_frame_that_cannot_be_read_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    intake = FakeIntake()
    async with SlackEmulator() as slack, listening(slack, intake):
        await slack.send_frame("no JSON")
        await slack.send_frame('["no object"]')
        await slack.send_frame("[" * 100_000)
        await slack.send_frame('{"type": "events_api", "envelope_id": "1", "payload": 1}')

        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        assert (slack.sockets, opened(slack)) == (2, 2)
        assert {(one.levelno, one.exc_info) for one in caplog.records} == {(logging.WARNING, None)}


def test_the_libraries_are_as_their_internals_were_read() -> None:
    told = inspect.signature(SocketModeRequest.__init__).parameters

    assert list(inspect.signature(run_async_bolt_app).parameters) == ["app", "req"]
    assert list(inspect.signature(send_async_response).parameters) == [
        *("client", "req", "bolt_resp", "start_time")
    ]
    assert "__init__" not in vars(AsyncBaseSocketModeClient)
    assert {"retry_attempt", "retry_reason", "accepts_response_payload"} <= told.keys()


# As processes


async def test_an_old_and_a_new_deployment_overlap_without_a_double_answer() -> None:
    async with SlackEmulator() as slack, ModelEmulator() as model:
        variables = slack_variables(slack, model)
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            data_dir, way, other = Path(folder), SlackDm(slack), SlackMention(slack)
            async with bot(data_dir=data_dir, variables=variables) as old:
                await until(lambda: slack.sockets == 2)
                await way.ask("one")
                await until(lambda: way.finals() == said("one"))
                async with bot(data_dir=data_dir, variables=variables):
                    await until(lambda: slack.sockets == 4)
                    await way.ask("two")
                    await other.ask("three")
                    await until(lambda: way.finals() == said("one", "two"))
                    await until(lambda: other.finals() == said("three"))
                    # Four times, so that each process hears it again.
                    for _ in range(4):
                        await slack.redeliver(str(other.question))
                    old.process.terminate()
                    await way.ask("four")
                    await old.process.wait()
                    await other.ask("five")
                    await until(lambda: other.finals() == said("three", "five"))
                    await until(lambda: way.finals() == said("one", "two", "four"))

    asked = [one.messages[-1]["content"] for one in model.requests]
    assert sorted(asked) == ["five", "four", "one", "three", "two"]
    assert old.process.returncode == 0
    assert "Traceback" not in old.text()


def said(*texts: str) -> list[str]:
    """Return what the emulated model answers to these."""
    return [f"You said: {text}" for text in texts]
