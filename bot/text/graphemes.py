"""Where a text may be cut without taking a character apart that people see as one."""

from __future__ import annotations

import unicodedata

_JOINER = "\u200d"
_VIRAMA = 9  # the combining class of the signs that join two consonants of Indic scripts
_LONGEST = 256  # that people see as one character; to look on would take long, and leave nothing


def cut_before(text: str, at: int) -> int:
    """Return the last place up to `at` where a character ends, as people see characters.

    Where none is near, `at` itself.
    """
    for place in range(at, max(at - _LONGEST, -1), -1):
        if not 0 < place < len(text) or not _joined(text, place):
            return place
    return at


def cut_after(text: str, at: int) -> int:
    """Return the first place from `at` on where a character ends, as people see characters.

    Where none is near, `at` itself.
    """
    for place in range(at, at + _LONGEST):
        if not 0 < place < len(text) or not _joined(text, place):
            return place
    return at


def _joined(text: str, at: int) -> bool:
    """Tell whether what stands on both sides of a place is one character.

    Coarser than Unicode's rules (Annex 29) where those need tables that Python has not: what they
    join is joined here.
    """
    before, after = text[at - 1], text[at]
    return (
        before + after == "\r\n"
        or before == _JOINER
        or after == _JOINER
        or unicodedata.category(after) in ("Mn", "Mc", "Me")
        or unicodedata.combining(before) == _VIRAMA
        or _is_sign(after)
        or (_is_flag(before) and _is_flag(after) and _flags_before(text, at) % 2 == 1)
        or (_is_jamo(after) and (_is_jamo(before) or _is_syllable(before)))
        or (_is_leading_jamo(before) and _is_syllable(after))
        or (_is_half(before) and _is_half(after))
    )


def _is_sign(character: str) -> bool:
    """Skin tones and tags, which change the emoji before them, and Thai's and Lao's vowel AM."""
    return (
        "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
        or character in "\u200c\u0e33\u0eb3\uff9e\uff9f"
    )


def _is_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flags_before(text: str, at: int) -> int:
    start = at
    while start and _is_flag(text[start - 1]):
        start -= 1
    return at - start


def _is_jamo(character: str) -> bool:
    """Letters of Korean, of which several make a syllable."""
    return (
        "\u1100" <= character <= "\u11ff"
        or "\ua960" <= character <= "\ua97f"
        or "\ud7b0" <= character <= "\ud7ff"
    )


def _is_leading_jamo(character: str) -> bool:
    return "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97c"


def _is_syllable(character: str) -> bool:
    return "\uac00" <= character <= "\ud7a3"


def _is_half(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"
