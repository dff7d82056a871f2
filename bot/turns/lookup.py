"""What is known of turns: for intake, for open screens and for repairs."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bot.domain import Passage, Shown, Standing, ThreadKey, Turn
from bot.store import Store
from bot.text.sanitize import one_line, whole_characters
from bot.turns.records import OUTCOMES, Unreadable, read_shown, read_thread, read_turn
from bot.turns.standings import standing

log = logging.getLogger(__name__)

_HANDLED_SECONDS = 3600  # longer than a platform delivers an event again
_MOST_WORDS, _LONGEST_WORD = 8, 40  # of a search
# What one call looks at, in characters, so that others wait for milliseconds.
_SEARCHED_AT_ONCE = 1_000_000
_THREADS_AT_ONCE = 100
_SEARCHES = 2  # at once in a process
# Returns how many threads were looked at, and of each whose exchanges have all words: its number,
# a turn, and the text around the word that was said last. KEYS: the histories. ARGV: the beginning
# of records' keys; how much to look at; the words as JSON, each with its spellings as they are and
# in small letters. A text in small letters takes longer to make than to look at, so the words with
# others within are kept in these (`mixed`, `finish.lua`); older records lack them. An exchange
# costs as much as 500 characters, and further words a third of the first one's pass each.
_SEARCH = """
local words, found, left = cjson.decode(ARGV[3]), {}, tonumber(ARGV[2])
local find = string.find
local function first_of(text, spellings)
  for at = 1, #spellings do
    local first = find(text, spellings[at], 1, true)
    if first then return first end
  end
end
for at, history in ipairs(KEYS) do
  local missing, last, around = {unpack(words)}, nil, nil
  local ids = redis.call('LRANGE', history, 0, -1)
  for place = #ids, 1, -1 do
    local said = redis.call('HMGET', ARGV[1] .. ids[place], 'answer', 'text', 'mixed')
    left = left - 500
    for part = 1, 2 do
      local text, lower = said[part] or '', nil
      left = left - #text * (#missing + 2) / 3
      for number = #missing, 1, -1 do
        local plain, small = missing[number][1], missing[number][2]
        local first = first_of(text, plain)
        if not first and (not said[3] or first_of(said[3], small)) then
          lower = lower or string.lower(text)
          first = first_of(lower, small)
        end
        if first then
          last = last or ids[place]
          around = around or string.sub(text, math.max(first - 24, 1), first + 160)
          table.remove(missing, number)
        end
      end
      if lower then left = left - 2 * #text end
    end
    if #missing == 0 then break end
  end
  if #missing == 0 and last then table.insert(found, {at, last, around}) end
  if left <= 0 then return {at, found} end
