"""Reads the server-sent events of one answer.

huggingface_hub's own reader breaks on U+2028 and U+0085 within a delta and on `data:[DONE]` without
a space, and its objects cost 55 microseconds an event, JSON alone 3 (huggingface_hub 2.4, run).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import aiohttp

from bot.errors import ModelError
from bot.model.server import ModelServer

_BYTE_ORDER_MARK, _DATA, _DONE = "\ufeff".encode(), b"data:", b"[DONE]"
_TAIL_SECONDS = 0.25  # how long a complete answer waits for the end of its body
_TAIL_EVENTS = 100  # the most events that are read meanwhile
_TAIL_EVENT_BYTES = 4096  # the most of each; token counts have some 300
# The most that is read at once, about ten tokens of a server that is read as fast as it sends.
_CHUNK_BYTES = 4096
# Of an event that is not complete yet; each answer may hold as much. A whole answer in one event,
# with each character escaped, may have 40,000 characters.
_LINE_BYTES = 262_144
# An event has some 300 bytes per token, and 1,000 from verbose servers: this is enough for an
# answer with 60,000 tokens of thoughts.
STREAM_BYTES = 64_000_000


class EventStream:
    """The events of one answer; closing it hangs up.

    Streams that share `bulk_turn` read large amounts one after another.
    """

    def __init__(
        self,
        server: ModelServer,
        response: aiohttp.ClientResponse,
        *,
        bulk_turn: asyncio.Lock,
        max_bytes: int,
    ) -> None:
        self.ended = False  # the body has ended, or the server has sent [DONE]
        self.done = False  # the server has sent [DONE]
        self._server = server
        self._response = response
        self._bulk_turn = bulk_turn
        self._partial_line = bytearray()
        self._max_bytes = self._bytes_left = max_bytes
        self._has_begun = False  # a line has come

    async def read_events(self) -> list[bytes]:
        """Wait for more of the answer; return the data of the events that are complete."""
        chunk = await self._read_chunk()
        self.ended = not chunk
        self._bytes_left -= len(chunk)
        if len(self._partial_line) + len(chunk) >= _CHUNK_BYTES:
            # Otherwise many streams would be parsed in one turn of the event loop; and a time-out
            # would never strike while the next chunk is always there.
            async with self._bulk_turn:
                await asyncio.sleep(0)
        # The last line of a body needs no line end.
        first, *others = (chunk or b"\n").split(b"\n")
        self._partial_line += first
        if len(self._partial_line) > _LINE_BYTES:
            raise self._server.failure("garbage", "sent a line without an end")
        if self._bytes_left < 0:
            raise self._server.failure(
                "garbage", f"sent {self._max_bytes // 1_000_000} MB for one answer"
            )
        if not others:
            return []
        lines = [bytes(self._partial_line), *others[:-1]]
        self._partial_line[:] = others[-1]
        if not self._has_begun:
            # A byte order mark may begin a stream (HTML standard, 9.2.5).
            self._has_begun, lines[0] = True, lines[0].removeprefix(_BYTE_ORDER_MARK)
        events = [line[len(_DATA) :].strip() for line in lines if line.startswith(_DATA)]
        if _DONE in events:
            self.ended = self.done = True
            return events[: events.index(_DONE)]
        return events

    async def read_tail(self) -> list[bytes]:
        """Read to the end of a complete answer, so that its connection can be used again.

        Returns the data of the complete events, except large ones; the token counts are among them.
        """
        events: list[bytes] = []
        with suppress(TimeoutError, ModelError):
            async with asyncio.timeout(_TAIL_SECONDS):
                while not self.ended and len(events) < _TAIL_EVENTS:
                    # The caller parses them all in one turn of the event loop.
                    found = await self.read_events()
                    events += [each for each in found if len(each) <= _TAIL_EVENT_BYTES]
                while await self._read_chunk():
                    pass
        return events

    def close(self) -> None:
        """Hang up; a connection whose body was read to its end goes back to the pool."""
        self._response.close()

    async def _read_chunk(self) -> bytes:
        """Return the next bytes of the body; b"" at its end."""
        try:
            # Decompressed bytes come without waiting, so that time-outs would never strike.
            if "Content-Encoding" in self._response.headers:
                await asyncio.sleep(0)
            return await self._response.content.read(_CHUNK_BYTES)
        except (aiohttp.ClientError, OSError) as error:
            raise self._server.failure("cut", "cut the answer off") from error
