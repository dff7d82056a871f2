"""Estimates the tokens of a text without a model's tokenizer: rather too many than too few."""

from __future__ import annotations

import math
import re
import unicodedata
from string import ascii_lowercase
from typing import TypeGuard

# What a chat template puts around a message if the vocabulary spells its marks as text: ChatML and
# Gemma's 15 to 18 tokens, OpenChat's 13 to 16, Zephyr's 10 to 15, Phi's 10 to 13 (templates of
# llama.cpp, src/llama-chat.cpp, in 21 vocabularies, run). As control tokens they are 1 to 7, and
# Qwen3's with its empty thoughts 10. The marks of Llama 3, Command R and Granite would cost more as
# text, but their vocabularies have them.
MESSAGE_OVERHEAD = 20

# What a template may say once, however short the prompt: Command R7B's preambles are 515 to 606
# tokens (llama.cpp, models/templates), gpt-oss' header some 100, Granite's 48, Llama 3.1's date 28.
TEMPLATE_ONCE = 640

_MOST = 10**9  # tokens; far above any context, and sums stay numbers

# The letters that often follow each letter in English prose and code. Vocabularies have long pieces
# of such pairs, while another pair mostly ends a piece.
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

_WORD = re.compile("[A-Z]?[a-z]+")
_RARE_PAIR = re.compile(
    "|".join(
        f"{first}(?=[{''.join(sorted({*ascii_lowercase} - {*often}))}])"
        for first, often in _FOLLOWERS.items()
    )
)
_SPACE_OF_WORD = re.compile("(?<! ) (?=[A-Za-z])")
_LATE_LETTER = re.compile("(?<=[a-z]{12})[a-z]")
_LETTER = 0.35  # tokens, for each letter of a word after its first
_LATE = 0.65  # and more after the twelfth, where few words go on
_PAIR = 0.5  # tokens, for a rare pair
_START = 4  # tokens; a short text may be odder than a long one
# Small Greek and Russian letters are in every vocabulary; any other may be spelled in its bytes.
_SMALL_GREEK_OR_CYRILLIC = re.compile("[ά-ώа-џ]")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
_PIECE = 256  # characters


def estimate(text: str) -> int:
    """Return a number of tokens that common tokenizers do not exceed.

    English counts twice what most of them need (`python -m bench.tokens`). It is never more than a
    token for each byte, which byte-level and byte-fallback vocabularies do not exceed.
    """
    if not text:
        return 0
    size, beyond_ascii = _bytes(text), _count(_BEYOND_ASCII, text)
    words = _WORD.findall(text)
    letters = sum(map(len, words))
    # A capital, digit, mark or control character is a token; a space belongs to the word after it.
    others = len(text) - beyond_ascii - letters - _count(_SPACE_OF_WORD, text)
    plain = len(words) + _LETTER * (letters - len(words))
    plain += _PAIR * _count(_RARE_PAIR, text) + _LATE * _count(_LATE_LETTER, text)
    rest = size - (len(text) - beyond_ascii) - 0.35 * _count(_SMALL_GREEK_OR_CYRILLIC, text)
    # SentencePiece puts a space before the text.
    return min(math.ceil(plain + others + rest) + _START, size + 1)


def words(text: str) -> int:
    """Return a number of tokens that common tokenizers do not go below."""
    return len(text.split())


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value that a server sent can be a number of tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _bytes(text: str) -> int:
    # Python sorts a run of combining marks in quadratic time, and blocks all threads meanwhile.
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    # A lone surrogate, which JSON may bring, counts too. Some vocabularies see a compatible
    # form of the text, which is longer if one character is an abbreviation of several.
    forms = [(piece, unicodedata.normalize("NFKC", piece)) for piece in pieces]
    return sum(max(len(form.encode("utf-8", "surrogatepass")) for form in pair) for pair in forms)


def _count(pattern: re.Pattern[str], text: str) -> int:
    return len(pattern.findall(text))
