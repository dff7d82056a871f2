"""Divides a growing reply into blocks that are complete and the one that still changes."""

from __future__ import annotations

from dataclasses import dataclass

from markdown_it import MarkdownIt

# Only where blocks begin and end is of interest.
_BLOCKS = MarkdownIt("commonmark").enable("table").disable("inline")


@dataclass(frozen=True, slots=True)
class Growth:
    """What changed: `finished` is printed for good, and `live` may still change.

    If it is `anew`, what was printed before is void.
    """

    finished: str = ""
    live: str = ""
    anew: bool = False


class Growing:
    """One reply; each block is finished once."""

    def __init__(self) -> None:
        self._finished = ""

    def show(self, text: str, *, last: bool) -> Growth:
        """Take the whole text as it stands now."""
        anew = not text.startswith(self._finished)
        if anew:
            self._finished = ""
        rest = text[len(self._finished) :]
        end = len(rest) if last else start_of_last_block(rest)
        self._finished += rest[:end]
        return Growth(rest[:end].strip("\n"), rest[end:], anew)


def start_of_last_block(text: str) -> int:
    """Return where the last block of a Markdown text begins, in characters."""
    blocks = [token.map[0] for token in _BLOCKS.parse(text) if token.level == 0 and token.map]
    if not blocks:
        return 0
    return sum(len(line) + 1 for line in text.split("\n")[: blocks[-1]])
