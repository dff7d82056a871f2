"""Reports the progress of long work, such as the download of a model."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

log = logging.getLogger(__name__)

_STEPS = 10  # log lines for one task


# Called in any thread with a task such as "Downloading model.gguf" and its done part, from 0 to 1.
# 1 means that it has ended, and None only that it has begun.
Progress = Callable[[str, float | None], object]


class LoggedProgress:
    """Logs the start of each task, and every further 10 %."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}

    def __call__(self, work: str, done: float | None) -> None:
        """Log the task if it has reached its next step."""
        if done is None:
            log.info("%s", work)
            return
        step = int(done * _STEPS)
        if step > self._steps.get(work, -1):
            self._steps[work] = step
            log.info("%s: %d %%", work, step * 100 // _STEPS)


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
