"""The role `console`: a conversation at the terminal or pipe of the process."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
from typing import TextIO
from uuid import uuid4

from adapters.console.plain import PlainConversation
from adapters.console.talk import ConsoleConversation
from adapters.uploads import Uploads
from bot.languages import say, speak
from bot.platform_spec import Process

_WINDOW_PACKAGES = ("prompt_toolkit", "rich", "markdown_it")  # requirements-terminal.txt


async def listen(process: Process, *, stdin: TextIO, stdout: TextIO) -> None:
    """Read questions and print answers until the end of the input or `/quit`."""
    # As the C library looks for the language of messages (POSIX, "Internationalization Variables").
    speak(next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), ""))
    for stream in (stdin, stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # On Windows an event loop handles no signals: lines are read as from a pipe.
    at_terminal = stdin.isatty() and sys.platform != "win32"
    # At a terminal, each start continues the same thread.
    thread = "terminal" if at_terminal else uuid4().hex
    banner = "\n".join(
        (say("Parley. Answers come from {model}.", model=process.answers_from), *process.notices)
    )
    settings, store, patience = process.settings, process.store, process.patience
    uploads = Uploads(store, most_files=settings.files_per_question, most_mb=settings.file_max_mb)
    talk = ConsoleConversation(intake=process.intake, store=store, thread=thread, uploads=uploads)
    if at_terminal and stdout.isatty() and _has_window():
        from adapters.console.window import Window

        history = settings.data_dir / "terminal_history" if settings.remembers else None
        await Window(talk=talk, banner=banner, patience=patience, history=history).run()
        return
    plain = PlainConversation(talk=talk, patience=patience, stdin=stdin, stdout=stdout)
    try:
        await (plain.at_terminal(banner) if at_terminal else plain.in_pipe())
    except BrokenPipeError:
        # The reader is gone. Flushing the buffer at exit would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())


def _has_window() -> bool:
    """Whether the packages of the window are installed, and the terminal can move its cursor."""
    if any(importlib.util.find_spec(each) is None for each in _WINDOW_PACKAGES):
        return False
    from prompt_toolkit.utils import is_dumb_terminal

    return not is_dumb_terminal()
