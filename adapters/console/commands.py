"""The commands of the terminal: how a line is read as one, and what each of them does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

from bot.commands import handlers
from bot.commands.words import Words
from bot.domain import LINK, Asker, Consent, Person, ThreadKey
from bot.intake.addressed import is_help
from bot.intake.intake import Intake
from bot.languages import later, say

COMMANDS = {
    "/help": later("show this"),
    "/reset": handlers.COMMANDS["reset"],
    "/regenerate": later("answer the last question again"),
    "/edit": later("change your last question"),
    "/file": later("add a file to your next question: /file PATH"),
    "/stop": later("stop the answer (so does Ctrl-C)"),
    "/model": later("show or choose the model: /model NAME, or off for the default"),
    "/persona": later("show or choose how I answer: /persona TEXT, or off"),
    "/me": later("show or choose what I keep in mind in all answers to you: /me TEXT, or off"),
    "/temperature": later("how surprising answers are, from 0 to 2: /temperature 0.5, or off"),
    "/longest": later("the longest answer, in tokens: /longest 500, or off"),
    "/tools": later("show my tools: /tools, or off, or on, or revoke NAME"),
    "/usage": handlers.COMMANDS["usage"],
    "/forget-me": handlers.COMMANDS["forget-me"],
    "/save": later("write the conversation to a file: /save FILE"),
    "/quit": later("leave (so do Ctrl-D, exit and quit)"),
}
KEYS = {
    "Enter": later("sends; during an answer, your question waits for its end"),
    "Alt-Enter": later("adds a line; so does a \\ at the end of a line"),
    "↑": later("earlier questions; during an answer, your last question to change it"),
    "Ctrl-R": later("searches your earlier questions"),
    "Ctrl-C": later("stops the answer, denies, or clears your input; press it twice to leave"),
}
_ONLY_IN_THE_WINDOW = ("/regenerate", "/edit", "/stop", "/save")
# Also without the window; there, any other line that begins with a slash is a question.
PLAIN = [name for name in COMMANDS if name not in _ONLY_IN_THE_WINDOW]
_FIELDS = {"temperature": "temperature", "longest": "max_tokens"}  # of the form of the answers

# How a call of a tool is allowed or denied.
ALLOW = "Allow? [y]es / [a]lways / [n]o: "
_CONSENTS: Mapping[str, Consent] = {"yes": "allow", "always": "always", "no": "deny"}
# And whether the page that a tool's server names was visited.
VISITED = "Done? [y]es / [n]o: "
_VISITS: Mapping[str, Consent] = {"yes": "done", "no": "deny"}

# A path such as /etc/hosts is not a command.
_COMMAND = re.compile(r"(/[\w-]*)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """A line that begins with a slash; `name` may be unknown."""

    name: str
    argument: str = ""


def command_of(line: str) -> Command | None:
    """Parse a command; None for a question. A leading space makes any line a question."""
    # As in most shells, without a slash.
    if line.strip() in ("exit", "quit"):
        return Command("/quit")
    if is_help(line):
        return Command("/help")
    found = _COMMAND.fullmatch(line.rstrip())
    return Command(found[1], (found[2] or "").strip()) if found else None


def consent_of(line: str, call_id: str) -> Consent | None:
    """Return the answer to ALLOW or VISITED; None for any other line."""
    said, words = line.strip().casefold(), _VISITS if call_id.startswith(LINK) else _CONSENTS
    return next((it for word, it in words.items() if said in (word, word[0])), None)


def unknown(name: str) -> str:
    """Return the message for an unknown command."""
    lists = "There is no {name}. /help lists the commands; begin with a space to send it as text."
    return say(lists, name=name)


def does(sentence: str) -> str:
    """Return what a command or a key does, as it stands behind its name."""
    said = say(sentence)
    return said[:1].lower() + said[1:]


def plain_help() -> str:
    """Return the commands without the window, as lines of plain text."""
    width = max(map(len, COMMANDS)) + 1
    return "\n".join(f"{name:{width}} {does(COMMANDS[name])}" for name in PLAIN)


def help_tables() -> str:
    """Return the commands and the keys of the window, as Markdown."""
    return f"{_table(say('Command'), COMMANDS)}\n\n{_table(say('Key'), KEYS)}"


def _table(head: str, rows: Mapping[str, str]) -> str:
    lines = (f"| `{name}` | {does(one)} |" for name, one in rows.items())
    return "\n".join([f"| {head} | |", "| --- | --- |", *lines])


class ThreadCommands:
    """Carries out the commands of one conversation. Raises Refused and StoreUnavailable."""

    def __init__(self, intake: Intake, key: ThreadKey, person: Person) -> None:
        self._words = Words(intake, written="/{name}", scopes={}, rights=None)
        self._key, self._person = key, person

    async def run(self, command: Command) -> str:
        """Show or choose how the person is answered, show their usage, or erase them.

        Returns FORGETTING if the erasure takes longer; then `forgotten` waits for its end.
        """
        name, text, call = command.name[1:], command.argument, self._call()
        if text.casefold() == "off" and name != "tools":
            text = handlers.DEFAULT
        if field := _FIELDS.get(name):
            if not text:
                return (await self._words.handlers.overview(call)).text
            name, text = "settings", f"{field} {text}"
        return await self._words.run(f"{name} {text}", call)

    async def forgotten(self) -> str:
        """Wait until the person is erased, and return the message for them."""
        return await self._words.handlers.forgotten(self._call())

    def _call(self) -> handlers.Call:
        return handlers.Call(
            id=f"{self._key.platform}:{uuid4()}",
            thread=self._key,
            person=self._person,
            scopes={"thread": say("this conversation")},
            asker=Asker(direct=True, operator=True),
            in_thread=True,
            own_thread=True,
        )
