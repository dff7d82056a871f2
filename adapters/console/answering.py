"""What a tool's server asks, field by field, at a prompt."""

from __future__ import annotations

from adapters.console.commands import ALLOW, VISITED
from bot.commands.form import Field, Form
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
        return _prompt(self._left[0]) if self._left else ""

    def take(self, line: str) -> None:
        """Take the line for what is asked now."""
        self.filled[self._left.pop(0).name] = line.strip()

    def ask_again(self, name: str) -> None:
        """Ask for a field whose line does not fit."""
        self._left.append(self._fields[name])


def prompt_of(call_id: str) -> str:
    """Return how a person is asked for one word."""
    return say(VISITED if call_id.startswith(LINK) else ALLOW)


def _prompt(field: Field) -> str:
    options = ", ".join(f"{number} {label}" for number, label in field.options)
    parts = filter(None, (field.hint, options, "" if field.is_required else say("may be empty")))
    more = "; ".join(parts)
    return f"{field.label} ({more}): " if more else f"{field.label}: "
