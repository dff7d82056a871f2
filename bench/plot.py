"""A drawing of how much of a reply people could read, and when."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.scene import Curve, Scene
from bench.table import Row

_COLOURS = {
    "parley": "#0b7a4b",
    "naive": "#c2571a",
    "chat-sdk": "#3457d5",
    "chat-sdk-1200": "#8a63c9",
}
_MODEL = "#8a8a8a"
_WIDTH, _HEIGHT = 400, 240  # of a panel, in pixels
_LEFT, _TOP, _GAP = 56, 48, 64


def drawing(rows: Sequence[Row]) -> str:
    """Return an SVG with a panel for the fewest and for the most replies at the first place."""
    place = rows[0].place
    shown = [row for row in rows if any(one.curve for one in row.scene.answers)]
    counts = sorted({row.replies for row in shown if row.place == place})
    panels = [
        [row for row in shown if (row.place, row.replies) == (place, count)]
        for count in dict.fromkeys((counts[0], counts[-1]))
    ]
    width = _LEFT + len(panels) * (_WIDTH + _GAP)
    height = _TOP + _HEIGHT + 72
    drawn = [_panel(panel, _LEFT + index * (_WIDTH + _GAP)) for index, panel in enumerate(panels)]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12" fill="#222">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *drawn,
            _legend([row.peer for row in panels[0]], height - 14),
            "</svg>",
            "",
        )
    )


def _panel(rows: Sequence[Row], left: float) -> str:
    """Draw one place and number of replies, with a line for each bot and one for the model."""
    scene = rows[0].scene
    seconds = max(scene.seconds, *(_end(row.scene) for row in rows)) + 1
    lines = [_line([(0.0, 0.0), (scene.seconds, 1.0)], seconds, _MODEL, dash="4 3")]
    lines += [_line(_mean(row.scene, seconds), seconds, _COLOURS[row.peer]) for row in rows]
    replies = "One reply" if rows[0].replies == 1 else f"{rows[0].replies} replies at once"
    axes = f'<path d="M0,0 V{_HEIGHT} H{_WIDTH}" fill="none" stroke="#222"/>'
    return "\n".join(
        (
            f'<g transform="translate({left},{_TOP})">',
            f'<text y="-16" font-size="14" font-weight="bold">{replies}, {rows[0].place}</text>',
            _marks(seconds),
            *lines,
            axes,
            "</g>",
        )
    )


def _marks(seconds: float) -> str:
    """Draw the scales: seconds from the first token on, and the share of the text."""
    every = next(one for one in (1, 2, 5, 10, 20, 50) if seconds / one <= 10)
    marks = []
    for second in range(0, int(seconds) + 1, every):
        x = second / seconds * _WIDTH
        marks.append(f'<text x="{x:.1f}" y="{_HEIGHT + 16}" text-anchor="middle">{second}</text>')
    for percent in (0, 25, 50, 75, 100):
        y = _HEIGHT * (1 - percent / 100)
        marks.append(f'<path d="M0,{y} H{_WIDTH}" stroke="#ddd"/>')
        marks.append(f'<text x="-6" y="{y + 4}" text-anchor="end">{percent} %</text>')
    words = "seconds after the first token"
    x, y = _WIDTH / 2, _HEIGHT + 34
    return "\n".join((*marks, f'<text x="{x}" y="{y}" text-anchor="middle">{words}</text>'))


def _line(
    points: Sequence[tuple[float, float]], seconds: float, colour: str, dash: str = ""
) -> str:
    drawn = " ".join(
        f"{at / seconds * _WIDTH:.1f},{(1 - share) * _HEIGHT:.1f}" for at, share in points
    )
    return (
        f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2" '
        f'stroke-dasharray="{dash}"/>'
    )


def _legend(peers: Sequence[str], y: float) -> str:
    drawn = []
    named = {"the model": _MODEL, **{peer: _COLOURS[peer] for peer in peers}}
    for index, (name, colour) in enumerate(named.items()):
        x = _LEFT + index * 110
        drawn.append(f'<path d="M{x},{y - 4} h20" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="{x + 26}" y="{y}">{name}</text>')
    return "\n".join(drawn)


def _end(scene: Scene) -> float:
    return max((one.curve[-1][0] for one in scene.answers if one.curve), default=0.0)


def _mean(scene: Scene, seconds: float) -> list[tuple[float, float]]:
    """Return the mean share over all replies, as the corners of its steps."""
    curves = [one.curve for one in scene.answers]
    corners = [(0.0, 0.0)]
    for at in sorted({at for curve in curves for at, _ in curve}):
        share = statistics.fmean(_share(curve, at) for curve in curves)
        corners += [(at, corners[-1][1]), (at, share)]
    return [*corners, (seconds, corners[-1][1])]


def _share(curve: Curve, at: float) -> float:
    return next((share for when, share in reversed(curve) if when <= at), 0.0)
