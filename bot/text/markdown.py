"""The Markdown that is open at a position in a text: blocks, links, code and emphasis."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import itemgetter

from bot.text.formulas import as_text

_ITEM = re.compile(r" *(?:[-*+]|\d{1,9}[.)])(?=\s|$)")  # CommonMark 0.31, section 5.2
_NEW_BLOCK = re.compile(r" {0,3}(?:#{1,6}(?:\s|$)|>)")

# The prefix of quotes and items before a fence. It has at most one quote and this many columns, and
# no run is longer than 8, so that the lines added to a page fit small pages.
_QUOTE = re.compile(r" *>")
_BEFORE = r"(?: {0,10}(?:>|(?:[-*+]|\d{1,9}[.)])(?=\s|$))){0,5} {0,10}+"
_DEEPEST = 10
# CommonMark 0.31, section 4.5.
_OPENER = re.compile(rf"({_BEFORE})(`{{3,8}}(?=[^`]*$)|~{{3,8}}(?!~))(.*)")
_LANGUAGE = re.compile(r"\s*([\w+#.-]{1,16})(?!\S)", re.ASCII)
LONGEST_CLOSING = "\n" + ">".rjust(_DEEPEST) + 8 * "`"
# Text that opens a fence at the beginning of a page, or may become one.
_MAY_OPEN = re.compile(rf"{_BEFORE}(?:```|~~~|`{{0,2}}$|~{{0,2}}$)")

# GitHub Flavored Markdown 0.29, section 4.10. Only rows that begin with a pipe, as models write
# them, so that the first character decides.
_ROW = re.compile(r" *\|")
PIPE = re.compile(r"(?<!\\)\|")  # between two cells
_DELIMITER_ROW = re.compile(r" *\|(?:\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?\s*")
_DELIMITER_BEGUN = re.compile(r"[\s|:-]*")
# A line without text yet: the beginning of a heading, an item, a quote, a rule or a fence.
_MARKER_ONLY = re.compile(
    rf"\s*+{_BEFORE}(?:#{{1,6}}|[-*+=]+|\d{{1,9}}[.)]?|>|`{{1,2}}|~{{1,2}})?\s*"
)

# Formulas whose signs are escaped: only closed ones, because regular expressions have `\(`, too.
# Two dollars may be a price, so they need to begin a line, or to have their end in the line.
_CLOSED_FORMULA = (
    r"\\\((?:\\[^()]|[^\\])*\\\)|\\\[(?:\\[^\[\]]|[^\\])*\\\]"
    r"|(?m:^) *\$\$(?:\\[\s\S]|\$(?!\$)|[^\\$])*\$\$"
    r"|\$\$(?:\\[^\n]|\$(?!\$)|[^\\$\n])*\$\$"
)
# Not "$5 or $6", nor "$HOME/bin:$PATH".
_BETWEEN_DOLLARS = r"\$(?![\s$])(?:\\.|[^\\$\n])*?(?<!\s)\$(?!\w)"
_CODE = r"(?<!`)(?P<run>`+)(?!`)[\s\S]*?(?:(?<!`)(?P=run)(?!`)|\Z)"
_ESCAPE = re.compile(rf"{_CODE}|\\(?P<sign>[^0-9A-Za-z\s])")
# A backslash outside of a formula is doubled if it is one of a pair, or is of TeX rather than of
# Markdown.
_LITERAL = re.compile(
    rf"(?P<formula>{_CLOSED_FORMULA})|(?P<double>\\\\|\\(?=[()\[\]{{}},;:]))|{_CODE}|\\[\s\S]"
)
# GitHub's task lists, and the marks of footnotes.
_TASK = rf"(?m:^)(?P<item>{_ITEM.pattern} +)\[(?P<task>[ xX])\](?=\s|$)"
_NOTE = r"\[\^(?P<note>\d{1,3})\](?!\()"
_DRAWN = re.compile(rf"{_TASK}|{_NOTE}|{_BETWEEN_DOLLARS}|{_LITERAL.pattern}")
# Behind the last sign of `$x$` the next character decides whether it is a formula.
_FORMULA_BEGUN = re.compile(
    rf"{_CLOSED_FORMULA}|{_BETWEEN_DOLLARS}(?!\Z)|{_CODE}|\\\\"
    r"|\$\$(?:[^\\$]|\\[\s\S]|\$(?!\$))*\$\$"
    r"|(?P<begun>\\(?:[(\[]|\Z)|(?m:^) *\$\$|\$\$[^\n]*\Z|\$(?![\s$\d])[^$\n]*\$?\Z)"
)
# Two words, or an amount: between single dollars that is a text about money.
_MONEY = re.compile(r"[a-z]{2}[\s,;]+[a-z]{2}|\A\$[\d.,]+(?!.*[\\^_=])", re.IGNORECASE)
_COMMAND = re.compile(r"\\[A-Za-z]+(?:\{[^{}]*\})?")
# What Markdown would take for an escape, emphasis, a spoiler, an item or a heading. Not what may
# become a fence, which is not escaped. Pairs of backslashes are doubled, as outside of a formula.
_SIGNS = re.compile(r"\\(?![0-9A-Za-z])|(?<=\\)\\|[*_|]|(?<=\n)[-+#]")

_LONG_OPEN = 200  # characters
# Groups are not repeated possessively: Python before 3.11.5 does not restore the position after a
# failed group (CPython issue 106052).
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
# Nothing within a formula is markup, nor within one that may still be closed.
_GROWING_FORMULA = r"\\\(.*?(?:\\\)|\Z)|\\\[.*?(?:\\\]|\Z)|\$\$.*?(?:\$\$|\Z)"
# Mentions, emoji and addresses in angle brackets count as one word.
_SPAN = re.compile(
    r"(?<!`)(`+)(?!`).*?(?:(?<!`)\1(?!`)|\Z)"
    rf"|{_GROWING_FORMULA}|{_LINK}|{_LINK_BEGUN}"
    r"|https?://\S+"
    r"|<[^<>\s]+(?:>|\Z)"
    r"|\*\*(?=\S).*?(?:\*\*|\Z)"
)
_MARKS = re.compile(rf"{_GROWING_FORMULA}|\\.|`+|\*+|_+|~~", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fence:
    """An open code fence. `prefix` precedes each line of its code."""

    prefix: str
    run: str
    language: str

    @property
    def opening(self) -> str:
        """The line that opens the fence again."""
        return f"{self.prefix}{self.run}{self.language}\n"

    @property
    def quote(self) -> str:
        """The prefix if it has a quote, which must precede every line of the code."""
        return self.prefix if ">" in self.prefix else ""

    def content(self, line: str) -> str:
        """Return a line of the code without the prefix."""
        code, indent = self._code(line), len(self.prefix.rpartition(">")[2])
        return code[min(indent, len(code) - len(code.lstrip(" "))) :]

    def left_by(self, line: str) -> bool:
        """Whether the line ends the fence because it is outside of the quote."""
        return bool(self.quote) and not _QUOTE.match(line)

    def closed_by(self, line: str) -> bool:
        """Whether the line closes the fence."""
        mark = self._code(line).strip()
        return len(mark) >= len(self.run) and self._ends(mark, line)

    def begun_by(self, line: str) -> bool:
        """Whether the line may become one that closes the fence."""
        return line != "" and self._ends(self._code(line).lstrip(" "), line)

    def holds(self, line: str) -> bool:
        """Whether the fence is still open after a line that may still grow."""
        left = self.left_by(line) and line.strip()
        return not left and not self.closed_by(line)

    def closing_after(self, line: str) -> str:
        """Return the text that closes the fence after its last line, which may be incomplete."""
        if not line:
            return self.prefix + self.run
        if not self.begun_by(line):
            return f"\n{self.prefix}{self.run}"
        return self.run[len(self._code(line).lstrip(" ")) :]

    def _ends(self, mark: str, line: str) -> bool:
        code = self._code(line)
        fits = len(code) - len(code.lstrip(" ")) <= max(3, len(self.prefix))
        return fits and not mark.strip(self.run[0]) and not self.left_by(line)

    def _code(self, line: str) -> str:
        return _QUOTE.sub("", line, count=1) if self.quote else line


@dataclass(frozen=True, slots=True)
class Block:
    """The fence or table open after a line; `table` is its head, `begun` a cut line's beginning."""

    fence: Fence | None = None
    table: str = ""
    line: str = ""
    begun: str = ""

    def after(self, rest: str) -> Block:
        """Return the block that is open after one more line; `rest` completes `begun`."""
        line = self.begun + rest
        fence = _fence_after(line, self.fence)
        if self.fence and not self.fence.left_by(line):
            if fence and not (self.line or self.begun):
                return self
            return replace(self, fence=fence, line="", begun="")
        return Block(fence=fence, table=self._table_after(line), line=line)

    def opening(self, text: str) -> str:
        """Return the lines that reopen the block on a page with this text."""
        if self.fence and (self.begun or not self.fence.left_by(text[:_DEEPEST])):
            return self.fence.opening + (self.fence.quote if self.begun else "")
        if self.table and (_ROW.match(self.begun) if self.begun else _ROW.match(text)):
            # The remainder of a cell stays in its column.
            return self.table + "| " * len(PIPE.findall(self.begun))
        return ""

    def _table_after(self, line: str) -> str:
        if self.table:
            return self.table if is_table_row(line) else ""
        is_head = is_table_row(self.line) and _DELIMITER_ROW.fullmatch(line)
        return f"{self.line}\n{line}\n" if is_head and _cells(line) == _cells(self.line) else ""


