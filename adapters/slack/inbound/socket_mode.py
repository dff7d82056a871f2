"""Socket Mode: at least one of two connections to Slack is open at each moment.

The client of slack-sdk 3.47, which bolt wraps, cannot promise that. It closes a connection before
it opens the next one, retries an address that was used already forever (each is good for one
connection), asks for new addresses without a pause while the app has too many connections, does not
report a refused token, and does not wait for events in progress when it closes.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from adapters.slack.errors import translated
from adapters.slack.inbound.app import Dispatch, parse_object
from adapters.slack.limits import Limits
from bot.concurrency import BackgroundTasks, together
from bot.errors import SurfaceError, WriteDelayed
from bot.ports import Downtime

log = logging.getLogger(__name__)

# An app may have ten (docs: Using Socket Mode, "Using multiple connections"). A replaced connection
# counts until Slack closes it.
_CONNECTIONS = 2

Frame = dict[str, Any]


class SocketMode:
    """Keeps two connections, and replaces each before Slack closes it.

    `request_url` asks Slack for the address of one more connection; it raises SurfaceError.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        *,
        request_url: Callable[[], Awaitable[str]],
        downtime: Downtime,
        proxy: str | None,
        limits: Limits,
    ) -> None:
        self._dispatch = dispatch
        self._request_url = request_url
        self._downtime = downtime
        self._proxy = proxy
        self._limits = limits
        self._open: set[aiohttp.ClientWebSocketResponse] = set()

    @property
    def is_connected(self) -> bool:
        """Whether Slack has a connection on which it can send events."""
        return bool(self._open)

    async def run(self) -> None:
        """Receive events until cancelled, through all failures of the connections."""
        # By default a session ends what lasts for five minutes.
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as session,
            BackgroundTasks() as serving,
        ):
            lanes = (self._stay_connected(session, serving) for _ in range(_CONNECTIONS))
            await together(*map(asyncio.create_task, lanes))

    async def _stay_connected(
        self, session: aiohttp.ClientSession, serving: BackgroundTasks
    ) -> None:
        loop, limits = asyncio.get_running_loop(), self._limits
        short_lived = 0  # connections in a row that failed or did not last
        while True:
            await asyncio.sleep(limits.reconnect.delay(short_lived - 1) if short_lived > 1 else 0)
            began = loop.time()
            try:
                connection = await self._connect(session)
            except SurfaceError as error:
                level = logging.INFO if self.is_connected else logging.WARNING
                log.log(level, "Cannot open a Socket Mode connection, will retry: %s", error)
                await asyncio.sleep(error.retry_after if isinstance(error, WriteDelayed) else 0)
            else:
                ending = asyncio.Event()
                serving.start(self._serve(connection, ending))
                await ending.wait()
            short_lived = 0 if loop.time() - began > limits.stable_after else short_lived + 1

    async def _connect(self, session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
        async with translated():
            return await session.ws_connect(
                await self._request_url(),
                heartbeat=self._limits.ping_interval,
                proxy=self._proxy,
                timeout=aiohttp.ClientWSTimeout(ws_close=self._limits.close_timeout),
            )

    async def _serve(
        self, connection: aiohttp.ClientWebSocketResponse, ending: asyncio.Event
    ) -> None:
        """Receive until either side closes the connection.

        Sets `ending` as soon as Slack wants the connection replaced; Slack may still send events
        on it until it closes it.
        """
        try:
            async with BackgroundTasks(grace_seconds=self._limits.job_grace) as events:
                try:
                    async for message in connection:
                        frame = _parse(message)
                        if frame.get("type") == "hello":
                            self._open.add(connection)
                            self._downtime.note(is_open=True)
                        elif frame.get("type") == "disconnect":
                            level = logging.DEBUG if connection in self._open else logging.WARNING
                            log.log(level, "Slack ends a connection: %s", frame.get("reason"))
                            ending.set()
                        elif "envelope_id" in frame:
                            events.start(self._handle(connection, frame))
                finally:
                    ending.set()
                    self._open.discard(connection)
                    self._downtime.note(is_open=self.is_connected)
        finally:
            await connection.close()

    async def _handle(self, connection: aiohttp.ClientWebSocketResponse, frame: Frame) -> None:
        try:
            response = await self._dispatch(frame["payload"])
            answer = {"envelope_id": frame["envelope_id"]}
            if response.body:
                answer["payload"] = json.loads(response.body)
            if response.status == 200:
                await connection.send_json(answer)
        except ConnectionError:
            log.info("A connection closed before an event was acknowledged; Slack will retry it")
        except Exception:
            log.exception("Cannot handle the event of envelope %.80r", frame["envelope_id"])


def _parse(message: aiohttp.WSMessage) -> Frame:
    return parse_object(message.data) if message.type is aiohttp.WSMsgType.TEXT else {}
