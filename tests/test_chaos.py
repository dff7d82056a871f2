"""A short run of several processes under all faults; `make chaos` has a long one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, LONG_ONLY
from tests.chaos.run import run

SECONDS = 20.0

pytestmark = pytest.mark.process


async def test_nothing_is_lost_doubled_or_half_written() -> None:
    # pytest's own temporary paths are too long for a socket.
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        report = await run(
            Path(folder),
            seed=7,
            seconds=SECONDS,
            names=[name for name in FAULTS if name not in LONG_ONLY],
            pause=0.6,
        )

    print(report)
    assert not report.verdict.problems, str(report)
    assert report.verdict.counts["whole"] > report.turns // 2
