"""What a thread remembers, oldest first, and the prompt that is composed of it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, replace
from unicodedata import category, normalize

from bot.domain import ContextMessage, Exchange, Message, Person, ThreadKey, Turn
from bot.store import Store
from bot.text.context import FORGED, NOTICE
from bot.text.graphemes import cut_before
from bot.text.sanitize import whole_characters
from bot.turns.records import (
    Unreadable,
    read_all_said,
    read_number,
    read_object,
    read_person,
    read_said,
    read_text,
    write_said,
)

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
_OWN_LABEL, _REPLY = "You", "In reply to "


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

    async def ratings(self, thread: ThreadKey, person_id: str) -> dict[str, str]:
        """Return what a person thinks of the thread's answers, by their turns' ids."""
        name = self._store.key("history", str(thread))
        lines: list[str] = await self._store.command("LRANGE", name, 0, -1)
        return dict(found for line in lines if (found := _rating(line, person_id)))

    async def save_name(self, thread: ThreadKey, person: Person) -> None:
        """Save the name of a person whose exchanges have only an id."""
        names = self._store.key("names", str(thread))
        person_id, name = whole_characters(person.id), whole_characters(person.name)
        await self._store.command("HSET", names, person_id, name)
        await self._store.command("PEXPIRE", names, self._keep_ms)

    async def forget(self, thread: ThreadKey) -> None:
        """Drop all exchanges of a thread, and read nothing as context that was said before."""
        seen = self._store.key("seen", str(thread))
        await self._store.command("SET", seen, "1", "PX", self._keep_ms)
        keys = [self._store.key(kind, str(thread)) for kind in ("history", "names", "told")]
        await self._store.command("DEL", *keys)

    async def is_seen(self, thread: ThreadKey) -> bool:
        """Return whether nothing older is read as context, though nothing is remembered.

        Something of the thread was forgotten, which no context may bring back, or the first
        question has no answer, and nothing was before it.
        """
        return bool(await self._store.command("EXISTS", self._store.key("seen", str(thread))))

    async def tells(self, thread: ThreadKey, turn_id: str) -> bool:
        """Return whether this turn is to tell that the thread's beginning no longer fits.

        That is the first turn that asks; it may ask again.
        """
        told = self._store.key("told", str(thread))
        await self._store.command("SET", told, turn_id, "NX", "PX", self._keep_ms)
        await self._store.command("PEXPIRE", told, self._keep_ms)
        return bool(await self._store.command("GET", told) == turn_id)

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
    del value["quote"], value["context"], value["model"]
    if exchange.quote:
        value["quote"] = write_said(exchange.quote)
    if exchange.context:
        value["context"] = [write_said(each) for each in exchange.context]
    if exchange.model:
        value["model"] = exchange.model
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
        quote=read_said(value.get("quote")),
        context=read_all_said(value.get("context")),
        model=whole_characters(model) if isinstance(model, str) else "",
    )


def _readable(line: str) -> Exchange | None:
    try:
        return decode(line)
    except Unreadable:
        return None


def _rating(line: str, person_id: str) -> tuple[str, str] | None:
    # Most lines have none, and all of them are long.
    if '"ratings"' not in line:
        return None
    try:
        value = read_object(line)
        ratings = value.get("ratings")
        rating = ratings.get(person_id) if isinstance(ratings, dict) else None
        return (read_text(value, "turn_id"), rating) if isinstance(rating, str) else None
    except Unreadable:
        return None


def compose(
    *,
    system: str,
    exchanges: Sequence[Exchange],
    turn: Turn,
    context: Sequence[ContextMessage] = (),
) -> tuple[Message, ...]:
    """Return the system prompt, all exchanges and the new message, in this order.

    User and assistant alternate, no answer is empty, and an empty system prompt is left out. If
    several persons speak in the thread, or any message has a context, each user message begins with
    "Name: ". The second person of one name is "Name (2): ", and the bot itself is "You: ". Further
    lines that begin like a label, or like a mark of a context, are quoted with "> ". `context` is
    that of the new message, and what it replies to is the end of it.
    """
    answered = [one for one in exchanges if one.question.strip() and one.answer.strip()]
    asked = Exchange(turn.id, turn.person, turn.asked_at, turn.text, "", turn.quote, (*context,))
    before = ["", *(one.answer for one in answered)]
    contexts = [_context(*each) for each in zip((*answered, asked), before, strict=True)]
    speakers = [
        person
        for one, shown in zip((*answered, asked), contexts, strict=True)
        for person in (*(each.person for each in shown), one.person)
    ]
    has_context = any(contexts)
    several = has_context or len({person.id for person in speakers if person}) > 1
    labels = _labels(speakers) if several else {}
    is_label = _label_matcher(labels.values(), marks=has_context)

    def labelled(person: Person | None, text: str, *, prefix: str = "") -> str:
        first, *further = text.splitlines(keepends=True) or [""]
        quoted = (f"> {line}" if is_label(line) else line for line in further)
        return f"{prefix}{labels[person]}: {first}{''.join(quoted)}"

    def question(one: Exchange, shown: Sequence[ContextMessage]) -> Message:
        texts = tuple(
            labelled(each.person, each.text, prefix=_REPLY if each is one.quote else "")
            for each in shown
        )
        return Message(
            "user", labelled(one.person, one.question) if several else one.question, texts
        )

    if has_context:
        system = f"{system}\n\n{NOTICE}".strip()
    messages = [Message("system", system)] if system.strip() else []
    for one, shown in zip(answered, contexts, strict=False):
        messages += question(one, shown), Message("assistant", one.answer)
    return (*messages, question(asked, contexts[-1]))


def _context(one: Exchange, answer: str) -> list[ContextMessage]:
    """Return what is shown before a question: the message that it replies to is the last.

    A reply to the `answer` before it needs no quote.
    """
    quote = one.quote
    is_known = quote and quote.person is None and quote.text.strip() in answer
    shown = [each for each in one.context if not quote or each.id != quote.id]
    if quote and not is_known:
        shown.append(quote)
    return [each for each in shown if each.text.strip()]


def _labels(speakers: Collection[Person | None]) -> dict[Person | None, str]:
    """Return a label for each person, on one line; no two labels look the same.

    The first person of a name gets it without a number, and keeps it. None is the bot itself.
    """
    # Nobody else gets the bot's label, even if none of its words are shown.
    labels: dict[Person | None, str] = {None: _OWN_LABEL}
    owners = {_folded(_OWN_LABEL): ""}
    # Where a name was not known yet, the id stands for it.
    named = {one.id: one.name for one in speakers if one and one.name != one.id}
    for person in speakers:
        if person is None or person in labels:
            continue
        known = named.get(person.id, "") if person.name == person.id else person.name
        name = _visible(_COLONS.sub(" ", known or person.name))
        name = name[: cut_before(name, _NAME_LENGTH)].rstrip()
        if not name or FORGED.match(_folded(name)) or _folded(name).startswith(_REPLY.casefold()):
            name = "Somebody"
        label, number = name, 1
        while owners.setdefault(_folded(_visible(label)), person.id) != person.id:
            number += 1
            label = f"{name} ({number})"
        labels[person] = label
    return labels


def _label_matcher(labels: Iterable[str], *, marks: bool) -> Callable[[str], bool]:
    """Return a test of lines: could this one be taken for the beginning of another message?

    With `marks`, also for a mark of a context.
    """
    keys = [_folded(_visible(label)) for label in labels]
    names = "|".join(map(re.escape, keys))
    names = rf"(?:in reply to )?(?:{names})"
    begins = re.compile(rf"{_MARK}{{0,20}}{names}(?:{_MARK}?\(\d{{1,9}}\))?{_MARK}{{0,8}}:")
    # The longest such beginning, if each character is composed of two.
    longest = 100 + max((len(normalize("NFKD", key)) for key in keys), default=0)

    def is_label(line: str) -> bool:
        if not marks and not _COLONS.search(line):
            return False
        # Lines are cut, for normalizing thousands of combining marks takes seconds.
        folded = _folded(_visible(line)[:longest])
        return bool(begins.match(folded) or (marks and FORGED.match(folded)))

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
