"""How far long work has come, such as the download of a model."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

_STEPS = 10  # lines in the log for one work


# Hears, in any thread, how much of a work such as "Downloading model.gguf" is done, from 0 to 1.
# With 1 it has ended, and None tells only that it has begun.
Progress = Callable[[str, float | None], object]


class LoggedProgress:
    """Writes a line for the begin of each work, and one each 10 %."""

    def __init__(self) -> None:
        self._steps: dict[str, int] = {}

    def __call__(self, work: str, done: float | None) -> None:
        """Log the work if it has come to its next step."""
        if done is None:
            log.info("%s", work)
            return
        step = int(done * _STEPS)
        if step > self._steps.get(work, -1):
            self._steps[work] = step
            log.info("%s: %d %%", work, step * 100 // _STEPS)
