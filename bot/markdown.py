"""Cuts a growing reply into pages that each read well alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

Measure = Callable[[str], int]

# The fence lines that are added to a page take up to 40, and an escaped character up to 6.
SMALLEST_LIMIT = 50

# CommonMark 0.31, section 4.5, but for runs of more than 8, which would not fit small pages.
_OPENER = re.compile(r"( {0,3})(`{3,8}(?=[^`]*$)|~{3,8}(?!~))(.*)")
_LANGUAGE = re.compile(r"\s*([\w+#.-]{1,16})(?!\S)", re.ASCII)
_LONGEST_CLOSING = "\n   " + 8 * "`"

_SENTENCE_END = re.compile("[.!?…][\"'”’)\\]*_]*(?=[^\\S\\n])|[\u3002\uff01\uff1f]")  # noqa: RUF001
_SPACE = re.compile(r"(?=[^\S\n])")
# Code spans, links, addresses and bold text, which may still be open at the end.
_INLINE = re.compile(
    r"(?<!`)(`+)(?!`).*?(?:(?<!`)\1(?!`)|$)"
    r"|!?\[[^\[\]]*(?:$|\](?:$|\((?:[^()]|\([^()]*\))*(?:\)|$)))"
    r"|https?://\S+"
    r"|\*\*(?=\S).*?(?:\*\*|$)"
)
# What would open a fence at the beginning of a page, or may turn out to.
_FENCE_START = re.compile(r"```|~~~|`{1,2}$|~{1,2}$")
_REGIONAL = "".join(map(chr, range(0x1F1E6, 0x1F200)))  # two of these are one flag


@dataclass(frozen=True, slots=True)
class _Fence:
    indent: str
    run: str
    language: str

    @property
    def opening(self) -> str:
        return f"{self.indent}{self.run}{self.language}\n"

    def closed_by(self, line: str) -> bool:
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


def pages(text: str, *, limit: int, measure: Measure) -> list[str]:
    """Return the pages of a reply, each of at most `limit` as `measure` has it, none blank.

    A page that another follows stays as it is however the text grows. The last page, too, still
    fits after `close`. A text that needs no cut is returned as it is. Leaving out the fence lines
    that were added, the pages one after the other are the text, but that one whitespace character
    may be missing at each cut, and that a page of nothing but whitespace, and whitespace at the
    end that does not fit any more, are left out.

    `measure` may not shrink when a text grows, nor give two texts joined more than both alone.
    Raises ValueError when the limit is below SMALLEST_LIMIT.
    """
    if limit < SMALLEST_LIMIT:
        raise ValueError(f"limit={limit} is below {SMALLEST_LIMIT}")
    done: list[str] = []
    fence: _Fence | None = None
    start, visible = 0, len(text.rstrip())
    while start < visible:
        opening = fence.opening if fence else ""
        size = _fitting(text, start=start, opening=opening, limit=limit, measure=measure)
        if start + size >= visible:
            done.append(opening + text[start : start + size])
            break
        # The cut may depend on the first character that does not fit, but on none behind it: so
        # it does not move when the text grows.
        end, after = _cut(text[start : start + size + 1], fence)
        body = text[start : start + end]
        if body.strip():
            done.append(close(opening + body))
        fence = _open_fence(opening + body)
        start += after
    return done


def close(text: str) -> str:
    """Return the text with its code fence closed, where one is open, so that it shows well alone.

    A fence is open once the line that opens it has ended.
    """
    return text + _closing(text, None)


def _fitting(text: str, *, start: int, opening: str, limit: int, measure: Measure) -> int:
    """Return how many characters fit a page, at least 1, such that each fewer, closed, fit too."""
    reserve = measure(_LONGEST_CLOSING)
    rest = len(text) - start

    def surely_fits(size: int) -> bool:
        return measure(opening + text[start : start + size]) + reserve <= limit

    size, too_many = 0, limit
    while too_many < rest and surely_fits(too_many):
        size, too_many = too_many, 2 * too_many
    too_many = min(too_many, rest + 1)
    while too_many - size > 1:
        middle = (size + too_many) // 2
        size, too_many = (middle, too_many) if surely_fits(middle) else (size, middle)
    # The reserve is few characters: try them one by one, each with its own closing.
    line = text.rfind("\n", start, start + size) + 1 or start
    head = opening + text[start:line]
    fence = _open_fence(head)
    while size < rest:
        tail = text[line : start + size + 1]
        if measure(head + tail + _closing(tail, fence)) > limit:
            break
        size += 1
    return max(size, 1)


def _cut(chunk: str, fence: _Fence | None) -> tuple[int, int]:
    """Return where the page ends and where the next begins; the last character does not fit."""
    last = len(chunk) - 1
    for least in (last // 2, last // 8):
        line = _line_cut(chunk, fence, least=least)
        if line is not None:
            return line, line + 1
        end = _inner_cut(chunk, fence, least=least)
        if end is not None:
            return end, end + chunk[end].isspace()
    whole = (end for end in range(last, last // 2, -1) if not _is_joined(chunk, end))
    end = next(whole, last)
    return end, end + chunk[end].isspace()


def _line_cut(chunk: str, fence: _Fence | None, *, least: int) -> int | None:
    """Return the best newline: the last between blocks, else the last between lines.

    A heading rather stays with what follows it, no fence is left empty, and no line of code is
    taken for the fence's end.
    """
    best: tuple[int, int] | None = None
    newline = -1
    heading = False
    for line, following in pairwise(chunk.split("\n")):
        newline += 1 + len(line)
        before, fence = fence, _fence_after(line, fence)
        blank = not line.strip()
        if not blank:
            heading = not before and not fence and line.startswith("#")
        opens, closes = fence and not before, before and not fence
        if newline < max(least, 1) or opens:
            continue
        if fence and (fence.begun_by(line) or fence.closed_by(following)):
            continue
        border = blank or closes or bool(_fence_after(following, None))
        rank = 0 if heading else 2 if border and not fence else 1
        best = max(best or (rank, newline), (rank, newline))
    return best[1] if best else None


def _inner_cut(chunk: str, fence: _Fence | None, *, least: int) -> int | None:
    """Return the last sentence's end, else space, else place between characters, that is free."""
    fence = _open_fence(chunk, fence)
    line = chunk.rfind("\n") + 1
    torn = _inside_spans(chunk, line) if not fence else set()
    kinds = (_SENTENCE_END, _SPACE) if not fence else (_SPACE,)
    for ends in (*(_positions(kind, chunk) for kind in kinds), range(len(chunk) - 1, 0, -1)):
        for end in ends:
            if end < max(least, 1):
                break
            if end in torn or _is_joined(chunk, end):
                continue
            if _FENCE_START.match(chunk, end + chunk[end].isspace()):
                continue
            if not (fence and fence.begun_by(chunk[line:end])):
                return end
    return None


