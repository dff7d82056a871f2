"""Links by which others read a conversation, as it was when its person made them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adapters.web.talks import PLATFORM, Talk, thread_of
from bot import audit
from bot.domain import Json, Person, Standing, ThreadKey
from bot.errors import NotRemembered, Refused
from bot.intake.answers import question_of
from bot.languages import LANGUAGES, later, say
from bot.reply.draft import CALLED_BEFORE, NOT_KNOWN, SOURCES, STEPS
from bot.store import Store
from bot.turns.lookup import TurnLookup

DAYS = (1, 7, 30)  # for which a link may be made
_MOST, _MOST_BYTES = 100, 4_000_000  # links of one person, and what they show together
_ENDED = ("done", "stopped", "failed", "dead")
_DAY = 24 * 3600
_LATE_SECONDS = 3600  # for which a request may come again after its link was revoked
_FULL = later("You have as many links as I can keep. Revoke one of them first.")
_TOO_LONG = later("This conversation is too long for a link. Export it instead.")
_EMPTY = later("There is no answer to share yet.")
# How notices begin that tell what was asked of tools, and the list of sources, in all languages.
_PRIVATE = tuple(
    say(one, language=language).partition("{")[0]
    for one in (STEPS, CALLED_BEFORE, NOT_KNOWN)
    for language in LANGUAGES
)
_PUBLIC = tuple(f"{say(SOURCES, language=language)}\n" for language in LANGUAGES)
# Stores a link, and notes its name for its person; returns 0 if there is no room, 1 if it is there,
# and -1 if it was revoked. KEYS: the link, how those of links begin, the person's links, and what
# is there once it was revoked. ARGV: its name, when it was made and ends (ms), its bytes, the most
# links and bytes of a person, and its fields.
_MAKE = """
if redis.call('EXISTS', KEYS[4]) == 1 then return -1 end
if redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
local bytes = tonumber(ARGV[4])
for _, name in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  local size = redis.call('HGET', KEYS[2] .. name, 'bytes')
  if size then bytes = bytes + size else redis.call('ZREM', KEYS[3], name) end
