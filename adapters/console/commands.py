"""Parses an input line: a command or a question."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bot.commands import handlers
from bot.intake.addressed import is_help


def _does(name: str) -> str:
    does = handlers.COMMANDS[name]
    return does[0].lower() + does[1:]


COMMANDS = {
    "/help": "show this",
    "/reset": _does("reset"),
    "/regenerate": "answer the last question again",
    "/edit": "change your last question",
    "/stop": "stop the answer (so does Ctrl-C)",
    "/model": "show or choose the model: /model NAME, or off for the default",
    "/persona": "show or choose how I answer: /persona TEXT, or off",
    "/temperature": "how surprising answers are, from 0 to 2: /temperature 0.5, or off",
    "/longest": "the longest answer, in tokens: /longest 500, or off",
    "/usage": _does("usage"),
    "/forget-me": _does("forget-me"),
    "/save": "write the conversation to a file: /save FILE",
    "/quit": "leave (so do Ctrl-D, exit and quit)",
}
KEYS = {
    "Enter": "sends; during an answer, your question waits for its end",
    "Alt-Enter": "adds a line; so does a \\ at the end of a line",
    "↑": "earlier questions; during an answer, your last question to change it",
    "Ctrl-R": "searches your earlier questions",
    "Ctrl-C": "stops the answer or clears your input; press it twice to leave",
}
_ONLY_IN_THE_WINDOW = ("/regenerate", "/edit", "/stop", "/save")
# Also without the window; there, any other line that begins with a slash is a question.
PLAIN = [name for name in COMMANDS if name not in _ONLY_IN_THE_WINDOW]
LEAVING = ("exit", "quit")  # as in most shells, without a slash

# A path such as /etc/hosts is not a command.
_COMMAND = re.compile(r"(/[\w-]*)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """A line that begins with a slash; `name` may be unknown."""

    name: str
    argument: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there is such a command."""
        return self.name in COMMANDS


def command_of(line: str) -> Command | None:
    """Parse a command; None for a question. A leading space makes any line a question."""
    if line.strip() in LEAVING:
        return Command("/quit")
    if is_help(line):
        return Command("/help")
    found = _COMMAND.fullmatch(line.rstrip())
    return Command(found[1], (found[2] or "").strip()) if found else None


def unknown(name: str) -> str:
    """Return the message for an unknown command."""
    return f"There is no {name}. /help lists the commands; begin with a space to send it as text."


def help_text(names: Iterable[str]) -> str:
    """Return the commands, as lines of plain text."""
    width = max(map(len, COMMANDS)) + 1
    return "\n".join(f"{name:{width}} {COMMANDS[name]}" for name in names)


def help_tables() -> str:
    """Return the commands and the keys of the window, as Markdown."""
    return f"{_table('Command', COMMANDS)}\n\n{_table('Key', KEYS)}"


def _table(head: str, rows: Mapping[str, str]) -> str:
    lines = (f"| `{name}` | {does} |" for name, does in rows.items())
    return "\n".join([f"| {head} | |", "| --- | --- |", *lines])