def fence_opened_by(line: str) -> Fence | None:
    """Return the fence that the line opens."""
    if "```" not in line and "~~~" not in line:
        return None
    opener = _OPENER.fullmatch(line)
    if not opener or len(opener[1]) > _DEEPEST or opener[1].count(">") > 1:
        return None
    prefix, run, info = opener.groups()
    language = _LANGUAGE.match(info)
    return Fence(re.sub(r"[^ >]", " ", prefix), run, language[1] if language else "")


def may_open_fence(text: str, start: int) -> bool:
    """Whether the text from here on would open a fence on a line of its own, or may become one."""
    return _MAY_OPEN.match(text, start) is not None


def is_marker_only(line: str) -> bool:
    """Whether the line is only a marker, such as of an item; a long one counts as text."""
    return len(line) <= _LONG_OPEN and _MARKER_ONLY.fullmatch(line) is not None


def is_table_row(line: str) -> bool:
    """Whether the line may be a row of a table."""
    return _ROW.match(line) is not None


def is_list_item(line: str) -> bool:
    """Whether the line begins an item of a list."""
    return _ITEM.match(line) is not None


def may_be_delimiter_row(line: str) -> bool:
    """Whether the line may become the delimiter row below a table's head."""
    return _DELIMITER_BEGUN.fullmatch(line) is not None


