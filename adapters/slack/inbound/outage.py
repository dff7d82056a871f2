"""When the bot last heard Slack, and where people talk with it, in Redis."""

from __future__ import annotations

import time
from uuid import uuid4

from bot.store import Store

PLACES = 25  # DMs, and as many threads, that people used last
_GAP = 5  # seconds without a beat after which something may have been missed
_LOOK_SECONDS = 30  # without a beat of who looks, after which another may: longer than one pass
_KEPT_SECONDS = 7 * 24 * 3600

# The time is the server's, for the processes' clocks may differ.
#
# KEYS: when Slack was heard last, and who looks. ARGV: who asks, whether the look is over, and the
# seconds of a gap, of a look and of the record. Run twice, it answers the same.
_BEAT = """
local now = tonumber(redis.call('TIME')[1])
local gap = now - (tonumber(redis.call('GET', KEYS[1])) or now)
local looks = redis.call('GET', KEYS[2])
if ARGV[2] == '1' then
  if looks ~= ARGV[1] then return 0 end
elseif gap > tonumber(ARGV[3]) then
  if looks and looks ~= ARGV[1] then return 0 end
  redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[4])
  return gap
end
if looks == ARGV[1] then redis.call('DEL', KEYS[2]) end
redis.call('SET', KEYS[1], now, 'EX', ARGV[5])
return 0
"""

Place = tuple[str, str]  # a channel, and a thread in it: empty for a DM itself


class Listening:
    """One workspace's record, written by all processes that hear it.

    Each method but `note` raises StoreUnavailable.
    """

    def __init__(self, store: Store, *, team: str) -> None:
        self._store = store
        self._keys = [store.key("slack", team, word) for word in ("heard", "looking")]
        self._dms, self._threads = (store.key("slack", team, word) for word in ("dms", "threads"))
        self._beat = store.script(_BEAT)
        self._me = uuid4().hex
        self._noted: dict[Place, float] = {}

    def note(self, channel: str, thread: str) -> None:
        """Remember that somebody talks with us there; it is saved with the next beat."""
        self._noted.pop((channel, thread), None)
        while len(self._noted) >= 2 * PLACES:
            del self._noted[next(iter(self._noted))]
        self._noted[channel, thread] = time.time()

    async def beat(self) -> int:
        """Save that we hear Slack; return 0, or the seconds for which nobody did.

        Such a time is told to one process, at each of its beats, until it calls `begin`; where it
        has no beats any more, to another.
        """
        await self._save_places()
        return await self._said(over=False)

    async def begin(self) -> None:
        """Save that we hear Slack, and that nothing before has to be looked for.

        It changes nothing where another process has begun to look meanwhile.
        """
        await self._said(over=True)

    async def places(self) -> tuple[list[Place], list[Place]]:
        """Return the DMs, and the threads, that people used last, the latest first."""
        return await self._latest(self._dms), await self._latest(self._threads)

    async def _said(self, *, over: bool) -> int:
        args: list[str | int] = [self._me, int(over), _GAP, _LOOK_SECONDS, _KEPT_SECONDS]
        silence: int = await self._beat(keys=self._keys, args=args)
        return silence

    async def _save_places(self) -> None:
        noted = dict(self._noted)
        for key, of_threads in ((self._dms, False), (self._threads, True)):
            told = [
                word
                for (channel, thread), at in noted.items()
                if bool(thread) is of_threads
                for word in (at, f"{channel}:{thread}")
            ]
            if told:
                await self._store.command("ZADD", key, *told)
                await self._store.command("ZREMRANGEBYRANK", key, 0, -1 - PLACES)
                await self._store.command("EXPIRE", key, _KEPT_SECONDS)
        for place, at in noted.items():
            if self._noted.get(place) == at:
                del self._noted[place]

    async def _latest(self, key: str) -> list[Place]:
        found = await self._store.command("ZRANGE", key, 0, -1, "REV")
        return [(channel, thread) for channel, _, thread in (one.partition(":") for one in found)]
