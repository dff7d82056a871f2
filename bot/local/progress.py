"""Reports the progress of long work, such as the download of a model."""

from __future__ import annotations

import logging
from collections.abc import Callable

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