def block_behind(text: str, block: Block) -> Block:
    """Return the block that is open after a text whose last line may have been cut."""
    *lines, last = text.split("\n")
    for line in lines:
        block = block.after(line)
    line = block.begun + last
    if block.fence and not block.fence.holds(line):
        return block.after(last) if block.fence.closed_by(line) else Block(begun=line)
    return replace(block, begun=line)


def open_fence(text: str, fence: Fence | None = None) -> Fence | None:
    """Return the fence that is open at the end of a text; `fence` is open at its beginning."""
    if not fence and "```" not in text and "~~~" not in text:
        return None
    *lines, last = text.split("\n")
    for line in lines:
        fence = _fence_after(line, fence)
    return fence if fence and fence.holds(last) else None


def close(text: str) -> str:
    """Return the text with its open code fence closed, so that it can be shown alone."""
    return text + closing(text, None)


def closing(text: str, fence: Fence | None) -> str:
    """Return the text that closes a text's fence; `fence` is open at its beginning."""
    fence = open_fence(text, fence)
    return fence.closing_after(text.rpartition("\n")[2]) if fence else ""


def tidy(text: str) -> str:
    """Return a growing text as it may be shown, without half-written markup.

    Open markup is closed. A lone marker or the head of a table is left out, because it may become
    something else. An incomplete link is reduced to its text, and an incomplete address is left
    out, because it would lead elsewhere. The result may be blank.
    """
    # In code, too: platforms differ in what opens and closes a fence.
    text = without_half_address(text)
    if open_fence(text):
        return close(text)
    start = _last_block(text)
    block = _without_marker(text[start:])
    if is_table_row(block):
        tidied = _tidy_table(block)
    else:
        tidied = _tidy_spans(block) + "\n" * block.endswith("\n")
    # The last line may be the end of a fence, which is no more than a marker yet.
    return close(text[:start] + tidied)


