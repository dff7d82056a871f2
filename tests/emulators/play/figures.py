"""When what was shown, and how fresh it was."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from tests.emulators.play.rooms import BOT, Impossible
from tests.emulators.play.seat import Seat
from tests.emulators.timeline import Delta, Moment, freshness

_END = 40  # characters of a text that are shown


def figures(seat: Seat, deltas: Sequence[Delta]) -> Iterator[str]:
    """Yield a line for each moment since the bot was last called, and two about its answer.

    `deltas` are what the emulated model said last. Impossible when nothing has happened.
    """
    began = seat.called_at or time.monotonic()
    moments = [it for it in seat.rooms.moments(seat.room) if it.at >= began]
    if not moments:
        raise Impossible("Nothing has happened here since the bot was last called.")
    for moment in moments:
        yield f"{moment.at - began:7.2f} s  {_told(moment, seat)}"
    yield _calls(seat, began)
    ours = {key for key, sight in seat.standing.items() if sight.author == BOT}
    yield from _freshness(deltas, [it for it in moments if it.message in ours])


def _told(moment: Moment, seat: Seat) -> str:
    if moment.what == "sign":
        return f"   sign    {moment.text}"
    head = f"{seat.number(moment.message):>2} {moment.what:<7}"
    text = seat.rooms.readable(moment.text)
    end = text[-_END:].replace("\n", " ")
    return f"{head} {len(text)} characters, …{end}" if text else head


def _calls(seat: Seat, began: float) -> str:
    calls = seat.rooms.calls(began)
    limited = sum(call.limited for call in calls)
    return f"Calls of the bot to {seat.rooms.name}: {len(calls)}; answered 429: {limited}."


def _freshness(deltas: Sequence[Delta], moments: Sequence[Moment]) -> Iterator[str]:
    reply = {it.message for it in moments if deltas and it.at >= deltas[0].at}
    try:
        fresh = freshness(deltas, [it for it in moments if it.message in reply])
    except ValueError:
        return
    last = "not all is shown" if fresh.last is None else f"the last {fresh.last:.2f} s"
    yield (
        f"Behind the model: its first text {fresh.first:.2f} s, all {fresh.mean:.2f} s on average, "
        f"{last}; the longest pause was {fresh.gap:.2f} s."
    )
