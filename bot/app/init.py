"""Asks an operator for what the bot needs, checks each answer, and writes `.env`."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from getpass import getpass
from pathlib import Path
from typing import Protocol

from dotenv import dotenv_values

from bot.app import check
from bot.domain import Finding
from config.settings import Settings, SettingsError

EXAMPLE = Path(".env.example")
_PLAIN = re.compile(r"[\w./:@%+,=~-]*")
_KEPT = 4  # characters of a secret that are shown
_NONE = "none"  # what a person writes to take a value away


class Terminal(Protocol):
    """Where a person reads and answers."""

    def say(self, text: str) -> None:
        """Show a line."""
        ...

    def ask(self, question: str, *, secret: bool) -> str:
        """Return an answer without blanks around it; empty if there is no further one."""
        ...


class StandardTerminal:
    """Standard input and output; a secret is not shown while it is typed."""

    def say(self, text: str) -> None:
        """Show a line."""
        sys.stdout.write(f"{text}\n")

    def ask(self, question: str, *, secret: bool) -> str:
        """Return an answer without blanks around it; empty if there is no further one."""
        try:
            return (getpass(question) if secret and sys.stdin.isatty() else input(question)).strip()
        except EOFError:
            sys.stdout.write("\n")
            return ""


@dataclass(frozen=True, slots=True)
class Question:
    """One variable: what is asked, what is said before, and how the answers so far are checked.

    It is asked only if `needs`, a variable before it, has a value, or none if it begins with "!".
    """

    variable: str
    text: str
    secret: bool = False
    before: str = ""
    needs: str = ""
    check: Callable[[Settings], AsyncIterator[Finding]] | None = None


QUESTIONS = (
    Question(
        "DISCORD_TOKEN",
        "Discord: the bot's token",
        secret=True,
        before="For Discord, create an application at https://discord.com/developers; its token is "
        "under Bot.",
        check=check.examine_discord,
    ),
    Question(
        "SLACK_BOT_TOKEN",
        "Slack: the bot token (xoxb-…)",
        secret=True,
        before="For Slack, create an app from a manifest at https://api.slack.com/apps: paste what "
        "`python -m bot manifest` prints, and install it.",
    ),
    Question(
        "SLACK_APP_TOKEN",
        "Slack: an app-level token with connections:write (xapp-…)",
        secret=True,
        needs="SLACK_BOT_TOKEN",
        check=check.examine_slack,
    ),
    Question(
        "HF_TOKEN",
        "Hugging Face: a token that may call models (hf_…)",
        secret=True,
        before="A model answers from Hugging Face, from a server of yours, or the small demo model "
        "on this machine (MODEL_ID=demo).",
        check=check.examine_model,
    ),
    Question(
        "MODEL_URL",
        "The address of an OpenAI-compatible server, such as http://127.0.0.1:8080/v1",
        needs="!HF_TOKEN",
    ),
    Question("MODEL_ID", "The name of the model", check=check.examine_model),
    Question(
        "ALLOWED_SERVERS",
        "The ids of the only Discord servers and Slack workspaces whose people may use it",
        before="Anybody who can write to the bot may use it, and spends what the model costs, "
        "unless you name servers, channels, roles or people. Discord shows ids (Copy ID) in its "
        "developer mode; a Slack workspace's begins with T.",
    ),
    Question("ALLOWED_ROLES", "The ids of the only Discord roles whose people may use it"),
    Question("QUESTIONS_PER_DAY", "How many questions a person has in a day"),
    Question(
        "REDIS_URL",
        "The address of Redis; none keeps everything in DATA_DIR on this machine",
        check=check.examine_store,
    ),
)


async def init(
    terminal: Terminal,
    *,
    env_file: Path,
    environment: Mapping[str, str],
    asks: bool,
    questions: tuple[Question, ...] = QUESTIONS,
) -> bool:
    """Ask, check and write `env_file`, which only its owner may read; return whether all works.

    What the file has stays if a person answers with nothing. Without `asks` the answers are those
    of the environment, and nothing is written if one of them does not work.
    """
    known = {name: text or "" for name, text in dotenv_values(env_file).items()}
    ours = {variable.name.upper() for variable in fields(Settings)}
    given = {name: text for name, text in environment.items() if name in ours and text.strip()}
    chosen = {} if asks else given
    works = True
    for question in questions:
        values = {**known, **chosen}
        if asks and _is_due(question, values):
            works = await _settle(terminal, question, known, chosen) and works
        elif not asks and (text := values.get(question.variable, "")):
            works = await _accepts(terminal, question, known, chosen, text) and works
    if not asks and not works:
        terminal.say(f"Nothing was written to {env_file}.")
        return False
    write(env_file, chosen)
    terminal.say(f"{env_file} is written; only you can read it.")
    await _farewell(terminal, {**known, **chosen})
    return works


def _is_due(question: Question, values: Mapping[str, str]) -> bool:
    if not question.needs:
        return True
    wanted = not question.needs.startswith("!")
    return bool(values.get(question.needs.removeprefix("!"))) is wanted


async def _settle(
    terminal: Terminal, question: Question, known: Mapping[str, str], chosen: dict[str, str]
) -> bool:
    """Ask until an answer works, or a person wants it all the same; return whether it works."""
    if question.before:
        terminal.say(f"\n{question.before}")
    original, refused = known.get(question.variable, ""), ""
    shown = f"{original[:_KEPT]}…" if question.secret and original else original
    hint = f"Enter keeps {shown}, {_NONE} takes it away" if original else "Enter skips this"
    while True:
        answer = terminal.ask(f"{question.text} ({hint}): ", secret=question.secret)
        if not answer or answer == _NONE:
            chosen[question.variable] = text = "" if answer else original
            return not text or await _accepts(terminal, question, known, chosen, text)
        works = await _accepts(terminal, question, known, chosen, answer)
        if works or answer == refused:
            return works
        refused = answer
        terminal.say("  Another answer? The same one again keeps it as it is.")


async def _accepts(
    terminal: Terminal,
    question: Question,
    known: Mapping[str, str],
    chosen: dict[str, str],
    text: str,
) -> bool:
    """Choose an answer, show what its check finds, and return whether it works."""
    chosen[question.variable] = text
    try:
        settings = Settings.load({**known, **chosen}, Path(os.devnull))
    except SettingsError as error:
        mistakes = [it for it in str(error).splitlines() if it.startswith(question.variable)]
        for mistake in mistakes:
            terminal.say(f"  ✗ {mistake}")
        return not mistakes
    works = True
    if question.check:
        for finding in await check.examined(question.variable, partial(question.check, settings)):
            terminal.say(f"  {check.line(finding)}")
            works = works and not finding.wrong
    return works


async def _farewell(terminal: Terminal, values: Mapping[str, str]) -> None:
    try:
        settings = Settings.load(values, Path(os.devnull))
    except SettingsError as error:
        terminal.say(str(error))
        return
    if settings.discord_token:
        found = await check.examined("Discord", partial(check.invitation, settings))
        for finding in found:
            terminal.say(finding.text)
    terminal.say("Start the bot with `python -m bot run`; `python -m bot check` examines it all.")


def write(env_file: Path, chosen: Mapping[str, str]) -> None:
    """Set variables in a file, whose other lines stay; a new one begins as the example."""
    try:
        text = env_file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        text = EXAMPLE.read_text(encoding="utf-8") if EXAMPLE.exists() else ""
    for name, value in chosen.items():
        line = f"{name}={_quoted(value)}"
        pattern = re.compile(rf"^[ \t]*(?:export[ \t]+)?{name}[ \t]*=.*$", re.MULTILINE)
        if pattern.search(text):
            text = pattern.sub(line.replace("\\", r"\\"), text)
        elif value:
            text = f"{text.rstrip()}\n{line}\n".lstrip()
    # A reader never sees half of it, and nobody else any of it.
    number, name = tempfile.mkstemp(dir=env_file.parent, prefix=".env-")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(env_file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
