"""What Markdown is open at a place in a text: fences, tables, lists and inline spans."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

# CommonMark 0.31, section 4.5, but for runs of more than 8, which would not fit small pages.
_OPENER = re.compile(r"( {0,3})(`{3,8}(?=[^`]*$)|~{3,8}(?!~))(.*)")
_LANGUAGE = re.compile(r"\s*([\w+#.-]{1,16})(?!\S)", re.ASCII)
LONGEST_CLOSING = "\n   " + 8 * "`"

# GitHub Flavored Markdown 0.29, section 4.10; only rows that begin with a pipe, as models write
# them, so that the first character of a line tells.
_DELIMITER_ROW = re.compile(r" {0,3}\|(?:\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?\s*")
_DELIMITER_BEGUN = re.compile(r"[\s|:-]*")
# CommonMark 0.31, section 5.2.
_ITEM = re.compile(r" {0,3}(?:(\d{1,9})([.)])|[-*+])(?=\s|$)")
_NEW_BLOCK = re.compile(r" {0,3}(?:#{1,6}(?:\s|$)|>)")
# A line that says nothing yet: the beginning of a heading, an item, a quote or a rule.
_MARKER_ONLY = re.compile(r"\s*(?:#{1,6}|[-*+=]+|\d{1,9}[.)]?|>|`{1,2}|~{1,2})?\s*")

_UNFINISHED_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\((?:[^()\n]|\([^()\n]*\))*(?:\([^()\n]*)?\Z")
_OPEN_LINK = re.compile(
    r"!?\[[^\[\]\n]*(?:\](?:\((?:[^()\n]|\([^()\n]*\))*(?:\([^()\n]*)?)?)?\Z|!\Z"
)
_LONG_OPEN = 200  # characters
_MARKS = re.compile(r"\\.|`+|\*+|_+|~~", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fence:
    """A code fence that has been opened."""

    indent: str
    run: str
    language: str

    @property
    def opening(self) -> str:
        """The line that opens such a fence again."""
        return f"{self.indent}{self.run}{self.language}\n"

    def closed_by(self, line: str) -> bool:
        """Whether the line closes the fence."""
        mark = line.strip()
        indent = len(line) - len(line.lstrip(" "))
        return indent <= 3 and len(mark) >= len(self.run) and not mark.strip(self.run[0])

    def begun_by(self, line: str) -> bool:
        """Whether the line may become the one that closes the fence."""
        mark = line.lstrip(" ")
        return line != "" and len(line) - len(mark) <= 3 and not mark.strip(self.run[0])

    def closing_after(self, line: str) -> str:
        """Return what closes the fence behind its last line, which may have begun to do so."""
        if not line:
            return self.indent + self.run
        if not self.begun_by(line):
            return f"\n{self.indent}{self.run}"
        return self.run[len(line.lstrip(" ")) :]


@dataclass(frozen=True, slots=True)
class Block:
    """What is open behind a line: a fence, a table, an ordered list.

    `table` is the head of the table, both lines of it. `number` is what the next item of the list
    is shown with, whatever number it has, and `delimiter` what stands behind it.
    """

    fence: Fence | None = None
    table: str = ""
    number: int | None = None
    delimiter: str = ""
    line: str = ""

    def after(self, line: str) -> Block:
        """Return what is open when one more line has ended."""
        if self.fence:
            return replace(self, fence=None) if self.fence.closed_by(line) else self
        following = self._list_after(line)
        return replace(following, fence=opened(line), table=self._table_after(line), line=line)

    def opening(self, text: str, start: int) -> tuple[str, int]:
        """Return what a page that begins here begins with, and how much that takes the place of."""
        if self.fence:
            return self.fence.opening, 0
        if self.table and text.startswith("|", start):
            return self.table, 0
        item = _ITEM.match(text, start)
        if item and item[1] and item[2] == self.delimiter and self.number is not None:
            return text[start : item.start(1)] + str(self.number), item.end(1) - start
        return "", 0

    def _table_after(self, line: str) -> str:
        if self.table:
            return self.table if line.lstrip(" ").startswith("|") else ""
        is_head = is_row(self.line) and _DELIMITER_ROW.fullmatch(line)
        return f"{self.line}\n{line}\n" if is_head and _cells(line) == _cells(self.line) else ""

    def _list_after(self, line: str) -> Block:
        item = _ITEM.match(line)
        if item and item[1]:
            goes_on = self.number is not None and item[2] == self.delimiter
            shown = self.number if goes_on and self.number is not None else int(item[1])
            return replace(self, number=shown + 1, delimiter=item[2])
        belongs = not line.strip() or line.startswith("  ")
        # A line right below an item goes on with it, even where it is not indented.
        lazy = self.line.strip() and not item and not _NEW_BLOCK.match(line) and not opened(line)
        return self if belongs or lazy else replace(self, number=None)


def opened(line: str) -> Fence | None:
    """Return the fence that the line opens."""
    if "```" not in line and "~~~" not in line:
        return None
    opener = _OPENER.fullmatch(line)
    if not opener:
        return None
    indent, run, info = opener.groups()
    language = _LANGUAGE.match(info)
    return Fence(indent, run, language[1] if language else "")


def is_row(line: str) -> bool:
    """Whether the line may be a row of a table."""
    return line.lstrip(" ").startswith("|")


def is_item(line: str) -> bool:
    """Whether the line begins an item at the top of a list."""
    return _ITEM.match(line) is not None


def may_delimit(line: str) -> bool:
    """Whether the line may become the one below a table's head."""
    return _DELIMITER_BEGUN.fullmatch(line) is not None


