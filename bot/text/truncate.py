"""Shortens a text by removing its middle."""

from __future__ import annotations

from bot.text.graphemes import cut_after, cut_before

CUT = "[…]"


def without_middle(text: str, kept: int) -> str:
    """Return at most so many characters of a text, with a mark in place of its middle."""
    tail = kept // 2
    head = cut_before(text, kept - tail)
    return text[:head] + CUT + text[cut_after(text, len(text) - tail) :]


def left_out(text: str, shorter: str) -> int:
    """Return how many characters of a text the mark in its shorter version replaces."""
    return len(text) - len(shorter) + len(CUT) if shorter != text else 0
