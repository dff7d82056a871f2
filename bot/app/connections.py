"""Limits for the connections of a server: their number, their time and their bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

log = logging.getLogger(__name__)

# Bytes at once. If they are no HTTP, aiohttp 3.14 quotes all of them in its refusal, four times.
_CHUNK = 4096
_DISCARDED = bytearray(256 * 1024)  # shared by all connections
_WARN_SECONDS = 60.0  # between two warnings


class Connections:
    """A protocol factory for `loop.create_server` that wraps the protocols of another one.

    A connection ends after `seconds`. If there are more than `most`, the oldest one ends at once,
    so a complete request is answered however many slow connections there are. Bytes beyond
    `most_bytes` are discarded.
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
        self._warn_at = 0.0  # by the loop's clock

    def __call__(self) -> asyncio.BufferedProtocol:
        """Return the protocol of a new connection."""
        return _Limited(self, self._protocols(), most_bytes=self._most_bytes)

    def add(self, transport: asyncio.Transport) -> None:
        """Add a new connection."""
        loop = asyncio.get_running_loop()
        if len(self._ends) >= self._most:
            if loop.time() >= self._warn_at:
                self._warn_at = loop.time() + _WARN_SECONDS
                log.warning("HTTP has %d open connections: the oldest ones are closed", self._most)
            oldest = next(iter(self._ends))
            self.remove(oldest)
            oldest.abort()
        self._ends[transport] = loop.call_later(self._seconds, transport.abort)

    def remove(self, transport: asyncio.Transport) -> None:
        """Remove an ended connection."""
        if end := self._ends.pop(transport, None):
            end.cancel()


class _Limited(asyncio.BufferedProtocol):
    """Passes at most `most_bytes` on to another protocol."""

    def __init__(
        self, connections: Connections, protocol: asyncio.Protocol, *, most_bytes: int
    ) -> None:
        self._connections = connections
        self._protocol = protocol
        self._left = most_bytes
        self._chunk = bytearray(_CHUNK)
        self._transport: asyncio.Transport  # from `connection_made` on

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A server makes a Transport; uvloop's has another base class.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self._transport)
        self._protocol.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.remove(self._transport)
        self._protocol.connection_lost(error)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._chunk if self._left else _DISCARDED

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._chunk[: min(nbytes, self._left)])
        self._left -= len(data)
        if not data:
            return
        try:
            self._protocol.data_received(data)
        except IndexError:
            # yarl 1.25, at "http://a][@".
            self._transport.abort()

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
