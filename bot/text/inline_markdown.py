"""Spans of inline Markdown: links, addresses, code and emphasis, complete or still open."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace

# Groups are not repeated possessively: Python before 3.11.5 does not go back to where a group began
# that fails (CPython issue 106052).
# May contain pairs of parentheses, and ends where a link's target ends.
ADDRESS = r"(?i:https?)://(?:[^\s<>()`\"]++|\([^\s<>()]*+\))*"
# CommonMark 0.31, section 6.3: words in brackets, then the target. Brackets and parentheses within
# are in pairs, here nested once at most.
_WORDS = r"(?:[^\[\]\n]++|\[[^\[\]\n]*+\])*"
_TARGET = r"\((?:[^()\n]++|\([^()\n]*+\))*"
_TARGET_BEGUN = rf"{_TARGET}(?:\([^()\n]*+)?\Z"
_LINK = rf"!?\[{_WORDS}\](?:{_TARGET}\)|\[[^\[\]\n]*+\])"
_LINK_BEGUN = rf"!?\[{_WORDS}(?:(?:\[[^\[\]\n]*+)?\Z|\](?:\Z|\[[^\[\]\n]*+\Z|{_TARGET_BEGUN}))"
_UNFINISHED_LINK = re.compile(rf"!?\[({_WORDS})\]{_TARGET_BEGUN}")
_OPEN_LINK = re.compile(rf"{_LINK_BEGUN}|!\Z")
# A longer address is shown while it grows.
_UNFINISHED_ADDRESS = re.compile(
    rf"<?(?=(?i:https?)://\S{{0,2000}}+\Z){ADDRESS}(?:\([^\s<>()]*+)?\Z"
)
# Mentions, emoji and addresses in angle brackets count as one word.
_SPAN = re.compile(
    r"(?<!`)(`+)(?!`).*?(?:(?<!`)\1(?!`)|\Z)"
    rf"|{_LINK}|{_LINK_BEGUN}"
    r"|https?://\S+"
    r"|<[^<>\s]+(?:>|\Z)"
    r"|\*\*(?=\S).*?(?:\*\*|\Z)"
)
_MARKS = re.compile(r"\\.|`+|\*+|_+|~~", re.DOTALL)


def inside_spans(text: str, start: int, *, longest: int) -> set[int]:
    """Return the positions from `start` on where a cut would tear a span.

    A span that is open for longer than so many characters counts as text, unless it is one word.
    """
    inside: set[int] = set()
    while found := _SPAN.search(text, start):
        first, start = found.span()
        if start == len(text) and start - first > longest and " " in found[0]:
            start = first + 1
        else:
            inside.update(range(first + 1, start))
    return inside


def without_half_address(text: str) -> str:
    """Return a growing text without the address at its end, which may be incomplete."""
    return _UNFINISHED_ADDRESS.sub("", text) if "://" in text else text


def tidy_spans(block: str) -> str:
    """Return a growing block with its spans closed, and only the words of an incomplete link."""
    block = _UNFINISHED_LINK.sub(r"\1", block).rstrip()
    open_marks = _open_marks(block)
    # A mark that was opened last, and has no word behind it yet, is removed instead.
    while open_marks and not block[open_marks[-1].end :].strip():
        # The mark may be part of an address.
        block = without_half_address(block[: open_marks.pop().start]).rstrip()
    return block + "".join(mark.run for mark in reversed(open_marks))


def settled_spans(block: str) -> int:
    """Return how many characters of a growing block precede its first open span."""
    found = [mark.start for mark in _open_marks(block)[:1]]
    if link := _OPEN_LINK.search(block):
        found.append(link.start())
    return min(found, default=len(block))


@dataclass(frozen=True, slots=True)
class _Mark:
    """A run of marks that opens a span, and its position. `run` is the part not closed yet."""

    run: str
    start: int
    end: int


def _open_marks(block: str) -> list[_Mark]:
    marks: list[_Mark] = []
    kinds: Counter[str] = Counter()  # of the open marks
    at = 0
    while found := _MARKS.search(block, at):
        run, at = found[0], found.end()
        if run[0] == "`":
            end = re.compile(rf"(?<!`){run}(?!`)").search(block, at)
            if end is None:
                return [*marks, _Mark(run, found.start(), at)]
            at = end.end()
        elif run[0] != "\\":
            left = _close_marks(marks, kinds, found)
            if left and _may_open(found):
                kinds[run[0]] += 1
                marks.append(_Mark(run[:left], found.start(), at))
    return marks


def _close_marks(marks: list[_Mark], kinds: Counter[str], found: re.Match[str]) -> int:
    """Close the open marks that a run closes; return how many of its own marks are left."""
    kind, left = found[0][0], len(found[0])
    if not _before(found).strip() or (kind == "_" and _is_inside_word(found)):
        return left
    while left and kinds[kind]:
        while marks[-1].run[0] != kind:
            kinds[marks.pop().run[0]] -= 1
        last = marks.pop()
        closed = min(left, len(last.run))
        left -= closed
        if closed < len(last.run):
            marks.append(replace(last, run=last.run[closed:]))
        else:
            kinds[kind] -= 1
    return left


def _may_open(found: re.Match[str]) -> bool:
    literal = _is_inside_word(found) and (found[0][0] == "_" or len(found[0]) == 1)
    return len(found[0]) <= 3 and not _behind(found).isspace() and not literal


def _is_inside_word(found: re.Match[str]) -> bool:
    return _before(found).isalnum() and _behind(found).isalnum()


def _before(found: re.Match[str]) -> str:
    return found.string[max(found.start() - 1, 0) : found.start()]


def _behind(found: re.Match[str]) -> str:
    return found.string[found.end() : found.end() + 1]
