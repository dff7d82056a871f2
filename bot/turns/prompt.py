"""The messages that the model sees for a turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from unicodedata import category, normalize

from bot.domain import Exchange, Message, Person, Turn
from bot.text.graphemes import cut_before

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


def compose(*, system: str, exchanges: Sequence[Exchange], turn: Turn) -> tuple[Message, ...]:
    """Return the system prompt, all exchanges and the new message, in this order.

    User and assistant alternate, no answer is empty, and an empty system prompt is left out. If
    several persons speak in the thread, each user message begins with "Name: ". The second person
    of one name is "Name (2): ". Further lines that begin like a label are quoted with "> ".
    """
    answered = [one for one in exchanges if one.question.strip() and one.answer.strip()]
    asked: list[Exchange | Turn] = [*answered, turn]
    # A regenerated turn is older than exchanges that followed it.
    asked.sort(key=lambda it: it.asked_at)
    several = len({it.person.id for it in asked}) > 1
    labels = _labels(it.person for it in asked) if several else {}
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
