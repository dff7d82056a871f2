"""The progress of the start, as `rich` draws it at a terminal."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bot.local.progress import LoggedProgress, Progress

if TYPE_CHECKING:
    from rich.progress import TaskID


@contextmanager
def shown_progress(*, at_terminal: bool) -> Iterator[Progress]:
    """Yield a callback that shows progress during the block, and logs it afterwards.

    It is shown on standard error if that is a terminal, if `at_terminal` allows it, and if rich is
    installed.
    """
    logged = LoggedProgress()
    if not (at_terminal and sys.stderr.isatty() and importlib.util.find_spec("rich")):
        yield logged
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    with Bars(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def show(work: str, done: float | None) -> None:
            # A download may go on after the block.
            if not bars.live.is_started:
                logged(work, done)
                return
            if work not in tasks:
                tasks[work] = bars.add_task(work, total=None)
            if done is not None:
                bars.update(tasks[work], total=1.0, completed=done, visible=done < 1)

        yield show
