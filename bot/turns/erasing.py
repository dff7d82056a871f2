"""Erases what keys of the store have of one person, or of one server."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from bot.store import Command, Store

# Kinds of keys that end with the name of a person, as the queue writes it: `open:<person>`.
_OF_PEOPLE = ("allowed", "kept", "open", "own", "running", "throttled", "warned")
# Kinds of keys that become empty with their turns. Until then the queue needs them.
_OF_QUEUE = ("mailbox", "open", "running", "throttled")
_AT_ONCE = 500  # commands in one round trip
_GONE_SECONDS = 60  # for pages that are slow to read that a thread is gone


class Verbs(Protocol):
    """Runs the verbs of the scripts."""

    @property
    def store(self) -> Store:
        """The store that they change."""

    @property
    def keep_ms(self) -> int:
        """How long the store keeps what is not used."""

    async def run(self, verb: str, *arguments: str | int) -> object:
        """Run a verb and return its answer."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is forgotten: a `kind` ("person" or "server") and an id `written` as in a thread.

    `parts` are parts of names, between colons, that belong to nobody else.
    """

    kind: str
    platform: str
    written: str
    parts: tuple[str, ...]

    @classmethod
    def of(cls, who: str, own_names: Mapping[str, Sequence[str]]) -> Subject:
        """Read the name of a job; `own_names` has the parts for people, by platform."""
        kind, platform, written = who.split(":", 2)
        parts = (":{platform}:{id}:",) if kind == "server" else own_names.get(platform, ())
        filled = (it.replace("{platform}", platform).replace("{id}", written) for it in parts)
        return cls(kind, platform, written, tuple(filled))

    @property
    def is_person(self) -> bool:
        """Whether it is no server."""
        return self.kind == "person"

    @property
    def id(self) -> str:
        """The id itself."""
        return unquote(self.written)

    def is_in(self, name: str) -> bool:
        """Whether a name belongs to the server, or to the person alone."""
        return any(part in f":{name}:" for part in self.parts)

    def is_key(self, person: str) -> bool:
        """Whether a key names the person, or anybody in the server."""
        if not self.is_person:
            return self.is_in(person)
        ends = person.partition(":")[0], person.rpartition(":")[2]
        return ends == (self.platform, self.written)

    def has_turn(self, thread: str | None, person: str | None) -> bool:
        """Whether a turn is the person's, or in the server."""
        return bool(thread) and self.is_key((person if self.is_person else thread) or "")


