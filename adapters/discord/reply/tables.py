"""Tables for Discord, which displays none: as code, in columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

from wcwidth import iter_graphemes, width

from bot.text.markdown import Block, is_row, may_delimit

_PIPE = re.compile(r"(?<!\\)\|")
_FENCE = "```"
# A zero-width space keeps the backticks of a cell from ending the code.
_FENCE_BEGUN, _APART = re.compile("``(?=`)"), "``\u200b"
# Of a text, and half of what a message has room for. Were there no end to it, short rows below a
# wide head would fill message after message with spaces.
_MOST_PADDING = 1000  # characters

# The only character that makes a cell narrower as the text grows (text presentation).
_NARROW = "\ufe0e"


@lru_cache(maxsize=16)
def tables_as_code(text: str) -> str:
    """Return Markdown with each of its tables in a code fence, the cells of a column equally wide.

    Rows stay as they are once the padding is used up. It only adds characters, so that a text that
    grows never takes less room.
    """
    if "\n|" not in text and not text.startswith("|"):
        return text
    return "\n".join(_shown(text.split("\n")))


def _shown(lines: list[str]) -> Iterator[str]:
    block = Block()
    at, left = 0, _MOST_PADDING
    while at < len(lines):
        block = block.after(lines[at])
        if not _begins_table(block, lines, at):
            yield lines[at]
            at += 1
            continue
        end = next((n for n in range(at, len(lines)) if not is_row(lines[n])), len(lines))
        yield _FENCE
        for row in _even(lines[at:end], left):
            yield row.text
            left -= row.padding
        yield _FENCE
        block, at = Block(), end


def _begins_table(block: Block, lines: list[str], at: int) -> bool:
    """Whether a table begins with this line, which has ended the block."""
    # Most lines need no closer look; and the last one may still become another.
    if block.table or block.fence or at + 2 >= len(lines) or not is_row(lines[at]):
        return False
    return may_delimit(lines[at + 1]) and bool(block.after(lines[at + 1]).table)


def _even(rows: list[str], left: int) -> Iterator[_Row]:
    """Return the rows of a table with even columns, as far as so much padding is left for it."""
    widths = tuple(map(max, zip_longest(*(_cells(row).widths for row in rows), fillvalue=0)))
    head, ruler, *others = rows
    for row, filler in ((head, " "), (ruler.replace(":", "-"), "-"), *((it, " ") for it in others)):
        padded = _padded(row, widths, filler, left)
        left -= padded.padding
        yield padded


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells of a row, and the columns that each takes in a fixed-width font."""

    texts: tuple[str, ...]
    widths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """A row as it is shown, and how many characters its cells were padded by."""

    text: str
    padding: int


# A table is measured and shown again and again while it grows, and only its last row changes; so
# many short rows fill some pages.
@lru_cache(maxsize=1024)
def _cells(row: str) -> _Cells:
    texts = tuple(_PIPE.split(_FENCE_BEGUN.sub(_APART, row)))
    return _Cells(texts, tuple(map(_width, texts)))


@lru_cache(maxsize=1024)
def _padded(row: str, widths: tuple[int, ...], filler: str, most: int) -> _Row:
    cells = _cells(row)
    padded = []
    left = most
    # What stands behind a row's last pipe, or of a row that is not whole yet, needs no room.
    for text, taken, column in zip(cells.texts[:-1], cells.widths, widths, strict=False):
        padding = min(column - taken, left)
        left -= padding
        padded.append(text + filler * padding)
    return _Row("|".join([*padded, cells.texts[-1]]), padding=most - left)


def _width(cell: str) -> int:
    """Return the columns that a cell takes in a fixed-width font."""
    if cell.isascii():
        return len(cell)
    # Character by character: the time of `width` for a row of flags is quadratic (wcwidth 0.9.4).
    graphemes = iter_graphemes(cell.replace(_NARROW, ""))
    return sum(len(one) if one.isascii() else width(one) for one in graphemes)
