"""The screen of the terminal's window: finished text, the live block and the input."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_focus
from prompt_toolkit.formatted_text import ANSI, StyleAndTextTuples, to_formatted_text
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from adapters.console.commands import COMMANDS, does
from adapters.console.render import Renderer
from adapters.console.transcript import AskedQuestion, Transcript
from bot.languages import say
from bot.text.markdown import tidy
from bot.text.sanitize import one_line

_STYLE = Style.from_dict({"label": "bold", "placeholder": "fg:ansibrightblack"})
_ROWS_BELOW = 6  # rows of the window that the live block leaves for the input
_QUESTION, _DIM = "bold", "dim"
EDITING = "Change your question; Ctrl-C leaves it as it is."


class WindowScreen:
    """Prints finished text and redraws the rest when it changes; `hint` is a line below it.

    `on_line` gets each line with the question that it changes, `edited`; `on_interrupt` is called
    at Ctrl-C.
    """

    def __init__(
        self,
        *,
        transcript: Transcript,
        on_line: Callable[[str, AskedQuestion | None], None],
        on_interrupt: Callable[[], None],
        history: Path | None,
    ) -> None:
        self.edited: AskedQuestion | None = None
        self._transcript = transcript
        self._on_line = on_line
        self._on_interrupt = on_interrupt
        self._renderer = Renderer()
        self.hint = ""
        self._history = _History.opened(history) if history else None
        self._drawn: tuple[object, StyleAndTextTuples] = (None, [])
        self._session: PromptSession[str] = PromptSession(
            self._message,
            multiline=True,
            prompt_continuation=lambda width, number, wraps: " " * width,
            completer=WordCompleter(
                [*COMMANDS],
                meta_dict={name: does(it) for name, it in COMMANDS.items()},
                sentence=True,
            ),
            complete_while_typing=Condition(lambda: self.typed.startswith("/")),
            reserve_space_for_menu=len(COMMANDS),
            search_ignore_case=True,
            placeholder=self._placeholder,
            history=self._history,
            key_bindings=self._keys(),
            style=_STYLE,
            enable_suspend=True,
            erase_when_done=True,
        )
        self._buffer.on_text_changed += lambda _: self._reset_hint()

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

    def edit(self, asked: AskedQuestion | None) -> None:
        """Put a question into the input, to be changed, or clear the input."""
        self.edited = asked
        self._buffer.document = Document(asked.turn.text if asked else "")
        self._reset_hint()

    def forget_typed(self) -> None:
        """Delete the stored input history; the history of this session stays in memory."""
        if self._history:
            with suppress(OSError):
                Path(os.fsdecode(self._history.filename)).write_bytes(b"")

    def show_hint(self, hint: str) -> None:
        """Show a line above the input; an empty one removes it."""
        self.hint = hint
        self.refresh()

    def refresh(self) -> None:
        """Redraw the live part."""
        self._session.app.invalidate()

    def _reset_hint(self) -> None:
        self.show_hint(say(EDITING) if self.edited else "")

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
        growing = self._transcript.growing
        waiting = [one.turn.text for one in self._transcript.unanswered[1:]]
        asked = growing.prompt if growing else ""
        label = "edit> " if self.edited else asked or "you> "
        state = growing and (growing.live, growing.note), waiting, self.hint, label, size
        if self._drawn[0] != state:
            lines = [
                *self._live(growing, size.columns, most=max(size.rows - _ROWS_BELOW, 1)),
                *(self._line(f"next: {text}", size.columns) for text in waiting),
                *([self._line(self.hint, size.columns)] if self.hint else []),
            ]
            above = ANSI("".join(f"{line}\n" for line in lines))
            self._drawn = state, [*to_formatted_text(above), ("class:label", label)]
        return self._drawn[1]

    def _placeholder(self) -> StyleAndTextTuples:
        # A search shows its result in the input. Without colours the placeholder would look typed.
        colourless = self._session.app.color_depth == ColorDepth.DEPTH_1_BIT
        asks = self._transcript.growing and self._transcript.growing.consent
        if self._session.layout.is_searching or colourless or asks:
            return []
        return [("class:placeholder", say("Ask anything, or /help"))]

    def _live(self, growing: AskedQuestion | None, columns: int, *, most: int) -> list[str]:
        if growing is None:
            return []
        text = self._renderer.markdown(tidy(growing.live), width=columns)
        lines = text.split("\n") if text else []
        if growing.consent:
            # All of it is to be read: the text above gives way.
            asks = ["", *self._renderer.text(growing.note, width=columns).split("\n")]
            return [*lines[max(len(lines) + len(asks) - most, 0) :], *asks, ""]
        lines = lines[-most:]
        if growing.note or not lines:
            lines.append(self._line(growing.note or "…", columns))
        return [*lines, ""]

    def _line(self, text: str, columns: int) -> str:
        text = one_line(text)
        cut = text if len(text) < columns else f"{text[: max(columns - 2, 1)]}…"
        return self._renderer.text(cut, width=columns, style=_DIM).partition("\n")[0]

    def _keys(self) -> KeyBindings:
        keys, transcript = KeyBindings(), self._transcript
        typing = has_focus(DEFAULT_BUFFER)
        awaits = Condition(lambda: transcript.growing is not None and not self.typed)

        @keys.add("enter", filter=typing)
        def send(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.document.char_before_cursor == "\\":
                buffer.delete_before_cursor()
                buffer.newline(copy_margin=False)
                return
            text, edited = buffer.text, self.edited
            self.edited = None
            # What a person answers is no question, and may not be kept.
            growing = self._transcript.growing
            is_answer = growing is not None and growing.prompt != ""
            buffer.reset(append_to_history=bool(text.strip()) and not is_answer)
            self._reset_hint()
            self._on_line(text, edited)

        @keys.add("escape", "enter", filter=typing)
        def newline(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        @keys.add("c-c", filter=typing)
        def interrupt(event: KeyPressEvent) -> None:
            self._on_interrupt()

        @keys.add("up", filter=typing & awaits)
        def edit(event: KeyPressEvent) -> None:
            self.edit(transcript.last)

        return keys


class _History(FileHistory):
    """Input history in a file that only this user can read."""

    @classmethod
    def opened(cls, path: Path) -> _History | None:
        """Return the history in a file; None if it cannot be opened."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            path.chmod(0o600)
        except OSError:
            return None
        return cls(str(path))

    def store_string(self, string: str) -> None:
        """Append an entry, unless the disk is full."""
        with suppress(OSError):
            super().store_string(string)
