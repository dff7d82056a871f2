"""How fresh a growing reply was: what a model said beside what stood on the screen."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.emulators.timeline import Delta, Moment


@dataclass(frozen=True, slots=True)
class Freshness:
    """How a reply reached its reader, in seconds.

    `first`: from the first delta to the first text of it on the screen. `mean`: from a delta to its
    last character on the screen, over all deltas that came so far. `gap`: the longest time between
    two growths of the text. `last`: from the last delta to the moment from which the text stood
    there for good, all of it and nothing else; None where it is not `whole` in the end.
    """

    first: float
    mean: float
    gap: float
    last: float | None
    whole: bool


def freshness(deltas: Sequence[Delta], moments: Sequence[Moment]) -> Freshness:
    """Compare what a model said with what stood on the screen of one reply.

    `moments` are those of the reply's messages. Their texts are joined in the order of posting and
    counted as far as they begin as the model's text does, white space aside, for pages are cut at
    it. So a page that closes a code fence counts only up to there: measure with prose. Whether the
    reply is whole tells what stands after the last moment, so a word behind the answer spoils it.
    ValueError when no text of the model was ever on the screen.
    """
    said = "".join("".join(delta.text.split()) for delta in deltas)
    screens = list(_screens(moments))
    growth = _growth(said, screens)
    if not growth:
        raise ValueError("no text of the model was ever on the screen")
    delays = token_delays(deltas, moments)
    settled = _settled(said, screens)
    times = [at for at, _ in growth]
    return Freshness(
        first=times[0] - deltas[0].at,
        mean=sum(delays) / len(delays) if delays else times[0] - deltas[0].at,
        gap=max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0),
        last=None if settled is None else settled - deltas[-1].at,
        whole=settled is not None,
    )


def token_delays(deltas: Sequence[Delta], moments: Sequence[Moment]) -> list[float]:
    """Return the seconds from each delta to its last character on the screen, as in `freshness`.

    Deltas that did not come to their ends have none.
    """
    said = ["".join(delta.text.split()) for delta in deltas]
    growth = _growth("".join(said), _screens(moments))
    delays: list[float] = []
    length = 0
    for delta, text in zip(deltas, said, strict=True):
        length += len(text)
        seen = next((at for at, visible in growth if visible >= length), None)
        if seen is not None and text:
            delays.append(seen - delta.at)
    return delays


def _screens(moments: Iterable[Moment]) -> Iterator[tuple[float, str]]:
    """Yield what stood there after each moment, without its white space."""
    texts: dict[str, str] = {}
    for moment in moments:
        if moment.what != "sign":
            texts[moment.message] = "".join(moment.text.split())
            yield moment.at, "".join(texts.values())


def _growth(said: str, screens: Iterable[tuple[float, str]]) -> list[tuple[float, int]]:
    """Return when how many characters of `said` could be read, for each time it became more."""
    growth: list[tuple[float, int]] = []
    most = 0
    for at, shown in screens:
        visible = _agreement(said, shown)
        if visible > most:
            most = visible
            growth.append((at, visible))
    return growth


def _settled(said: str, screens: Iterable[tuple[float, str]]) -> float | None:
    """Return since when `said` has stood there, whole and alone; None: in the end it does not."""
    since = None
    for at, shown in screens:
        if shown != said:
            since = None
        elif since is None:
            since = at
    return since


def _agreement(said: str, shown: str) -> int:
    """Return the length of the longest beginning that both have."""
    for number, (left, right) in enumerate(zip(said, shown, strict=False)):
        if left != right:
            return number
    return min(len(said), len(shown))
