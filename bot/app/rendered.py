"""An answer at a terminal: Markdown, rendered as it grows."""

from __future__ import annotations

import importlib.util
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from bot.text.markdown import tidy
from bot.text.sanitize import strip_controls

if TYPE_CHECKING:
    from rich.text import Text

_PACKAGES = ("rich", "markdown_it")  # requirements-terminal.txt
_FRAMES = 12  # a second


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
        self._drawn: tuple[str, Text | str] = ("", "")
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
        growth = self._growing.show(self._text, last=last)
        self._live_text = growth.live
        if growth.finished:
            text = self._renderer.markdown(growth.finished, width=self._console.width)
            self._write(f"\n{text}" if self._has_printed else text)
            self._has_printed = True

    def _write(self, ansi: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(ansi), soft_wrap=True)

    def _draw(self) -> Text | str:
        """Return the end of the changing part, as much as fits; called in a thread of rich."""
        from rich.text import Text

        text = self._live_text
        if self._drawn[0] != text:
            rendered = self._renderer.markdown(tidy(text), width=self._console.width)
            lines = rendered.split("\n")[-max(self._console.height - 2, 1) :]
            # The empty line between two blocks.
            above = [""] if self._has_printed else []
            self._drawn = text, Text.from_ansi("\n".join([*above, *lines]))
        return self._drawn[1] if text else ""
