"""Cuts a growing reply into pages that each read well alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from bot.text.graphemes import boundaries
from bot.text.markdown import (
    LONGEST_CLOSING,
    Block,
    block_behind,
    close,
    closing,
    fence_opened_by,
    inside_spans,
    is_list_item,
    is_marker_only,
    is_table_row,
    may_be_delimiter_row,
    may_open_fence,
    open_fence,
    tidy,
)

Measure = Callable[[str], int]

# The lines added for a fence take up to 73, and an escaped character up to 6.
SMALLEST_LIMIT = 80
_LARGEST_HEAD = 4  # of a table, as a part of a page: a larger one is not repeated

_SENTENCE_END = re.compile("[.!?…][\"'”’)\\]*_]*(?=[^\\S\\n])|[\u3002\uff01\uff1f]")  # noqa: RUF001
_SPACE = re.compile(r"(?=[^\S\n])")
_MARKS = "`~*_|\\"  # a run of one of these is one mark
_NO_CUT, _BELOW_HEADING, _BETWEEN_LINES, _BETWEEN_ITEMS, _BETWEEN_BLOCKS = range(-1, 4)


class Pager:
    """Cuts a growing text into pages; all pages but the last are cut only once.

    No page is blank, or larger than `limit` by `measure`; the last one fits after `close`, too. A
    text that needs no cut is returned unchanged. The pages joined are the text, except that lines
    are added so that each page reads well alone (they close and open a code fence, or repeat the
    head of a table), that one whitespace character may be missing at each cut, and that blank
    pages, and whitespace at the end that does not fit, are left out.

    `measure` must not shrink when a text grows, or be larger for two joined texts than for both
    alone. The limit is SMALLEST_LIMIT at least.
    """

    def __init__(self, *, limit: int, measure: Measure) -> None:
        self.limit = limit
        self.measure = measure
        self._reserve = measure(LONGEST_CLOSING)
        self._settled: str
        self._block: Block
        self._restart()

    def cut(self, text: str) -> list[str]:
        """Return the pages of a text; fast if it continues the previous text."""
        if not text.startswith(self._settled):
            self._restart()
        visible = len(text.rstrip())
        start = len(self._settled)
        while start < visible:
            opening = self._opening(text, start)
            size = self._fitting(text, start=start, opening=opening)
            if start + size >= visible:
                self._settled = text[:start]
                return [*self._done, opening + text[start : start + size]]
            # The cut depends on the first character that does not fit, but on none after it, so it
            # does not move when the text grows.
            end = start + _cut(text[start : start + size + 1], self._block)
            start = self._settle(text, start, end, opening)
        self._settled = text[:start]
        return list(self._done)

    def split(self, page: str, shown: str) -> list[str]:
        """Return a page as two or more, the first with the words that were `shown`; or it alone."""
        block, line = block_behind(shown, Block()), shown.rfind("\n") + 1
        torn = inside_spans(shown, line, longest=self.limit)
        spaces = "\n" if block.fence else " \n"
        places = (at for at in range(len(shown), 0, -1) if page[at : at + 1] in tuple(spaces))
        end = next((at for at in places if at not in torn), 0)
        if not page.startswith(shown) or not shown[:end].strip():
            return [page]
        rest = page[end + 1 :]
        block = block_behind(shown[: end + (page[end] == "\n")], Block())
        opening = block.opening(rest[: self.limit])
        below = Pager(limit=self.limit, measure=self.measure).cut(opening + rest)
        return [self.tidied(close(shown[:end])), *below]

    def tidied(self, page: str) -> str:
        """Return the last page of a growing text, without unfinished markup; may be blank."""
        shown = tidy(page)
        return shown if self.measure(shown) <= self.limit else close(page)

    def _restart(self) -> None:
        self._settled = ""  # the text of the finished pages
        self._done: list[str] = []
        self._block = Block()

    def _opening(self, text: str, start: int) -> str:
        """Return the lines that reopen a page's block; "" if they are too large a part of it."""
        if not start:
            return ""
        opening = self._block.opening(text[start : start + self.limit])
        too_large = self.measure(opening) > self.limit // _LARGEST_HEAD
        return "" if too_large and not self._block.fence else opening

    def _settle(self, text: str, begin: int, end: int, opening: str) -> int:
        """Finish a page with an opening and this part of the text; return its end in the text."""
        body, next_one = text[begin:end], text[end : end + 1]
        if body.strip():
            self._done.append(close(opening + body))
        self._block = block_behind(body + "\n" if next_one == "\n" else body, self._block)
        return end + next_one.isspace()

    def _fitting(self, text: str, *, start: int, opening: str) -> int:
        """Return the largest number of characters (at least 1) that fit with blocks closed."""
        limit, remaining = self.limit, len(text) - start

        def surely_fits(size: int) -> bool:
            page = opening + text[start : start + size]
            fenced = opening or "```" in page or "~~~" in page
            return self.measure(page) + (self._reserve if fenced else 0) <= limit

        if remaining <= limit and surely_fits(remaining):
            return remaining
        size, too_many = 0, limit
        while too_many < remaining and surely_fits(too_many):
            size, too_many = too_many, 2 * too_many
        too_many = min(too_many, remaining + 1)
        while too_many - size > 1:
            middle = (size + too_many) // 2
            size, too_many = (middle, too_many) if surely_fits(middle) else (size, middle)
        # The reserve is few characters: try them one by one, each with its own closing.
        page = opening + text[start : start + size]
        line = page.rfind("\n") + 1
        fence = open_fence(page[:line])
        while size < remaining:
            page += text[start + size]
            if self.measure(page + closing(page[line:], fence)) > limit:
                break
            size += 1
        return max(size, 1)


