"""How turns stand, put together of their records and the history, for a screen shown anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bot.domain import End, Exchange, Outcome, Rating, Shown, Standing, Turn
from bot.reply.draft import below
from bot.turns.records import Unreadable, read_end, read_shown, read_turn

_ENDED: Mapping[str, Outcome] = {
    "done": "done",
    "stopped": "stopped",
    "failed": "failed",
    "dead": "dead",
}
_RATINGS: Mapping[str, Rating] = {"good": "good", "bad": "bad"}


@dataclass(frozen=True, slots=True)
class Known:
    """What the queue knows of a turn: of an ended one neither the question nor what was said.

    `outcome` is empty until the end is stored, which is a little after `shown` has it. `former` is
    the answer that a new one will replace.
    """

    turn: Turn
    waits: bool
    shown: Shown
    former: str
    outcome: Outcome | None
    end: End


def read_known(turn_id: str, row: Sequence[str | None]) -> Known | None:
    """Read what the queue tells of a turn; None if it is not known or was forgotten."""
    state, thread, body, message_ids, text, more, former, end, forgotten, newest = row
    if state in (None, "dropped") or forgotten:
        return None
    try:
        turn = read_turn(turn_id, turn_id.partition(":")[0], thread or "", body or "", "{}")
    except Unreadable:
        return None
    shown = read_shown(turn_id, message_ids or "[]", text or "", more or "{}")
    stands = read_end(end) if end else shown.end
    return Known(
        turn=turn,
        waits=state == "queued",
        shown=shown,
        former=former or "",
        outcome=_ENDED.get(state or ""),
        end="older" if newest and newest != turn_id else stands,
    )


def standing(known: Known, exchange: Exchange | None, rating: str) -> Standing:
    """Return how a turn stands; `exchange` is what the history has of it."""
    turn, shown = known.turn, known.shown
    one = Standing(
        turn_id=turn.id,
        question=turn.text or (exchange.question if exchange else ""),
        asked_at=turn.asked_at,
        state="running",
        model=shown.model or (exchange.model if exchange else ""),
    )
    if known.outcome:
        said = _said(known.outcome, shown.text, exchange)
        one = replace(one, state=known.outcome, answer=said, below=below(said, shown.text))
        return replace(one, end=known.end, rating=_RATINGS.get(rating, ""))
    if shown.outcome:
        # Whoever writes this reply, it ends so.
        # If there is no new answer, the former one stands above the notice.
        stays = not shown.said and known.former and shown.text.startswith(known.former)
        said = known.former if stays else shown.said
        one = replace(one, state=shown.outcome, answer=said, below=below(said, shown.text))
        return replace(one, end=known.end)
    # Text without a page was shown to nobody.
    growing = shown.said if shown.message_ids else ""
    waits = known.waits and not growing
    return replace(one, state="waiting" if waits else "running", answer=growing or known.former)


def _said(outcome: Outcome, text: str, exchange: Exchange | None) -> str:
    """Return the model's part of an ended reply. If nothing is remembered, it has said nothing."""
    if exchange and text.startswith(exchange.answer):
        return exchange.answer
    return text if outcome == "done" else ""
