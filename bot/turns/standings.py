"""The states of turns, from their records and the history, for a screen that is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bot.domain import Exchange, Rating, Standing
from bot.reply.draft import notices_below
from bot.turns.records import OUTCOMES, Unreadable, read_end, read_shown, read_turn

_RATINGS: Mapping[str, Rating] = {"good": "good", "bad": "bad"}


def standing(
    turn_id: str, fields: Mapping[str, str], exchange: Exchange | None, rating: str
) -> Standing | None:
    """Return the state of a turn from its record; None if it is not known or was forgotten.

    `exchange` is its exchange in the history.
    """
    state, newest = fields.get("state", "dropped"), fields.get("newest", turn_id)
    if state == "dropped" or "forget" in fields:
        return None
    try:
        turn = read_turn(turn_id, turn_id.partition(":")[0], fields)
    except Unreadable:
        return None
    message_ids, more = fields.get("message_ids", "[]"), fields.get("more", "{}")
    shown = read_shown(turn_id, message_ids, fields.get("shown", ""), more)
    previous, stored = fields.get("previous_answer", ""), OUTCOMES.get(state)
    one = Standing(
        turn_id=turn.id,
        question=turn.text or (exchange.question if exchange else ""),
        asked_at=turn.asked_at,
        state="running",
        model=shown.model or (exchange.model if exchange else ""),
    )
    # An end that was saved is final, even if another worker writes it.
    outcome = stored or shown.outcome
    if not outcome:
        # Text without a message was never visible.
        growing = shown.said if shown.message_ids else ""
        waits = state == "queued" and not growing
        return replace(one, state="waiting" if waits else "running", answer=growing or previous)
    if not stored:
        # Without a new answer, the previous one is shown above the notice.
        stays = not shown.said and previous and shown.text.startswith(previous)
        answer = previous if stays else shown.said
    elif exchange and shown.text.startswith(exchange.answer):
        answer = exchange.answer
    else:
        answer = shown.text if stored == "done" else ""
    end = read_end(fields["end"]) if fields.get("end") else shown.end
    return replace(
        one,
        state=outcome,
        answer=answer,
        below=notices_below(answer, shown.text),
        end="older" if newest != turn_id else end,
        rating=_RATINGS.get(rating, "") if stored else "",
    )
