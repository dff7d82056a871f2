"""How long what a killed process was answering waits until the model is asked for it again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.talks import number_of
from tests.emulators.model.asked import Asked

# Within so many seconds the model may still get what the dead process had asked.
_AT_ONCE = 0.1


@dataclass(frozen=True, slots=True)
class Kill:
    """A SIGKILL, in monotonic seconds, and the questions whose lease the process had then.

    `pid` is the process, and `up` are those that were up besides.
    """

    at: float
    held: frozenset[int] = frozenset()
    pid: int = 0
    up: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Recovery:
    """From the kill of the last process that had a turn until the model is asked for it again.

    `others` are the kills of other processes in that time; it is `attended` when one was up from
    its beginning to its end.
    """

    number: int
    at: float
    seconds: float
    others: int
    attended: bool


def recoveries(asked: Sequence[Asked], kills: Sequence[Kill]) -> list[Recovery]:
    """Return them all, the shortest first.

    Where the process that takes a turn over is killed before it asks, the time begins anew. A turn
    that is never asked for again, for all of it had been said, is not here.
    """
    times = defaultdict[int, list[float]](list)
    for each in asked:
        times[number_of(each.messages[-1]["content"])].append(each.at)
    found = [one for kill in kills for one in _from(kill, times, kills)]
    return sorted(found, key=lambda one: one.seconds)


def _from(
    kill: Kill, times: Mapping[int, Sequence[float]], kills: Sequence[Kill]
) -> Iterator[Recovery]:
    for number in kill.held:
        again = (at for at in times.get(number, ()) if at > kill.at + _AT_ONCE)
        if (asked := min(again, default=None)) is None:
            continue
        between = [one for one in kills if kill.at < one.at < asked]
        if not any(number in one.held for one in between):
            left = kill.up - {one.pid for one in between}
            yield Recovery(number, kill.at, asked - kill.at, len(between), bool(left))
