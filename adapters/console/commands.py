"""What a line of the terminal's window asks for: a command, or a question."""

from __future__ import annotations

import re
from dataclasses import dataclass

COMMANDS = {
    "/help": "show this",
    "/reset": "forget this conversation",
    "/regenerate": "answer the last question again",
    "/edit": "change your last question",
    "/stop": "end the answer that grows (Ctrl-C does, too)",
    "/model": "show or choose the model: /model NAME; off takes the choice back",
    "/persona": "show or choose how I am to answer: /persona TEXT; off takes it back",
    "/save": "write the conversation to a file: /save FILE",
    "/quit": "leave (so do Ctrl-D, exit and quit)",
}
KEYS = {
    "Enter": "sends; while an answer grows, your question waits for its end",
    "Alt-Enter": "begins a new line; so does a \\ at the end of a line",
    "↑": "earlier questions; while an answer grows, your last question to change it",
    "Ctrl-R": "searches your earlier questions",
    "Ctrl-C": "stops the answer; twice, it leaves",
}
LEAVING = ("exit", "quit")  # as in most shells, without a slash

# A path such as /etc/hosts is no command.
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
    """Return the command that a line is, if it is one; one with a blank in front is none."""
    if line.strip() in LEAVING:
        return Command("/quit")
    found = _COMMAND.fullmatch(line.rstrip())
    return Command(found[1], (found[2] or "").strip()) if found else None


def unknown(name: str) -> str:
    """Return what is said of a command that does not exist."""
    return f"There is no {name}: /help shows what there is; a blank before it sends it."


def help_text() -> str:
    """Return the commands and keys, as Markdown."""
    lines = [f"- `{name}` {does}" for name, does in COMMANDS.items()]
    lines += ["", *(f"- `{key}` {does}" for key, does in KEYS.items())]
    return "\n".join(lines)
