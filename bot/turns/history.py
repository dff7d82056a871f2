"""What a thread remembers, oldest first, and the prompt that is composed of it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from unicodedata import category, normalize

from bot.domain import Exchange, Message, Person, ThreadKey, Turn
from bot.store import Store
from bot.text.graphemes import cut_before
from bot.text.sanitize import whole_characters
from bot.turns.records import Unreadable, read_number, read_object, read_person, read_text

log = logging.getLogger(__name__)
_NAME_LENGTH = 40  # characters
# Characters that look like a colon: Unicode's confusables.txt (17.0), and colons of other scripts.
# In words of their own scripts the last two are letters.
_COLONS = re.compile(
    r"[:\u02d0\u02f8\u0589\u05c3\u0703\u0704\u1361\u1365\u1366\u16ec\u1803\u1804\u1809\u205a"
    r"\u2236\u2237\u2982\u2a74\ua4fd\ua789\ufe13\ufe30\ufe55\uff1a]"
    r"|(?<![\u0900-\u097f])\u0903|(?<![\u0a80-\u0aff])\u0a83"
)
# Default_Ignorable_Code_Point and a blank, beside category Cf (Unicode 17.0).
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
_MARK = r"[\W_]"


class History:
    """Reads and forgets exchanges, which `TurnLeases.finish` writes. Raises StoreUnavailable."""

    def __init__(self, *, store: Store, keep_seconds: float) -> None:
        self._store = store
        self._keep_ms = int(keep_seconds * 1000)

    async def read(self, thread: ThreadKey) -> list[Exchange]:
        """Return the thread's exchanges, oldest first, and keep them for `keep_seconds` more."""
        name = self._store.key("history", str(thread))
        lines: list[str] = await self._store.command("LRANGE", name, 0, -1)
        await self._store.command("PEXPIRE", name, self._keep_ms)
        exchanges = [exchange for line in lines if (exchange := _readable(line))]
        if unreadable := len(lines) - len(exchanges):
            log.warning("Thread %s: leaving out %d unreadable exchanges", thread, unreadable)
        return await self._named(thread, exchanges)

    async def call(self, thread: ThreadKey, person: Person) -> None:
        """Save the name of a person whose exchanges have only an id."""
        names = self._store.key("names", str(thread))
        person_id, name = whole_characters(person.id), whole_characters(person.name)
        await self._store.command("HSET", names, person_id, name)
        await self._store.command("PEXPIRE", names, self._keep_ms)

    async def forget(self, thread: ThreadKey) -> None:
        """Drop all exchanges of a thread."""
        keys = [self._store.key(kind, str(thread)) for kind in ("history", "names")]
        await self._store.command("DEL", *keys)

    async def _named(self, thread: ThreadKey, exchanges: Sequence[Exchange]) -> list[Exchange]:
        unnamed = [one.person.id for one in exchanges if one.person.name == one.person.id]
        if not unnamed:
            return list(exchanges)
        key = self._store.key("names", str(thread))
        found: list[str | None] = await self._store.command("HMGET", key, *unnamed)
        await self._store.command("PEXPIRE", key, self._keep_ms)
        names = {Person(one, one): name for one, name in zip(unnamed, found, strict=True) if name}
        return [
            replace(one, person=replace(one.person, name=names.get(one.person, one.person.name)))
            for one in exchanges
        ]


def encode(exchange: Exchange) -> str:
    """Return an exchange as the JSON object that is stored."""
    value = asdict(exchange)
    # Older versions cannot read a person with another field.
    del value["person"]["workspace"]
    if not exchange.model:
        del value["model"]
    return json.dumps(value, ensure_ascii=False)


def decode(line: str) -> Exchange:
    """Read what `encode` of this or another version returned. Raises Unreadable."""
    value = read_object(line)
    model = value.get("model")
    return Exchange(
        turn_id=read_text(value, "turn_id"),
        person=read_person(value),
        asked_at=read_number(value, "asked_at"),
        question=read_text(value, "question"),
        answer=read_text(value, "answer"),
        model=whole_characters(model) if isinstance(model, str) else "",
    )


def _readable(line: str) -> Exchange | None:
    try:
        return decode(line)
    except Unreadable:
        return None


def compose(*, system: str, exchanges: Sequence[Exchange], turn: Turn) -> tuple[Message, ...]:
    """Return the system prompt, all exchanges and the new message, in this order.

    User and assistant alternate, no answer is empty, and an empty system prompt is left out. If
    several persons speak in the thread, each user message begins with "Name: ". The second person
    of one name is "Name (2): ". Further lines that begin like a label are quoted with "> ".
    """
    answered = [one for one in exchanges if one.question.strip() and one.answer.strip()]
    speakers = [*(one.person for one in answered), turn.person]
    several = len({person.id for person in speakers}) > 1
    labels = _labels(speakers) if several else {}
    is_label = _label_matcher(labels.values())

    def question(person: Person, text: str) -> Message:
        if several:
            first, *further = text.splitlines(keepends=True) or [""]
            quoted = (f"> {line}" if is_label(line) else line for line in further)
            text = f"{labels[person]}: {first}{''.join(quoted)}"
        return Message("user", text)

    messages = [Message("system", system)] if system.strip() else []
    for one in answered:
        messages += question(one.person, one.question), Message("assistant", one.answer)
    return (*messages, question(turn.person, turn.text))


def _labels(speakers: Iterable[Person]) -> dict[Person, str]:
    """Return a label for each person, on one line; no two labels look the same.

    The first person of a name gets it without a number, and keeps it.
    """
    labels: dict[Person, str] = {}
    owners: dict[str, str] = {}
    for person in speakers:
        if person in labels:
            continue
        name = _visible(_COLONS.sub(" ", person.name))
        name = name[: cut_before(name, _NAME_LENGTH)].rstrip() or "Somebody"
        label, number = name, 1
        while owners.setdefault(_folded(_visible(label)), person.id) != person.id:
            number += 1
            label = f"{name} ({number})"
        labels[person] = label
    return labels


def _label_matcher(labels: Iterable[str]) -> Callable[[str], bool]:
    """Return a test of lines: could this one be taken for the beginning of another message?"""
    keys = [_folded(_visible(label)) for label in labels]
    names = "|".join(map(re.escape, keys))
    begins = re.compile(rf"{_MARK}{{0,20}}(?:{names})(?:{_MARK}?\(\d{{1,9}}\))?{_MARK}{{0,8}}:")
    # The longest such beginning, if each character is composed of two.
    longest = 100 + max((len(normalize("NFKD", key)) for key in keys), default=0)

    def is_label(line: str) -> bool:
        # Lines are cut, for normalizing thousands of combining marks takes seconds.
        return bool(_COLONS.search(line) and begins.match(_folded(_visible(line)[:longest])))

    return is_label


def _folded(visible: str) -> str:
    """Return the same text for texts that look alike."""
    return normalize("NFKC", _COLONS.sub(":", visible)).casefold()


def _visible(text: str) -> str:
    """Return a text on one line, without invisible characters."""
    characters = (
        c if c.isprintable() else "" if category(c) == "Cf" else " "
        for c in _INVISIBLE.sub("", text)
    )
    return " ".join("".join(characters).split())
