"""A short run of several processes under faults; `make chaos` has a long one, and all of them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.chaos.run import HEARS, run

LIMIT = 240.0  # seconds, for a busy machine; it ends with the last of the faults
FAULTS = (
    "SIGKILL",
    "SIGKILL at admission",
    "SIGKILL at the first post",
    "SIGKILL at the last write",
    "SIGTERM",
    "answers of platforms lost",
    "gateways cut",
    "way to Redis cut",
    "Redis killed",
)


async def test_nothing_is_lost_doubled_or_half_written() -> None:
    # pytest's own temporary paths are too long for a socket.
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        report = await run(
            Path(folder),
            seed=7,
            seconds=LIMIT,
            names=FAULTS,
            pause=0.7,
            most=len(FAULTS),
            each=1,
            hears=HEARS[:2],
            platforms=("discord", "slack"),
        )

    print(report)
    assert not report.verdict.problems, str(report)
    assert set(report.faults) == set(FAULTS)
    assert report.verdict.counts["whole"] > report.people.turns // 2
