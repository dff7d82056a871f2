"""Cuts texts between grapheme clusters, the characters that a person sees."""

from __future__ import annotations

from itertools import accumulate

from wcwidth import grapheme_boundary_before, iter_graphemes

# A cluster may have any length. A search beyond this limit is slow and leaves little of the text.
_SEARCHED = 256  # characters
CUT = "[…]"


def cut_before(text: str, at: int) -> int:
    """Return the last boundary up to `at`, or `at` itself if none is near."""
    if not 0 < at < len(text):
        return at
    start = max(at - _SEARCHED, 0)
    # The boundary before a character does not depend on the characters after it.
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
    """Return all boundaries in a text, without the beginning and with the end."""
    return list(accumulate(map(len, iter_graphemes(text))))


def without_middle(text: str, kept: int) -> str:
    """Return at most this many characters of a text, with a mark instead of its middle."""
    tail = kept // 2
    head = cut_before(text, kept - tail)
    return text[:head] + CUT + text[cut_after(text, len(text) - tail) :]


def left_out(text: str, shorter: str) -> int:
    """Return how many characters of a text the mark in its shortened version replaces."""
    return len(text) - len(shorter) + len(CUT) if shorter != text else 0
