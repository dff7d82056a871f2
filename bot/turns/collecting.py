"""Reads what keys of the store have of one person, or of one server: what `Eraser` would erase."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bot.domain import Json
from bot.store import Command
from bot.turns.erasing import Eraser, Subject, Verbs
from bot.turns.records import read_file_text

_JSON_FIELDS = ("place", "pressed_place", "files", "question_files")  # of a record
# How a key is read, by its type, and the command that reads all of it.
_WHOLE: Mapping[str, tuple[str | int, ...]] = {
    "string": ("GET",),
    "hash": ("HGETALL",),
    "list": ("LRANGE", 0, -1),
    "set": ("SMEMBERS",),
    "zset": ("ZRANGE", 0, -1, "WITHSCORES"),
    "stream": ("XRANGE", "-", "+"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a key has of somebody; `key` is its name without the prefix."""

    key: str
    value: Json


@dataclass(slots=True)
class Tally:
    """How much was found: questions, in how many conversations, and other entries by kind."""

    questions: int = 0
    conversations: set[str] = field(default_factory=set)
    others: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.others.items()))
        asked = f"{_many(self.questions, 'question')} in"
        asked += f" {_many(len(self.conversations), 'conversation')}"
        return f"{asked}, and other entries: {kinds or 'none'}"


class Collector(Eraser):
    """Looks through all keys as forgetting does, and changes nothing. Raises StoreUnavailable.

    Of others it yields no words but those of answers: neither what was quoted of them, nor their
    files.
    """

    def __init__(self, script: Verbs, who: Subject) -> None:
        super().__init__(script, who)
        self.tally = Tally()

    async def collect(self) -> AsyncGenerator[Found]:
        """Yield all that is found, each once, and count it in `tally`."""
        await self.begin()
        # The person's own turns lead to further threads, in which others quote them.
        async for names in self._script.store.names():
            async for _, thread, is_own in self._own_turns(names):
                if is_own:
                    self._threads.add(thread)
        known = set[str]()
        async for names in self._script.store.names():
            new = [name for name in names if name not in known]
            async for found in self._of_keys(new):
                known.add(found.key)
                yield found

    async def _own_turns(self, names: Iterable[str]) -> AsyncGenerator[tuple[str, str, bool]]:
        """Yield the ids of turns with their threads, and whether they are the person's own."""
        turns = [name for name in names if name.startswith("turn:")]
        rows = await self._send(("HMGET", self._key(it), "thread", "person") for it in turns)
        for name, (thread, person) in zip(turns, rows, strict=True):
            if thread:
                yield name.removeprefix("turn:"), thread, self._who.has_turn(thread, person)

    async def _of_keys(self, names: Sequence[str]) -> AsyncGenerator[Found]:
        reads = {name: command for name in names if (command := self._read(name))}
        values = dict(zip(reads, await self._send(reads.values()), strict=True))
        for name in names:
            for command in [*self._removals(name, values.get(name)), *self._by_verb(name, values)]:
                if (value := await self._taken_by(command)) not in (None, "", [], {}):
                    yield self._counted(name, value)
        async for turn_id, thread, is_own in self._own_turns(names):
            if is_own:
                async for found in self._of_turn(turn_id, thread):
                    yield found
            elif thread in self._threads:
                async for found in self._said_in(turn_id, own=()):
                    yield found

    def _by_verb(self, name: str, values: Mapping[str, Any]) -> Iterator[Command]:
        """Yield the commands whose keys a verb erases (`Eraser.erase`)."""
        kind, _, rest = name.partition(":")
        if not self._who.is_person:
            return
        if name == self._of().removeprefix(self._key("")):
            yield "DEL", self._key(name)
        if kind == "spent" and self._who.is_key(rest.partition(":")[2]):
            yield "DEL", self._key(name)
        if kind == "preferences" and values.get(name) == json.dumps(
            self._who.id, ensure_ascii=False
        ):
            yield from (("HDEL", self._key(name), it) for it in ("persona", "persona_by"))
        if kind == "live" and self._who.is_in(rest):
            yield "DEL", self._key(name)

    async def _taken_by(self, command: Command) -> Json:
        """Return what a command would erase."""
        command_, (verb, key, *words) = self._script.store.command, command
        if verb == "HDEL":
            found = await command_("HGET", key, words[0])
            return None if found is None else {str(words[0]): found}
        if verb == "SREM":
            return str(words[0]) if await command_("SISMEMBER", key, words[0]) else None
        if verb == "LREM":
            return str(words[1])
        if str(key).startswith(self._key("upload", "")):
            return {"bytes": await command_("STRLEN", key)}
        return await self._whole(str(key))

    async def _whole(self, key: str) -> Json:
        how = _WHOLE.get(await self._script.store.command("TYPE", key))
        found: Json = await self._script.store.command(how[0], key, *how[1:]) if how else None
        return sorted(map(str, found)) if isinstance(found, set) else found

    async def _of_turn(self, turn_id: str, thread: str) -> AsyncGenerator[Found]:
        """Yield a turn of the person's own."""
        record = await self._script.store.command("HGETALL", self._key("turn", turn_id))
        # It may be the words of another person.
        fields = {it: value for it, value in record.items() if it != "preferred:persona"}
        fields |= {it: _decoded(fields[it]) for it in _JSON_FIELDS if it in fields}
        self.tally.questions += bool(record.get("text") or record.get("question"))
        self.tally.conversations.add(thread)
        yield Found(f"turn:{turn_id}", fields)
        # What tools returned may be the words of others.
        if steps := await self._script.store.command("HKEYS", self._key("steps", turn_id)):
            yield self._counted(f"steps:{turn_id}", sorted(steps))
        for kind in ("effects", "answered", "thoughts"):
            if value := await self._whole(self._key(kind, turn_id)):
                yield self._counted(f"{kind}:{turn_id}", value)
        own = {turn_id, *str(record.get("joined", "")).split()}
        async for found in self._said_in(turn_id, own=own):
            yield found

    async def _said_in(self, turn_id: str, *, own: Collection[str]) -> AsyncGenerator[Found]:
        """Yield what a turn's prompt shows of the person, with files of theirs and of `own` ids."""
        command, messages = self._script.store.command, set(own)
        lines = await command("LRANGE", self._key("context", turn_id), 0, -1)
        for line in lines:
            _, message, person, written = [*line.split("\n", 3), "", "", ""][:4]
            if self._who.is_person and person == self._who.id:
                messages.add(message)
                yield self._counted(f"context:{turn_id}", _decoded(written))
        for name in await command("HKEYS", self._key("files", turn_id)):
            if name.rpartition(" ")[0] in messages:
                written = await command("HGET", self._key("files", turn_id), name)
                text = await asyncio.to_thread(read_file_text, written or "")
                value = asdict(text) if text else written
                yield self._counted(f"files:{turn_id}", {name: value})

    def _counted(self, name: str, value: Json) -> Found:
        kind = name.partition(":")[0]
        self.tally.others[kind] = self.tally.others.get(kind, 0) + 1
        return Found(name, value)


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _decoded(written: str) -> Json:
    try:
        value: Json = json.loads(written)
    except (ValueError, RecursionError):
        return written
    return value
