"""Cuts texts between characters as a person sees them."""

from __future__ import annotations

from itertools import accumulate

from wcwidth import grapheme_boundary_before, iter_graphemes

# A cluster may be of any length. A search beyond this takes long and leaves little of the text.
_SEARCHED = 256  # characters
CUT = "[…]"


def cut_before(text: str, at: int) -> int:
    """Return the last boundary up to `at`, or `at` itself if none is near."""
    if not 0 < at < len(text):
        return at
    start = max(at - _SEARCHED, 0)
    # The boundary before a character depends on that character, and on none behind it.
    window = text[start : at + 1]
    boundary = start + grapheme_boundary_before(window, len(window))
    return at if boundary == start > 0 else boundary


def cut_after(text: str, at: int) -> int:
    """Return the first boundary from `at` on, or `at` itself if none is near."""
    start = cut_before(text, at)
    if start == at:
        return at
    window = text[start : at + _SEARCHED]
    end = start + len(next(iter_graphemes(window)))
    return at if end == at + _SEARCHED < len(text) else end


def boundaries(text: str) -> list[int]:
    """Return all boundaries in a text, the beginning left out and the end included."""
    return list(accumulate(map(len, iter_graphemes(text))))


def without_middle(text: str, kept: int) -> str:
    """Return at most so many characters of a text, with a mark in place of its middle."""
    tail = kept // 2
    head = cut_before(text, kept - tail)
    return text[:head] + CUT + text[cut_after(text, len(text) - tail) :]


def left_out(text: str, shorter: str) -> int:
    """Return how many characters of a text the mark in its shorter version replaces."""
    return len(text) - len(shorter) + len(CUT) if shorter != text else 0
