"""Makes files of the code and tables of an answer that its messages cannot show in one piece."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator

from bot.domain import Attachment
from bot.text.markdown import PIPE, Block, Fence

_MOST = 4  # files
# By the language of a fence; any other is a text, and so is what a double click runs everywhere.
_LANGUAGES = (
    "bash:sh c:c c++:cpp cpp:cpp cs:cs csharp:cs css:css go:go html:html.txt java:java"
    " javascript:js.txt js:js.txt json:json kotlin:kt lua:lua markdown:md md:md php:php py:py"
    " python:py r:r rb:rb ruby:rb rs:rs rust:rs sh:sh shell:sh sql:sql swift:swift toml:toml"
    " ts:ts typescript:ts xml:xml.txt yaml:yaml yml:yaml"
)
ENDINGS = dict(pair.split(":") for pair in _LANGUAGES.split())
# Of each pair of marks only the innermost, so that the time stays linear.
_MARKUP = re.compile(
    r"(?<!`)(`{1,3})(?!`)(?P<code>[^`]+)\1(?!`)"
    r"|(?<![\w*~])(\*{1,3}|~~)(?=\S)(?P<marked>[^*~]+)(?<=\S)\3(?![\w*~])"
    r"|!?\[(?P<words>[^\[\]]+)\]\((?P<address>[^()\s]+)\)"
    r"|<br\s*/?>|\\(?P<sign>[^\w\s])"
)
# A spreadsheet takes a cell that begins so for a formula, which may fetch and run things (OWASP,
# "CSV Injection"). Numbers and dashes stay.
_FORMULA = re.compile(r"[=@]|[-+](?![-\d\s.,:/%]*\Z)")


def attachments(
    answer: str, *, pages: Callable[[str], int], shows_whole: Callable[[str], bool]
) -> tuple[Attachment, ...]:
    """Return the files of an answer: of code and tables beyond two pages, and of wide tables.

    `pages` returns how many pages a text fills, and `shows_whole` is that of the surface. Code that
    the answer does not close is left out, because it may be incomplete.
    """
    found: list[Attachment] = []
    names: Counter[str] = Counter()
    for fence, source, code in _blocks(answer):
        if len(found) == _MOST or (pages(source) <= 2 and (fence or shows_whole(source))):
            continue
        name = "answer" if fence else "table"
        ending = ENDINGS.get(fence.language.lower(), "txt") if fence else "csv"
        names[name] += 1
        number = f"-{names[name]}" if names[name] > 1 else ""
        data = code.encode() if fence else _csv(source)
        found.append(Attachment(f"{name}{number}.{ending}", data))
    return tuple(found)


def _blocks(answer: str) -> Iterator[tuple[Fence | None, str, str]]:
    """Yield the source of each block of code, with its fence and the code, and of each table."""
    block, source, code = Block(), list[str](), list[str]()
    # The empty line ends a table.
    for line in [*answer.split("\n"), ""]:
        before, block = block, block.after(line)
        fence = before.fence
        if fence and not fence.left_by(line):
            source.append(line)
            if block.fence:
                code.append(f"{fence.content(line)}\n")
            else:
                yield fence, "\n".join(source), "".join(code)
            continue
        if before.table and not block.table:
            yield None, "\n".join(source), ""
        if block.table:
            # Behind its head, which is known as such by this line.
            source.append(line)
        else:
            source, code = [line], []


def _csv(table: str) -> bytes:
    head, _, *rows = table.split("\n")
    written = io.StringIO()
    csv.writer(written).writerows(map(_cells, (head, *rows)))
    # Excel takes a file without this mark for one in the encoding of its country.
    return written.getvalue().encode("utf-8-sig")


def _cells(row: str) -> list[str]:
    _, *cells = PIPE.split(row.strip())
    if len(cells) > 1 and not cells[-1].strip():
        del cells[-1]
    shown = (_MARKUP.sub(_shown, cell.replace(r"\|", "|")).strip() for cell in cells)
    return [f"'{cell}" if _FORMULA.match(cell) else cell for cell in shown]


def _shown(found: re.Match[str]) -> str:
    """Return what is shown for markup in a cell."""
    if found["words"]:
        return f"{found['words']} ({found['address']})"
    return found["code"] or found["marked"] or found["sign"] or " "
