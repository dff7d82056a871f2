"""Shows the progress of the start, as bars in a terminal or in the log."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bot.local.progress import LoggedProgress, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
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

    columns = (
        TextColumn("{task.description}", markup=False),
        *(BarColumn(), TaskProgressColumn(), TimeRemainingColumn()),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        shown = _Shown(bars, logged)
        try:
            yield shown
        finally:
            shown.ends()


class _Shown:
    """Draws a bar for each unfinished task; after `ends` it logs."""

    def __init__(self, bars: Bars, logged: Progress) -> None:
        self._bars = bars
        self._logged = logged
        self._tasks: dict[str, TaskID] = {}
        self._ended = False
        self._lock = threading.Lock()

    def __call__(self, work: str, done: float | None) -> None:
        with self._lock:
            if self._ended:
                self._logged(work, done)
                return
            if work not in self._tasks:
                self._tasks[work] = self._bars.add_task(work, total=None)
            if done is not None:
                self._bars.update(self._tasks[work], total=1.0, completed=done, visible=done < 1)

    def ends(self) -> None:
        with self._lock:
            self._ended = True