def settled(text: str) -> str:
    """Return the beginning of a growing text whose markup cannot change any more.

    For surfaces that can append but not replace. A long open span counts as text.
    """
    text = without_half_address(text)
    if open_fence(text):
        return text
    start = _last_block(text)
    block = _without_marker(text[start:])
    end = start + (len(_tidy_table(block)) if is_table_row(block) else _settled_spans(block))
    # The mark that opens a span may be part of an address.
    return without_half_address(text[:end]) if len(text) - end <= _LONG_OPEN else text


def escape_formulas(text: str) -> str:
    r"""Return Markdown that shows formulas, and pairs of backslashes, as they are written.

    Otherwise `\(a\)` would be shown as `(a)`, and `x_{1} + y_{2}` in italics. The result does not
    shrink when the text grows.
    """
    if "\\" not in text and "$$" not in text:
        return text
    return _outside_fences(text, partial(_LITERAL.sub, _escaped))


def draw_signs(text: str) -> str:
    r"""Return Markdown for places that show no formula, task list or footnote as such.

    Simple formulas are text (`x²`) and others code; a task begins with ☐ or ☑, and a footnote is
    marked by a small number.

    What `escape_formulas` returns is at least as long. A formula that is longer than a growing text
    waits for its end, or with a backtick, stays as it is written.
    """
    has_signs = re.search(r"\\|\$|\[[ xX^]", text)
    return _outside_fences(text, partial(_DRAWN.sub, _drawn)) if has_signs else text


def _drawn(found: re.Match[str]) -> str:
    if found["task"]:
        return found["item"] + ("☐" if found["task"] == " " else "☑")
    if found["note"]:
        return as_text(f"^{{{found['note']}}}") or found[0]
    escaped, formula = _escaped(found), found[0].lstrip(" ")
    is_formula = found["formula"] or formula.startswith("$")
    signs = 2 if found["formula"] else 1
    if not is_formula or len(formula) > _LONG_OPEN or "`" in formula:
        return escaped
    if signs == 1 and _MONEY.search(_COMMAND.sub("", formula)):
        return escaped
    tex = formula[signs:-signs]
    line = as_text(tex)
    drawn = (
        re.sub(r"\A[-+#>]|[\\*_~|\[]", r"\\\g<0>", line) if line else f"`{' '.join(tex.split())}`"
    )
    drawn = found[0][: -len(formula)] + drawn
    return drawn if len(drawn) <= len(escaped) else escaped


def _escaped(found: re.Match[str]) -> str:
    if found["formula"]:
        return _SIGNS.sub(r"\\\g<0>", found[0])
    return found[0] * 2 if found["double"] else found[0]


