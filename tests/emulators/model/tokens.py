"""The emulator's own tokenizer, simple enough to count by hand."""

from __future__ import annotations

import re
import zlib

_TOKEN = re.compile(r"\s*<\|\w+\|>|\s*\w+|\s*[^\w\s]|\s+")
_VOCABULARY = 32_000


def tokens(text: str) -> list[str]:
    """Return the tokens of a text; joined they are the text again.

    A token is a word, a mark or one of the template's `<|signs|>`, with the white space before it;
    white space at the end is one more.
    """
    return _TOKEN.findall(text)


def number(token: str) -> int:
    """Return a token's id, the same whenever it is asked for."""
    return zlib.crc32(token.encode("utf-8", "surrogatepass")) % _VOCABULARY
