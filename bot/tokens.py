"""Counting tokens without a model's tokenizer: carefully, rather too many than too few."""

from __future__ import annotations

import math
import re
from string import ascii_lowercase
from typing import TypeGuard

# Chat templates put a role and two or three marks around each message: 5 tokens in ChatML and
# Llama 3, fewer in Mistral's. The rest pays for what stands there once: the beginning of the text
# and the opened answer, 4 tokens at most.
MESSAGE_OVERHEAD = 8

_MOST = 10**9  # tokens; no context is near it, and sums with it stay numbers

# The letters that follow each letter in English prose and code. Tokenizers have long pieces of such
# pairs, while another pair mostly ends a piece: in other languages, in names, in what is random.
# fmt: off
_FOLLOWERS = {
    "a": "bcdgiklmnprstuvy", "b": "aejlouy", "c": "aehiklortu", "d": "adeiosu",
    "e": "abcdeflmnpqrstvwxy", "f": "aeiortu", "g": "eghiru", "h": "aeiort",
    "i": "abcdefglmnorstv", "j": "e", "k": "e", "l": "adefilostuy", "m": "abeimops",
    "n": "acdegilnostuy", "o": "bcdfgklmnoprstuvw", "p": "aehiloprsty", "q": "u",
    "r": "adegiklmnorstuwy", "s": "acehilopstuy", "t": "aehioprstuy", "u": "bceilmnprst",
    "v": "aei", "w": "aehinor", "x": "t", "y": "nopt", "z": "",
}
# fmt: on

_LOWER = "a-zß-öø-ÿ\u0100-\u024f"
_UPPER = "A-ZÀ-ÖØ-Þ"


def _unusual(first: str) -> str:
    others = "".join(letter for letter in ascii_lowercase if letter not in _FOLLOWERS[first])
    return f"{first}(?=[{others}])"


# What an ASCII text is made of, and the tokens that each piece costs. The weights were fitted so
# that the sum is not below what SmolLM2, Mistral's SentencePiece models and Mistral's byte-pair
# models need, in prose of a hundred languages, code, data and random letters.
_COSTS = [
    (re.compile(pattern), cost)
    for pattern, cost in (
        (rf"[{_UPPER}]?[{_LOWER}]+|[{_UPPER}]+", 1.0),  # a word, with the space before it
        (rf"(?<=[{_UPPER}])[{_UPPER}]", 1.0),  # capitals stand alone
        (r"[\x00-\x1f!-@\[-`{-\x7f]", 1.0),  # so do digits, marks and newlines
        (r" (?=[0-9]|[^\x00-\x7f])", 1.0),  # a space that no word takes
        (r" {2,}", 1.0),
        (r"(?<= ) ", 1 / 12),  # runs of spaces have tokens of up to 16
    )
]
_LONG = re.compile(rf"(?<=[{_LOWER}]{{4}})[{_LOWER}]")
_UNUSUAL = re.compile("|".join(map(_unusual, ascii_lowercase)))
# Words around these are English: many are one token however long they are.
_ENGLISH = re.compile(
    r"\b(?:the|of|and|to|that|with|for|this|you|your|are|from|which|have|it|can|not)\b",
    re.IGNORECASE,
)
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
# Small Greek and Russian letters are in every vocabulary; any other may be spelt in its bytes.
_SMALL_GREEK_OR_CYRILLIC = re.compile("[ά-ώа-џ]")


def estimate(text: str) -> int:
    """Return a number of tokens that common tokenizers do not exceed.

    Everyday English counts up to 1.5 times what it needs, dense English and code up to 1.8 times;
    scripts that a small vocabulary spells in bytes count their bytes, two or three times what a
    large one needs. A short text of rare words may need a seventh more than is counted.
    """
    plain = sum(cost * _count(pattern, text) for pattern, cost in _COSTS)
    return math.ceil(plain + _breaks(text) + _bytes_beyond_ascii(text))


def is_count(value: object) -> TypeGuard[int]:
    """Tell whether what a server says can be a number of tokens: it may say anything."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _breaks(text: str) -> float:
    """Tokens that words cost because they break into pieces."""
    breaks = 0.4 * _count(_LONG, text) + 1.8 * _count(_UNUSUAL, text)
    return breaks - min(1.2 * _count(_ENGLISH, text), breaks / 2)


def _bytes_beyond_ascii(text: str) -> float:
    # A lone surrogate, which JSON may bring, counts too.
    size = len(text.encode("utf-8", "surrogatepass"))
    ascii_size = len(text) - _count(_BEYOND_ASCII, text)
    return size - ascii_size - 0.75 * _count(_SMALL_GREEK_OR_CYRILLIC, text)


def _count(pattern: re.Pattern[str], text: str) -> int:
    return len(pattern.findall(text))