def _cut(chunk: str, block: Block) -> int:
    """Return the best end of a page; the chunk's last character does not fit."""
    last = len(chunk) - 1
    whole = _whole_ends(chunk)
    for least in (last // 2, last // 8):
        end = _line_cut(chunk, block, least=least)
        if end is None:
            end = _inner_cut(chunk, block, whole, least=least)
        if end is not None:
            return end
    return whole[0] if whole and whole[0] > last // 2 else last


def _line_cut(chunk: str, block: Block, *, least: int) -> int | None:
    """Return the last newline between blocks, else between items, else between lines."""
    best: tuple[int, int] | None = None
    newline = -1
    heading = False
    for line, following in pairwise(chunk.split("\n")):
        newline += 1 + len(line)
        before, block = block, block.after(line)
        if line.strip():
            heading = not before.fence and not block.fence and line.startswith("#")
        if newline < max(least, 1):
            continue
        rank = _rank(line, following, before, block)
        if rank == _BETWEEN_BLOCKS and heading:
            rank = _BELOW_HEADING
        if rank != _NO_CUT:
            best = max(best or (rank, newline), (rank, newline))
    return best[1] if best else None


def _rank(line: str, following: str, before: Block, block: Block) -> int:
    """Return how good a cut between two lines is.

    A heading preferably stays with what follows it, no fence or table is left empty, and no line of
    code becomes the end of its fence.
    """
    if block.fence:
        opens = not before.fence
        torn = block.fence.begun_by(line) or block.fence.closed_by(following)
        return _NO_CUT if opens or torn else _BETWEEN_LINES
    if is_table_row(line) and not before.table and may_be_delimiter_row(following):
        return _NO_CUT
    if block.table and not before.table:
        return _NO_CUT
    if not line.strip() or before.fence or fence_opened_by(following):
        return _BETWEEN_BLOCKS
    if line.startswith("#"):
        return _BELOW_HEADING
    return _BETWEEN_ITEMS if is_list_item(following) else _BETWEEN_LINES


def _inner_cut(chunk: str, block: Block, whole: Sequence[int], *, least: int) -> int | None:
    """Return the last possible end of a sentence, else space, else end of a character."""
    block = block_behind(chunk, block)
    fence, line = block.fence, chunk.rfind("\n") + 1
    # A span of more than half a page would leave few words on it.
    torn = inside_spans(chunk, line, longest=len(chunk) // 2) if not fence else set()
    kinds = (_SENTENCE_END, _SPACE) if not fence else (_SPACE,)
    found = ([it.end() for it in kind.finditer(chunk, 0, len(chunk) - 1)][::-1] for kind in kinds)
    whole_set = set(whole)
    for ends in (*found, whole):
        for end in ends:
            if end < max(least, 1):
                break
            if end in torn or end not in whole_set:
                continue
            if may_open_fence(chunk, end + chunk[end].isspace()):
                continue
            before = block.begun[: end - len(chunk)]
            if not (fence.begun_by(before) if fence else before and is_marker_only(before)):
                return end
    return None


def _whole_ends(chunk: str) -> list[int]:
    """Return where a cut tears neither a character nor a run of marks, last first."""
    ends = boundaries(chunk)[-2::-1]
    return [end for end in ends if chunk[end] not in _MARKS or chunk[end] != chunk[end - 1]]
