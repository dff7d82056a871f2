"""How fresh replies are, and what they cost, beside a naive bot and Vercel's Chat SDK.

    python -m bench.reply [discord] [slack] [--replies 1 5 20] [--bots parley naive chat-sdk]
                          [--plot docs/freshness.svg]
    python -m bench.reply rush ...

Each bot runs as a process against the same emulated platforms; docs/reply.md says what is measured.
`rush` is a scene of its own: bench/rush.py.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench import figures, rush
from bench.peers import PEERS, missing
from bench.plot import drawing
from bench.scene import Scene, play, settled
from bench.stage import LATENCY, PLACES, Place, Stage, a_stage
from bench.table import Row, table
from tests.support.process import BotProcess

IDLE = 1.5  # seconds for which a bot that has nothing to do is watched
LIMITED = 5  # replies at once, of which one earns a 429
RETRY_AFTER = 5.0  # seconds


@dataclass(slots=True)
class Found:
    """All that was measured on one platform; `memory` is in MB by bot: idle, and at most."""

    rows: list[Row] = field(default_factory=list)
    limited: dict[str, tuple[Scene, Scene]] = field(default_factory=dict)
    memory: dict[str, tuple[float, float]] = field(default_factory=dict)


def main() -> None:
    if sys.argv[1:2] == ["rush"]:
        rush.main(sys.argv[2:])
        return
    options = _options()
    bots = [peer for peer in options.bots if _is_there(peer)]
    found = {}
    for platform in options.platforms or PLACES:
        found[platform] = uvloop.run(_compare(platform, bots, options.replies))
        _print(platform, found[platform])
    if options.plot:
        rows = next(iter(found.values())).rows
        options.plot.write_text(drawing(rows), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("platforms", nargs="*", choices=[[], *PLACES], metavar="PLATFORM")
    parser.add_argument("--replies", nargs="+", type=int, default=[1, 5, 20], metavar="K")
    parser.add_argument("--bots", nargs="+", choices=PEERS, default=list(PEERS), metavar="BOT")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    return parser.parse_args()


def _is_there(peer: str) -> bool:
    if what := missing(peer):
        print(f"{peer} is left out: it needs {what}.", file=sys.stderr)
    return not what


async def _compare(platform: str, bots: Sequence[str], replies: Sequence[int]) -> Found:
    found = Found()
    for place in PLACES[platform]:
        for peer in bots:
            for counts in _sittings(place, peer, replies):
                await _try(found, platform, place, peer, counts)
    return found


def _sittings(place: Place, peer: str, replies: Sequence[int]) -> list[list[int]]:
    """Return how many replies at once to measure, for each time that a bot is started."""
    if peer == "chat-sdk-1200" and place in PLACES["slack"]:
        return []
    if peer == "parley" and place in PLACES["slack"]:
        # It remembers what it wrote in a workspace: only a new one has rested.
        return [[count] for count in replies]
    if place != "threads":
        return [[*replies]] if (place, peer) != ("streams", "naive") else []
    # Alone in a thread is as alone in a channel; the smaller number is for the one that is limited.
    most, fewer = max(replies), LIMITED in replies and peer == "parley"
    return [sorted({most, LIMITED} if fewer else {most})] if most > 1 else []


async def _try(
    found: Found, platform: str, place: Place, peer: str, replies: Sequence[int]
) -> None:
    """Start one bot at one place and let it answer; tell what it said when that goes wrong."""
    running: BotProcess | None = None
    try:
        with tempfile.TemporaryDirectory(prefix="parley-") as folder:
            async with a_stage(platform, place) as stage:
                async with PEERS[peer](stage, platform, Path(folder)) as running:
                    await _watch(found, stage, place, peer, running.process.pid, replies)
                # Calls that were on their way when the bot ended are judged too.
                await asyncio.sleep(LATENCY)
                for complaint in sorted(set(stage.complaints())):
                    _say(f"{peer}: {complaint}")
    except BaseException:
        _say(running.text() if running else f"{peer} did not start")
        raise


async def _watch(
    found: Found, stage: Stage, place: Place, peer: str, pid: int, replies: Sequence[int]
) -> None:
    await stage.connected()
    numbers = itertools.count(1)
    await settled(stage, await stage.ask([0]))
    idle, memory = await _idle(pid), figures.resident(pid)
    for count in replies:
        stage.rest()
        asked = list(itertools.islice(numbers, count))
        scene = await play(stage, pid, asked, idle=idle)
        budget, sharing = stage.budget, stage.sharing(count)
        found.rows.append(Row(place, count, peer, scene, budget, sharing))
        _say(f"{place}, {count}, {peer}: {scene.delay:.2f} s")
        if place == "threads" and count == LIMITED:
            asked = list(itertools.islice(numbers, count))
            other = await play(stage, pid, asked, idle=idle, limited=RETRY_AFTER)
            found.limited[peer] = (scene, other)
    before = found.memory.get(peer, (0.0, 0.0))
    most = figures.resident(pid, peak=True)
    found.memory[peer] = (max(before[0], memory), max(before[1], most))


async def _idle(pid: int) -> float:
    """Return the CPU seconds that a bot takes in a second in which nothing happens."""
    before = figures.processor(pid)
    await asyncio.sleep(IDLE)
    return (figures.processor(pid) - before) / IDLE


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _print(platform: str, found: Found) -> None:
    """Print what docs/reply.md has of a platform."""
    print(f"\n### {platform.capitalize()}\n\n{table(found.rows)}\n")
    for peer, (without, limited) in found.limited.items():
        print(_limited(peer, without, limited))
    for peer, (idle, peak) in found.memory.items():
        print(f"- Memory of {peer}: {idle:.0f} MB at rest, {peak:.0f} MB at most.")
    alone = figures.libraries(platform)
    print(f"- Memory of what the role {platform} imports, alone: {alone:.0f} MB.")
    print(f"- Measured with {figures.load()}.", flush=True)


def _limited(peer: str, without: Scene, limited: Scene) -> str:
    first, *others = [one.fresh.mean if one.fresh else math.nan for one in limited.answers]
    return (
        f"- One of {LIMITED} replies of {peer} in threads earns a 429 that asks for "
        f"{RETRY_AFTER:.0f} s: mean delay {first:.2f} s; of the others "
        f"{statistics.fmean(others):.2f} s, and without it {without.delay:.2f} s."
    )


if __name__ == "__main__":
    main()
