"""What a person saw and when, and how fresh it was: the same for every emulator."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Moment:
    """Something changed on the screen; `at` is in real monotonic seconds.

    `message` is the message's id, and `text` what it shows from now on; a deleted one shows
    nothing. "sign" is typing, or a status with its text, and belongs to no message.
    """

    at: float
    what: Literal["post", "edit", "delete", "sign"]
    message: str
    text: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of text that a model sent; `at` is in real monotonic seconds."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Freshness:
    """How a reply reached its reader, in seconds.

    `first`: from the first delta to the first text of it on the screen. `mean`: from a delta to its
    last character on the screen, over all deltas that came so far. `gap`: the longest time between
    two growths of the text. `last`: from the last delta to its text; None while the text is not
    `whole`.
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
    it. So a page that closes a code fence counts only up to there: measure with prose.
    ValueError when no text of the model was ever on the screen.
    """
    said = ["".join(delta.text.split()) for delta in deltas]
    growth = _growth("".join(said), moments)
    if not growth:
        raise ValueError("no text of the model was ever on the screen")
    delays: list[float] = []
    length = 0
    for delta, text in zip(deltas, said, strict=True):
        length += len(text)
        seen = next((at for at, visible in growth if visible >= length), None)
        if seen is not None and text:
            delays.append(seen - delta.at)
    whole = growth[-1][1] == length
    times = [at for at, _ in growth]
    return Freshness(
        first=times[0] - deltas[0].at,
        mean=sum(delays) / len(delays) if delays else times[0] - deltas[0].at,
        gap=max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0),
        last=times[-1] - deltas[-1].at if whole else None,
        whole=whole,
    )


def _growth(said: str, moments: Sequence[Moment]) -> list[tuple[float, int]]:
    """Return when how many characters of `said` could be read, for each time it became more."""
    texts: dict[str, str] = {}
    growth: list[tuple[float, int]] = []
    most = 0
    for moment in moments:
        if moment.what == "sign":
            continue
        texts[moment.message] = "".join(moment.text.split())
        visible = _agreement(said, "".join(texts.values()))
        if visible > most:
            most = visible
            growth.append((moment.at, visible))
    return growth


def _agreement(said: str, shown: str) -> int:
    """Return the length of the longest beginning that both have."""
    for number, (left, right) in enumerate(zip(said, shown, strict=False)):
        if left != right:
            return number
    return min(len(said), len(shown))
