"""What a tool's server asks, field by field, at a prompt."""

from __future__ import annotations

from adapters.console.commands import ALLOW, VISITED
from bot.commands.form import Form
from bot.domain import LINK
from bot.languages import say


class Answering:
    """The fields of a form that are still to be answered, and what was `filled` in, by field."""

    def __init__(self, call_id: str, form: Form) -> None:
        self.call_id = call_id
        self.filled: dict[str, str] = {}
        self._left = list(form.fields)
        self._fields = {one.name: one for one in form.fields}

    @property
    def prompt(self) -> str:
        """What is asked now; empty once every field has its line."""
        if not self._left:
            return ""
        field = self._left[0]
        return f"{field.label} ({field.more}): " if field.more else f"{field.label}: "

    def take(self, line: str) -> None:
        """Take the line for what is asked now."""
        self.filled[self._left.pop(0).name] = line.strip()

    def ask_again(self, name: str) -> None:
        """Ask for a field whose line does not fit."""
        self._left.append(self._fields[name])


def prompt_of(call_id: str) -> str:
    """Return how a person is asked for one word."""
    return say(VISITED if call_id.startswith(LINK) else ALLOW)