def _positions(pattern: re.Pattern[str], chunk: str) -> list[int]:
    """Return where the pattern ends before the last character, last first."""
    return [found.end() for found in pattern.finditer(chunk) if found.end() < len(chunk)][::-1]


def _inside_spans(chunk: str, line: int) -> set[int]:
    """Return the places inside the inline spans of the last line, which begins at `line`."""
    spans = (found.span() for found in _INLINE.finditer(chunk, line))
    return {at for first, behind in spans for at in range(first + 1, behind)}


def _is_joined(text: str, at: int) -> bool:
    """Whether a cut here would tear a character, as a reader sees it, or a run of marks."""
    before, after = text[at - 1], text[at]
    if after.isascii():
        return (before == after and after in "`~*_|\\") or before + after == "\r\n"
    if after in _REGIONAL:
        flags = at - len(text[:at].rstrip(_REGIONAL))
        return flags % 2 == 1
    return (
        before == "\u200d"
        or unicodedata.category(after) in ("Mn", "Me", "Mc")
        or after in "\u200c\u200d"
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= after <= "\U000e007f"  # tags, which spell some flags
        or "\u1160" <= after <= "\u11ff"  # vowels and finals of Hangul
        or ("\udc00" <= after <= "\udfff" and "\ud800" <= before <= "\udbff")
    )


def _closing(text: str, fence: _Fence | None) -> str:
    fence = _open_fence(text, fence)
    return fence.closing_after(text.rpartition("\n")[2]) if fence else ""


def _open_fence(text: str, fence: _Fence | None = None) -> _Fence | None:
    """Return the fence that is open at the end of a text, which `fence` was at its beginning."""
    if "```" not in text and "~~~" not in text:
        return fence
    *lines, last = text.split("\n")
    for line in lines:
        fence = _fence_after(line, fence)
    return None if fence and fence.closed_by(last) else fence


def _fence_after(line: str, fence: _Fence | None) -> _Fence | None:
    if fence:
        return None if fence.closed_by(line) else fence
    if "```" not in line and "~~~" not in line:
        return None
    opener = _OPENER.fullmatch(line)
    if not opener:
        return None
    indent, run, info = opener.groups()
    language = _LANGUAGE.match(info)
    return _Fence(indent, run, language[1] if language else "")
