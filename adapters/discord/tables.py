"""Tables for Discord, which shows none: as code, in columns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import zip_longest

from bot.markdown import Block, is_row

_PIPE = re.compile(r"(?<!\\)\|")
_FENCE = "```"
_NO_FENCE = "``\u200b`"  # with a space of no width, so that a cell does not end the code


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
        # The last line may still become another.
        below = block.after(lines[at + 1]) if at + 2 < len(lines) else block
        if not below.table or block.table or block.fence:
            yield lines[at]
            at += 1
            continue
        end = next((n for n in range(at, len(lines)) if not is_row(lines[n])), len(lines))
        rows = lines[at:end]
        yield from _in_code(rows)
        block, at = Block(), end


def _in_code(rows: list[str]) -> Iterator[str]:
    cells = [_PIPE.split(row.replace(_FENCE, _NO_FENCE)) for row in rows]
    widths = [max(map(_width, column)) for column in zip_longest(*cells, fillvalue="")]
    cells[1] = [cell.replace(":", "-") for cell in cells[1]]
    yield _FENCE
    for number, row in enumerate(cells):
        filler = "-" if number == 1 else " "
        # What stands behind a row's last pipe, or of a row that is not whole yet, needs no room.
        padded = [_padded(cell, widths[n], filler) for n, cell in enumerate(row[:-1])]
        yield "|".join([*padded, row[-1]])
    yield _FENCE


def _padded(cell: str, width: int, filler: str) -> str:
    return cell + filler * (width - _width(cell))


def _width(cell: str) -> int:
    """Return the columns that a cell takes in a fixed-width font."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in cell)
    marks = sum(unicodedata.combining(character) > 0 for character in cell)
    return len(cell) + wide - marks
