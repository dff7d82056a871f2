"""What `rich` draws at a terminal: the progress of the start, and an answer as it grows."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from bot.local.progress import LoggedProgress, Progress
from bot.text.markdown import tidy
from bot.text.sanitize import strip_controls

if TYPE_CHECKING:
    from rich.progress import TaskID
    from rich.text import Text

_PACKAGES = ("rich", "markdown_it")  # requirements-terminal.txt
_FRAMES = 12  # a second


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


def can_render(stdout: TextIO) -> bool:
    """Whether the packages are installed, and `stdout` is a terminal that can move its cursor."""
    if not stdout.isatty() or any(importlib.util.find_spec(each) is None for each in _PACKAGES):
        return False
    from rich.console import Console

    return not Console(file=stdout).is_dumb_terminal


class RenderedAnswer:
    """Prints each block when it is complete, and draws the last one again as it changes.

    The answer so far is printed at the end of the block, even after an error.
    """

    def __init__(self, stdout: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        from adapters.console.render import BlockSplitter, Renderer

        self._console = Console(file=stdout, highlight=False, markup=False, emoji=False)
        self._renderer = Renderer()
        self._growing = BlockSplitter()
        self._text = self._live_text = ""
        self._has_printed = False
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=_FRAMES,
            transient=True,
        )

    def __enter__(self) -> RenderedAnswer:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live_text = ""
        self._live.stop()
        self._grow(last=True)

    @property
    def has_begun(self) -> bool:
        """Whether the answer has begun."""
        return bool(self._text.strip())

    def add(self, delta: str) -> None:
        """Add a delta of the answer."""
        self._text = strip_controls(self._text + delta).lstrip()
        self._grow(last=False)

    def restart(self) -> None:
        """Print the answer so far, and start over."""
        self._grow(last=True)
        self._text = self._live_text = ""
        self._growing = type(self._growing)()

    def _grow(self, *, last: bool) -> None:
        from rich.text import Text

        growth = self._growing.show(self._text, last=last)
        self._live_text = growth.live
        if growth.finished:
            text = self._renderer.markdown(growth.finished, width=self._console.width)
            above = "\n" if self._has_printed else ""
            self._console.print(Text.from_ansi(above + text), soft_wrap=True)
            self._has_printed = True

    def _draw(self) -> Text | str:
        """Return the end of the changing part, as much as fits; called in a thread of rich."""
        from rich.text import Text

        text = self._live_text
        if not text:
            return ""
        rendered = self._renderer.markdown(tidy(text), width=self._console.width)
        lines = rendered.split("\n")[-max(self._console.height - 2, 1) :]
        # The empty line between two blocks.
        above = [""] if self._has_printed else []
        return Text.from_ansi("\n".join([*above, *lines]))
