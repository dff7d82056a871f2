"""The screen of the terminal's window: finished text, the live block and the input."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import ANSI, StyleAndTextTuples, to_formatted_text
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.styles import Style

from adapters.console.commands import COMMANDS
from adapters.console.render import Renderer
from adapters.console.transcript import AskedQuestion
from bot.text.markdown import tidy
from bot.text.sanitize import one_line

_STYLE = Style.from_dict({"label": "bold", "placeholder": "fg:ansibrightblack"})
_PLACEHOLDER = "Ask anything, or /help"
_ROWS_BELOW = 6  # rows of the window that the live block leaves for the input
_QUESTION, _DIM = "bold", "dim"
_AWAITED = "…"


class Controls(Protocol):
    """What the screen shows of the window, and what the keys of its input do."""

    @property
    def label(self) -> str:
        """The prompt before the input."""

    @property
    def growing(self) -> AskedQuestion | None:
        """The question whose answer grows, or is awaited."""

    @property
    def waiting(self) -> list[str]:
        """The questions behind it."""

    def submit(self, line: str) -> None:
        """Handle a line that was typed."""

    def note_typing(self) -> None:
        """Handle a change of the input."""

    def interrupt(self) -> None:
        """Handle Ctrl-C."""

    def begin_edit(self) -> None:
        """Handle the key that changes the last question."""


class WindowScreen:
    """Prints finished text and redraws the rest when it changes; `hint` is a line below it."""

    def __init__(
        self,
        *,
        window: Controls,
        history: Path | None,
        input: Input | None,  # noqa: A002
        output: Output | None,
    ) -> None:
        self._window = window
        self._renderer = Renderer()
        self._hint = ""
        self._history = _History(history) if history else None
        self._drawn: tuple[object, StyleAndTextTuples] = (None, [])
        typing = Condition(lambda: self._buffer.text.startswith("/"))
        self._session: PromptSession[str] = PromptSession(
            self._message,
            multiline=True,
            prompt_continuation=lambda width, number, wraps: " " * width,
            completer=_Commands(),
            complete_while_typing=typing,
            reserve_space_for_menu=len(COMMANDS),
            search_ignore_case=True,
            placeholder=self._placeholder,
            history=self._history,
            key_bindings=self._keys(),
            style=_STYLE,
            enable_suspend=True,
            erase_when_done=True,
            input=input,
            output=output,
        )
        self._buffer.on_text_changed += lambda _: window.note_typing()

    @property
    def hint(self) -> str:
        """The line above the input."""
        return self._hint

    @hint.setter
    def hint(self, hint: str) -> None:
        self._hint = hint
        self.refresh()

    @property
    def typed(self) -> str:
        """The text of the input."""
        return self._buffer.text

    async def run(self) -> None:
        """Read lines until the person leaves."""
        with suppress(EOFError):
            # Signals and errors of tasks are handled by the process.
            await self._session.prompt_async(handle_sigint=False, set_exception_handler=False)

    def leave(self) -> None:
        """End `run`."""
        if self._session.app.is_running:
            self._session.app.exit(exception=EOFError)

    def say(self, text: str) -> None:
        """Print a notice."""
        self._print(self._renderer.text(text, width=self._columns, style=_DIM))

    def show_question(self, text: str) -> None:
        """Print a question."""
        self._print(self._renderer.text(f"you> {text}", width=self._columns, style=_QUESTION))

    def show_answer(self, markdown: str) -> None:
        """Print Markdown."""
        self._print(self._renderer.markdown(markdown, width=self._columns))

    def set_input(self, text: str) -> None:
        """Replace the line that is typed."""
        self._buffer.document = Document(text)

    def forget_typed(self) -> None:
        """Delete the stored input history; the history of this session stays in memory."""
        if self._history:
            self._history.empty()

    def refresh(self) -> None:
        """Redraw the live part."""
        self._session.app.invalidate()

    @property
    def _buffer(self) -> Buffer:
        return self._session.default_buffer

    @property
    def _columns(self) -> int:
        return self._session.app.output.get_size().columns

    def _print(self, text: str) -> None:
        """Print a rendered text and an empty line above the live part."""
        # Not `run_in_terminal` of prompt_toolkit: it leaves the raw mode, so a Ctrl-C would end the
        # process.
        app = self._session.app
        if app.is_running:
            app.renderer.erase()
        app.output.write_raw(text.replace("\n", "\r\n") + "\r\n\r\n")
        app.output.flush()
        if app.is_running:
            app.renderer.request_absolute_cursor_position()
            app.invalidate()

    def _message(self) -> StyleAndTextTuples:
        """Return the live part above the input, and the label before the input."""
        size = self._session.app.output.get_size()
        growing, waiting = self._window.growing, self._window.waiting
        state = (
            growing and (growing.live, growing.note),
            *(waiting, self._hint, self._window.label, size),
        )
        if self._drawn[0] != state:
            lines = [
                *self._live(growing, size.columns, most=max(size.rows - _ROWS_BELOW, 1)),
                *(self._line(f"next: {text}", size.columns) for text in waiting),
                *([self._line(self._hint, size.columns)] if self._hint else []),
            ]
            above = ANSI("".join(f"{line}\n" for line in lines))
            drawn = [*to_formatted_text(above), ("class:label", self._window.label)]
            self._drawn = state, drawn
        return self._drawn[1]

    def _placeholder(self) -> StyleAndTextTuples:
        # A search shows its result in the input. Without colours the placeholder would look typed.
        colourless = self._session.app.color_depth == ColorDepth.DEPTH_1_BIT
        if self._session.layout.is_searching or colourless:
            return []
        return [("class:placeholder", _PLACEHOLDER)]

    def _live(self, growing: AskedQuestion | None, columns: int, *, most: int) -> list[str]:
        if growing is None:
            return []
        text = self._renderer.markdown(tidy(growing.live), width=columns)
        lines = text.split("\n")[-most:] if text else []
        if growing.note or not lines:
            lines.append(self._line(growing.note or _AWAITED, columns))
        return [*lines, ""]

    def _line(self, text: str, columns: int) -> str:
        text = one_line(text)
        cut = text if len(text) < columns else f"{text[: max(columns - 2, 1)]}…"
        return self._renderer.text(cut, width=columns, style=_DIM).partition("\n")[0]

    def _keys(self) -> KeyBindings:
        keys, window = KeyBindings(), self._window
        typing = has_focus(DEFAULT_BUFFER)
        awaits = Condition(lambda: window.growing is not None and not self._buffer.text)

        @keys.add("enter", filter=typing)
        def send(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.document.char_before_cursor == "\\":
                buffer.delete_before_cursor()
                buffer.newline(copy_margin=False)
                return
            text = buffer.text
            buffer.reset(append_to_history=bool(text.strip()))
            window.submit(text)

        @keys.add("escape", "enter", filter=typing)
        def newline(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        @keys.add("c-c", filter=typing)
        def interrupt(event: KeyPressEvent) -> None:
            window.interrupt()

        @keys.add("up", filter=typing & awaits)
        def edit(event: KeyPressEvent) -> None:
            window.begin_edit()

        return keys


class _Commands(Completer):
    """Completes a command at the beginning of the input."""

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        typed = document.text
        if typed.startswith("/"):
            for name, does in COMMANDS.items():
                if name.startswith(typed):
                    yield Completion(name, start_position=-len(typed), display_meta=does)


class _History(FileHistory):
    """Persistent input history, readable by this user only. Write errors are ignored."""

    def __init__(self, path: Path) -> None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            path.chmod(0o600)
        super().__init__(str(path))

    def empty(self) -> None:
        """Empty the file."""
        with suppress(OSError):
            Path(os.fsdecode(self.filename)).write_bytes(b"")

    def load_history_strings(self) -> Iterable[str]:
        """Return the entries, newest first."""
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        """Append an entry."""
        with suppress(OSError):
            super().store_string(string)