def behind(text: str, block: Block) -> Block:
    """Return what is open where the text's last line begins, or behind it where it ends a fence."""
    *lines, last = text.split("\n")
    for line in lines:
        block = block.after(line)
    return block.after(last) if block.fence and block.fence.closed_by(last) else block


def open_fence(text: str, fence: Fence | None = None) -> Fence | None:
    """Return the fence that is open at the end of a text, which `fence` was at its beginning."""
    if "```" not in text and "~~~" not in text:
        return fence
    *lines, last = text.split("\n")
    for line in lines:
        fence = _fence_after(line, fence)
    return None if fence and fence.closed_by(last) else fence


def close(text: str) -> str:
    """Return the text with its code fence closed, where one is open, so that it shows well alone.

    A fence is open once the line that opens it has ended.
    """
    return text + closing(text, None)


def closing(text: str, fence: Fence | None) -> str:
    """Return what closes the fence of a text, which `fence` was at its beginning."""
    fence = open_fence(text, fence)
    return fence.closing_after(text.rpartition("\n")[2]) if fence else ""


def tidy(text: str) -> str:
    """Return a text that still grows as it may be shown: nothing of its markup half written.

    What is open is closed; what cannot be told yet, a lone marker or the head of a table, is left
    out, and of a link without an end only the words are there. May be blank.
    """
    if open_fence(text):
        return close(text)
    start = _last_block(text)
    return text[:start] + _tidy_block(text[start:])


def settled(text: str) -> str:
    """Return the beginning of a text that still grows, as far as its markup cannot change any more.

    For surfaces that can add and not replace. What has been open for long is taken for words.
    """
    if open_fence(text):
        return text
    start = _last_block(text)
    end = start + _settled_block(text[start:])
    return text[:end] if len(text) - end <= _LONG_OPEN else text


def _last_block(text: str) -> int:
    """Return where the last stretch of text begins that inline markup cannot leave."""
    start = at = 0
    fence: Fence | None = None
    row = False
    for line in text.split("\n")[:-1]:
        begin, at = at, at + len(line) + 1
        inside, fence = fence, _fence_after(line, fence)
        if inside or fence or not line.strip():
            start = at
        elif is_item(line) or _NEW_BLOCK.match(line) or (is_row(line) and not row):
            start = begin
        row = is_row(line)
    last = text[at:]
    alone = is_item(last) or _NEW_BLOCK.match(last) or (is_row(last) and not row)
    return at if alone or opened(last) else start


def _tidy_block(block: str) -> str:
    if is_row(block):
        return _tidy_table(block)
    head, newline, last = block.rpartition("\n")
    if opened(last) or _MARKER_ONLY.fullmatch(last):
        return _tidy_spans(head) + newline if head else ""
    return _tidy_spans(block)


def _settled_block(block: str) -> int:
    """Return how many characters of the last block are settled."""
    if is_row(block):
        return len(_tidy_table(block))
    begin = block.rfind("\n") + 1
    if opened(block[begin:]) or _MARKER_ONLY.fullmatch(block, begin):
        block = block[:begin]
    found = [mark.start for mark in _open_marks(block)[:1]]
    if link := _OPEN_LINK.search(block):
        found.append(link.start())
    return min(found, default=len(block))


def _tidy_table(block: str) -> str:
    """Return a table once its head is there; before, nothing: it would show as pipes."""
    head, *rows = block.split("\n")
    if not rows or (len(rows) == 1 and _is_unfinished_delimiter(rows[0], head)):
        return ""
    return block


def _is_unfinished_delimiter(line: str, head: str) -> bool:
    return may_delimit(line) and not (
        _DELIMITER_ROW.fullmatch(line) and _cells(line) == _cells(head)
    )


def _tidy_spans(block: str) -> str:
    block = _UNFINISHED_LINK.sub(r"\1", block).rstrip()
    open_marks = _open_marks(block)
    # What was opened last, and has no word in it yet, is left out instead.
    while open_marks and not block[open_marks[-1].end :].strip():
        block = block[: open_marks.pop().start].rstrip()
    return block + "".join(mark.run for mark in reversed(open_marks))


@dataclass(frozen=True, slots=True)
class _Mark:
    """A run of marks that opens a span, and where it stands; `run` is what is not closed yet."""

    run: str
    start: int
    end: int


def _open_marks(block: str) -> list[_Mark]:
    marks: list[_Mark] = []
    at = 0
    while found := _MARKS.search(block, at):
        run, at = found[0], found.end()
        if run[0] == "`":
            end = re.compile(rf"(?<!`){run}(?!`)").search(block, at)
            if end is None:
                return [*marks, _Mark(run, found.start(), at)]
            at = end.end()
        elif run[0] != "\\":
            left = _close_marks(marks, found)
            if left and _may_open(found):
                marks.append(_Mark(run[:left], found.start(), at))
    return marks


def _close_marks(marks: list[_Mark], found: re.Match[str]) -> int:
    """Let a run close what it can; return how many of its marks are left over."""
    kind, left = found[0][0], len(found[0])
    if not _before(found).strip() or (kind == "_" and _is_inside_word(found)):
        return left
    while left and any(mark.run[0] == kind for mark in marks):
        while marks[-1].run[0] != kind:
            marks.pop()
        last = marks.pop()
        closed = min(left, len(last.run))
        left -= closed
        if closed < len(last.run):
            marks.append(replace(last, run=last.run[closed:]))
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


def _fence_after(line: str, fence: Fence | None) -> Fence | None:
    if fence:
        return None if fence.closed_by(line) else fence
    return opened(line)


def _cells(row: str) -> int:
    return row.strip().strip("|").count("|")
