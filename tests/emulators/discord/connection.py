"""One connection of a bot to the gateway: frames in order, heartbeats, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Coroutine

from aiohttp import WSMsgType, web

from tests.emulators.clock import Clock
from tests.emulators.discord.frames import HEARTBEAT, TIMED_OUT
from tests.emulators.discord.objects import Payload
from tests.emulators.discord.sessions import Session

INVALID_SESSION, HELLO, ACK = 9, 10, 11

# How late a heartbeat may be: the docs promise some tolerance and give no number.
_GRACE = 5.0  # seconds
# For a heartbeat that was not due yet when a test put the clock forward.
_ANSWER = 0.5  # real seconds
_ROUND_TRIP = 0.05  # real seconds
_FAREWELL = 1.0  # real seconds for the last frames, and again for the bot's answer


class Connection:
    """A socket with the session that it carries, if any; it is told HELLO, and the rest in order.

    `interval` is of heartbeats, in seconds. `left_with` is the code that the bot closed with.
    """

    def __init__(self, request: web.Request, *, clock: Clock, interval: float) -> None:
        self.session: Session | None = None
        self.left_with: int | None = None
        self._request = request
        self._zipped = "compress" in request.query
        self._clock = clock
        self._interval = interval
        self._ws = web.WebSocketResponse(timeout=_FAREWELL, compress=False)
        self._outgoing: asyncio.Queue[Payload | None] = asyncio.Queue()
        self._beaten_at = clock.now(), time.monotonic()
        self._beat = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._code: int | None = None
        self._end = asyncio.Event()
        self.say(HELLO, {"heartbeat_interval": round(interval * 1000)})

    async def serve(
        self, receive: Callable[[str | bytes], None], leave: Callable[[], None]
    ) -> web.WebSocketResponse:
        """Hand over the bot's frames; `leave` is called as soon as either side has enough."""
        await self._ws.prepare(self._request)
        writer = self._start(self._write())
        self._start(self._read(receive))
        self._start(self._watch())
        try:
            await self._end.wait()
            leave()
            await asyncio.wait([writer], timeout=_FAREWELL)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.result()
        if self._code:
            # Nobody reads any more, so this waits for the bot's answer: one that finds the TCP
            # connection closed would not look at the code.
            await self._ws.close(code=self._code)
        return self._ws

    def say(self, op: int, data: object = None) -> None:
        """Send what is no event."""
        self.send({"op": op, "t": None, "s": None, "d": data})

    def send(self, frame: Payload) -> None:
        """Send a frame behind those that were sent before."""
        self._outgoing.put_nowait(frame)

    def beat(self) -> None:
        """Take note of a heartbeat, and acknowledge it a moment later."""
        self._beaten_at = self._clock.now(), time.monotonic()
        self._beat.set()
        self._start(self._acknowledge())

    def hang_up(self, code: int) -> None:
        """Close with this code; what still comes is not heard."""
        self._code = self._code or code
        self._finish()

    def cut(self) -> None:
        """Reset the TCP connection: no code, and no word to the bot."""
        transport = self._request.transport
        if transport:
            at_once = struct.pack("ii", 1, 0)
            line = transport.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            transport.abort()

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        self._tasks.append(asyncio.create_task(work))
        return self._tasks[-1]

    def _finish(self) -> None:
        self._end.set()
        self._outgoing.put_nowait(None)

    async def _read(self, receive: Callable[[str | bytes], None]) -> None:
        try:
            while True:
                message = await self._ws.receive()
                if self._end.is_set():
                    return
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    # Only who closes properly gives a code; a lost connection has another type.
                    closed = message.type == WSMsgType.CLOSE
                    self.left_with = message.data if closed else None
                    return
                receive(message.data)
        finally:
            self._finish()

    async def _write(self) -> None:
        pack = zlib.compressobj()
        with contextlib.suppress(ConnectionError):
            while frame := await self._outgoing.get():
                text = json.dumps(frame)
                if not self._zipped:
                    await self._ws.send_str(text)
                    continue
                data = pack.compress(text.encode()) + pack.flush(zlib.Z_SYNC_FLUSH)
                await self._ws.send_bytes(data)

    async def _watch(self) -> None:
        """Hang up when heartbeats stay away."""
        while True:
            at, really_at = self._beaten_at
            left = at + self._interval + _GRACE - self._clock.now()
            if left > 0:
                await self._clock.sleep(left)
            elif time.monotonic() - really_at > self._interval or not await self._answers():
                # The docs' table has no resume after this code, their "Sending Heartbeats" demands
                # it; the latter is believed here.
                self.hang_up(TIMED_OUT)
                return

    async def _answers(self) -> bool:
        """Return whether the bot heartbeats when it is asked to.

        A bot goes by real time: it is not to blame when a test puts the clock forward.
        """
        self._beat.clear()
        self.say(HEARTBEAT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER):
                await self._beat.wait()
        return self._beat.is_set()

    async def _acknowledge(self) -> None:
        # As over a network: discord.py notes when it has sent a heartbeat only after the sending,
        # and warns that it cannot keep up if the acknowledgement is there first.
        await asyncio.sleep(_ROUND_TRIP)
        self.say(ACK)
