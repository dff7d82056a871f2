"""What people have saved for themselves: instructions for all their questions, and personas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from bot import audit
from bot.access.preferences import InvalidPreference, checked_text, cleaned
from bot.domain import Person
from bot.errors import BeingForgotten
from bot.languages import say
from bot.store import Store
from bot.text.sanitize import one_line, whole_characters
from bot.turns.forgetting import named
from bot.turns.script import person_key
from config.persona_files import MOST_NAME

NO_PERSONAS: Mapping[str, str] = {}
_MOST_PERSONAS = 20
_INSTRUCTIONS, _PERSONA = "instructions", "persona:"  # fields; the name of a persona follows
_NEAR = 0.8  # of two names, as difflib compares them
# One word, without the end of a sentence, is meant as a name.
_NAME = re.compile(r"[\w-]+")
# Writes a field, or drops it without a value, and returns {what it had}. KEYS: the jobs of
# forgetting, and the person's hash. ARGV: the name of the person's job, the field, its value, how
# many personas there may be, and how long (ms) all stays, or "".
_WRITE = """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 'forgetting' end
local before = redis.call('HGET', KEYS[2], ARGV[2])
local personas = redis.call('HLEN', KEYS[2]) - redis.call('HEXISTS', KEYS[2], 'instructions')
if ARGV[3] == '' then redis.call('HDEL', KEYS[2], ARGV[2])
elseif ARGV[2] ~= 'instructions' and not before and personas >= tonumber(ARGV[4]) then return 'full'
else redis.call('HSET', KEYS[2], ARGV[2], ARGV[3]) end
if ARGV[5] ~= '' then redis.call('PEXPIRE', KEYS[2], ARGV[5]) end
return {before or ''}
"""


@dataclass(frozen=True, slots=True)
class Own:
    """What a person has saved: `instructions` for all their questions, and personas by name."""

    instructions: str = ""
    personas: Mapping[str, str] = field(default_factory=dict)


class OwnStore:
    """What people have saved for themselves, in Redis. Raises StoreUnavailable.

    A hash for each person, which is forgotten with them; the scripts copy the instructions to the
    person's own questions. `offered` are the operator's personas, by name. With `keep_ms`, all that
    a person has saved expires so long after their last question.
    """

    def __init__(self, store: Store, offered: Mapping[str, str] = NO_PERSONAS) -> None:
        self.offered = {name: cleaned(text) for name, text in offered.items()}
        self._store = store

    async def read(self, platform: str, person: Person) -> Own:
        """Return what a person has saved."""
        found: dict[str, str] = await self._store.command("HGETALL", self._key(platform, person))
        instructions = found.pop(_INSTRUCTIONS, "")
        return Own(instructions, {it.removeprefix(_PERSONA): found[it] for it in sorted(found)})

    async def personas(self, platform: str, person: Person) -> Mapping[str, str]:
        """Return the personas from which a person chooses: the operator's, and their own."""
        return {**self.offered, **(await self.read(platform, person)).personas}

    async def persona_text(self, platform: str, person: Person, written: str) -> str:
        """Return the text of the persona with this name, or else what is written.

        If there are personas, what looks like a name and is none raises InvalidPreference.
        """
        known = await self.personas(platform, person)
        texts = {name.casefold(): text for name, text in known.items()}
        sought = " ".join(written.split()).casefold()
        if text := texts.get(sought):
            return text
        if texts and (_NAME.fullmatch(sought) or get_close_matches(sought, texts, 1, _NEAR)):
            unknown = (
                "There is no persona of that name. You can choose {names}, or write a whole"
                " sentence."
            )
            raise InvalidPreference(say(unknown, names=", ".join(known)), field="persona")
        return written

    async def save_instructions(
        self, platform: str, person: Person, text: str, *, keep_ms: int | None = None
    ) -> None:
        """Save what holds for all questions of a person, or drop it with an empty text.

        Raises InvalidPreference, and BeingForgotten.
        """
        await self._save(platform, person, _INSTRUCTIONS, text, keep_ms)

    async def save_persona(
        self, platform: str, person: Person, name: str, text: str, *, keep_ms: int | None = None
    ) -> None:
        """Save a persona by its name, or drop it with an empty text; raises the same."""
        name = one_line(whole_characters(name))
        if not name or len(name) > MOST_NAME:
            needs = "A persona needs a name of at most {most} characters."
            raise InvalidPreference(say(needs, most=MOST_NAME))
        await self._save(platform, person, _PERSONA + name, text, keep_ms)

    async def _save(
        self, platform: str, person: Person, name: str, written: str, keep_ms: int | None
    ) -> None:
        kind = name.partition(":")[0]
        try:
            text = checked_text(written)
        except ValueError as error:
            raise InvalidPreference(str(error), field=kind) from error
        answer = await self._store.script(_WRITE)(
            keys=[self._store.key("forgetting"), self._key(platform, person)],
            args=[
                *(named("person", platform, person.id), name, text),
                *(_MOST_PERSONAS, "" if keep_ms is None else keep_ms),
            ],
        )
        if answer == "forgetting":
            raise BeingForgotten
        if answer == "full":
            many = "You have saved {most} personas. Please delete one first."
            raise InvalidPreference(say(many, most=_MOST_PERSONAS), field=kind)
        if (before := answer[0]) != text:
            digests = {"before": audit.digest(before), "after": audit.digest(text)}
            audit.note("changed", place=platform, by=person.id, field=f"own_{kind}", **digests)

    def _key(self, platform: str, person: Person) -> str:
        return self._store.key("own", person_key(platform, person))
