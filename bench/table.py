"""Figures of several bots side by side, as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.bound import Budget
from bench.figures import middle_and_worst
from bench.scene import Scene
from bench.stage import WAY, Place

_MS = 0.001
_HEADS = (
    "replies at once",
    "bot",
    "event to model, ms",
    "first shown, ms",
    "mean delay, s",
    "of D*",
    "longest gap, s",
    "last token to final, s",
    "calls",
    "429s",
    "incomplete",
    "CPU, ms a reply",
)


@dataclass(frozen=True, slots=True)
class Row:
    """A scene, whose it was and where; `sharing` says how many replies shared a `budget`."""

    place: Place
    replies: int
    peer: str
    scene: Scene
    budget: Budget
    sharing: int

    def bound(self, *, full: bool = False) -> float:
        """Return the least mean delay that the budget allows, in seconds; see Budget.bound."""
        return self.budget.bound(self.scene.seconds, self.sharing, way=WAY, full=full)


def table(rows: Sequence[Row]) -> str:
    """Return the scenes, the bots of each below each other.

    Of two figures the first is the median and the second the worst of all replies. A mean delay in
    brackets is that of the tokens which ever came: not of all.
    """
    places = list(dict.fromkeys(row.place for row in rows))
    ordered = sorted(rows, key=lambda row: (places.index(row.place), row.replies))
    cells = [_HEADS, *(_cells(row) for row in ordered)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADS))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cells(row: Row) -> tuple[str, ...]:
    scene = row.scene
    fresh = [one.fresh for one in scene.answers if one.fresh]
    asked = [one.asked for one in scene.answers if one.asked is not None]
    ended = [one.ended for one in scene.answers if one.ended is not None]
    return (
        f"{row.replies}, {row.place} ({_bounds(row)})",
        row.peer,
        middle_and_worst(asked, unit=_MS),
        middle_and_worst([one.first for one in fresh], unit=_MS, digits=0),
        *_delay(row),
        middle_and_worst([one.gap for one in fresh], digits=2),
        middle_and_worst(ended, digits=2),
        str(scene.calls),
        str(scene.refused),
        str(scene.incomplete),
        f"{scene.processor / _MS:.0f}",
    )


def _delay(row: Row) -> tuple[str, str]:
    delay = row.scene.delay
    if row.scene.incomplete:
        return f"({delay:.2f})", "-"
    ratio = f"{delay / row.bound():.2f}"
    if row.budget.refills:
        ratio += f", rested {delay / row.bound(full=True):.1f}"
    return f"{delay:.2f}", ratio


def _bounds(row: Row) -> str:
    """Return what the budget forces: the mean delay, and the end of the last of many replies."""
    words = [f"D* {row.bound():.2f} s"]
    if row.budget.refills:
        words.append(f"rested {row.bound(full=True):.2f} s")
    if (forced := row.budget.forced(row.scene.seconds, row.sharing, way=WAY)) > WAY:
        words.append(f"end ≥ {forced:.1f} s")
    return ", ".join(words)
