"""A shard's session in Redis, and how far the bot was heard, from which a new process goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from adapters.discord.gateway.connection import Session
from bot.store import Store

_log = logging.getLogger(__name__)

# Discord keeps a session without a connection for "a few minutes" (its documentation, "Gateway",
# "Initiating a Disconnect"); and a session's id is a secret.
SESSION_SECONDS = 300
# Discord's have 32 characters, and a RESUME that is too long for it would be refused without end.
_ID_LENGTH = 200
# How long it matters that we have listened before.
_HEARD_SECONDS = 7 * 24 * 3600
DMS = 20  # that somebody used last: each costs two requests to catch up
# Sessions of shards that are equal modulo `max_concurrency` begin so far apart (Discord's
# documentation, "Gateway", "Rate Limiting" under "Sharding").
_START_SECONDS = 5.1

# Who resumes a session takes it from whoever has it; only its holder may write it on.
_TAKE = """
local kept = redis.call('HMGET', KEYS[1], 'intents', 'id', 'seq', 'url')
if not kept[1] or kept[1] ~= ARGV[2] then return {} end
redis.call('HSET', KEYS[1], 'holder', ARGV[1])
return {kept[2], kept[3], kept[4]}
"""
_SAVE = """
local holder, intents, id, seq, url, newest = unpack(ARGV, 1, 6)
local session_seconds, heard_seconds, shard = unpack(ARGV, 7, 9)
local other = redis.call('HGET', KEYS[1], 'holder')
if other and other ~= holder then return 0 end
redis.call('HSET', KEYS[1], 'holder', holder, 'intents', intents, 'id', id, 'seq', seq, 'url', url)
redis.call('EXPIRE', KEYS[1], session_seconds)
if newest ~= '0' then
    redis.call('HSET', KEYS[2], shard, newest)
    redis.call('EXPIRE', KEYS[2], heard_seconds)
end
return 1
"""
# A shard that nobody has listened to may have the guilds of any other one. Ids are compared as
# doubles, which are exact to less than a millisecond, and kept as they are. A value that is no id
# counts as missing, and so does one more than a day (in ids) ahead of `or_else`: it would stay the
# newest for ever, and nothing missed would be found.
_HEARD = """
local shard, or_else, heard_seconds = unpack(ARGV)
local function is_id(value)
    return value and #value < 20 and string.find(value, '^%d+$')
        and tonumber(value) < or_else + 86400000 * 2 ^ 22
end
local heard = redis.call('HGET', KEYS[1], shard)
if is_id(heard) then return heard end
heard = nil
for _, other in ipairs(redis.call('HVALS', KEYS[1])) do
    if is_id(other) and (not heard or tonumber(other) < tonumber(heard)) then heard = other end
end
redis.call('HSET', KEYS[1], shard, heard or or_else)
redis.call('EXPIRE', KEYS[1], heard_seconds)
return heard or '0'
"""
_NOTE_DMS = """
for number = 3, #ARGV, 2 do redis.call('ZADD', KEYS[1], ARGV[number + 1], ARGV[number]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
"""


class SavedSession:
    """One shard's session; `holder` names the process. Every method raises StoreUnavailable.

    `shard` is its number and how many there are: a session is of that shard alone. How far it was
    heard, and the DMs in use, are the bot's, so that they outlive a change of how many there are.
    """

    def __init__(self, *, store: Store, application: str, shard: str, holder: str) -> None:
        self._store = store
        self._application = application
        self._shard = shard
        self._holder = holder
        self._session = store.key("gateway", application, shard, "session")
        self._heard = store.key("gateway", application, "heard")
        self._dms = store.key("gateway", application, "dms")
        self._take = store.script(_TAKE)
        self._save = store.script(_SAVE)
        self._hear = store.script(_HEARD)
        self._note_dms = store.script(_NOTE_DMS)

    async def take(self, intents: int) -> Session | None:
        """Become the holder of a session with these intents; None when there is none."""
        kept = await self._take(keys=[self._session], args=[self._holder, intents])
        match kept:
            case [str(session), str(seq), str(url)] if (
                _is_number(seq) and len(session) <= _ID_LENGTH
            ):
                return Session(session, int(seq), url)
            case [_, *_]:
                _log.warning("The saved session of shard %s cannot be read", self._shard)
        return None

    async def save(self, session: Session, *, intents: int, newest: int) -> bool:
        """Save how far the session is dealt with; False when another process holds one.

        `newest` is the last message that is.
        """
        written = await self._save(
            keys=[self._session, self._heard],
            args=[
                *(self._holder, intents, session.id, session.seq, session.url, newest),
                *(SESSION_SECONDS, _HEARD_SECONDS, self._shard),
            ],
        )
        return bool(written == 1)

    async def note_dms(self, newest: Mapping[int, int]) -> None:
        """Save of DMs in use the newest message of each, whoever holds the session."""
        if newest:
            told = [number for pair in newest.items() for number in pair]
            await self._note_dms(keys=[self._dms], args=[DMS, _HEARD_SECONDS, *told])

    async def is_taken(self, session: Session) -> bool:
        """Tell whether another process has taken this session."""
        kept = await self._store.command("HMGET", self._session, "id", "holder")
        return bool(kept[0] == session.id and kept[1] != self._holder)

    async def heard(self, *, or_else: int) -> int:
        """Return the last message that was dealt with, by any process.

        Of a shard that nobody has listened to it is the earliest of the other shards'; where there
        is none, `or_else` is saved in its place, and the answer is 0.
        """
        return int(
            await self._hear(keys=[self._heard], args=[self._shard, or_else, _HEARD_SECONDS])
        )

    async def dms(self) -> list[int]:
        """Return the DMs that people used last, the latest first."""
        found = await self._store.command("ZRANGE", self._dms, 0, -1, "REV")
        return [int(channel) for channel in found if _is_number(channel)]

    async def may_start(self, bucket: int) -> bool:
        """Let one session begin in this bucket for a while; False when another just has."""
        gate = self._store.key("gateway", self._application, "start", str(bucket))
        milliseconds = int(_START_SECONDS * 1000)
        return bool(await self._store.command("SET", gate, "1", "NX", "PX", milliseconds))


def _is_number(written: str) -> bool:
    return written.isascii() and written.isdecimal() and len(written) < 20  # 64 bits
