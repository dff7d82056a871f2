"""How many words the bot finds in PDFs, beside another public reader: poppler's pdftotext.

    python -m bench.pdf_words FOLDER

The bot's reader reads each *.pdf of the folder as it reads what people send: in a child process,
for ten seconds, 80 pages and 400,000 characters at most. Printed are the pages that it has read,
the words of two letters or more that both find on these pages, and how many times as many it finds;
where it reads nothing, the others are those of the first 80 pages. Needs requirements-files.txt and
pdftotext (apt install poppler-utils).
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bot.files.reading import read_path

_MOST_PAGES = 80
_MOST_MB = 50  # more than people may send: only the words count
_WORD = re.compile(r"\w{2,}")


async def main(paths: Sequence[Path]) -> None:
    if not shutil.which("pdftotext"):
        sys.exit("pdftotext is missing: apt install poppler-utils")
    counts = [await _compare(path) for path in paths]
    ours, theirs = (sum(each) for each in zip(*counts, strict=True)) if counts else (0, 0)
    as_many = sum(one >= other for one, other in counts)
    print(f"{len(counts)} files, in {as_many} at least as many words: {_beside(ours, theirs)}")


async def _compare(path: Path) -> tuple[int, int]:
    """Print and return the words that both find in a file."""
    found = await read_path(path, most_mb=_MOST_MB)
    pages = found.text.split("\f") if found.text else []
    if found.is_cut:
        pages.pop()
    last = str(len(pages) or _MOST_PAGES)
    command = ("pdftotext", "-enc", "UTF-8", "-l", last, str(path), "-")
    other = await asyncio.to_thread(subprocess.run, command, capture_output=True)
    ours, theirs = _words("\n".join(pages)), _words(other.stdout.decode(errors="replace"))
    of = f"{len(pages)} of {found.total} pages"
    print(f"{path.name:<32} {of:>18}: {_beside(ours, theirs)} {found.problem}".rstrip())
    return ours, theirs


def _words(text: str) -> int:
    return len(_WORD.findall(text))


def _beside(ours: int, theirs: int) -> str:
    return f"{ours} beside {theirs}, {ours / max(theirs, 1):.3f} times"


if __name__ == "__main__":
    asyncio.run(main(sorted(Path(sys.argv[1]).glob("*.pdf"))))
