"""The messages that the model sees for a turn."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from unicodedata import category, normalize

from bot.domain import Exchange, Message, Person, Turn
from bot.text.graphemes import cut_before

_NAME_LENGTH = 40  # characters
# What a reader takes for a colon: Unicode's confusables.txt (17.0) and colons of other scripts. In
# words of their own scripts the last two are letters.
_COLONS = re.compile(
    r"[:\u02d0\u02f8\u0589\u05c3\u0703\u0704\u1361\u1365\u1366\u16ec\u1803\u1804\u1809\u205a"
    r"\u2236\u2237\u2982\u2a74\ua4fd\ua789\ufe13\ufe30\ufe55\uff1a]"
    r"|(?<![\u0900-\u097f])\u0903|(?<![\u0a80-\u0aff])\u0a83"
)
# Default_Ignorable_Code_Point and a blank, beside category Cf (Unicode 17.0).
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
_QUOTE = "> "


def compose(*, system: str, exchanges: Sequence[Exchange], turn: Turn) -> tuple[Message, ...]:
    """Return the system prompt, all exchanges and the new message, in this order.

    User and assistant alternate, no answer is empty, and an empty system prompt is left out. When
    several persons speak in the thread, each user message begins with "Name: ", where the second of
    one name is "Name (2): ", and further lines that begin so are quoted.
    """
    spoken = [one for one in exchanges if one.question.strip() and one.answer.strip()]
    several = len({turn.person.id, *(one.person.id for one in spoken)}) > 1
    said: list[Exchange | Turn] = [*spoken, turn]
    # By time: where an answer is written anew, others may have spoken since.
    by_time = sorted(said, key=lambda it: it.asked_at)
    labels = _labels(it.person for it in by_time) if several else {}
    label_line = _LabelLine(labels.values())

    def asked(person: Person, text: str) -> Message:
        if not several:
            return Message("user", text)
        return Message("user", f"{labels[person]}: {_quoted(text, label_line)}")

    head = [Message("system", system)] if system.strip() else []
    before = [
        message
        for one in spoken
        for message in (asked(one.person, one.question), Message("assistant", one.answer))
    ]
    return (*head, *before, asked(turn.person, turn.text))


def _labels(speakers: Iterable[Person]) -> dict[Person, str]:
    """Name each person on one line, in a way that no name can pass for another or for two.

    Who speaks first under a name has it without a number, and keeps it.
    """
    labels: dict[Person, str] = {}
    owners: dict[str, str] = {}
    for person in speakers:
        if person in labels:
            continue
        name = _seen(_COLONS.sub(" ", person.name))
        name = name[: cut_before(name, _NAME_LENGTH)].rstrip() or "Somebody"
        label, number = name, 1
        while owners.setdefault(_key(label), person.id) != person.id:
            number += 1
            label = f"{name} ({number})"
        labels[person] = label
    return labels


class _LabelLine:
    """Tells which lines begin with a label, whatever marks are around it."""

    def __init__(self, labels: Iterable[str]) -> None:
        keys = [_key(label) for label in labels]
        names = "|".join(map(re.escape, keys))
        marks = r"[\W_]"
        self._begins = re.compile(
            rf"{marks}{{0,20}}(?:{names})(?:{marks}?\(\d{{1,9}}\))?{marks}{{0,8}}:"
        ).match
        # Characters of a line that such a beginning takes at most, if each is composed of two.
        self._longest = 100 + max((len(normalize("NFKD", key)) for key in keys), default=0)

    def match(self, line: str) -> bool:
        """Tell whether a line could be taken for the beginning of another message."""
        if not _COLONS.search(line):
            return False
        # To normalize thousands of combining marks takes seconds.
        return bool(self._begins(_folded(_seen(line)[: self._longest])))


def _quoted(text: str, label_line: _LabelLine) -> str:
    """Mark the lines after the first that could be taken for the beginning of another message."""
    first, *further = text.splitlines(keepends=True) or [""]
    return first + "".join(_QUOTE + line if label_line.match(line) else line for line in further)


def _key(text: str) -> str:
    """Return what is the same for texts that look the same, or almost."""
    return _folded(_seen(text))


def _folded(seen: str) -> str:
    return normalize("NFKC", _COLONS.sub(":", seen)).casefold()


def _seen(text: str) -> str:
    """Return a text on one line, without what nobody sees."""
    visible = "".join(
        c if c.isprintable() else "" if category(c) == "Cf" else " " for c in _UNSEEN.sub("", text)
    )
    return " ".join(visible.split())
