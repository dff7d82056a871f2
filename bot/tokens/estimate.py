"""Counting tokens without a model's tokenizer: carefully, rather too many than too few."""

from __future__ import annotations

import math
import re
import unicodedata
from importlib.resources import files
from string import ascii_lowercase
from typing import TypeGuard

# What a chat template puts around a message, where its marks are spelt as text because the
# vocabulary does not have them: ChatML and Gemma's 15 to 18 tokens, OpenChat's 13 to 16, Zephyr's
# 10 to 15, Phi's 10 to 13 (templates of llama.cpp, src/llama-chat.cpp, in 21 vocabularies, run).
# As signs of the vocabulary they are 1 to 7, and Qwen3's with its empty thoughts 10. The marks of
# Llama 3, Command R and Granite would cost more as text, but their vocabularies have them.
MESSAGE_OVERHEAD = 20

# What a template may say once, however short the prompt: Command R7B's preambles are 515 to 606
# tokens (llama.cpp, models/templates), gpt-oss' header some 100, Granite's 48, Llama 3.1's date 28.
TEMPLATE_ONCE = 640

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


# The weights are a linear programme's, over 11,000 texts of all kinds and what 21 vocabularies need
# for them (Llama 2 and 3, Mistral's of 2023 to 2024, Gemma 1 and 3, Qwen 1, 3 and 3.6, DeepSeek 3
# and 4, SmolLM2, GPT-2, OpenAI's later three, Whisper, Claude, Jurassic 2), raised by what
# `python -m bench.tokens` found since.
_WORD = re.compile(rf"[{_UPPER}]?[{_LOWER}]+|[{_UPPER}]+")
_COSTS = [
    (re.compile(pattern), cost)
    for pattern, cost in (
        (_WORD.pattern, 2.8),  # with the space before it
        (rf"(?<=[{_LOWER}])[{_LOWER}]", 0.09),  # a further letter
        (rf"(?<=[{_LOWER}]{{8}})[{_LOWER}]", 0.8),  # and more after the eighth
        ("|".join(map(_unusual, ascii_lowercase)), 0.42),
        (rf"(?<=[{_LOWER}])[{_UPPER}]", 0.8),  # a word without a space before it
        (rf"(?<=[{_UPPER}])[{_UPPER}]", 1.0),  # capitals stand alone
        (r"[\x00-\x1f!-@\[-`{-\x7f]", 1.0),  # so do digits, marks and newlines
        (r" (?![ !-/:-~])", 1.0),  # and spaces that no word takes
        (r"(?<= ) ", 1.0),
    )
]
_MAY_BE_COMMON = re.compile(rf"(?<= )[a-z]{{2,}}(?![{_UPPER}{_LOWER}])")
_PIECE = 256  # characters
_START = 4  # tokens; a short text may be odder than a long one
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
# Small Greek and Russian letters are in every vocabulary; any other may be spelt in its bytes.
_SMALL_GREEK_OR_CYRILLIC = re.compile("[ά-ώа-џ]")


def estimate(text: str) -> int:
    """Return a number of tokens that common tokenizers do not exceed.

    English counts some 1.5 times what the worst of them needs and twice what most need
    (`python -m bench.tokens`). It is never more than a token for each byte, which byte-level and
    byte-fallback vocabularies do not exceed.
    """
    size = _bytes(text)
    plain = _plain(text) - sum(_SAVED.get(word, 0) for word in _MAY_BE_COMMON.findall(text))
    beyond = size - (len(text) - _count(_BEYOND_ASCII, text))
    beyond_ascii = beyond - 0.35 * _count(_SMALL_GREEK_OR_CYRILLIC, text)
    # SentencePiece puts a space before the text.
    return min(math.ceil(plain + beyond_ascii) + _START, size + 1) if text else 0


def words(text: str) -> int:
    """Return a number of tokens that common tokenizers do not go below."""
    return len(text.split())


def is_count(value: object) -> TypeGuard[int]:
    """Tell whether what a server says can be a number of tokens: it may say anything."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _plain(text: str) -> float:
    return sum(cost * _count(pattern, text) for pattern, cost in _COSTS)


def _bytes(text: str) -> int:
    # Python sorts a run of combining marks in quadratic time, and nothing else runs meanwhile.
    return sum(map(_longest, (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))))


def _longest(piece: str) -> int:
    # A lone surrogate, which JSON may bring, counts too. Some vocabularies see a compatible
    # form of the text, which is longer where a sign stands for several.
    forms = piece, unicodedata.normalize("NFKC", piece)
    return max(len(form.encode("utf-8", "surrogatepass")) for form in forms)


def _count(pattern: re.Pattern[str], text: str) -> int:
    return len(pattern.findall(text))


# Common English words that each of those vocabularies has as one token, with the space before it,
# and what they cost less than other words.
_SAVED = {
    word: _plain(word) - 1
    for word in files("bot.tokens").joinpath("common_words.txt").read_text(encoding="utf-8").split()
}
