"""Open pages without a browser: sockets that note when bytes came, and what they say of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp

from bench.source import Deltas
from tests.support.web_page import WRITES


@dataclass(slots=True, eq=False)
class RawPage(asyncio.Protocol):
    """One connection for events; `received` has times and bytes, which are read afterwards."""

    request: bytes = b""
    received: list[tuple[float, bytes]] = field(default_factory=list)
    transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received.append((time.monotonic(), data))

    def close(self) -> None:
        if self.transport:
            self.transport.abort()

    def has(self, words: bytes) -> bool:
        """Whether the last bytes have these words."""
        return any(words in data for _, data in self.received[-3:])

    def size(self) -> int:
        return sum(len(data) for _, data in self.received)

    def lines(self) -> Iterator[tuple[float, bytes]]:
        """Return each line that came, and when its end did."""
        rest = b""
        for at, data in self.received:
            *whole, rest = (rest + data).split(b"\n")
            yield from ((at, line) for line in whole)

    def lengths(self) -> Deltas:
        """Return when the answer's text was how long."""
        found = []
        for at, line in self.lines():
            if line.startswith(b'data: {"keep"'):
                news = json.loads(line.removeprefix(b"data: "))
                found.append((at, news["keep"] + len(news["add"])))
        return found


class Person:
    """Who opens pages at an address and asks there; each page is another conversation."""

    def __init__(self, session: aiohttp.ClientSession, address: str, cookie: str) -> None:
        self._session = session
        self._address = address
        self._cookie = {"Cookie": cookie}

    @classmethod
    async def come(cls, session: aiohttp.ClientSession, address: str) -> Person:
        async with session.get(f"{address}/api/me") as response:
            return cls(session, address, response.headers["Set-Cookie"].partition(";")[0])

    async def open(self, talk: str) -> RawPage:
        """Open a page and wait for its state."""
        place = urlsplit(self._address)
        # In HTTP/1.0 an answer comes as it is, not in chunks with a length each.
        head = f"GET /api/conversations/{talk}/events HTTP/1.0\r\nHost: {place.netloc}\r\n"
        page = RawPage(f"{head}Cookie: {self._cookie['Cookie']}\r\n\r\n".encode())
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: page, str(place.hostname), place.port or 80)
        while not page.has(b"event: state"):
            await asyncio.sleep(0.005)
        return page

    async def ask(self, talk: str, text: str) -> None:
        body, headers = {"id": str(uuid4()), "text": text}, {**WRITES, **self._cookie}
        url = f"{self._address}/api/conversations/{talk}/questions"
        async with self._session.post(url, json=body, headers=headers) as response:
            assert response.status == 202, await response.text()


def delays(said: Deltas, shown: Deltas) -> Iterator[float]:
    """Return how long after the model's each delta was on a page, in seconds."""
    coming = iter(shown)
    at, length = next(coming, (0.0, 0))
    for sent_at, end in said:
        while length < end:
            found = next(coming, None)
            if found is None:
                return
            at, length = found
        yield at - sent_at


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all is not above."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


async def bare(port: int, pages: int, *, seconds: float) -> list[float]:
    """Return the delays of lines on bare sockets, in seconds: what this machine itself takes."""
    loop = asyncio.get_running_loop()
    sockets = [RawPage() for _ in range(pages)]
    for one in sockets:
        await loop.create_connection(lambda page=one: page, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.sleep(seconds)
    for one in sockets:
        one.close()
    return [at - float(line) for one in sockets for at, line in one.lines()]
