"""Socket Mode: a connection is always open, and deployments may overlap, with the real bolt."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import pytest
from aiohttp import web
from slack_bolt.response import BoltResponse

from adapters.slack.inbound.socket_mode import SocketMode
from bot.concurrency import Backoff, running
from bot.errors import SurfaceError, WriteDelayed, WriteFailed
from bot.ports import Downtime
from bot.store import Store
from tests.emulators.serving import served
from tests.emulators.slack import SlackEmulator
from tests.emulators.slack.socket import Reason
from tests.support.fakes import EmptyStore, FakeQueue
from tests.support.slack_app import StillClock, socket
from tests.support.slack_platform import LIMITS, heard, hearing, joined
from tests.support.waiting import until

NEVER = Backoff(1000.0, 1000.0)


# One is always open


@pytest.mark.parametrize("reason", ["refresh_requested", "warning", "link_disabled"])
async def test_a_refresh_leaves_no_moment_without_a_socket(reason: Reason) -> None:
    async with SlackEmulator(clock=StillClock()) as slack, hearing(slack, FakeQueue()):
        counting = asyncio.create_task(fewest(slack))

        closing = asyncio.create_task(slack.disconnect(reason))
        await until(lambda: slack.sockets == 4)
        slack.clock.advance(10.0)
        await closing
        await until(lambda: slack.sockets == 2)
        counting.cancel()

        assert await counting == 2


async def test_a_socket_that_is_being_replaced_is_heard_until_slack_closes_it() -> None:
    async with heard() as (slack, intake, ann):
        closing = asyncio.create_task(slack.disconnect("warning"))
        await until(lambda: slack.sockets == 4)

        for number in range(8):
            await slack.say(slack.dm(ann), ann, f"question {number}")
        await until(lambda: len(intake.turns) == 8)
        await until(lambda: len(slack.deliveries) == 8)

        assert [(each.attempt, each.status) for each in slack.deliveries] == [(0, 200)] * 8
        slack.clock.advance(10.0)
        await closing


async def test_slack_is_silent_while_no_socket_is_open() -> None:
    async with SlackEmulator() as slack, joined(slack) as platform:
        at_first = platform.downtime()
        task = asyncio.create_task(platform.listen(FakeQueue().intake, store=EmptyStore()))
        try:
            # A socket still being opened would outlive the cut.
            await until(lambda: platform.downtime() == 0 and slack.sockets == 2)
            slack.fail("apps.connections.open", status=500, times=1000)
            await slack.cut()
            await until(lambda: platform.downtime() > 0)
            slack.heal()
            await until(lambda: platform.downtime() == 0)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        assert at_first == math.inf
        assert platform.downtime() > 0


async def test_sockets_that_are_cut_off_are_replaced() -> None:
    intake = FakeQueue()
    async with SlackEmulator(ack_within=0.5) as slack, hearing(slack, intake):
        await slack.cut()
        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        await until(lambda: (slack.sockets, opened(slack)) == (2, 4))


async def test_sockets_that_fall_silent_are_replaced() -> None:
    intake, limits = FakeQueue(), replace(LIMITS, ping_interval=0.2)
    async with SlackEmulator(ack_within=0.5) as slack, hearing(slack, intake, limits=limits):
        await slack.stall()
        await until(lambda: opened(slack) >= 4)
        await slack.say(slack.channel_id, slack.user("Ann"), f"{slack.bot_mention} why?")

        await until(lambda: intake.turns)
        await slack.cut()


@pytest.mark.parametrize(
    ("error", "tries"), [(WriteFailed("away"), 2), (WriteDelayed("wait", retry_after=1000.0), 1)]
)
async def test_slack_is_not_hammered_while_no_socket_can_be_opened(
    error: SurfaceError, tries: int
) -> None:
    requests: list[None] = []

    async def request_url() -> str:
        requests.append(None)
        raise error

    sockets = make_sockets(request_url)
    async with running(sockets.run()):
        await until(lambda: len(requests) >= 2 * tries)
        await many_turns_of_the_loop()

        assert len(requests) == 2 * tries
    assert not sockets.is_connected


@pytest.mark.parametrize("reason", ["", "link_disabled", "too_many_websockets"])
async def test_a_socket_that_slack_refuses_is_not_asked_for_again_at_once(reason: str) -> None:
    frame: dict[str, object] | None = {"type": "disconnect", "reason": reason} if reason else None
    async with refusing_server(frame) as server:
        requests: list[None] = []

        async def request_url() -> str:
            requests.append(None)
            return server.url

        sockets = make_sockets(request_url)
        async with running(sockets.run()):
            await until(lambda: server.closed >= 4)
            await many_turns_of_the_loop()

            assert len(requests) == 4
        assert not sockets.is_connected


async def test_a_socket_that_has_lasted_is_replaced_at_once() -> None:
    limits = replace(LIMITS, reconnect=NEVER, stable_after=0.0)
    async with SlackEmulator() as slack, hearing(slack, FakeQueue(), limits=limits):
        for _ in range(3):
            before = opened(slack)
            await slack.disconnect()

            await until(partial(both_are_new, slack, before))


def both_are_new(slack: SlackEmulator, before: int) -> bool:
    return (slack.sockets, opened(slack)) == (2, before + 2)


async def test_an_app_with_ten_sockets_waits_for_one_to_be_closed() -> None:
    limits = replace(LIMITS, reconnect=Backoff(0.05, 0.05))
    async with SlackEmulator() as slack, AsyncExitStack() as stack:
        for _ in range(9):
            await stack.enter_async_context(socket(slack))
        async with hearing(slack, FakeQueue(), limits=limits, sockets=1):
            await until(lambda: opened(slack) >= 12)

            await stack.aclose()

            await until(lambda: slack.sockets == 2)


async def test_what_is_being_admitted_when_we_leave_is_acknowledged(store: Store) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack:
        async with hearing(slack, intake, store=store):
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


def has_heard(intake: FakeQueue, count: int) -> bool:
    return len(intake.turns) == count


async def test_a_frame_that_cannot_be_read_ends_nothing() -> None:
    async with heard() as (slack, intake, ann):
        await slack.send_frame("no JSON")
        await slack.send_frame('["no object"]')

        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await until(lambda: intake.turns)

        assert (slack.sockets, opened(slack)) == (2, 2)


# Deployments


async def test_deployments_overlap_and_hear_each_question_as_one_turn() -> None:
    old, new = FakeQueue(), FakeQueue()
    async with SlackEmulator() as slack:
        ann = slack.user("Ann")
        dm = slack.dm(ann)

        async def ask(*texts: str) -> None:
            for text in texts:
                await slack.say(dm, ann, text)
            await until(lambda: set(texts) <= {*old.texts, *new.texts})

        async with hearing(slack, new):
            async with hearing(slack, old):
                await ask("1", "2", "3", "4")
                # Four times, so that each process receives it again.
                for _ in range(4):
                    await slack.redeliver(slack.screen(dm)[0].ts)
                await ask("5", "6")
            await ask("7", "8")

        assert {turn.text for turn in old.turns} & {turn.text for turn in new.turns} == {"1"}
        assert len({turn.id for turn in (*old.turns, *new.turns)}) == 8
        assert {"7", "8"} <= set(new.texts)


# Helpers


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


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.name.startswith("adapters.slack")]


async def acknowledge(_: object) -> BoltResponse:
    """Acknowledge all bodies."""
    return BoltResponse(status=200)


def make_sockets(request_url: Callable[[], Awaitable[str]]) -> SocketMode:
    """A SocketMode that tries again at once after one failure, and then never."""
    limits = replace(LIMITS, reconnect=NEVER)
    return SocketMode(
        acknowledge, request_url=request_url, downtime=Downtime(), proxy=None, limits=limits
    )


async def many_turns_of_the_loop() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


@dataclass
class RefusingServer:
    url: str
    closed: int = 0


@asynccontextmanager
async def refusing_server(frame: dict[str, object] | None) -> AsyncIterator[RefusingServer]:
    """A server that closes each WebSocket after one frame, or after none."""
    server = RefusingServer("")

    async def close(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        if frame:
            await websocket.send_json(frame)
        await websocket.close()
        server.closed += 1
        return websocket

    app = web.Application()
    app.router.add_get("/", close)
    async with AsyncExitStack() as stack:
        server.url = await stack.enter_async_context(served(app)) + "/"
        yield server