end
return {#KEYS, found}
"""
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class TurnLookup:
    """Reads turns; every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._search = store.script(_SEARCH)
        self._searching = asyncio.Semaphore(_SEARCHES)

    async def search(self, wanted: Mapping[ThreadKey, Sequence[str]]) -> dict[ThreadKey, Passage]:
        """Return the threads in whose remembered exchanges all of their words are said, and where.

        Upper and lower case are the same, except within words that are neither of these nor begin
        with a capital.
        """
        groups: dict[tuple[str, ...], list[ThreadKey]] = {}
        for thread, words in wanted.items():
            if words:
                groups.setdefault(tuple(words), []).append(thread)
        found: dict[ThreadKey, Passage] = {}
        async with self._searching:
            for words, threads in groups.items():
                found |= await self._search_in(threads, words)
        return found

    async def _search_in(
        self, threads: Sequence[ThreadKey], words: Sequence[str]
    ) -> dict[ThreadKey, Passage]:
        found: dict[ThreadKey, Passage] = {}
        keys = [self._store.key("history", str(one)) for one in threads]
        args = self._store.key("turn", ""), _SEARCHED_AT_ONCE, json.dumps(_all_spellings(words))
        begin = 0
        while some := keys[begin : begin + _THREADS_AT_ONCE]:
            seen, rows = await self._search(keys=some, args=args)
            for at, turn_id, text in rows:
                # Halves of characters at the ends.
                passage = Passage(turn_id, one_line(text.strip("\ufffd")))
                found[threads[begin + at - 1]] = passage
            begin += seen
        return found

    async def thread_of(self, platform: str, message_id: str) -> ThreadKey | None:
        """Return the thread in which a reply was posted as this message."""
        key = self._store.key("posted", platform, message_id)
        posted: str = await self._store.command("GET", key) or ""
        return _known_thread(f"message {message_id}", posted.partition(" ")[0], platform)

    async def thread_of_turn(self, turn_id: str) -> ThreadKey | None:
        """Return the thread of a turn; None if the turn is not known."""
        key = self._store.key("turn", whole_characters(turn_id))
        thread = await self._store.command("HGET", key, "thread")
        return _known_thread(f"turn {turn_id}", thread, turn_id.partition(":")[0])

    async def question(self, turn_id: str, call_id: str) -> str:
        """Return what a tool's server asks, as it was saved; empty if it waits for nothing."""
        steps = self._store.key("steps", whole_characters(turn_id))
        names = f"asked:{call_id}", f"consent:{call_id}"
        asked, answered = await self._store.command("HMGET", steps, *map(whole_characters, names))
        return "" if answered or not asked else "".join(asked.split("\n", 2)[2:])

    async def thoughts(self, turn_id: str) -> str:
        """Return what the model has thought for the answer of a turn, as far as it was saved."""
        name = self._store.key("thoughts", whole_characters(turn_id))
        return await self._store.command("HGET", name, "text") or ""

    async def result(self, turn_id: str) -> Shown | None:
        """Return what an ended turn shows, all of it as text; None if it has no outcome."""
        ((record, newest, *_),) = await self._read([turn_id])
        if not (outcome := OUTCOMES.get(record.get("state", ""))):
            return None
        shown = replace(read_shown(record), outcome=outcome)
        is_older = "forget" in record or newest not in ("", turn_id)
        return replace(shown, end="older") if is_older else shown

    async def waits(self, turn_id: str, *, first_in: ThreadKey | None = None) -> bool:
        """Return whether a turn waits for its first attempt, and is not answered with another.

        With `first_in` no other turn of that thread is before it.
        """
        turn_id = whole_characters(turn_id)
        name, fields = self._store.key("turn", turn_id), ("state", "lead", "attempts")
        state, lead, attempts = await self._store.command("HMGET", name, *fields)
        if state != "queued" or lead or attempts != "0":
            return False
        if first_in is None:
            return True
        mailbox = self._store.key("mailbox", str(first_in))
        return bool(await self._store.command("LINDEX", mailbox, 0) == turn_id)

    async def standings(
        self, *turn_ids: str, person_id: str, aside: bool = False
    ) -> list[Standing]:
        """Return the states of turns, without unknown and forgotten ones.

        Without those that are `aside`, as other versions or after these, unless they are wanted.
        Of its versions a state has those that are among these turns.
        The ratings are those of this person.
        """
        rows = await self._read(turn_ids, person_id)
        groups = [record.get("version_of", "") for record, *_ in rows]
        names = [self._store.key("versions", group) for group in dict.fromkeys(groups) if group]
        lists = await self._store.commands([("LRANGE", name, 0, -1) for name in names])
        # A deleted one stays in its list as long as its record.
        wanted = set(turn_ids)
        present = ((it for it in one if it in wanted) for one in lists)
        versions = dict(zip(names, map(tuple, present), strict=True))
        found = (
            standing(
                *(turn_id, record),
                newest=newest,
                rating=rating,
                versions=versions.get(self._store.key("versions", group), ()),
                thought=thought,
            )
            for turn_id, (record, newest, rating, thought), group in zip(
                turn_ids, rows, groups, strict=True
            )
            if aside or "aside" not in record
        )
        return [one for one in found if one]

    async def withheld(self, turn_ids: Sequence[str]) -> set[str]:
        """Return the turns that are excluded from the context.

        They wait or run, and will be in the history; were forgotten; or were answered together with
        another turn.
        """
        key = self._store.key
        fields = "state", "forget", "lead"
        rows = await self._store.commands(
            [("HMGET", key("turn", whole_characters(one)), *fields) for one in turn_ids]
        )
        # A turn that has ended without an answer notes what it came after.
        unanswered = await self._store.commands(
            [("HEXISTS", key("turn", lead or ""), "after") for _, _, lead in rows]
        )
        return {
            one
            for one, (state, forgotten, lead), fails in zip(turn_ids, rows, unanswered, strict=True)
            if state in ("queued", "running", "dropped") or forgotten or (lead and not fails)
        }

    async def turn(self, turn_id: str) -> Turn | None:
        """Return a turn; None if it is not known or unreadable."""
        key = self._store.key("turn", whole_characters(turn_id))
        record = dict(await self._store.command("HGETALL", key))
        try:
            return read_turn(turn_id, record)
        except Unreadable:
            return None

    async def note_handled(self, event_id: str) -> None:
        """Note for an hour that a command, press or form is handled; it may be delivered again."""
        key = self._store.key("handled", whole_characters(event_id))
        await self._store.command("SET", key, "1", "EX", _HANDLED_SECONDS)

    async def is_handled(self, event_id: str) -> bool:
        """Return whether a command, press or form was noted as handled."""
        key = self._store.key("handled", whole_characters(event_id))
        return bool(await self._store.command("EXISTS", key))

    async def first_open(self, thread: ThreadKey) -> str:
        """Return the first turn of a thread without an outcome; empty if there is none."""
        mailbox = self._store.key("mailbox", str(thread))
        return await self._store.command("LINDEX", mailbox, 0) or ""

    async def _read(
        self, turn_ids: Sequence[str], person_id: str = ""
    ) -> list[tuple[dict[str, str], str, str, str]]:
        """Return of each turn its record, its thread's newest reply, and a person's rating.

        The last one is for how many seconds the model has thought.
        """
        key, ids = self._store.key, [whole_characters(one) for one in turn_ids]
        records = await self._store.commands([("HGETALL", key("turn", one)) for one in ids])
        newest = [("GET", key("newest", one.get("thread", ""))) for one in records]
        ratings = [("HGET", key("ratings", one), person_id) for one in ids]
        thoughts = [("HGET", key("thoughts", one), "seconds") for one in ids]
        found = await self._store.commands([*newest, *ratings, *thoughts])
        others = [one or "" for one in found]
        number = len(ids)
        return list(zip(records, others, others[number:], others[2 * number :], strict=False))


def _all_spellings(words: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    return [_spellings(word[:_LONGEST_WORD]) for word in words[:_MOST_WORDS]]


def _spellings(word: str) -> tuple[list[str], list[str]]:
    """Return a word's spellings, as they are and with the small letters of ASCII."""
    word = whole_characters(word)
    spelled = (word.lower(), word.upper(), word.capitalize())
    small = (one.translate(_ASCII_LOWER) for one in spelled)
    return list(dict.fromkeys(spelled)), list(dict.fromkeys(small))


def _known_thread(owner: str, written: str | None, platform: str) -> ThreadKey | None:
    """Return the stored thread of its owner; None if there is none, or it is unreadable."""
    if not written:
        return None
    if (key := read_thread(written, platform)) is None:
        log.warning("The thread of %s cannot be read: %r", owner, written)
    return key
