"""What became of each turn of a talk, as the bot's messages there tell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from bot.reply.draft import BEGINNING_LEFT_OUT, CONTEXT_UNREAD, STOPPED
from tests.chaos.talks import ANEW, APOLOGIES, Gone, Talk, answer_to, bare

# Of a turn; the best first. Its answer is whole, or it has an apology, alone or below what it said
# or what it said before its question was edited; half an answer has neither end, and a stale one is
# to the former text of a question.
End = Literal[
    "whole",
    "apology",
    "part and apology",
    "former and apology",
    "whole and apology",
    "stale",
    "half",
    "lost",
]
# What stands there besides. Anew is an answer that was deleted, and unended one to a question that
# was, unless it is stopped.
Extra = Literal["doubled", "stray", "anew", "unended"]

ENDS: tuple[End, ...] = get_args(End)
EXTRAS: tuple[Extra, ...] = get_args(Extra)
ALLOWED = ENDS[:4]


@dataclass(frozen=True, slots=True)
class Seen:
    """How a turn ended, and what of its answer stands there, without white space.

    `heard` are the remarks of others that the answer depends on.
    """

    number: int
    end: End
    said: str = ""
    heard: tuple[int, ...] = ()


@dataclass(slots=True)
class Screen:
    """Each turn of a talk once, those that said something in their order; and what is too much."""

    turns: list[Seen] = field(default_factory=list)
    extras: list[tuple[Extra, str]] = field(default_factory=list)


def read_talk(talk: Talk) -> Screen:
    """Match what the bot's messages show with what was asked in a talk."""
    return read(talk.asked, talk.shown(), former=talk.former, gone=talk.gone)


def read(
    asked: Sequence[int],
    shown: Sequence[str],
    *,
    former: Mapping[int, int] | None = None,
    gone: Mapping[int, Gone] | None = None,
) -> Screen:
    """Match what the bot's messages show, oldest first, with the numbers that were asked.

    `former` has the numbers that questions had before they were edited, and `gone` what was
    deleted.
    """
    former, gone = former or {}, gone or {}
    pieces = _pieces(shown)
    _name(pieces, asked, former, gone)
    screen, ends = Screen(), dict[int, Seen]()
    for piece in pieces:
        number = former.get(piece.number, piece.number)
        if number in gone:
            screen.extras += _left_of_deleted(piece, gone[number])
            continue
        if number not in asked:
            screen.extras.append(("stray", _excerpt(piece)))
            continue
        said = piece.said[: len(_whole(piece))]
        seen = Seen(number, _end(piece, number), said, piece.heard)
        if piece.extra:
            screen.extras.append(("stray", f"below {piece.number}: {piece.extra[:60]}"))
        if other := ends.get(number):
            screen.extras.append(("doubled", _excerpt(piece)))
            seen = min(other, seen, key=_badness)
        ends[number] = seen
    screen.turns = [*ends.values(), *(Seen(each, "lost") for each in asked if each not in ends)]
    return screen


@dataclass(slots=True)
class _Piece:
    """What was said in one go, and the apology below it; 0 is no number."""

    number: int
    said: str
    apology: str

    @property
    def heard(self) -> tuple[int, ...]:
        head = _NUMBER.match(self.said)
        return tuple(map(int, head[2].split(","))) if head and head[2] else ()

    @property
    def is_whole(self) -> bool:
        return bool(self.number) and self.said.startswith(_whole(self))

    @property
    def is_closed(self) -> bool:
        return bool(self.apology) or self.is_whole or self.said.endswith(_STOPPED)

    @property
    def extra(self) -> str:
        return self.said[len(_whole(self)) :] if self.is_whole else ""

    @property
    def end(self) -> End:
        if self.is_whole:
            return "whole and apology" if self.apology else "whole"
        if self.apology and _begins(self.number, self.said):
            return "part and apology" if self.said else "apology"
        return "half"


