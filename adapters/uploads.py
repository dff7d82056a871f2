"""Files that people send to the page and the terminal, in the store until they have been read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from dataclasses import replace

from bot.domain import FileRef, ThreadKey
from bot.errors import MessageGone, Refused, StoreUnavailable, WriteFailed
from bot.files.reading import MB
from bot.languages import say
from bot.store import Store, store_errors
from bot.text.files import plain_name

PART = 256 * 1024  # bytes that are read at once
_SENT_SECONDS = 3600  # until it is asked about
_ASKED_SECONDS = 24 * 3600  # until it is read; questions wait for less
_OWN, _ALL = 3, 10  # questions whose files the store has, of one person and of all
_FULL = "I have no room for more files at the moment. Please try again in an hour."
_GROWN = "The file grew while I read it. Please add it again."

# Makes room for an upload; returns 0 if there is none. KEYS: the names of all uploads, and how
# their keys begin. ARGV: the name, how the names of the person's uploads begin, its bytes, those of
# one person and of all, and seconds. A small upload counts as 1 MB, so that there are not too many.
_BEGIN = """
local upload, own, all = KEYS[2] .. ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[3])
redis.call('DEL', upload)
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local size = redis.call('STRLEN', KEYS[2] .. name)
  if size == 0 then redis.call('SREM', KEYS[1], name) else size = math.max(size, 1e6) end
  all = all + size
  if string.sub(name, 1, #ARGV[2]) == ARGV[2] then own = own + size end
end
if own > tonumber(ARGV[4]) or all > tonumber(ARGV[5]) then return 0 end
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], 2 * 86400)
-- All of it at once, so that others find no room where it will be.
redis.call('SETRANGE', upload, ARGV[3] - 1, ' ')
return redis.call('EXPIRE', upload, ARGV[6])
"""
# Adds a part, unless the upload was removed meanwhile: without an expiry, it would stay.
_ADD = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
return redis.call('SETRANGE', KEYS[1], ARGV[1], ARGV[2])
"""


class Uploads:
    """The uploads of people, for questions with at most `most_files` of `most_mb` each.

    An upload is named by its platform, workspace, person and an id, so that nobody can name
    another's. Raises StoreUnavailable.
    """

    def __init__(self, store: Store, *, most_files: int, most_mb: int) -> None:
        self.most_files = most_files
        self._store = store
        self._most_mb = most_mb
        self._one_question = most_files * most_mb * MB
        self._begin, self._add = store.script(_BEGIN), store.script(_ADD)
        self._arriving = set[ThreadKey]()

    async def save(self, name: ThreadKey, parts: AsyncIterable[bytes], *, size: int) -> None:
        """Store an upload of `size` bytes for an hour, in the place of one of that name.

        Raises Refused, before it reads a part if the file is too large or there is no room.
        """
        if not self._one_question:
            raise Refused("No files are read here.")
        if size > self._most_mb * MB:
            raise Refused(say("{mb} MB is the limit for a file.", mb=self._most_mb))
        if not size:
            raise Refused("There is nothing in this file.")
        if name in self._arriving:
            raise Refused("This file is arriving already.")
        self._arriving.add(name)
        try:
            await self._fill(name, parts, size)
        except BaseException:
            await self.drop(name)
            raise
        finally:
            self._arriving.discard(name)

    async def _fill(self, name: ThreadKey, parts: AsyncIterable[bytes], size: int) -> None:
        key, one = self._store.key, self._one_question
        written, of_person = str(name), str(replace(name, thread=""))
        is_begun = await self._begin(
            keys=[key("uploads"), key("upload", "")],
            args=[written, of_person, size, _OWN * one, _ALL * one, _SENT_SECONDS],
        )
        if not is_begun:
            raise Refused(_FULL)
        at = 0
        async for part in parts:
            if at + len(part) > size:
                raise Refused(_GROWN)
            await self._add(keys=[key("upload", written)], args=[at, part])
            at += len(part)

    async def keep(self, files: Sequence[FileRef]) -> None:
        """Keep the uploads of a question until they are read; raises Refused if one is gone."""
        keys = [self._store.key("upload", one.id) for one in files]
        kept = await self._store.commands([("EXPIRE", key, _ASKED_SECONDS) for key in keys])
        for file, is_there in zip(files, kept, strict=True):
            if not is_there:
                raise Refused(say("I no longer have {name}. Please add it again.", name=file.name))

    async def drop(self, name: ThreadKey) -> None:
        """Remove an upload."""
        await self._store.command("DEL", self._store.key("upload", str(name)))


def file_ref(upload: ThreadKey, *, turn_id: str, name: str) -> FileRef:
    """Return an upload as a file of a turn."""
    return FileRef(str(upload), turn_id, plain_name(name), 0, {})


async def read_upload(store: Store, file: FileRef, *, keep_seconds: int) -> AsyncGenerator[bytes]:
    """Yield the bytes of an upload, which is kept for so long from now on.

    Raises MessageGone if it is not there, and WriteFailed if the store is not.
    """
    key, at = store.key("upload", file.id), 0
    try:
        if not await store.command("EXPIRE", key, keep_seconds):
            raise MessageGone("the upload has expired or was removed")
        while part := await _part(store, key, at):
            yield part
            at += len(part)
    except StoreUnavailable as error:
        raise WriteFailed(str(error)) from error


async def _part(store: Store, key: str, at: int) -> bytes:
    with store_errors():
        # Not decoded: it is no text.
        return await store.redis.execute_command(  # type: ignore[no-any-return, no-untyped-call]
            "GETRANGE", key, at, at + PART - 1, NEVER_DECODE=True
        )
