"""Fetches files from their platforms, and has them read."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from bot.concurrency import Backoff
from bot.domain import FileRef, FileText
from bot.errors import MessageGone, SurfaceError, WriteDelayed, WriteFailed
from bot.files.kinds import Problem
from bot.files.reading import MB, read_file, too_large
from bot.ports import Platform
from bot.text.files import plain_name

log = logging.getLogger(__name__)

_AT_ONCE, _BYTES_AT_ONCE = 4, 32 * MB  # in the process
_RETRY = Backoff(first=0.5, longest=5.0)


class FileFetcher:
    """Fetches and reads files of at most `most_mb`; few at once, so that memory suffices."""

    def __init__(self, *, most_mb: int, seconds: float = 20.0) -> None:
        self._most_mb = most_mb
        # For which a person waits for a file, beside the time to read it.
        self._seconds = seconds
        self._free = asyncio.Condition()
        self._sizes: list[int] = []  # in bytes, of the files that are fetched and read now

    async def read(self, file: FileRef, platform: Platform) -> FileText:
        """Return what can be read of a file, or the problem with it."""
        most = self._most_mb * MB
        if file.size > most:
            return too_large(file.name, most_mb=self._most_mb)
        problem = Problem.UNREACHABLE
        async with self._room(file.size or most) as room:
            try:
                async with asyncio.timeout(self._seconds):
                    data = await _fetched(file, platform, most=room)
            except (SurfaceError, TimeoutError) as error:
                log.warning("File %s cannot be fetched: %s", file.id, error or "no end in time")
                if isinstance(error, MessageGone):
                    problem = Problem.GONE
                elif not isinstance(error, WriteDelayed | WriteFailed | TimeoutError):
                    problem = Problem.REFUSED
                return FileText(plain_name(file.name), problem=problem.value)
            if len(data) > room:
                return too_large(file.name, most_mb=self._most_mb)
            return await read_file(file.name, data)

    @asynccontextmanager
    async def _room(self, size: int) -> AsyncIterator[int]:
        """Wait until a file of this size may be in memory, beside the others."""

        def is_free() -> bool:
            is_small = sum(self._sizes) + size <= _BYTES_AT_ONCE
            return not self._sizes or (len(self._sizes) < _AT_ONCE and is_small)

        async with self._free:
            await self._free.wait_for(is_free)
            self._sizes.append(size)
        try:
            yield size
        finally:
            self._sizes.remove(size)
            async with self._free:
                self._free.notify_all()


async def _fetched(file: FileRef, platform: Platform, *, most: int) -> bytearray:
    """Return a file, or little more than `most` bytes of it. Raises SurfaceError."""
    pauses = _RETRY.pauses()
    while True:
        data = bytearray()
        try:
            async with aclosing(platform.fetch_file(file)) as chunks:
                async for chunk in chunks:
                    data += chunk
                    if len(data) > most:
                        break
        except (WriteDelayed, WriteFailed) as error:
            log.info("File %s is fetched again: %s", file.id, error)
            await asyncio.sleep(max(next(pauses), error.retry_after))
        else:
            return data
