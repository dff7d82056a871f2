"""Files that people send to the page and the terminal, in the store until they have been read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bot.domain import FileRef, ThreadKey
from bot.errors import (
    BeingForgotten,
    MessageGone,
    NotRemembered,
    QueueFull,
    Refused,
    StoreUnavailable,
    WriteFailed,
)
from bot.files.reading import MB
from bot.store import Store, store_errors
from bot.text.files import plain_name
from bot.turns.forgetting import named

PART = 256 * 1024  # bytes that are read or written at once
READ_SECONDS = 3600  # after it was read, for another attempt or answer
_SENT_SECONDS = 3600  # until it is asked about
_ASKED_SECONDS = 24 * 3600  # until it is read; questions wait for less
# What so many questions may have; a small file counts as one part, so that there are not too many.
_OWN, _ALL = 3, 10
_MANY = "You have sent many files. I can take more in an hour."

# Makes room for an upload. KEYS: the jobs that forget people, the names of all uploads, and how
# their keys begin. ARGV: the job for the person, how the names of the person's uploads begin, the
# name, its bytes, those of one person and of all, the bytes that count at least, and seconds.
_BEGIN = """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 'forgetting' end
local upload, least, own, all = KEYS[3] .. ARGV[3], tonumber(ARGV[7]), 0, 0
redis.call('DEL', upload)
for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local size = redis.call('STRLEN', KEYS[3] .. name)
  if size == 0 then redis.call('SREM', KEYS[2], name) else size = math.max(size, least) end
  all = all + size
  if string.sub(name, 1, #ARGV[2]) == ARGV[2] then own = own + size end
end
if own + ARGV[4] > tonumber(ARGV[5]) then return 'person' end
if all + ARGV[4] > tonumber(ARGV[6]) then return 'full' end
redis.call('SADD', KEYS[2], ARGV[3])
redis.call('EXPIRE', KEYS[2], 2 * 86400)
-- All of it at once, so that others find no room where it will be.
redis.call('SETRANGE', upload, ARGV[4] - 1, ' ')
redis.call('EXPIRE', upload, ARGV[8])
return ''
"""
# Adds a part, unless the upload was removed meanwhile: without an expiry, it would stay.
_ADD = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
return redis.call('SETRANGE', KEYS[1], ARGV[1], ARGV[2])
"""
_REFUSALS: Mapping[str, Callable[[], Refused]] = {
    "forgetting": BeingForgotten,
    "full": QueueFull,
    "person": partial(Refused, _MANY),
}


class Uploads:
    """The uploads of people, for questions with at most `most_files` of `most_mb` each.

    An upload is named by its platform, workspace, person and an id, so that nobody can name
    another's. Raises StoreUnavailable.
    """

    def __init__(self, store: Store, *, most_files: int, most_mb: int) -> None:
        self.most_files = most_files
        self.most_mb = most_mb
        self._store = store
        self._begin, self._add = store.script(_BEGIN), store.script(_ADD)

    def check(self, size: int) -> None:
        """Raise Refused if a file of `size` bytes is too large, or empty."""
        if size > self.most_mb * MB:
            raise Refused(f"{self.most_mb} MB is the limit for a file.")
        if not size:
            raise Refused("There is nothing in this file.")

    async def save(self, name: ThreadKey, parts: AsyncIterable[bytes], *, size: int) -> None:
        """Store an upload of `size` bytes for an hour, in the place of one of that name.

        Raises Refused, before it reads a part if the file is too large or there is no room.
        """
        self.check(size)
        one_question = self.most_files * self.most_mb * MB
        key, job = self._store.key, named("person", name.platform, name.channel)
        written = str(name)
        answer = await self._begin(
            keys=[key("forgetting"), key("uploads"), key("upload", "")],
            args=[
                *(job, str(replace(name, thread="")), written, size),
                *(_OWN * one_question, _ALL * one_question, PART, _SENT_SECONDS),
            ],
        )
        if refusal := _REFUSALS.get(answer):
            raise refusal()
        try:
            await self._fill(key("upload", written), parts, size=size)
        except BaseException:
            await self.drop(name)
            raise

    async def keep(self, files: Sequence[FileRef]) -> tuple[FileRef, ...]:
        """Keep the uploads of a question until they are read; return them with their sizes.

        Raises Refused if they are too many, or one is no longer there.
        """
        if len(files) > self.most_files:
            raise Refused(f"{self.most_files} files at once is the limit.")
        keys = [self._store.key("upload", one.id) for one in files]
        await self._store.commands([("EXPIRE", one, _ASKED_SECONDS) for one in keys])
        sizes = await self._store.commands([("STRLEN", one) for one in keys])
        if gone := [one.name for one, size in zip(files, sizes, strict=True) if not size]:
            raise Refused(f"I no longer have {gone[0]}. Please add it again.")
        return tuple(replace(one, size=size) for one, size in zip(files, sizes, strict=True))

    async def _fill(self, key: str, parts: AsyncIterable[bytes], *, size: int) -> None:
        at = 0
        async for part in parts:
            if at + len(part) > size:
                break
            if not await self._add(keys=[key], args=[at, part]):
                raise NotRemembered
            at += len(part)
        if at != size:
            raise Refused("The file did not arrive whole. Please add it again.")

    async def drop(self, name: ThreadKey) -> None:
        """Remove an upload."""
        key, written = self._store.key, str(name)
        await self._store.commands(
            [("DEL", key("upload", written)), ("SREM", key("uploads"), written)]
        )


def file_ref(upload: ThreadKey, *, turn_id: str, name: str, size: int = 0) -> FileRef:
    """Return an upload as a file of a turn."""
    return FileRef(str(upload), turn_id, plain_name(name), size, {})


async def read_upload(
    store: Store, file: FileRef, *, keep_seconds: int = READ_SECONDS
) -> AsyncGenerator[bytes]:
    """Yield the bytes of an upload, which is kept for so long from now on.

    Raises MessageGone if it is not there, and WriteFailed if the store is not.
    """
    key, at = store.key("upload", file.id), 0
    try:
        if not await store.command("EXPIRE", key, keep_seconds):
            raise MessageGone("the upload has expired or was removed")
        while part := await _part_of(store, key, at):
            yield part
            at += len(part)
    except StoreUnavailable as error:
        raise WriteFailed(str(error)) from error


async def _part_of(store: Store, key: str, at: int) -> bytes:
    with store_errors():
        # Not decoded: it is no text.
        found: Any = await store.redis.execute_command(  # type: ignore[no-untyped-call]
            "GETRANGE", key, at, at + PART - 1, NEVER_DECODE=True
        )
    return bytes(found)