# "heard" and numbers follow without a blank once white space is taken away.
_BEGINS = re.compile(r"(?=Answer\d+(?:heard[\d,]+)?:)")
_NUMBER = re.compile(r"Answer(\d+)(?:heard([\d,]+))?:")
_STOPPED = bare(STOPPED)
_ANEW = tuple(map(bare, ANEW))
# Below an answer that does not know how the talk began, or what was said before the question.
_NOTICES = re.compile("|".join(re.escape(bare(it)) for it in (BEGINNING_LEFT_OUT, CONTEXT_UNREAD)))
_APOLOGY = re.compile(
    "|".join(sorted(map(re.escape, map(bare, (*APOLOGIES, *ANEW))), key=len, reverse=True))
)


def _pieces(shown: Sequence[str]) -> list[_Piece]:
    """Cut what is shown where an answer begins and behind each apology.

    What begins a message without being an answer's beginning goes on with what was said last,
    unless that was at its end.
    """
    pieces: list[_Piece] = []
    for message in map(bare, shown):
        for said, apology in _cut(_NOTICES.sub("", message)):
            number = _NUMBER.match(said)
            last = pieces[-1] if pieces else None
            if number is None and last and not last.is_closed:
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


def _name(
    pieces: list[_Piece], asked: Sequence[int], former: Mapping[int, int], gone: Mapping[int, Gone]
) -> None:
    """Give those whose number nobody can read to the turns that show nothing else, in order.

    An apology that is then left over belongs below the answer before it. If there is no answer to
    the newest text of a question, the former one stays with an apology of its own, if it had one.
    """
    named = {former.get(piece.number, piece.number) for piece in pieces}
    deleted = [number for number, what in gone.items() if what == "question"]
    left = [each for each in (*asked, *deleted) if each not in named]
    for before, piece in zip([None, *pieces], list(pieces), strict=False):
        if piece.number:
            continue
        if deleted and piece.said.endswith(_STOPPED):
            piece.number = deleted[0]
            continue
        number = next((each for each in left if _begins(each, piece.said)), 0)
        # What stood there before an edit may be too short to tell its number.
        older = [old for old, new in former.items() if new in left and _begins(old, piece.said)]
        if piece.said and piece.apology in _ANEW and older:
            piece.number = older[0]
            left.remove(former[older[0]])
        elif number:
            piece.number = number
            left.remove(number)
        elif before and not piece.said and _may_end_with(before, piece.apology, former):
            before.apology = piece.apology
            pieces.remove(piece)


def _may_end_with(piece: _Piece, apology: str, former: Mapping[int, int]) -> bool:
    stays = piece.number in former and apology in _ANEW and piece.apology not in _ANEW
    return not piece.apology or stays


def _end(piece: _Piece, number: int) -> End:
    if piece.number != number:
        return "former and apology" if piece.apology in _ANEW else "stale"
    return "half" if piece.apology in _ANEW else piece.end


def _left_of_deleted(piece: _Piece, what: Gone) -> Iterator[tuple[Extra, str]]:
    if what == "answer":
        yield "anew", _excerpt(piece)
    elif not piece.is_closed:
        yield "unended", _excerpt(piece)


def _badness(seen: Seen) -> int:
    return ENDS.index(seen.end)


def _whole(piece: _Piece) -> str:
    return bare(answer_to(piece.number, piece.heard))


def _begins(number: int, said: str) -> bool:
    """Whether the answer of this number may begin so, whatever it depends on."""
    if head := _NUMBER.match(said):
        heard = tuple(map(int, head[2].split(","))) if head[2] else ()
        return int(head[1]) == number and bare(answer_to(number, heard)).startswith(said)
    return f"Answer{number}:".startswith(said) or bool(
        re.fullmatch(rf"Answer{number}h(?:e(?:a(?:r(?:d[\d,]*)?)?)?)?", said)
    )


def _excerpt(piece: _Piece) -> str:
    text = piece.said + piece.apology
    return text if len(text) < 120 else f"{text[:60]} … {text[-60:]}"