class Eraser:
    """Erases keys, some at a time; any step may be repeated. Raises StoreUnavailable."""

    def __init__(self, script: Verbs, who: Subject) -> None:
        self._script = script
        self._who = who
        self._threads: set[str] = set()  # in which the person has said something
        self._people: set[str] = set()  # who have keys of their own, as the queue writes them
        self._streams: set[str] = set()  # of the person's threads, which open pages read

    async def begin(self) -> None:
        """Learn of the person's threads; call it before each look through all keys."""
        if self._who.is_person:
            self._threads.update(await self._script.store.command("SMEMBERS", self._of()))

    async def erase(self, names: Sequence[str]) -> tuple[int, int]:
        """Erase what the keys of these names have.

        Return how much was removed, and how much has to end first.
        """
        reads = {name: command for name in names if (command := self._read(name))}
        values = dict(zip(reads, await self._send(reads.values()), strict=True))
        removals = [one for name in names for one in self._removals(name, values.get(name))]
        found, waits = sum(map(int, await self._send(removals))), 0
        for name in names:
            found += await self._erase_by_verb(name, values.get(name))
        turns = [name for name in values if name.startswith("turn:")]
        others: list[str] = []
        for name in turns:
            (thread, person), turn_id = values[name], name.removeprefix("turn:")
            if self._who.has_turn(thread, person):
                await self._note(thread)
                is_erased = await self._erase_turn(turn_id)
                found, waits = found + is_erased, waits + (not is_erased)
            elif thread in self._threads:
                others.append(turn_id)
        return found + await self._erase_words(others), waits

    async def end(self) -> None:
        """Remove what a worker and open pages needed until now."""
        for person in self._people:
            await self._run("release_others", person)
        last = [self._key(name) for name in self._streams]
        if self._who.is_person:
            last.append(self._of())
        await self._send(("DEL", key) for key in last)

    def _read(self, name: str) -> Command | None:
        """Return the command that reads what the name of a key does not say."""
        kind, _, rest = name.partition(":")
        key = self._key(name)
        match kind:
            case "turn":
                return "HMGET", key, "thread", "person"
            case "message" | "posted" | "pressed":
                return "GET", key
            case "preferences":
                return ("HGET", key, "persona_by") if rest else ("SMEMBERS", key)
            case "uploads":
                return "SMEMBERS", key
            case "shared":
                return "HGET", key, "thread"
            case "usage_of" if self._who.is_person and rest.split(":")[1] == self._who.platform:
                # The models with which a person's fields end.
                return "HKEYS", self._key("usage", rest)
            case "notices" if not self._who.is_person:
                return "ZRANGE", key, 0, -1
            case "untitled":
                return "ZRANGE", key, 0, -1
            case "kept" if not self._who.is_person:
                return "LRANGE", key, 0, -1
            case "of" if not self._who.is_person:
                return "SMEMBERS", key
        return None

    def _removals(self, name: str, value: Any) -> Iterator[Command]:
        """Yield the commands that erase in a key; each returns how much it removes."""
        kind, _, rest = name.partition(":")
        who, key = self._who, self._key(name)
        is_on_platform = rest.startswith(f"{who.platform}:")
        if kind in _OF_PEOPLE and who.is_key(rest):
            self._people.add(rest)
            if kind not in _OF_QUEUE:
                yield "DEL", key
        elif who.is_person and kind in ("names", "ratings") and is_on_platform:
            yield "HDEL", key, who.id
        elif who.is_person and kind == "speakers" and is_on_platform:
            yield "SREM", key, who.written
        elif kind in ("preferences", "of", "uploads") and isinstance(value, list | set):
            yield from (("SREM", key, one) for one in value if who.is_in(one))
        elif kind == "untitled" and value:
            yield from (("ZREM", key, one) for one in value if who.is_in(one))
        elif kind == "usage_of" and value:
            # The server's sums stay, so these become nobody's.
            yield from (("HDEL", key, f"{who.written} {model}") for model in value)
        elif kind == "notices" and value:
            yield from (("ZREM", key, one) for one in value if any(map(who.is_in, one.split(" "))))
        elif kind == "kept" and value:
            yield from (
                ("LREM", key, 0, one) for one in value if any(map(who.is_in, one.split(" ")))
            )
        if self._is_own(name, value):
            yield "DEL", key

    def _is_own(self, name: str, value: Any) -> bool:
        """Whether a key has nothing of anybody else, and is not needed until the end."""
        kind, _, rest = name.partition(":")
        who = self._who
        if (
            kind in (*_OF_QUEUE, "of", "spent")
            or (kind == "turn" and value[0])
            or (kind == "live" and who.is_person)
        ):
            return False
        if kind == "message" and who.is_person and rest.startswith(f"{who.platform}:"):
            return who.is_in(name) or _person_of(value or "") == who.id
        if kind in ("posted", "pressed", "shared") and any(map(who.is_in, (value or "").split())):
            return True
        if kind == "budget" and not who.is_person:
            return f":{who.written}:" in f":{rest}:"
        return who.is_in(name)

    async def _erase_by_verb(self, name: str, value: Any) -> int:
        """Erase what needs more than a command; return how much was removed."""
        kind, _, rest = name.partition(":")
        who = self._who
        period, _, spender = rest.partition(":")
        if kind == "spent" and who.is_key(spender):
            # Otherwise whoever is forgotten, or removes the bot, would renew a quota.
            return await self._run("hide_spent", period, spender, secrets.token_hex(16))
        if not who.is_person:
            return 0
        if kind == "preferences" and value == json.dumps(who.id, ensure_ascii=False):
            return await self._run("forget_persona", rest, value)
        if kind == "live" and who.is_in(rest):
            key, is_new = self._key(name), name not in self._streams
            self._streams.add(name)
            gone: Command = ("XADD", key, "*", "look", "1", "gone", "1")
            await self._send([("XTRIM", key, "MAXLEN", 0), gone, ("EXPIRE", key, _GONE_SECONDS)])
            return int(is_new)
        return 0

    async def _note(self, thread: str) -> None:
        """Note a thread before the turn that leads to it goes, also for the next worker."""
        if self._who.is_person and thread not in self._threads:
            of, keep_ms = self._of(), self._script.keep_ms
            await self._send([("SADD", of, thread), ("PEXPIRE", of, keep_ms)])
        self._threads.add(thread)

    async def _erase_turn(self, turn_id: str) -> int:
        """Erase a turn; 0 if it has to end or be repaired first.

        Its id stays known, so that it is neither answered nor read again.
        """
        return await self._run("erase", turn_id, "" if self._who.is_in(turn_id) else "1")

    async def _erase_words(self, turn_ids: Sequence[str]) -> int:
        """Erase what turns of others, in threads of the person, have of the person.

        The name of a place may be the beginning of a question, and a persona may be the person's.
        """
        places = (("HDEL", self._key("turn", it), "where", "preferred:persona") for it in turn_ids)
        found = sum(map(int, await self._send(places)))
        shown = await self._send(("LRANGE", self._key("context", it), 0, -1) for it in turn_ids)
        said: list[Command] = []
        messages: set[str] = set()
        for turn_id, lines in zip(turn_ids, shown, strict=True):
            for line in lines:
                message, person = [*line.split("\n", 3), "", ""][1:3]
                if person == self._who.id:
                    said.append(("LREM", self._key("context", turn_id), 0, line))
                    messages.add(message)
        # Before the lines go: without them, the messages would not be found again.
        await self._send(one for message in messages for one in self._leave_known(message))
        # From now on, nothing more of the messages' files is saved.
        files = await self._send(("HKEYS", self._key("files", it)) for it in turn_ids)
        read: list[Command] = [
            ("HDEL", self._key("files", turn_id), name)
            for turn_id, names in zip(turn_ids, files, strict=True)
            for name in names
            if name.rpartition(" ")[0] in messages
        ]
        return found + sum(map(int, await self._send([*read, *said])))

    def _leave_known(self, message: str) -> Iterator[Command]:
        """Yield the commands after which a message is not read again; turns are erased as such."""
        yield "DEL", self._key("heard", message)
        if not self._who.is_in(message):
            yield "HSETNX", self._key("turn", message), "state", "dropped"
            yield "PEXPIRE", self._key("turn", message), self._script.keep_ms, "NX"

    async def _run(self, verb: str, *arguments: str) -> int:
        answer = await self._script.run(verb, *arguments)
        return answer if isinstance(answer, int) else 0

    async def _send(self, commands: Iterable[Command]) -> list[Any]:
        """Send commands, some at a time, and return their answers."""
        left, answers = list(commands), []
        while left:
            answers += await self._script.store.commands(left[:_AT_ONCE])
            del left[:_AT_ONCE]
        return answers

    def _key(self, *parts: str) -> str:
        return self._script.store.key(*parts)

    def _of(self) -> str:
        return self._key("of", self._who.platform, self._who.written)


def _person_of(written: str) -> str:
    """Return the id of the person who wrote a stored message; "" if it cannot be read."""
    try:
        return str(json.loads(written)["person"]["id"])
    except (ValueError, KeyError, TypeError):
        return ""
