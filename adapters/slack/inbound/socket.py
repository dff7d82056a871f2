"""One connection of Socket Mode."""

from __future__ import annotations

import asyncio
import json
import logging
import time

import aiohttp
from slack_bolt.adapter.socket_mode.async_internals import run_async_bolt_app, send_async_response
from slack_bolt.async_app import AsyncApp
from slack_bolt.response import BoltResponse
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest

from adapters.slack.inbound.app import UNREADABLE
from bot.concurrency import cancelled
from bot.errors import WriteDelayed, WriteFailed

log = logging.getLogger(__name__)

# Slack closes a connection about ten seconds after its warning (docs: Using Socket Mode,
# "Disconnecting").
_LINGER = 15.0  # seconds
_LAST = 3.0  # seconds in which events that are being handled may still be taken
_CROWDED = 30.0  # seconds until another process may have left


class Socket(AsyncBaseSocketModeClient):
    """Hands to the app what Slack tells on one connection, and acknowledges what was taken.

    `leaving` is set as soon as Slack wants the connection replaced, or it is lost; until Slack
    closes it, it is heard all the same. The client of slack-sdk 3.47 closes it before it has
    another.
    """

    def __init__(self, app: AsyncApp, connection: aiohttp.ClientWebSocketResponse) -> None:
        # Bolt 1.30 tells there of each event that is refused; `listeners` has told why.
        self.logger = log.getChild("bolt")
        self.logger.setLevel(logging.WARNING)
        self.leaving = asyncio.Event()
        self._app = app
        self._connection = connection
        self._over = asyncio.timeout(None)
        self._handling: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Hear until the connection has been closed, by either side."""
        try:
            async with self._over:
                async for message in self._connection:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        self._hear(_frame(message))
        except TimeoutError:
            log.debug("Slack did not close a socket that it wanted replaced")
        finally:
            self.leaving.set()
            try:
                if self._handling:
                    await asyncio.wait(self._handling, timeout=_LAST)
            finally:
                await cancelled(*self._handling)
                await self._connection.close()

    async def send_message(self, message: str) -> None:
        """Send what bolt answers; ConnectionError when the connection is closed."""
        await self._connection.send_str(message)

    def _hear(self, frame: dict[str, object]) -> None:
        if frame.get("type") == "disconnect":
            log.debug("Slack wants a socket replaced: %s", frame.get("reason"))
            self.leaving.set()
            self._over.reschedule(asyncio.get_running_loop().time() + _LINGER)
            return
        task = asyncio.create_task(self._handle(frame))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)

    async def _handle(self, frame: dict[str, object]) -> None:
        try:
            if request := SocketModeRequest.from_dict(frame):
                answer = await self._answer(request)
                await send_async_response(self, request, answer, time.time())
        except (TypeError, ValueError) as error:
            # slack-sdk 3.47: a payload that is no object.
            log.warning("Slack sent a frame that cannot be read: %s", error)
        except ConnectionError:
            log.info("a socket closed before Slack heard that an event was taken: it comes again")
        except Exception:
            log.exception("what Slack told could not be handled")

    async def _answer(self, request: SocketModeRequest) -> BoltResponse:
        try:
            answer: BoltResponse = await run_async_bolt_app(self._app, request)
        except UNREADABLE as error:
            # Acknowledged, for it would read no better if Slack sent it again.
            log.warning("Slack sent a body that cannot be read: %s", type(error).__name__)
            return BoltResponse(status=200)
        return answer


async def greeted(connection: aiohttp.ClientWebSocketResponse) -> None:
    """Return when Slack takes the connection; WriteDelayed when the app has too many."""
    frame = _frame(await connection.receive())
    if frame.get("type") == "hello":
        return
    reason = frame.get("reason")
    if reason == "too_many_websockets":
        # docs: Using Socket Mode, "Using multiple connections".
        raise WriteDelayed("the app has ten sockets open already", retry_after=_CROWDED)
    raise WriteFailed(f"Slack did not take the socket: {reason or 'it was closed'}")


def _frame(message: aiohttp.WSMessage) -> dict[str, object]:
    try:
        frame = json.loads(message.data)
    except TypeError:  # no text: the connection was closed
        return {}
    except (RecursionError, ValueError) as error:
        log.warning("Slack sent a frame that cannot be read: %s", type(error).__name__)
        return {}
    return frame if isinstance(frame, dict) else {}