def without_escapes(text: str) -> str:
    """Return Markdown as it is shown: without the backslashes that escape a sign."""
    return _outside_fences(text, partial(_ESCAPE.sub, lambda found: found["sign"] or found[0]))


def inside_spans(text: str, start: int, *, longest: int) -> set[int]:
    """Return the positions from `start` on at which a cut would split a span.

    A span that is open for more than this many characters counts as text, unless it is one word.
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


def _last_block(text: str) -> int:
    """Return the start of the last part of the text that inline markup cannot cross."""
    start = at = 0
    fence: Fence | None = None
    row = False
    for line in text.split("\n")[:-1]:
        begin, at = at, at + len(line) + 1
        inside = fence and not fence.left_by(line)
        fence = _fence_after(line, fence)
        if inside or fence or not line.strip():
            start = at
        elif is_list_item(line) or _NEW_BLOCK.match(line) or (is_table_row(line) and not row):
            start = begin
        row = is_table_row(line)
    last = text[at:]
    alone = is_list_item(last) or _NEW_BLOCK.match(last) or (is_table_row(last) and not row)
    return at if alone or fence_opened_by(last) else start


def _without_marker(block: str) -> str:
    """Return a block without its last line if that is only a marker, or opens a fence."""
    begin = block.rfind("\n") + 1
    last = block[begin:]
    is_marker = not is_table_row(block) and (fence_opened_by(last) or is_marker_only(last))
    return block[:begin] if is_marker else block


def _tidy_table(block: str) -> str:
    """Return a table if its head is complete, else nothing: it would be shown as pipes."""
    head, *rows = block.split("\n")
    if not rows:
        return ""
    is_complete = _DELIMITER_ROW.fullmatch(rows[0]) and _cells(rows[0]) == _cells(head)
    return block if len(rows) > 1 or is_complete or not may_be_delimiter_row(rows[0]) else ""


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Change each block of a text, except code and tables, which platforms show as code."""
    fence: Fence | None = None
    lines: list[tuple[tuple[bool, ...], str]] = []
    for line in text.split("\n"):
        is_code = fence is not None and not fence.left_by(line)
        fence = _fence_after(line, fence)
        # No formula crosses a blank line, or the border of a quote.
        is_code = is_code or fence is not None or is_table_row(line)
        kind = is_code, not line.strip(), line.startswith(">")
        lines.append((kind, line))
    changed: list[str] = []
    for (is_code, *_), found in groupby(lines, key=itemgetter(0)):
        block = "\n".join(line for _, line in found)
        changed.append(block if is_code else change(block))
    return "\n".join(changed)


def _fence_after(line: str, fence: Fence | None) -> Fence | None:
    if fence is None or fence.left_by(line):
        return fence_opened_by(line)
    return None if fence.closed_by(line) else fence


def _cells(row: str) -> int:
    return len(PIPE.findall(row.strip().strip("|")))


def _tidy_spans(block: str) -> str:
    """Return a growing block with its spans closed, and only the words of an incomplete link."""
    block = _UNFINISHED_LINK.sub(r"\1", block).rstrip()
    open_marks = _open_marks(block)
    # If no word follows the last opened mark yet, it is removed instead.
    while open_marks and not block[open_marks[-1].end :].strip():
        # The mark may be part of an address.
        block = without_half_address(block[: open_marks.pop().start]).rstrip()
    return block + "".join(mark.run for mark in reversed(open_marks))


def _settled_spans(block: str) -> int:
    """Return how many characters of a growing block precede its first open span."""
    found = [mark.start for mark in _open_marks(block)[:1]]
    if link := _OPEN_LINK.search(block):
        # Or it is the beginning of a formula, `\[`.
        found.append(link.start() - block.endswith("\\", 0, link.start()))
    found += [one.start() for one in _FORMULA_BEGUN.finditer(block) if one["begun"]]
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
        elif run[0] not in "\\$":
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
