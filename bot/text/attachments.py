"""Makes files of the code and tables of an answer that its messages cannot show in one piece."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from bot.domain import Attachment
from bot.text.markdown import PIPE, Block

_MOST = 4  # files
# By the language of a fence; whatever else it names is a text. So is what a double click would run
# on any machine.
_ENDINGS = {
    **{name: name for name in "c cpp cs css csv go java json lua r sql swift toml ts xml".split()},
    **{"bash": "sh", "c++": "cpp", "csharp": "cs", "kotlin": "kt", "latex": "tex", "perl": "pl"},
    **{"markdown": "md", "md": "md", "php": "php", "py": "py", "python": "py", "rb": "rb"},
    **{"ruby": "rb", "rs": "rs", "rust": "rs", "sh": "sh", "shell": "sh", "typescript": "ts"},
    **{"html": "html.txt", "javascript": "js.txt", "js": "js.txt", "yaml": "yaml", "yml": "yaml"},
}
_MARKUP = re.compile(
    r"(`+)(?P<code>.+?)\1"
    r"|(?<![\w*~])(\*{1,3}|~~)(?=\S)(?P<marked>.+?)(?<=\S)\3(?![\w*~])"
    r"|!?\[(?P<words>[^\[\]]+)\]\((?P<address>[^()\s]+)\)"
    r"|(?P<break><br\s*/?>)"
    r"|\\(?P<sign>[^\w\s])"
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
    for name, ending, source, content in _blocks(answer):
        is_shown = pages(source) <= 2 and (name != "table" or shows_whole(source))
        if is_shown or len(found) == _MOST:
            continue
        names[name] += 1
        number = f"-{names[name]}" if names[name] > 1 else ""
        found.append(Attachment(f"{name}{number}.{ending}", content))
    return tuple(found)


def _blocks(answer: str) -> Iterator[tuple[str, str, str, bytes]]:
    """Yield the name, the ending, the source and the content of each block of code and table."""
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
                ending = _ENDINGS.get(fence.language.lower(), "txt")
                yield "answer", ending, "\n".join(source), "".join(code).encode()
            continue
        if before.table and not block.table:
            yield "table", "csv", "\n".join(source), _csv(source)
        if block.table:
            # Behind its head, which is known as such by this line.
            source.append(line)
        else:
            source, code = [line], []


def _csv(table: Sequence[str]) -> bytes:
    head, _, *rows = table
    written = io.StringIO()
    csv.writer(written).writerows(map(_cells, (head, *rows)))
    # Excel takes a file without this mark for one in the encoding of its country.
    return written.getvalue().encode("utf-8-sig")


def _cells(row: str) -> list[str]:
    _, *cells = PIPE.split(row.strip())
    if len(cells) > 1 and not cells[-1].strip():
        del cells[-1]
    shown = (_plain(cell.replace(r"\|", "|")).strip() for cell in cells)
    return [f"'{cell}" if _FORMULA.match(cell) else cell for cell in shown]


def _plain(cell: str) -> str:
    """Return a cell without markup."""

    def shown(found: re.Match[str]) -> str:
        if found["break"]:
            return " "
        if found["words"]:
            return f"{found['words']} ({found['address']})"
        return found["code"] or found["sign"] or _plain(found["marked"])

    return _MARKUP.sub(shown, cell)
