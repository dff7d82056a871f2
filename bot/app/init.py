"""Asks an operator for the settings, checks each answer, and writes `.env`."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from getpass import getpass
from pathlib import Path

from dotenv.parser import Binding

from bot.app import check
from bot.app.platforms import all_specs, load_settings, remote_specs
from bot.errors import CannotStart
from bot.platform_spec import Question
from bot.text.sanitize import strip_controls
from config.settings import (
    Settings,
    SettingsError,
    read,
    read_lines,
    secret_files,
    shown_url,
    values_of,
    variables,
)

EXAMPLE = Path(".env.example")
_PLAIN = re.compile(r"[\w./:@%+,=~-]*")
_KEPT = 4  # characters of a secret that are shown
_NONE = "none"  # the answer that removes a value


class Terminal:
    """Standard input and output; a secret is not shown while it is typed."""

    def say(self, text: str) -> None:
        """Show a line."""
        sys.stdout.write(f"{strip_controls(text)}\n")

    def ask(self, question: str, *, secret: bool) -> str:
        """Return an answer without blanks around it; empty if there is no further one."""
        read = getpass if secret and sys.stdin.isatty() else input
        try:
            return read(strip_controls(question)).strip()
        except EOFError:
            sys.stdout.write("\n")
            return ""


_MODEL = (
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
        needs=("!HF_TOKEN",),
    ),
    Question("MODEL_ID", "The name of the model", check=check.examine_model),
)
_LIMITS_AND_STORE = (
    Question("ADMINS", "The ids of those who may change everything, such as your own"),
    Question("QUESTIONS_PER_DAY", "How many questions a person has in a day"),
    Question(
        "REDIS_URL",
        "The address of Redis; none keeps everything in DATA_DIR on this machine",
        check=check.examine_store,
    ),
)


def all_questions() -> tuple[Question, ...]:
    """Return the questions, in their order."""
    specs = all_specs()
    access = (
        Question(
            "ALLOWED_SERVERS",
            "The ids of the only servers and workspaces whose people may use it",
            before="Anybody who can write to the bot may use it, and spends what the model costs, "
            "unless you name servers, channels, roles or people by their ids. {ids}.",
            kind="server",
        ),
        Question("ALLOWED_ROLES", "The ids of the only roles whose people may use it", kind="role"),
    )
    asked_first = (question for spec in specs for question in spec.questions)
    asked_last = (question for spec in specs for question in spec.access_questions)
    return (*asked_first, *_MODEL, *access, *asked_last, *_LIMITS_AND_STORE)


async def init(
    terminal: Terminal,
    *,
    env_file: Path,
    environment: Mapping[str, str],
    asks: bool,
    questions: tuple[Question, ...] | None = None,
) -> bool:
    """Ask, check and write `env_file`, which only its owner may read; return whether all works.

    What the file has stays if a person answers with nothing. Without `asks` the answers are those
    of the environment, and nothing is written if one of them does not work.
    Raises SettingsError and CannotStart if the file cannot be read or written, before anything is
    asked.
    """
    questions = all_questions() if questions is None else questions
    variables_ = variables(all_specs())
    ours = {*variables_, *secret_files(variables_)}
    known = {name: text for name, text in values_of(read_lines(env_file)).items() if name in ours}
    # To report an unwritable folder before anything is asked.
    _replacement(env_file).unlink()
    given = {} if asks else {name: text for name, text in environment.items() if text.strip()}
    chosen = {name: given[name] for name in given if name in ours}
    dialogue = _Dialogue(terminal, questions, known, chosen)
    for question in questions:
        if asks and dialogue.is_due(question):
            await dialogue.settle(question)
        elif not asks and dialogue.has(question.variable):
            given_text = dialogue.values.get(question.variable, "")
            await dialogue.accepts(question, await dialogue.text_of(question, given_text))
    settings, mistakes = _loaded({**given, **dialogue.values})
    mistakes += read(env_file, variables_)[1]
    for mistake in mistakes:
        terminal.say(f"✗ {mistake}")
    works = not (mistakes or dialogue.problems)
    if not asks and not works:
        terminal.say(f"Nothing was written to {env_file}.")
        return False
    write(env_file, dialogue.chosen)
    terminal.say(f"{env_file} is written; only its owner can read it.")
    if settings:
        await _farewell(terminal, settings, dialogue.problems)
    return works


def _loaded(values: Mapping[str, str]) -> tuple[Settings | None, list[str]]:
    try:
        return load_settings(values, Path(os.devnull)), []
    except SettingsError as error:
        return None, str(error).splitlines()


@dataclass(slots=True)
class _Dialogue:
    """Asks and checks; `problems` are the lines of what does not work, by variable."""

    terminal: Terminal
    questions: Sequence[Question]
    known: Mapping[str, str]  # what the file has
    chosen: dict[str, str]
    problems: dict[str, str] = field(default_factory=dict)
    _shown: set[str] = field(default_factory=set)

    @property
    def values(self) -> dict[str, str]:
        return {**self.known, **self.chosen}

    def is_due(self, question: Question) -> bool:
        having = [spec.credential for spec in all_specs() if question.kind in spec.ids]
        if question.kind and not any(map(self.has, (question.variable, *having))):
            return False
        return all(
            self.has(name.removeprefix("!")) is not name.startswith("!") for name in question.needs
        )

    def has(self, variable: str) -> bool:
        return bool(self.values.get(variable) or self.values.get(f"{variable}_FILE"))

    async def settle(self, question: Question) -> None:
        """Ask until an answer works or the person insists."""
        if question.before:
            self.terminal.say(f"\n{question.before.format(bot=_command(), ids=self._ids())}")
        original, refused = self.known.get(question.variable, ""), ""
        if self.values.get(f"{question.variable}_FILE"):
            await self.accepts(question, original)
            return
        shown = f"{original[:_KEPT]}…" if question.secret else shown_url(original)
        hint = f"Enter keeps {shown}, {_NONE} takes it away" if original else "Enter skips this"
        while True:
            answer = self.terminal.ask(f"{question.text} ({hint}): ", secret=question.secret)
            try:
                kept = {"": original, _NONE: ""}.get(answer)
                text = await self.text_of(question, answer) if kept is None else kept
            except CannotStart as error:
                self.terminal.say(f"  ✗ {error}")
                continue
            if await self.accepts(question, text) or answer in ("", _NONE, refused):
                return
            refused = answer
            self.terminal.say("  Please correct it, or enter it once more to keep it.")

    def _ids(self) -> str:
        """Return how ids look, on the platforms that are set up."""
        remote = [spec for spec in all_specs() if spec.ids_help and not spec.local]
        here = [spec for spec in remote if self.has(spec.credential)]
        return "; ".join(spec.ids_help for spec in here or remote)

    async def text_of(self, question: Question, answer: str) -> str:
        """Return what an answer stands for. Raises CannotStart."""
        if answer and question.value_of:
            return await question.value_of(answer, self.values)
        return answer

    async def accepts(self, question: Question, text: str) -> bool:
        """Record an answer, show the result of its check, and return whether it works.

        A problem that names only variables of other questions is theirs.
        """
        variable = question.variable
        if question.check or text != self.known.get(variable):
            self.problems.pop(variable, None)
        self.chosen[variable] = text
        settings, mistakes = _loaded(self.values)
        lines = [(variable, f"✗ {it}") for it in mistakes if it.startswith(variable)]
        if settings and question.check and self.has(variable):
            for finding in await check.examined(variable, partial(question.check, settings)):
                named = [
                    q.variable for q in (question, *self.questions) if q.variable in finding.text
                ]
                blamed = (*named, variable)[0] if finding.wrong else ""
                lines.append((blamed, check.line(finding)))
        for blamed, line in lines:
            if blamed:
                self.problems[blamed] = line
            if blamed or line not in self._shown:
                self.terminal.say(f"  {line}")
            self._shown.add(line)
        return variable not in self.problems


async def _farewell(terminal: Terminal, settings: Settings, problems: Mapping[str, str]) -> None:
    for spec in remote_specs(settings):
        if spec.welcome:
            for finding in await check.examined(spec.title, partial(spec.welcome, settings)):
                terminal.say(finding.text)
    # A single role may need less, such as a gateway without a model.
    found = await check.examined("Settings", partial(check.examine_settings, settings))
    for finding in (it for it in found if it.wrong):
        terminal.say(check.line(finding))
    bot = _command()
    if problems:
        terminal.say("\n".join(["This does not work yet:", *problems.values()]))
        terminal.say(f"Correct {', '.join(problems)}: `{bot} init` keeps what you do not change.")
        return
    terminal.say(f"Start the bot with `{bot} run`; `{bot} check` checks all settings.")


def _command() -> str:
    """Return the command that runs the bot in this folder."""
    if (called := Path(sys.argv[0]).stem) == "parley":
        return called
    python, here = Path(sys.executable), Path.cwd()
    name = python.relative_to(here) if python.is_relative_to(here) else "python"
    return f"{name} -m bot"


def write(env_file: Path, chosen: Mapping[str, str]) -> None:
    """Set variables in a file and keep its other lines; a new file is based on the example.

    Raises CannotStart; the file is then as it was.
    """
    lines = read_lines(env_file if env_file.exists() else EXAMPLE)
    known = values_of(lines)
    changed = {name: text for name, text in chosen.items() if text != known.get(name, "")}
    texts = [_line(it, changed) for it in lines]
    if texts and not texts[-1].endswith("\n") and changed.keys() - known:
        texts.append("\n")
    texts += [f"{name}={_quoted(changed[name])}\n" for name in changed if name not in known]
    # The file is replaced atomically, and only its owner can read it.
    new = _replacement(env_file)
    try:
        new.write_text("".join(texts), encoding="utf-8", newline="")
        new.replace(env_file.resolve())
    except OSError as error:
        raise _cannot_write(env_file, error) from error
    finally:
        new.unlink(missing_ok=True)


def _line(old: Binding, changed: Mapping[str, str]) -> str:
    """Return a line unchanged, or with its new value, empty lines before it and `export`."""
    text = old.original.string
    if old.key is None or old.key not in changed:
        return text
    before = re.match(r"\s*(?:export[ \t]+)?", text)
    end = re.search(r"[\r\n]*\Z", text)
    return f"{before and before[0]}{old.key}={_quoted(changed[old.key])}{end and end[0]}"


def _replacement(env_file: Path) -> Path:
    """Return a new empty file in the same folder, which the file's owner alone may read."""
    file = env_file.resolve()  # a link stays a link
    if file.is_dir():
        raise CannotStart(f"{env_file} is a folder")
    owner = file.stat().st_uid if os.name == "posix" and file.exists() else None
    if owner is not None and owner != os.geteuid() != 0:
        raise CannotStart(f"{env_file} belongs to another user, who has to do this")
    try:
        number, name = tempfile.mkstemp(dir=file.parent, prefix=".env-")
        os.close(number)
        if owner is not None:
            os.chown(name, owner, -1)
    except OSError as error:
        raise _cannot_write(env_file, error) from error
    return Path(name)


def _cannot_write(env_file: Path, error: OSError) -> CannotStart:
    cure = "let this user write to its folder (chown), or call this in another one"
    return CannotStart(f"{env_file} cannot be written: {error.strerror}; {cure}")


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
