"""The messages that the model sees for a turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bot.domain import Exchange, Message, Person, Turn
from bot.tokens import MESSAGE_OVERHEAD

CUT = "[…]"
_NAME_LENGTH = 40  # characters
# What a reader takes for a colon.
_COLONS = frozenset(":\uff1a\ufe55\ufe13\ufe30\ua789\u2236\u02d0")


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages, how many exchanges found no room, and whether the new message was cut."""

    messages: tuple[Message, ...]
    dropped: int
    cut: bool


def window(
    *,
    system: str,
    exchanges: Sequence[Exchange],
    turn: Turn,
    budget: int,
    count: Callable[[str], int],
) -> Prompt:
    """Return the system prompt, the newest exchanges that fit and the new message, in this order.

    `budget` is in tokens and pays for every message's text, as `count` has it, and for
    MESSAGE_OVERHEAD. Exchanges are dropped whole, oldest first. The system prompt stays, and so
    does the new message: when it is too long, the mark "[…]" stands for its middle. Where the
    system prompt leaves no room even for the mark, the message is left whole, for the model's
    server to judge. User and assistant alternate, no answer is empty, and an empty system prompt
    is left out. When several persons speak in the thread, each user message begins with "Name: ".
    """
    spoken = [one for one in exchanges if one.question.strip() and one.answer.strip()]
    several = len({turn.person.id, *(one.person.id for one in spoken)}) > 1

    def cost(*texts: str) -> int:
        return sum(count(text) + MESSAGE_OVERHEAD for text in texts)

    head = [Message("system", system)] if system.strip() else []
    room = budget - cost(*(message.text for message in head))
    name = _label(turn.person) if several else ""
    text = _shorten(turn.text, fits=lambda shorter: cost(name + shorter) <= room)
    new = Message("user", name + text)
    room -= cost(new.text)

    kept: list[Message] = []
    for exchange in reversed(spoken):
        question = (_label(exchange.person) if several else "") + exchange.question
        room -= cost(question, exchange.answer)
        if room < 0:
            break
        kept[:0] = Message("user", question), Message("assistant", exchange.answer)
    return Prompt(
        messages=(*head, *kept, new),
        dropped=len(spoken) - len(kept) // 2,
        cut=text != turn.text,
    )


def _shorten(text: str, *, fits: Callable[[str], bool]) -> str:
    """Return `text` with as little taken from its middle as fits; itself when nothing helps."""
    if fits(text) or not fits(CUT):
        return text
    kept, too_many = 0, len(text)
    while too_many - kept > 1:
        middle = (kept + too_many) // 2
        if fits(_without_middle(text, middle)):
            kept = middle
        else:
            too_many = middle
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    tail = kept // 2
    return text[: kept - tail] + CUT + text[len(text) - tail :]


def _label(person: Person) -> str:
    """Name the person on one line, in a way that no name can pass for two speakers."""
    seen = "".join(c if c.isprintable() and c not in _COLONS else " " for c in person.name)
    name = " ".join(seen.split())[:_NAME_LENGTH].rstrip()
    return f"{name or 'Somebody'}: "
