"""All that a store has, as values: to look through it, and to keep it as a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from bot.store import Store

Value = Any  # as JSON has it: a text, a list, an object


@dataclass(frozen=True, slots=True)
class Stored:
    """A key without its prefix, and what it holds; `expires_ms` is -1 if it never does.

    A stream is a list of [id, fields], and a sorted set a list of [member, score].
    """

    name: str
    kind: str
    value: Value
    expires_ms: int

    def __contains__(self, word: str) -> bool:
        return word in self.name or word in json.dumps(self.value, ensure_ascii=False)


async def stored(store: Store) -> list[Stored]:
    """Return all keys of the store, sorted by name."""
    prefix = store.key("")
    names = sorted([it async for it in store.redis.scan_iter(match=f"{prefix}*")])
    return [
        Stored(
            name=name.removeprefix(prefix),
            kind=kind,
            value=await _value(store, name, kind),
            expires_ms=await store.redis.pttl(name),
        )
        for name in names
        # One may be gone meanwhile.
        if (kind := str(await store.redis.type(name))) != "none"
    ]


def to_json(found: list[Stored]) -> str:
    """Return the text of a file that `load` reads."""
    lines = [json.dumps(asdict(each), ensure_ascii=False, sort_keys=True) for each in found]
    return "[\n" + ",\n".join(lines) + "\n]\n"


async def load(store: Store, text: str) -> list[Stored]:
    """Put what `to_json` returned into a store, and return it."""
    found = [Stored(**each) for each in json.loads(text)]
    for each in found:
        name = store.key("") + each.name
        await _put(store, name, each)
        if each.expires_ms >= 0:
            await store.redis.pexpire(name, each.expires_ms)
    return found


async def _value(store: Store, name: str, kind: str) -> Value:
    redis = store.redis
    match kind:
        case "string":
            return await redis.get(name)
        case "hash":
            return await redis.hgetall(name)
        case "list":
            return await redis.lrange(name, 0, -1)
        case "set":
            return sorted(await redis.smembers(name))
        case "zset":
            return [list(pair) for pair in await redis.zrange(name, 0, -1, withscores=True)]
        case "stream":
            return [list(entry) for entry in await redis.xrange(name) or ()]
    raise AssertionError(f"{name} is a {kind}")


async def _put(store: Store, name: str, each: Stored) -> None:
    redis, value = store.redis, each.value
    match each.kind:
        case "string":
            await redis.set(name, value)
        case "hash":
            await redis.hset(name, mapping=value)
        case "list":
            await redis.rpush(name, *value)
        case "set":
            await redis.sadd(name, *value)
        case "zset":
            await redis.zadd(name, dict(value))
        case "stream":
            await _put_stream(store, name, value)


async def _put_stream(store: Store, name: str, value: Value) -> None:
    for entry, fields in value:
        await store.redis.xadd(name, fields, id=entry)
