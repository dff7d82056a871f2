"""Shortens a text by its middle."""

from __future__ import annotations

from bot.text.graphemes import cut_after, cut_before

CUT = "[…]"


def without_middle(text: str, kept: int) -> str:
    """Return a text of which at most so many characters are left, and a mark for its middle."""
    tail = kept // 2
    head = cut_before(text, kept - tail)
    return text[:head] + CUT + text[cut_after(text, len(text) - tail) :]


def left_out(text: str, shorter: str) -> int:
    """Return how many characters of a text the mark in a shorter one stands for."""
    return len(text) - len(shorter) + len(CUT) if shorter != text else 0
