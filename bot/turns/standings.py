"""The states of turns, from their records, for a screen that is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bot.domain import Rating, Standing
from bot.reply.draft import notices_below
from bot.turns.records import OUTCOMES, Unreadable, read_shown, read_turn

_RATINGS: Mapping[str, Rating] = {"good": "good", "bad": "bad"}


def standing(
    turn_id: str,
    fields: Mapping[str, str],
    *,
    newest: str = "",
    rating: str = "",
    versions: tuple[str, ...] = (),
    thought: str = "",
) -> Standing | None:
    """Return the state of a turn from its record; None if it is not known or was forgotten.

    `newest` is the turn of the thread's newest reply, or empty; `versions` are its versions.
    `thought` is in seconds.
    """
    state = fields.get("state", "dropped")
    if state == "dropped" or "forget" in fields:
        return None
    try:
        turn = read_turn(turn_id, fields)
    except Unreadable:
        return None
    shown = read_shown(fields)
    previous, stored = fields.get("previous_answer", ""), OUTCOMES.get(state)
    one = Standing(
        turn_id=turn.id,
        question=turn.text,
        asked_at=turn.asked_at,
        state="running",
        model=shown.model or fields.get("model", ""),
        files=turn.files,
        version_of=fields.get("version_of", turn.id),
        versions=versions,
        thought=int(thought) if thought.isdecimal() else 0,
    )
    # An end that was saved is final, even if another worker writes it.
    outcome = stored or shown.outcome
    if not outcome:
        # Text without a message was never visible.
        growing = shown.said if shown.message_ids else ""
        consent, _, sign = fields.get("asks", "").partition(" ")
        waits = state == "queued" and not growing and not consent
        one = replace(one, consent=consent, sign=sign)
        return replace(one, state="waiting" if waits else "running", answer=growing or previous)
    if not stored:
        # Without a new answer, the previous one is shown above the notice.
        stays = not shown.said and previous and shown.text.startswith(previous)
        answer = previous if stays else shown.said
    elif shown.text.startswith(remembered := fields.get("answer", "")) and remembered:
        answer = remembered
    else:
        answer = shown.text if stored == "done" else ""
    return replace(
        one,
        state=outcome,
        answer=answer,
        below=notices_below(answer, shown.text),
        end="older" if newest not in ("", turn_id) else shown.end,
        rating=_RATINGS.get(rating, "") if stored else "",
    )
