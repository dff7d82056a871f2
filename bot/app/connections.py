"""The open connections of a server: a bounded number, each for a bounded time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

log = logging.getLogger(__name__)

# Bytes at once: aiohttp 3.14 quotes, in its refusal and four times over, all that it was given with
# what is no HTTP.
_PIECE = 4096
_WASTE = bytearray(256 * 1024)  # for what is thrown away, of all connections
_TOLD_SECONDS = 60.0  # between two lines that tell of too many


class Connections:
    """A protocol factory for `loop.create_server`, around a factory of the protocols that talk.

    A connection ends after `seconds`, whatever it does. If there are more than `most`, the oldest
    one ends at once: a request that arrives whole is answered, however many connections dawdle.
    What comes on one beyond `most_bytes` is thrown away.
    """

    def __init__(
        self,
        protocols: Callable[[], asyncio.Protocol],
        *,
        most: int,
        seconds: float,
        most_bytes: int,
    ) -> None:
        self._protocols = protocols
        self._most = most
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._ends: dict[asyncio.Transport, asyncio.TimerHandle] = {}  # the oldest first
        self._tell_at = 0.0  # by the loop's clock

    def __call__(self) -> asyncio.BufferedProtocol:
        """Return the protocol of one more connection."""
        return _Counted(self, self._protocols(), most_bytes=self._most_bytes)

    def add(self, transport: asyncio.Transport) -> None:
        """Count a connection that has been made."""
        loop = asyncio.get_running_loop()
        if len(self._ends) >= self._most:
            self._tell(loop.time())
            oldest = next(iter(self._ends))
            self.remove(oldest)
            oldest.abort()
        self._ends[transport] = loop.call_later(self._seconds, transport.abort)

    def remove(self, transport: asyncio.Transport) -> None:
        """Forget a connection that has ended."""
        if end := self._ends.pop(transport, None):
            end.cancel()

    def _tell(self, now: float) -> None:
        if now >= self._tell_at:
            self._tell_at = now + _TOLD_SECONDS
            log.warning("HTTP has %d open connections: the oldest ones are closed", self._most)


class _Counted(asyncio.BufferedProtocol):
    """Passes on to the protocol that talks, up to so many bytes and as long as that one reads."""

    def __init__(
        self, connections: Connections, talks: asyncio.Protocol, *, most_bytes: int
    ) -> None:
        self._connections = connections
        self._talks = talks
        self._left = most_bytes
        self._piece = bytearray(_PIECE)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # What a server makes is a Transport; uvloop's has no such base.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self._transport)
        self._talks.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport:
            self._connections.remove(self._transport)
        self._talks.connection_lost(error)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._piece if self._left else _WASTE

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._piece[: min(nbytes, self._left)])
        self._left -= len(data)
        if not data:
            return
        try:
            self._talks.data_received(data)
        except IndexError:
            # yarl 1.25, at "http://a][@".
            if self._transport:
                self._transport.abort()

    def eof_received(self) -> bool | None:
        return self._talks.eof_received()

    def pause_writing(self) -> None:
        self._talks.pause_writing()

    def resume_writing(self) -> None:
        self._talks.resume_writing()
