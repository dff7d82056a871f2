"""A shard's session, stored in Redis with its progress for the next process."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from bot.store import Store

_log = logging.getLogger(__name__)

# Discord keeps a session without a connection for "a few minutes" (its documentation, "Gateway",
# "Initiating a Disconnect"); and a session's id is a secret.
SESSION_SECONDS = 300
# The expiry of the last handled message and of the DMs.
_HANDLED_SECONDS = 7 * 24 * 3600
_DMS = 20  # the latest used; the catch-up needs two requests for each

# A process that resumes a session becomes its holder; only the holder may save it.
_TAKE = """
local saved = redis.call('HMGET', KEYS[1], 'intents', 'id', 'seq', 'url', 'servers')
if not saved[1] or saved[1] ~= ARGV[2] then return {} end
redis.call('HSET', KEYS[1], 'holder', ARGV[1])
return {saved[2], saved[3], saved[4], saved[5] or ''}
"""
_SAVE = """
local holder, intents, id, seq, url, servers = unpack(ARGV, 1, 6)
local newest, session_seconds, handled_seconds, shard = unpack(ARGV, 7, 10)
local other = redis.call('HGET', KEYS[1], 'holder')
if other and other ~= holder then return 0 end
redis.call('HSET', KEYS[1], 'holder', holder, 'intents', intents, 'id', id, 'seq', seq, 'url', url,
    'servers', servers)
redis.call('EXPIRE', KEYS[1], session_seconds)
if newest ~= '0' then
    redis.call('HSET', KEYS[2], shard, newest)
    redis.call('EXPIRE', KEYS[2], handled_seconds)
end
return 1
"""
_DROP = "if redis.call('HGET', KEYS[1], 'id') == ARGV[1] then redis.call('DEL', KEYS[1]) end"
# A shard without a record uses the earliest of the others, because it may have taken over their
# servers. Ids are compared as doubles, which are exact to less than a millisecond. Invalid ids, and
# those more than a day ahead of `or_else`, are ignored: they would prevent all catching up.
_LAST_HANDLED = """
local shard, or_else, handled_seconds = unpack(ARGV)
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
redis.call('EXPIRE', KEYS[1], handled_seconds)
return heard or '0'
"""
_SAVE_DMS = """
for number = 3, #ARGV, 2 do redis.call('ZADD', KEYS[1], ARGV[number + 1], ARGV[number]) end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
"""


@dataclass(frozen=True, slots=True)
class Session:
    """The state that a RESUME needs. `id` is a secret: with the token it receives the bot's events.

    `seq` is the last event that need not be sent again. An empty `url` is the first address.
    `servers` is None once all messages missed before the session are admitted. Until then it is the
    number of the session's servers, and `seq` is that of its first event, so that a RESUME repeats
    the events that list the servers.
    """

    id: str = field(repr=False)
    seq: int
    url: str
    servers: int | None = None


class SavedSession:
    """One shard's session; `holder` names the process. Coroutines raise StoreUnavailable.

    `shard` has its number and the count of shards. The last handled message and the DMs belong to
    the bot, so that they outlive a change of the count.
    """

    def __init__(self, *, store: Store, application: str, shard: str, holder: str) -> None:
        self._store = store
        self._application = application
        self._shard = shard
        self._holder = holder
        self._new_dms: dict[int, int] = {}  # the newest message of each
        self._session = store.key("gateway", application, shard, "session")
        self._last_handled_key = store.key("gateway", application, "heard")
        self._dms = store.key("gateway", application, "dms")
        # If the process dies before its first session is saved, the session's questions are lost.
        self._take = store.script(_TAKE, if_full=True)
        self._save = store.script(_SAVE, if_full=True)
        self._drop = store.script(_DROP, if_full=True)
        self._read_last_handled = store.script(_LAST_HANDLED, if_full=True)
        self._save_dms = store.script(_SAVE_DMS, if_full=True)

    async def take(self, intents: int) -> Session | None:
        """Take over the session if its intents match; None if there is none."""
        saved = await self._take(keys=[self._session], args=[self._holder, intents])
        match saved:
            case [session, seq, url, servers] if _is_number(seq) and _is_number(servers or "0"):
                return Session(session, int(seq), url, int(servers) if servers else None)
            case [_, *_]:
                _log.warning("Shard %s: the saved session is invalid", self._shard)
        return None

    async def save(self, session: Session, *, intents: int, newest: int) -> bool:
        """Save the session and the last message handled; False if another process holds one."""
        written = await self._save(
            keys=[self._session, self._last_handled_key],
            args=[
                *(self._holder, intents, session.id, session.seq, session.url),
                "" if session.servers is None else session.servers,
                *(newest, SESSION_SECONDS, _HANDLED_SECONDS, self._shard),
            ],
        )
        return bool(written == 1)

    async def drop(self, ended: Session) -> None:
        """Delete a session that cannot be resumed."""
        await self._drop(keys=[self._session], args=[ended.id])

    def note_dm(self, channel: int, message: int) -> None:
        """Record a message of a DM for `save_dms`."""
        self._new_dms.pop(channel, None)
        self._new_dms[channel] = message
        if len(self._new_dms) > _DMS:
            del self._new_dms[next(iter(self._new_dms))]

    async def save_dms(self) -> None:
        """Save the recorded DMs, even if another process holds the session."""
        if noted := [*self._new_dms.items()]:
            pairs = [number for pair in noted for number in pair]
            await self._save_dms(keys=[self._dms], args=[_DMS, _HANDLED_SECONDS, *pairs])
            # More may have been recorded during the command.
            self._new_dms = dict(one for one in self._new_dms.items() if one not in noted)

    async def is_taken(self, session: Session) -> bool:
        """Whether another process has taken this session."""
        saved = await self._store.command("HMGET", self._session, "id", "holder")
        return bool(saved[0] == session.id and saved[1] != self._holder)

    async def last_handled(self, *, or_else: int) -> int:
        """Return the id of the last message that any process has handled.

        For a shard without a record it is the earliest of the other shards. Without any, `or_else`
        is saved and 0 is returned.
        """
        arguments: list[str | int] = [self._shard, or_else, _HANDLED_SECONDS]
        return int(await self._read_last_handled(keys=[self._last_handled_key], args=arguments))

    async def dms(self) -> list[int]:
        """Return the latest used DMs, newest first."""
        found = await self._store.command("ZRANGE", self._dms, 0, -1, "REV")
        return [int(channel) for channel in found if _is_number(channel)]

    async def reserve_start(self, bucket: int, *, seconds: float) -> bool:
        """Reserve the start of a session in this bucket; False if it is already reserved."""
        gate = self._store.key("gateway", self._application, "start", str(bucket))
        return bool(await self._store.command("SET", gate, "1", "NX", "PX", int(seconds * 1000)))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20  # 64 bits
