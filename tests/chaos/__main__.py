"""A long run: `make chaos`, or `python -m tests.chaos --seconds 600 --seed 7`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import pytest
import uvloop

from tests.chaos.faults import FAULTS
from tests.chaos.run import PLATFORMS, run
from tests.support.synapse import python_of_synapse


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the bot under faults and judge what it did.")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.7, help="seconds between faults")
    parser.add_argument("--most", type=int, default=-1, help="end after so many faults")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, help="all, unless told otherwise")
    parser.add_argument("--platforms", nargs="+", choices=PLATFORMS)
    parser.add_argument("--traces", type=Path, help="a folder for logs, calls and records")
    options = parser.parse_args()
    is_long = options.seconds >= 600.0  # it may lose a minute to one fault
    names = [name for name, kind in FAULTS.items() if is_long or not kind.long]
    platforms = options.platforms or PLATFORMS
    try:
        python_of_synapse()
    except pytest.skip.Exception as missing:
        print(missing)
        platforms = [name for name in platforms if name != "matrix"]
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        report = uvloop.run(
            run(
                Path(folder),
                seed=options.seed,
                seconds=options.seconds,
                names=options.faults or names,
                pause=options.pause,
                most=options.most,
                platforms=platforms,
                traces=options.traces,
            )
        )
    print(report)
    return 1 if report.verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
