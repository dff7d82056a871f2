"""The emulated gateway keeps Discord's rules, over bare sockets and through the real discord.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.emulators.discord import DiscordEmulator, GatewayRules
from tests.support.discord_http import WAIT, http_of
from tests.support.waiting import until

HEARTBEAT, IDENTIFY, RESUME, INVALID, HELLO, ACK = 1, 2, 6, 9, 10, 11
GUILDS, GUILD_MESSAGES, DIRECT_MESSAGES = 1 << 0, 1 << 9, 1 << 12
READABLE = GUILDS | GUILD_MESSAGES | DIRECT_MESSAGES | 1 << 15
TWO = GatewayRules(shards=2, max_concurrency=2)


@dataclass
class Line:
    """A bare, uncompressed connection to the gateway, greeted already."""

    emulator: DiscordEmulator
    socket: aiohttp.ClientWebSocketResponse
    hello: dict[str, Any]

    async def send(self, op: int, data: object = None) -> None:
        await self.socket.send_json({"op": op, "d": data})

    async def hear(self) -> dict[str, Any]:
        frame = await self.socket.receive_json()
        assert isinstance(frame, dict)
        return frame

    async def names(self, count: int) -> list[str]:
        """Return the names of the next events."""
        return [str((await self.hear())["t"]) for _ in range(count)]

    async def texts(self, count: int) -> list[str]:
        """Return what the next events, all of messages, say."""
        return [str((await self.hear())["d"]["content"]) for _ in range(count)]

    async def identify(self, **other: object) -> None:
        await self.send(IDENTIFY, identity(self.emulator, **other))

    async def begin(self, **other: object) -> dict[str, Any]:
        """Return READY of a new session; with a guild GUILD_CREATE is heard as well."""
        await self.identify(**other)
        ready = await self.hear()
        assert ready["t"] == "READY"
        if ready["d"]["guilds"] and int(str(other.get("intents", READABLE))) & GUILDS:
            assert await self.names(1) == ["GUILD_CREATE"]
        told: dict[str, Any] = ready["d"]
        return told

    async def resume(self, ready: dict[str, Any], seq: object, **other: object) -> None:
        data = {"token": self.emulator.token, "session_id": ready["session_id"], "seq": seq}
        await self.send(RESUME, data | other)

    async def closed(self) -> int | None:
        """Return the code that the emulator closes with, whatever it says before."""
        async for _ in self.socket:
            pass
        return self.socket.close_code


@contextlib.asynccontextmanager
async def line_of(
    emulator: DiscordEmulator, *, url: str | None = None, query: str = "v=10&encoding=json"
) -> AsyncIterator[Line]:
    timeout = aiohttp.ClientWSTimeout(ws_receive=WAIT, ws_close=WAIT)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url or emulator.gateway_url}?{query}", timeout=timeout) as socket,
    ):
        hello = await socket.receive_json()
        assert hello["op"] == HELLO
        yield Line(emulator, socket, hello)


def identity(emulator: DiscordEmulator, **other: object) -> dict[str, object]:
    properties = {"os": "linux", "browser": "bare", "device": "bare"}
    data = {"token": emulator.token, "intents": READABLE, "properties": properties}
    return {key: value for key, value in (data | other).items() if value is not None}


def frame(op: int, data: object = None) -> dict[str, object]:
    return {"op": op, "t": None, "s": None, "d": data}


def shard_of(emulator: DiscordEmulator, count: int) -> int:
    return (int(emulator.guild_id) >> 22) % count


@pytest.mark.parametrize(
    "told",
    [
        "nonsense",
        '"nonsense"',
        '{"d": null}',
        json.dumps({"op": HEARTBEAT, "d": None}).encode(),
        json.dumps({"op": HEARTBEAT, "d": None, "padding": "x" * 4096}),
    ],
)
async def test_what_cannot_be_decoded_is_refused_with_4002(told: str | bytes) -> None:
    async with DiscordEmulator() as emulator, line_of(emulator) as line:
        sent = line.socket.send_bytes(told) if isinstance(told, bytes) else None
        await (sent or line.socket.send_str(str(told)))

        assert await line.closed() == 4002


@pytest.mark.parametrize("query", ["v=9", "v=10&encoding=etf", "v=10&compress=zstd-stream"])
async def test_what_the_gateway_does_not_speak_is_named(query: str) -> None:
    async with DiscordEmulator() as emulator:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with line_of(emulator, query=query):
                pass

        assert emulator.unknown == [f"gateway {query.rpartition('&')[2]}"]
        emulator.unknown.clear()


@pytest.mark.parametrize(
    ("op", "data", "problem"),
    [
        (99, None, "gateway op 99 is not emulated"),
        (HEARTBEAT, {}, "is not of type"),
        (IDENTIFY, {"properties": {"os": "linux", "browser": "bare"}}, "'device' is a required"),
        (IDENTIFY, {"intents": None}, "'intents' is a required property"),
        (RESUME, {"token": "any"}, "'session_id' is a required property"),
    ],
)
async def test_a_wrong_payload_is_refused_with_4001_and_named(
    op: int, data: dict[str, object], problem: str
) -> None:
    async with DiscordEmulator() as emulator, line_of(emulator) as line:
        await line.send(op, identity(emulator, **data) if op == IDENTIFY else data)

        assert await line.closed() == 4001
        assert problem in emulator.violations.pop()


@pytest.mark.parametrize("op", [IDENTIFY, RESUME])
async def test_a_connection_has_one_session_or_ends_with_4005(op: int) -> None:
    async with DiscordEmulator() as emulator, line_of(emulator) as line:
        ready = await line.begin()
        await (line.identify() if op == IDENTIFY else line.resume(ready, 2))

        assert await line.closed() == 4005
        assert [one.ended for one in emulator.listeners] == [True]


async def test_sessions_of_one_shard_or_one_more_shard_start_five_seconds_apart() -> None:
    async with DiscordEmulator(gateway=TWO) as emulator, contextlib.AsyncExitStack() as stack:
        first, other, late = [await stack.enter_async_context(line_of(emulator)) for _ in range(3)]
        await first.begin(shard=[0, 4])
        await late.identify(shard=[0, 4])
        refused = [await late.hear()]
        await other.begin(shard=[1, 4])
        emulator.clock.advance(3)
        await late.identify(shard=[2, 4])
        refused.append(await late.hear())
        emulator.clock.advance(2)
        ready = await late.begin(shard=[2, 4])

    assert refused == [frame(INVALID, False)] * 2
    assert ready["session_id"]
    assert emulator.sessions == 5


async def test_a_guild_is_heard_by_its_shard_and_dms_by_the_first() -> None:
    async with DiscordEmulator(gateway=TWO) as emulator, http_of(emulator) as http:
        ann, mine = emulator.user("ann"), shard_of(emulator, 2)
        path = f"applications/{emulator.application_id}/commands"
        await http.put(path, json=[{"name": "ask", "description": "Ask"}])
        async with line_of(emulator) as first, line_of(emulator) as second:
            begun = await first.begin(shard=[0, 2]), await second.begin(shard=[1, 2])
            await emulator.say(emulator.channel_id, ann, "guild")
            await emulator.slash(emulator.channel_id, ann, "ask")
            await emulator.say(emulator.dm(ann), ann, "dm")
            await emulator.slash(emulator.dm(ann), ann, "ask")
            guilds = [len(ready["guilds"]) for ready in begun]
            lines = [first, second]
            told = [await lines[mine].hear() for _ in range(2)]
            told += [await first.hear() for _ in range(2)]

    assert [ready["shard"] for ready in begun] == [[0, 2], [1, 2]]
    assert (guilds[mine], guilds[1 - mine]) == (1, 0)
    assert [one["t"] for one in told] == ["MESSAGE_CREATE", "INTERACTION_CREATE"] * 2
    assert [one["d"].get("guild_id") for one in told] == [emulator.guild_id] * 2 + [None] * 2


@pytest.mark.parametrize(
    ("intents", "heard"),
    [
        (0, []),
        (GUILDS, ["CHANNEL_CREATE", "THREAD_CREATE", "THREAD_UPDATE"]),
        (GUILD_MESSAGES, ["MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_UPDATE", "MESSAGE_DELETE"]),
        (DIRECT_MESSAGES, ["MESSAGE_CREATE", "MESSAGE_UPDATE", "MESSAGE_DELETE"]),
    ],
)
async def test_only_what_a_bot_asked_for_comes(intents: int, heard: list[str]) -> None:
    async with DiscordEmulator() as emulator, line_of(emulator) as line:
        await line.begin(intents=intents)
        ann, channel = emulator.user("ann"), emulator.channel("other")
        said = await emulator.say(channel, ann, "why")
        thread = await emulator.open_thread(said, ann, "Why")
        await emulator.archive(thread)
        private = await emulator.say(emulator.dm(ann), ann, "dm")
        for one in (said, private):
            await emulator.edit(one, "other")
            await emulator.delete(one)
        await emulator.tell("THE_END", {})
        told: list[str] = []
        while "THE_END" not in told:
            told += await line.names(1)

    kinds = {"CHANNEL_CREATE", "MESSAGE_CREATE", "MESSAGE_UPDATE"}
    kinds |= {"MESSAGE_DELETE", "THREAD_CREATE", "THREAD_UPDATE", "GUILD_CREATE"}
    assert [name for name in told if name in kinds] == heard


async def test_a_resumed_session_receives_what_it_missed_in_order() -> None:
    async with DiscordEmulator() as emulator:
        ann = emulator.user("ann")
        async with line_of(emulator) as line:
            ready = await line.begin()
            await emulator.say(emulator.channel_id, ann, "heard")
            last = (await line.hear())["s"]
            await emulator.cut()
            await line.closed()
        for text in ("one", "two"):
            await emulator.say(emulator.channel_id, ann, text)
        async with line_of(emulator, url=ready["resume_gateway_url"]) as line:
            await line.resume(ready, last)
            texts, resumed = await line.texts(2), await line.hear()
            await emulator.say(emulator.channel_id, ann, "three")

            assert (texts, resumed["t"]) == (["one", "two"], "RESUMED")
            assert await line.texts(1) == ["three"]
    assert (emulator.sessions, emulator.resumes) == (1, 1)
    assert [one.resumes for one in emulator.listeners] == [1]


@pytest.mark.parametrize(
    ("session_id", "token"), [("unknown", None), (None, None), ("its own", "wrong")]
)
async def test_an_unknown_session_cannot_resume(session_id: str | None, token: str | None) -> None:
    async with DiscordEmulator() as emulator:
        async with line_of(emulator) as line:
            ready = await line.begin()
            await emulator.disconnect()
        async with line_of(emulator) as line:
            known = ready if session_id == "its own" else {"session_id": session_id}
            await line.resume(known, 1, token=token or emulator.token)

            assert await line.hear() == frame(INVALID, False)
            assert emulator.resumes == 0


@pytest.mark.parametrize(("code", "goes_on"), [(1000, False), (1001, False), (4000, True)])
async def test_a_bot_ends_its_session_by_closing_with_1000_or_1001(
    code: int, *, goes_on: bool
) -> None:
    async with DiscordEmulator() as emulator:
        async with line_of(emulator) as line:
            ready = await line.begin()
            await line.socket.close(code=code)
            await until(lambda: not emulator.connected.is_set())
        async with line_of(emulator) as line:
            await line.resume(ready, 2)
            answer = await line.hear()

    assert (answer["t"] == "RESUMED", answer["op"] == INVALID) == (goes_on, not goes_on)


async def test_a_session_can_be_resumed_only_for_some_time() -> None:
    rules = GatewayRules(resume_seconds=30)
    async with DiscordEmulator(gateway=rules) as emulator:
        async with line_of(emulator) as line:
            ready = await line.begin()
            await emulator.disconnect()
        emulator.clock.advance(29)
        async with line_of(emulator) as line:
            await line.resume(ready, 2)
            in_time = await line.hear()
            await emulator.disconnect()
        emulator.clock.advance(31)
        async with line_of(emulator) as line:
            await line.resume(ready, 3)
            late = await line.hear()

    assert in_time["t"] == "RESUMED"
    assert late == frame(INVALID, False)


@pytest.mark.parametrize(
    ("codes", "ended"), [((4000, 4002, 4008, 4009), False), ((4001, 4004, 4005, 4007), True)]
)
async def test_the_code_says_whether_a_session_goes_on(
    codes: Iterable[int], *, ended: bool
) -> None:
    for code in codes:
        async with DiscordEmulator() as emulator, line_of(emulator) as line:
            await line.begin()
            await emulator.disconnect(code)

            assert await line.closed() == code
            assert [one.ended for one in emulator.listeners] == [ended]


async def test_a_bot_is_asked_for_a_late_heartbeat_unless_it_had_the_time() -> None:
    async with (
        DiscordEmulator() as emulator,
        line_of(emulator) as silent,
        line_of(emulator) as line,
    ):
        emulator.clock.advance(41.25 + 5)
        assert await silent.hear() == await line.hear() == frame(HEARTBEAT)
        await line.send(HEARTBEAT)
        assert await line.hear() == frame(ACK)
        assert await silent.closed() == 4009
        await line.begin()

    rules = GatewayRules(heartbeat_interval=0.01)
    async with DiscordEmulator(gateway=rules) as emulator, line_of(emulator) as line:
        await asyncio.sleep(0.02)
        emulator.clock.advance(5)
        message = await line.socket.receive()

    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4009)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"token": "wrong"}, 4004),
        *(({"shard": one}, 4010) for one in ([1, 1], [2, 2], [-1, 2], [0], [0, 0], ["0", "1"])),
        ({"shard": "01"}, 4010),
        ({"shard": {}}, 4010),
        *(({"intents": 1 << bit}, 4014) for bit in (1, 8, 15)),
    ],
)
async def test_an_identify_that_asks_for_too_much_is_refused(
    change: dict[str, object], code: int
) -> None:
    async with DiscordEmulator(message_content=False) as emulator, line_of(emulator) as line:
        await line.identify(**change)

        assert await line.closed() == code
        assert emulator.listeners == []


@pytest.mark.parametrize("seq", [0, 3, 99, None])
async def test_a_resume_gets_the_last_events_or_is_refused_with_4007(seq: object) -> None:
    async with DiscordEmulator(gateway=GatewayRules(replayed=2)) as emulator:
        async with line_of(emulator) as line:
            ready = await line.begin()
            await emulator.disconnect()
        for text in ("one", "two", "three", "four"):
            await emulator.say(emulator.channel_id, emulator.user("ann"), text)
        for _ in range(2):
            async with line_of(emulator) as line:
                await line.resume(ready, 4)
                assert await line.texts(2) == ["three", "four"]
                assert await line.names(1) == ["RESUMED"]
                await emulator.disconnect()
        async with line_of(emulator) as line:
            await line.resume(ready, seq)
            code = await line.closed()
        async with line_of(emulator) as line:
            await line.resume(ready, 4)
            answer = await line.hear()

    assert code == 4007
    assert answer == frame(INVALID, False)
