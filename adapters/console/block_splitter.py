"""Splits a growing reply into finished blocks and the last one, which still changes."""

from __future__ import annotations

from dataclasses import dataclass

from markdown_it import MarkdownIt

# Only the boundaries of blocks are used.
_BLOCKS = MarkdownIt("commonmark").enable("table").disable("inline")


@dataclass(frozen=True, slots=True)
class BlockUpdate:
    """`finished` is final text to print; `live` may still change.

    `anew`: text printed before is void.
    """

    finished: str = ""
    live: str = ""
    anew: bool = False


class BlockSplitter:
    """Splits one reply; returns each finished block once."""

    def __init__(self) -> None:
        self._finished = ""

    def show(self, text: str, *, last: bool) -> BlockUpdate:
        """Process the current full text."""
        anew = not text.startswith(self._finished)
        if anew:
            self._finished = ""
        rest = text[len(self._finished) :]
        end = len(rest) if last else start_of_last_block(rest)
        self._finished += rest[:end]
        return BlockUpdate(rest[:end].strip("\n"), rest[end:], anew)


def start_of_last_block(text: str) -> int:
    """Return where the last block of a Markdown text begins, in characters."""
    blocks = [token.map[0] for token in _BLOCKS.parse(text) if token.level == 0 and token.map]
    if not blocks:
        return 0
    return sum(len(line) + 1 for line in text.split("\n")[: blocks[-1]])
