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

# The only character that makes a cell narrower as the text grows (text presentation).
_NARROW = "\ufe0e"


@lru_cache(maxsize=16)
def tables_as_code(text: str) -> str:
    """Return Markdown with each of its tables in a code fence, the cells of a column equally wide.

    It only adds characters, so that a text that grows never takes less room.
    """
    if "\n|" not in text and not text.startswith("|"):
        return text
    return "\n".join(_shown(text.split("\n")))


def _shown(lines: list[str]) -> Iterator[str]:
    block = Block()
    at = 0
    while at < len(lines):
        block = block.after(lines[at])
        if not _begins_table(block, lines, at):
            yield lines[at]
            at += 1
            continue
        end = next((n for n in range(at, len(lines)) if not is_row(lines[n])), len(lines))
        rows = lines[at:end]
        yield from _in_code(rows)
        block, at = Block(), end


def _begins_table(block: Block, lines: list[str], at: int) -> bool:
    """Whether a table begins with this line, which has ended the block."""
    # Most lines need no closer look; and the last one may still become another.
    if block.table or block.fence or at + 2 >= len(lines) or not is_row(lines[at]):
        return False
    return may_delimit(lines[at + 1]) and bool(block.after(lines[at + 1]).table)


def _in_code(rows: list[str]) -> Iterator[str]:
    widths = tuple(map(max, zip_longest(*(_cells(row).widths for row in rows), fillvalue=0)))
    head, ruler, *others = rows
    yield _FENCE
    yield _padded(head, widths)
    yield _padded(ruler.replace(":", "-"), widths, filler="-")
    yield from (_padded(row, widths) for row in others)
    yield _FENCE


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells of a row, and the columns that each takes in a fixed-width font."""

    texts: tuple[str, ...]
    widths: tuple[int, ...]


# A table is measured and shown again and again while it grows, and only its last row changes; so
# many short rows fill some pages.
@lru_cache(maxsize=1024)
def _cells(row: str) -> _Cells:
    texts = tuple(_PIPE.split(_FENCE_BEGUN.sub(_APART, row)))
    return _Cells(texts, tuple(map(_width, texts)))


@lru_cache(maxsize=1024)
def _padded(row: str, widths: tuple[int, ...], *, filler: str = " ") -> str:
    cells = _cells(row)
    # What stands behind a row's last pipe, or of a row that is not whole yet, needs no room.
    sized = zip(cells.texts[:-1], cells.widths, widths, strict=False)
    padded = [text + filler * (wanted - width) for text, width, wanted in sized]
    return "|".join([*padded, cells.texts[-1]])


def _width(cell: str) -> int:
    """Return the columns that a cell takes in a fixed-width font."""
    if cell.isascii():
        return len(cell)
    # Character by character: the time of `width` for a row of flags is quadratic (wcwidth 0.9.4).
    graphemes = iter_graphemes(cell.replace(_NARROW, ""))
    return sum(len(one) if one.isascii() else width(one) for one in graphemes)
