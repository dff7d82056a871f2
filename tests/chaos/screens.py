"""What became of each turn of a talk, as the bot's messages there tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bot.reply.draft import BEGINNING_LEFT_OUT
from tests.chaos.talks import APOLOGIES, answer_to

# Of a turn; the best first. Its answer is whole, or it has an apology, alone or below what it said;
# half an answer has neither end.
End = Literal["whole", "apology", "part and apology", "whole and apology", "half", "lost"]
# What stands there besides.
Extra = Literal["doubled", "stray"]

ENDS: tuple[End, ...] = (
    "whole",
    "apology",
    "part and apology",
    "whole and apology",
    "half",
    "lost",
)
EXTRAS: tuple[Extra, ...] = ("doubled", "stray")
ALLOWED: tuple[End, ...] = ("whole", "apology", "part and apology")


@dataclass(frozen=True, slots=True)
class Seen:
    """How a turn ended, and what of its answer stands there, without white space."""

    number: int
    end: End
    said: str = ""


@dataclass(slots=True)
class Screen:
    """Each turn of a talk once, those that said something in their order; and what is too much."""

    turns: list[Seen] = field(default_factory=list)
    extras: list[tuple[Extra, str]] = field(default_factory=list)


def read(asked: Sequence[int], shown: Sequence[str]) -> Screen:
    """Match what the bot's messages show, oldest first, with the numbers that were asked."""
    pieces = _pieces(shown)
    _name(pieces, asked)
    screen, ends = Screen(), dict[int, Seen]()
    for piece in pieces:
        if piece.number not in asked:
            screen.extras.append(("stray", _excerpt(piece)))
            continue
        seen = Seen(piece.number, piece.end, piece.said[: len(_whole(piece.number))])
        if piece.extra:
            screen.extras.append(("stray", f"below {piece.number}: {piece.extra[:60]}"))
        if other := ends.get(piece.number):
            screen.extras.append(("doubled", _excerpt(piece)))
            seen = min(other, seen, key=_badness)
        ends[piece.number] = seen
    screen.turns = [*ends.values(), *(Seen(each, "lost") for each in asked if each not in ends)]
    return screen


def bare(text: str) -> str:
    """Return a text without white space: pages are cut at it."""
    return "".join(text.split())


@dataclass(slots=True)
class _Piece:
    """What was said in one go, and the apology below it; 0 is no number."""

    number: int
    said: str
    apology: str

    @property
    def is_whole(self) -> bool:
        return bool(self.number) and self.said.startswith(_whole(self.number))

    @property
    def extra(self) -> str:
        return self.said[len(_whole(self.number)) :] if self.is_whole else ""

    @property
    def end(self) -> End:
        if self.is_whole:
            return "whole and apology" if self.apology else "whole"
        if self.apology and _whole(self.number).startswith(self.said):
            return "part and apology" if self.said else "apology"
        return "half"


_BEGINS = re.compile(r"(?=Answer\d+:)")
_NUMBER = re.compile(r"Answer(\d+):")
# Below the first answer that does not know how the talk began.
_NOTICE = bare(BEGINNING_LEFT_OUT)
_APOLOGY = re.compile("|".join(sorted(map(re.escape, map(bare, APOLOGIES)), key=len, reverse=True)))


def _pieces(shown: Sequence[str]) -> list[_Piece]:
    """Cut what is shown where an answer begins and behind each apology.

    What begins a message without being an answer's beginning goes on with what was said last,
    unless that was at its end.
    """
    pieces: list[_Piece] = []
    for message in map(bare, shown):
        for said, apology in _cut(message.replace(_NOTICE, "")):
            number = _NUMBER.match(said)
            last = pieces[-1] if pieces else None
            if number is None and last and not last.apology and not last.is_whole:
                last.said, last.apology = last.said + said, apology
            else:
                pieces.append(_Piece(int(number[1]) if number else 0, said, apology))
    return pieces


def _cut(message: str) -> Iterator[tuple[str, str]]:
    for rest in filter(None, _BEGINS.split(message)):
        while rest:
            found = _APOLOGY.search(rest)
            end, after = found.span() if found else (len(rest), len(rest))
            yield rest[:end], rest[end:after]
            rest = rest[after:]


def _name(pieces: list[_Piece], asked: Sequence[int]) -> None:
    """Give those whose number nobody can read to the turns that show nothing else, in order.

    An apology that is then left over belongs below the answer before it.
    """
    left = [each for each in asked if each not in {piece.number for piece in pieces}]
    for before, piece in zip([None, *pieces], list(pieces), strict=False):
        if piece.number:
            continue
        number = next((each for each in left if _whole(each).startswith(piece.said)), 0)
        if number:
            piece.number = number
            left.remove(number)
        elif before and not piece.said and not before.apology:
            before.apology = piece.apology
            pieces.remove(piece)


def _badness(seen: Seen) -> int:
    return ENDS.index(seen.end)


def _whole(number: int) -> str:
    return bare(answer_to(number))


def _excerpt(piece: _Piece) -> str:
    text = piece.said + piece.apology
    return text if len(text) < 120 else f"{text[:60]} … {text[-60:]}"
