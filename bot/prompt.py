"""The messages that the model sees for a turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from unicodedata import category, normalize

from bot.domain import Exchange, Message, Person, Turn
from bot.graphemes import cut_after, cut_before

CUT = "[…]"
_CLOSE = 12  # tokens of the budget that a shortened message may leave unused
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

Count = Callable[[Sequence[Message]], int]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages, how many exchanges found no room, and how much the new message lost.

    `left_out` counts characters.
    """

    messages: tuple[Message, ...]
    dropped: int
    left_out: int


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


def fit(messages: Sequence[Message], *, budget: int, count: Count) -> Prompt:
    """Return as much of a composed prompt as `count` finds within `budget`, in tokens.

    Exchanges are dropped whole, oldest first; where not even the newest fits, its question loses
    its middle, so that the answer to a long paste is not forgotten with it. The system prompt
    stays, and so does the new message: when it is too long, the mark "[…]" stands for its middle.
    Where the system prompt leaves no room even for the mark, the message is left whole, for the
    model's server to judge.
    """
    *said, asked = messages
    head = said[:1] if said and said[0].role == "system" else []
    said = said[len(head) :]
    new = _shorten(asked, budget=budget, cost=lambda shorter: count([*head, shorter]))

    def newest(exchanges: int) -> list[Message]:
        return [*head, *said[len(said) - 2 * exchanges :], new]

    kept = _most(len(said) // 2, lambda exchanges: count(newest(exchanges)) <= budget)
    if said and not kept:
        *_, question, answered = said
        question = _shorten(
            question, budget=budget, cost=lambda shorter: count([*head, shorter, answered, new])
        )
        said[-2:] = [question, answered]
        kept = int(question.text != CUT and count(newest(1)) <= budget)
    return Prompt(
        tuple(newest(kept)),
        dropped=len(said) // 2 - kept,
        left_out=left_out(asked.text, new.text),
    )


def without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the messages with the system prompt at the head of the first question.

    For templates that know no system prompt: they refuse it by name, or as one that breaks the
    alternation of user and assistant.
    """
    if len(messages) < 2 or messages[0].role != "system":
        return tuple(messages)
    system, first, *rest = messages
    return Message(first.role, f"{system.text}\n\n{first.text}"), *rest


def without_middle(text: str, kept: int) -> str:
    """Return a text of which at most so many characters are left, and a mark for its middle."""
    tail = kept // 2
    head = cut_before(text, kept - tail)
    return text[:head] + CUT + text[cut_after(text, len(text) - tail) :]


def left_out(text: str, shorter: str) -> int:
    """Return how many characters of a text the mark in a shorter one stands for."""
    return len(text) - len(shorter) + len(CUT) if shorter != text else 0


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `limit` that fits; what is smaller than it fits, too.

    It looks at small numbers first: what is far too much is never counted.
    """
    fitting, step = 0, 1
    while fitting + step <= limit and fits(fitting + step):
        fitting += step
        step *= 2
    beyond = min(fitting + step, limit + 1)
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        if fits(middle):
            fitting = middle
        else:
            beyond = middle
    return fitting


def _shorten(message: Message, *, budget: int, cost: Callable[[Message], int]) -> Message:
    """Return the message with as little taken from its middle as fits; itself if nothing helps."""
    text = message.text
    least = Message(message.role, CUT)
    whole_cost, least_cost = cost(message), cost(least)
    if whole_cost <= budget or least_cost > budget:
        return message
    kept, kept_cost, shortened = 0, least_cost, least
    beyond, beyond_cost = len(text), whole_cost
    guessed = True
    while beyond - kept > 1 and budget - kept_cost > _CLOSE:
        # Where a text is even, the first guess is almost right; where not, halving ends the search.
        share = (budget - kept_cost) / (beyond_cost - kept_cost) if guessed else 0.5
        middle = min(max(kept + int((beyond - kept) * share), kept + 1), beyond - 1)
        guessed = not guessed
        shorter = Message(message.role, without_middle(text, middle))
        if (middle_cost := cost(shorter)) <= budget:
            kept, kept_cost, shortened = middle, middle_cost, shorter
        else:
            beyond, beyond_cost = middle, middle_cost
    return shortened


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
