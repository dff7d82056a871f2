"""How long a stored question may be, and how many tokens it reserves."""

from __future__ import annotations

from dataclasses import replace

from bot.domain import Turn
from bot.text.context import newest, shortened
from bot.text.graphemes import CUT, left_out, without_middle
from bot.tokens.counters import estimate

MAX_QUESTION = 64_000  # characters of a question that are kept; no platform sends as many


def bounded(turn: Turn) -> Turn:
    """Return a turn without the middle of a question, or a quote, that is too long to store."""
    if turn.quote:
        turn = replace(turn, quote=shortened(turn.quote))
    if turn.context:
        turn = replace(turn, context=tuple(newest(turn.context)))
    if len(turn.text) <= MAX_QUESTION:
        return turn
    text = without_middle(turn.text, MAX_QUESTION - len(CUT))
    return replace(turn, text=text, left_out=left_out(turn.text, text))


def reserved(turn: Turn, *, longest: int) -> int:
    """Return the estimated tokens of a turn whose answer has at most `longest`."""
    quoted = estimate(turn.quote.text) if turn.quote else 0
    return longest + quoted + estimate(turn.text)