end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[5]) or bytes > tonumber(ARGV[6]) then return 0 end
for at = 7, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[3], 31 * 86400)
return 2
"""


@dataclass(frozen=True, slots=True)
class Share:
    """A link; times are in seconds since the epoch.

    `token` opens it; `name`, a digest of it, is for lists and logs. Without `anyone` it is for
    people who are signed in. `turns` are what it shows, in order, and the first has the `title`.
    """

    name: str
    token: str
    thread: ThreadKey
    by: str
    made: float
    ends: float
    anyone: bool
    turns: Sequence[Mapping[str, Json]] = ()


class Shares:
    """The links of all people. What a turn has lost, a link to it has lost, too.

    A token is made of the `secret`, so the store has none. Raises StoreUnavailable.
    """

    def __init__(
        self, *, store: Store, lookup: TurnLookup, secret: bytes, keep_seconds: float
    ) -> None:
        self._store = store
        self._lookup = lookup
        self._secret = secret
        self._keep_seconds = keep_seconds
        self._make = store.script(_MAKE)

    async def make(
        self,
        talk: Talk,
        turns: Sequence[Standing],
        *,
        person: Person,
        press_id: str,
        days: int,
        anyone: bool,
        shows_name: bool,
    ) -> Share:
        """Return a link to the answers that these turns have now; a press counts once.

        It ends after so many days, or with the conversation. Raises Refused, and NotRemembered if
        the link was revoked or all of it deleted meanwhile.
        """
        shown = [_shown(one) for one in turns if one.answer and one.state in _ENDED]
        if not shown:
            raise Refused(_EMPTY)
        shown[0][1]["title"] = talk.title
        thread, now = thread_of(person, talk.id), time.time()
        ends = min(now + days * _DAY, talk.updated + self._keep_seconds)
        about = {
            "press": press_id,
            "by": person.name if shows_name else "",
            "made": now,
            "ends": ends,
            "anyone": anyone,
        }
        fields = {turn_id: json.dumps(one) for turn_id, one in shown}
        size = sum(map(len, fields.values()))
        if size > _MOST_BYTES:
            raise Refused(_TOO_LONG)
        fields |= {"thread": str(thread), "about": json.dumps(about), "bytes": str(size)}
        name, key = name_of(self._token(thread, press_id)), self._store.key
        answer = await self._make(
            keys=[self._key(name), key("shared", ""), self._index(person), key("pressed", name)],
            args=[
                *(name, int(now * 1000), int(ends * 1000), size, _MOST, _MOST_BYTES),
                *(part for field in fields.items() for part in field),
            ],
        )
        if answer == 0:
            raise Refused(_FULL)
        if answer == 2:
            readers = "anyone" if anyone else "people"
            who: Any = {"thread": thread, "person": person.id}
            audit.note("shared", share=name, **who, readers=readers, ends=int(ends))
        # Something may have been deleted since it was read.
        if answer < 0 or not (share := await self._left(name)):
            raise NotRemembered
        return share

    async def all_of(self, person: Person) -> list[Share]:
        """Return a person's links without their turns, the newest first."""
        names = await self._store.command("ZREVRANGE", self._index(person), 0, -1)
        reads = [("HMGET", self._key(one), "thread", "about") for one in names]
        rows = zip(names, await self._store.commands(reads), strict=True)
        return [self._share(name, *row) for name, row in rows if all(row)]

    async def find(self, token: str) -> Share | None:
        """Return the link that a token opens, without the turns that were deleted since."""
        return await self._left(name_of(token))

    async def revoke(self, person: Person, name: str) -> None:
        """Remove a person's link; one that is not there is none."""
        index, pressed = self._index(person), self._store.key("pressed", name)
        if await self._store.command("ZSCORE", index, name) is None:
            return
        # A request that is repeated late must not make it again.
        late = "SET", pressed, "1", "EX", _LATE_SECONDS
        await self._store.commands([late, ("DEL", self._key(name))])
        # After a failover, it must not be there again.
        await self._store.replicate()
        await self._store.command("ZREM", index, name)
        audit.note("revoked", share=name, person=person.id)

    async def forget_deleted(self, thread: ThreadKey) -> None:
        """Remove from all links what was deleted in a conversation."""
        for share in await self.all_of(Person(thread.channel, "")):
            if share.thread == thread:
                await self._left(share.name)

    async def _left(self, name: str) -> Share | None:
        """Return a link with the turns that are still there, and remove what it has of others."""
        fields: dict[str, str] = await self._store.command("HGETALL", self._key(name))
        if not fields:
            return None
        share = self._share(name, fields["thread"], fields["about"])
        turns = {it: json.loads(text) for it, text in fields.items() if ":" in it}
        found = await self._lookup.standings(*turns, person_id=share.thread.channel, aside=True)
        there = {one.turn_id for one in found}
        if not there:
            await self._store.command("DEL", self._key(name))
            await self._store.command("ZREM", self._index(Person(share.thread.channel, "")), name)
            return None
        if gone := turns.keys() - there:
            await self._store.command("HDEL", self._key(name), *gone)
        # As `Talks.turns` has them.
        ordered = sorted(there, key=lambda it: (turns[it].pop("asked_at"), it))
        return replace(share, turns=[turns[it] for it in ordered])

    def _share(self, name: str, thread: str, about: str) -> Share:
        where, known = ThreadKey.parse(thread), json.loads(about)
        token = self._token(where, known.pop("press"))
        return Share(name=name, token=token, thread=where, **known)

    def _token(self, thread: ThreadKey, press_id: str) -> str:
        text = f"share:{thread}:{press_id}".encode()
        return hmac.digest(self._secret, text, "sha256")[:16].hex()

    def _index(self, person: Person) -> str:
        return self._store.key(PLATFORM, "shares", person.id)

    def _key(self, name: str) -> str:
        return self._store.key("shared", name)


def name_of(token: str) -> str:
    """Return the name of the link that a token would open: its digest."""
    # Looked up by this, so the time that takes tells nothing of other tokens.
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()[:32]


def _shown(one: Standing) -> tuple[str, dict[str, Json]]:
    """Return what others may see of a turn, by its id: no steps, no ratings, no files but names."""
    said = [it for it in one.answer.split("\n\n") if not it.startswith(_PRIVATE)]
    sources = [it for it in one.below.split("\n\n") if it.startswith(_PUBLIC)]
    return one.turn_id, {
        "asked_at": one.asked_at,
        "question": question_of(one),
        "files": [{"name": file.name} for file in one.files],
        "answer": "\n\n".join(said),
        "below": "\n\n".join(sources),
        "model": one.model,
    }
