"""Fetches files from their platforms, and has them read."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack, aclosing

from bot.concurrency import Backoff
from bot.domain import FileRef, FileText, Picture
from bot.errors import MessageGone, SurfaceError, WriteDelayed, WriteFailed
from bot.files.kinds import Problem, picture_type
from bot.files.pictures import read_picture
from bot.files.reading import MB, read_file, too_large
from bot.ports import Platform
from bot.text.files import plain_name

log = logging.getLogger(__name__)

_AT_ONCE, _MB_AT_ONCE = 4, 32  # in the process
_MB_OF_PICTURES = 64  # in the process, until they are answered
_RETRY = Backoff(first=0.5, longest=5.0)


class FileFetcher:
    """Fetches and reads files of at most `most_mb`; few at once, so that memory suffices.

    A person waits `seconds` for a file, beside the time to read it.
    """

    def __init__(self, *, most_mb: int, seconds: float = 20.0) -> None:
        self._most_mb = most_mb
        self._seconds = seconds
        self._slots = asyncio.Semaphore(min(_AT_ONCE, max(_MB_AT_ONCE // max(most_mb, 1), 1)))
        self._held = 0  # bytes of pictures

    async def read(
        self, file: FileRef, platform: Platform, *, held: ExitStack
    ) -> FileText | Picture:
        """Return a picture, or what can be read of another file, or the problem with it.

        A picture has its room in the process until `held` is closed.
        """
        if file.size > self._most_mb * MB:
            return too_large(file.name, most_mb=self._most_mb)
        async with self._slots:
            try:
                async with asyncio.timeout(self._seconds):
                    data = await self._fetched(file, platform)
            except (SurfaceError, TimeoutError) as error:
                log.warning("File %s cannot be fetched: %s", file.id, error or "no end in time")
                problem = Problem.GONE if isinstance(error, MessageGone) else Problem.REFUSED
                if isinstance(error, WriteDelayed | WriteFailed | TimeoutError):
                    problem = Problem.UNREACHABLE
                return FileText(plain_name(file.name), problem=problem.value)
            if len(data) > self._most_mb * MB:
                return too_large(file.name, most_mb=self._most_mb)
            if picture_type(data):
                return self._hold(read_picture(file.name, data), held)
            return await read_file(file.name, data)

    def _hold(self, found: Picture | FileText, held: ExitStack) -> Picture | FileText:
        if isinstance(found, FileText):
            return found
        size = len(found.data)
        if self._held + size > _MB_OF_PICTURES * MB:
            return FileText(found.name, problem=Problem.MANY_PICTURES.value)
        self._held += size
        held.callback(self._release, size)
        return found

    def _release(self, size: int) -> None:
        self._held -= size

    async def _fetched(self, file: FileRef, platform: Platform) -> bytearray:
        """Return a file, or a little more of it than is allowed. Raises SurfaceError."""
        pauses = _RETRY.pauses()
        while True:
            data = bytearray()
            try:
                async with aclosing(platform.fetch_file(file)) as chunks:
                    async for chunk in chunks:
                        data += chunk
                        if len(data) > self._most_mb * MB:
                            break
            except (WriteDelayed, WriteFailed) as error:
                log.info("File %s is fetched again: %s", file.id, error)
                await asyncio.sleep(max(next(pauses), error.retry_after))
            else:
                return data
