"""The states of turns, from their records and the history, for a screen that is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bot.domain import End, Exchange, Outcome, Rating, Shown, Standing, Turn
from bot.reply.draft import notices_below
from bot.turns.records import OUTCOMES, Unreadable, read_end, read_shown, read_turn

_RATINGS: Mapping[str, Rating] = {"good": "good", "bad": "bad"}


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A turn in the queue; after its end without the question and the model's text.

    `outcome` is empty until the end is stored, which is a little after `shown` has it.
    `previous_answer` is the answer that a new one will replace.
    """

    turn: Turn
    waits: bool
    shown: Shown
    previous_answer: str
    outcome: Outcome | None
    end: End


def read_record(turn_id: str, fields: Mapping[str, str]) -> TurnRecord | None:
    """Read a turn's record; None if it is not known or was forgotten."""
    state, newest = fields.get("state", "dropped"), fields.get("newest", turn_id)
    if state == "dropped" or "forget" in fields:
        return None
    try:
        turn = read_turn(turn_id, turn_id.partition(":")[0], fields)
    except Unreadable:
        return None
    message_ids, more = fields.get("message_ids", "[]"), fields.get("more", "{}")
    shown = read_shown(turn_id, message_ids, fields.get("shown", ""), more)
    how = read_end(fields["end"]) if fields.get("end") else shown.end
    return TurnRecord(
        turn=turn,
        waits=state == "queued",
        shown=shown,
        previous_answer=fields.get("previous_answer", ""),
        outcome=OUTCOMES.get(state),
        end="older" if newest != turn_id else how,
    )


def standing(known: TurnRecord, exchange: Exchange | None, rating: str) -> Standing:
    """Return the state of a turn; `exchange` is its exchange in the history."""
    turn, shown = known.turn, known.shown
    one = Standing(
        turn_id=turn.id,
        question=turn.text or (exchange.question if exchange else ""),
        asked_at=turn.asked_at,
        state="running",
        model=shown.model or (exchange.model if exchange else ""),
    )
    if known.outcome:
        said = _answer_of(known.outcome, shown.text, exchange)
        one = replace(one, state=known.outcome, answer=said, below=notices_below(said, shown.text))
        return replace(one, end=known.end, rating=_RATINGS.get(rating, ""))
    if shown.outcome:
        # This end is final, even if another worker writes it.
        # Without a new answer, the previous one is shown above the notice.
        stays = (
            not shown.said
            and known.previous_answer
            and shown.text.startswith(known.previous_answer)
        )
        said = known.previous_answer if stays else shown.said
        one = replace(one, state=shown.outcome, answer=said, below=notices_below(said, shown.text))
        return replace(one, end=known.end)
    # Text without a message was never visible.
    growing = shown.said if shown.message_ids else ""
    waits = known.waits and not growing
    return replace(
        one, state="waiting" if waits else "running", answer=growing or known.previous_answer
    )


def _answer_of(outcome: Outcome, text: str, exchange: Exchange | None) -> str:
    """Return the model's part of an ended reply; empty if it is not remembered."""
    if exchange and text.startswith(exchange.answer):
        return exchange.answer
    return text if outcome == "done" else ""
