"""`python -m bot init`: what is asked, what is checked, and what stands in `.env` afterwards."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bot.app import init as setup
from bot.app.init import Terminal, init, write
from bot.app.platforms import load_settings
from bot.errors import CannotStart
from bot.platform_spec import Question
from config.settings import Settings, SettingsError
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.settings import settings_of, value_of

NOWHERE = "http://127.0.0.1:9"


@dataclass
class Typist(Terminal):
    """Answers by the variable that a question is about; a list is one answer after the other."""

    answers: Mapping[str, str | list[str]]
    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(text)

    def ask(self, question: str, *, secret: bool) -> str:
        (asked,) = [it for it in setup.all_questions() if question.startswith(it.text)]
        assert secret is asked.secret
        self.lines.append(question)
        answer = self.answers.get(asked.variable, "")
        if isinstance(answer, list):
            return answer.pop(0) if answer else ""
        return answer

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


async def run(
    folder: Path,
    answers: Mapping[str, str | list[str]],
    given: Mapping[str, str] | None = None,
    questions: tuple[Question, ...] | None = None,
) -> tuple[bool, Typist]:
    """Have the questions answered, or the variables taken that are given."""
    typist, asks = Typist(answers), given is None
    works = await init(
        typist, env_file=folder / ".env", environment=given or {}, asks=asks, questions=questions
    )
    return works, typist


def loaded(env_file: Path) -> Settings:
    return load_settings({}, env_file)


async def test_a_new_operator_gets_a_file_that_works(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    async with DiscordEmulator() as discord, SlackEmulator() as slack, ModelEmulator() as model:
        write(
            env_file,
            {
                "DISCORD_API_URL": discord.api_url,
                "SLACK_API_URL": slack.api_url,
                "DATA_DIR": str(tmp_path / "data"),
            },
        )
        works, typist = await run(
            tmp_path,
            {
                "DISCORD_TOKEN": discord.token,
                "SLACK_BOT_TOKEN": slack.bot_token,
                "SLACK_APP_TOKEN": slack.app_token,
                "MODEL_URL": model.url,
                "ALLOWED_SERVERS": discord.guild_id,
            },
        )

    found = loaded(env_file)
    assert works, typist.text
    assert (value_of(found, "DISCORD_TOKEN"), value_of(found, "SLACK_BOT_TOKEN")) == (
        discord.token,
        slack.bot_token,
    )
    assert (found.model_url, found.allowed_servers) == (model.url, (discord.guild_id,))
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    assert f"client_id={discord.application_id}" in typist.text
    assert "python -m bot manifest" in typist.text
    assert discord.token not in typist.text
    assert slack.bot_token not in typist.text


@pytest.mark.parametrize("slack", ["xoxb-1", ""])
async def test_people_of_slack_are_asked_for_where_roles_would_let_none_of_them_in(
    slack: str, tmp_path: Path
) -> None:
    folder = str(tmp_path / "data")
    write(tmp_path / ".env", {"DATA_DIR": folder, "DISCORD_API_URL": NOWHERE})
    tokens = {"DISCORD_TOKEN": "wrong", "SLACK_BOT_TOKEN": slack}
    people = {**tokens, "ALLOWED_ROLES": "123456789012345678", "ALLOWED_PEOPLE": "U0123ABCD"}
    admins = {"ADMINS": ["me", "U0123ABCF"]}
    _, typist = await run(tmp_path, {"MODEL_ID": "none", **people, **admins})

    found = loaded(tmp_path / ".env")
    assert ("Slack has no roles" in typist.text) is bool(slack)
    assert found.allowed_people == (("U0123ABCD",) if slack else ())
    assert found.admins == ("U0123ABCF",)


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ({}, []),
        ({"MATRIX_TOKEN": "syt_x"}, ["servers and workspaces"]),
        ({"SLACK_BOT_TOKEN": "xoxb-1"}, ["servers and workspaces"]),
        ({"DISCORD_TOKEN": "wrong"}, ["servers and workspaces", "roles"]),
        ({"ALLOWED_ROLES": "123456789012345678"}, ["roles"]),
    ],
)
async def test_only_ids_are_asked_for_that_a_configured_platform_has(
    known: dict[str, str], asked: list[str], tmp_path: Path
) -> None:
    names = {
        "DATA_DIR": str(tmp_path / "data"),
        "MATRIX_HOMESERVER": NOWHERE,
        "SLACK_API_URL": NOWHERE,
        "DISCORD_API_URL": NOWHERE,
    }
    write(tmp_path / ".env", {**names, **known})
    _, typist = await run(tmp_path, {"MODEL_ID": "none"})

    begin, end = "The ids of the only ", " whose people may use it"
    found = [it.partition(end)[0] for it in typist.lines if end in it]
    assert found == [begin + kind for kind in asked]


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ({"MATRIX_TOKEN": "syt_x"}, ["Matrix"]),
        ({"SLACK_BOT_TOKEN": "xoxb-1", "DISCORD_TOKEN": "wrong"}, ["Discord", "Slack"]),
        ({"ALLOWED_SERVERS": "T0PARLEY001"}, ["Discord", "Matrix", "Slack"]),
    ],
)
async def test_how_ids_look_is_told_of_the_platforms_that_are_set_up(
    known: dict[str, str], told: list[str], tmp_path: Path
) -> None:
    nowhere = dict.fromkeys(("MATRIX_HOMESERVER", "SLACK_API_URL", "DISCORD_API_URL"), NOWHERE)
    write(tmp_path / ".env", {"DATA_DIR": str(tmp_path / "data"), **nowhere, **known})
    _, typist = await run(tmp_path, {"MODEL_ID": "none"})

    (line,) = [it for it in typist.lines if "by their ids. " in it]
    assert re.findall(r"(\w+)'s (?:have|begin)", line) == told


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("", "✗ Settings: the role slack needs SLACK_APP_TOKEN or SLACK_SIGNING_SECRET"),
        ("0123456789abcdef" * 2, "  ✓ Slack: SLACK_SIGNING_SECRET has the right form"),
    ],
)
async def test_without_an_app_token_the_signing_secret_is_asked_for(
    secret: str, told: str, tmp_path: Path
) -> None:
    env_file = tmp_path / ".env"
    async with SlackEmulator() as slack, ModelEmulator() as model:
        write(env_file, {"SLACK_API_URL": slack.api_url, "DATA_DIR": str(tmp_path / "data")})
        tokens = {"SLACK_BOT_TOKEN": slack.bot_token, "SLACK_SIGNING_SECRET": secret}
        _, typist = await run(tmp_path, {**tokens, "MODEL_URL": model.url})

    assert told in typist.lines
    assert value_of(loaded(env_file), "SLACK_SIGNING_SECRET") == secret
    assert ("✗" in typist.text) is (not secret)


async def test_a_wrong_slack_token_is_corrected_at_its_own_question(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    async with SlackEmulator() as slack, ModelEmulator() as model:
        write(env_file, {"SLACK_API_URL": slack.api_url, "DATA_DIR": str(tmp_path / "data")})
        tokens = {
            "SLACK_BOT_TOKEN": ["xapp-1", "xoxb-wrong", slack.bot_token],
            "SLACK_APP_TOKEN": ["xapp-wrong", slack.app_token],
        }
        works, typist = await run(tmp_path, {**tokens, "MODEL_URL": model.url})

    found = loaded(env_file)
    assert works, typist.text
    assert (value_of(found, "SLACK_BOT_TOKEN"), value_of(found, "SLACK_APP_TOKEN")) == (
        slack.bot_token,
        slack.app_token,
    )
    asked = [line.split(" (")[0] for line in typist.lines if line.startswith("Slack: ")]
    assert (
        asked
        == ["Slack: the bot token"] * 3 + ["Slack: an app-level token with connections:write"] * 2
    )
    assert typist.text.count("The token is that of @") == 1


async def test_a_slack_token_that_stays_wrong_is_asked_for_once_and_reported_at_the_end(
    tmp_path: Path,
) -> None:
    env_file = tmp_path / ".env"
    async with SlackEmulator() as slack, ModelEmulator() as model:
        write(env_file, {"SLACK_API_URL": slack.api_url, "DATA_DIR": str(tmp_path / "data")})
        tokens = {"SLACK_BOT_TOKEN": ["xoxb-wrong"] * 2, "SLACK_APP_TOKEN": [slack.app_token]}
        works, typist = await run(tmp_path, {**tokens, "MODEL_URL": model.url})

    assert not works
    assert typist.text.count("Slack: an app-level token with") == 1
    assert value_of(loaded(env_file), "SLACK_APP_TOKEN") == slack.app_token
    *_, wrong, cure = typist.lines
    assert "Slack refuses SLACK_BOT_TOKEN" in wrong
    assert cure.startswith("Correct SLACK_BOT_TOKEN: ")
    assert "Start the bot" not in typist.text


async def test_a_workspace_that_is_not_allowed_is_reported_at_the_end(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    async with SlackEmulator() as slack, ModelEmulator() as model:
        others = {"SLACK_API_URL": slack.api_url, "DATA_DIR": str(tmp_path / "data")}
        write(env_file, {**others, "ALLOWED_SERVERS": "T0OTHER01"})
        tokens = {"SLACK_BOT_TOKEN": slack.bot_token, "SLACK_APP_TOKEN": slack.app_token}
        works, typist = await run(tmp_path, {**tokens, "MODEL_URL": model.url})

    assert not works
    assert "Please correct it" not in typist.text
    assert typist.lines[-1].startswith("Correct ALLOWED_SERVERS: ")


async def test_unknown_names_are_reported_and_kept(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ALLOWED_GUILDS=1\nMODEL_ID=demo\n")
    works, typist = await run(tmp_path, {"MODEL_ID": "none"})

    assert not works
    told = "ALLOWED_GUILDS in .env is unknown; did you mean ALLOWED_SERVERS?"
    assert typist.text.count(told) == 1
    assert "ALLOWED_GUILDS=1" in (tmp_path / ".env").read_text()


async def test_in_a_clone_the_command_that_is_shown_can_be_typed_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    typist = Typist({})

    await init(typist, env_file=Path(".env"), environment={}, asks=True)

    assert "Start the bot with `.venv/bin/python -m bot run`" in typist.text
    assert "what `.venv/bin/python -m bot manifest` prints" in typist.text


async def test_the_same_wrong_answer_twice_is_kept(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    write(env_file, {"DATA_DIR": str(tmp_path / "data"), "MODEL_ID": "demo"})
    works, typist = await run(
        tmp_path, {"REDIS_URL": ["redis://127.0.0.1:9"] * 2, "MODEL_ID": "none"}
    )

    assert not works
    assert "REDIS_URL (127.0.0.1:9) cannot be used" in typist.text
    assert loaded(env_file).redis_url == "redis://127.0.0.1:9"


async def test_run_again_it_keeps_what_is_there(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    async with DiscordEmulator() as discord:
        before = (
            f"# mine\nDISCORD_TOKEN={discord.token}\nDISCORD_API_URL={discord.api_url}\n"
            f"DATA_DIR={tmp_path / 'data'}\nCAPACITY=7 # few\n"
        )
        env_file.write_text(before)
        _, typist = await run(tmp_path, {"MODEL_ID": "none"})

    assert env_file.read_text() == before
    assert f"Enter keeps {discord.token[:4]}…" in typist.text


async def test_a_script_sets_variables_and_is_asked_nothing(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    async with DiscordEmulator() as discord, ModelEmulator() as model:
        given = {
            "DISCORD_TOKEN": discord.token,
            "DISCORD_API_URL": discord.api_url,
            "MODEL_URL": model.url,
            "CAPACITY": "9",
            "PATH": "/bin",
        }
        works, typist = await run(tmp_path, {}, given)

    assert works, typist.text
    assert not any(line.endswith(": ") for line in typist.lines)
    assert loaded(env_file).capacity == 9
    assert "\nPATH=" not in env_file.read_text()


async def test_a_secret_that_stands_in_a_file_is_checked_and_not_asked_for(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    async with SlackEmulator() as slack, ModelEmulator() as model:
        (tmp_path / "token").write_text(f"{slack.bot_token}\n")
        (tmp_path / "wrong").write_text("xoxb-wrong\n")
        given = {
            "SLACK_BOT_TOKEN_FILE": str(tmp_path / "token"),
            "SLACK_APP_TOKEN": slack.app_token,
            "SLACK_API_URL": slack.api_url,
            "MODEL_URL": model.url,
        }
        wrong = given | {"SLACK_BOT_TOKEN_FILE": str(tmp_path / "wrong")}
        refused, _ = await run(tmp_path, {}, wrong)
        assert not refused
        assert not env_file.exists()
        written, _ = await run(tmp_path, {}, given)
        text = env_file.read_text()
        works, typist = await run(tmp_path, {"SLACK_BOT_TOKEN": "xoxb-another"})

    assert (written, works) == (True, True), typist.text
    assert value_of(loaded(env_file), "SLACK_BOT_TOKEN") == slack.bot_token
    assert env_file.read_text() == text
    assert slack.bot_token not in text
    assert "xoxb-" not in typist.text.replace("(xoxb-…)", "")
    assert "Enter keeps xapp" in typist.text  # the next question, which needs the first


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ("DISCORD_TOKEN=wrong DISCORD_API_URL=http://127.0.0.1:9/api", "cannot log in"),
        ("MODEL_URL=http://here ALLOWED_GUILDS=1 PATH=/bin", "did you mean ALLOWED_SERVERS?"),
        ("MODEL_ID=demo QUESTIONS_PER_DAY=5 CAPACITY=many", "CAPACITY='many'"),
    ],
)
async def test_a_script_with_a_mistake_writes_nothing(
    variables: str, said: str, tmp_path: Path
) -> None:
    given = dict(word.split("=", 1) for word in variables.split())
    # Loading the demo model takes long.
    questions = tuple(it for it in setup.all_questions() if not it.variable.startswith("MODEL"))
    works, typist = await run(tmp_path, {}, given, questions)

    assert not works
    assert said in typist.text
    assert not (tmp_path / ".env").exists()


@pytest.mark.parametrize(
    "value",
    [
        *("", "plain-1.2/x:y@z", "two words", "it's", 'a "b" #c', "back\\slash", "$HOME", "=x="),
        *("two\nlines", 'it\'s\n"two"\\n', "${HOME}", "x" * 10_000),
    ],
)
def test_any_value_is_read_back_as_it_was(value: str, tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("SYSTEM_PROMPT=old\n")
    write(env_file, {"SYSTEM_PROMPT": value})

    expected = value.strip() or settings_of().system_prompt
    assert loaded(env_file).system_prompt == expected


def test_a_new_file_begins_as_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env.example").write_text("# a token\nHF_TOKEN=\n")
    write(tmp_path / ".env", {"HF_TOKEN": "hf_x", "PORT": "1"})

    assert (tmp_path / ".env").read_text() == "# a token\nHF_TOKEN=hf_x\nPORT=1\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# a\r\nHF_TOKEN=old\r\nPORT=2\r\n", "# a\r\nHF_TOKEN=new\r\nPORT=2\r\n"),
        ("\n\nexport HF_TOKEN=old # why\n", "\n\nexport HF_TOKEN=new\n"),
        ("HF_TOKEN=a\nHF_TOKEN='b'\n", "HF_TOKEN=new\nHF_TOKEN=new\n"),
        ("HF_TOKEN='two\nlines'\nPORT=2", "HF_TOKEN=new\nPORT=2"),
        (
            "SYSTEM_PROMPT='First.\nHF_TOKEN=no\n'\n",
            "SYSTEM_PROMPT='First.\nHF_TOKEN=no\n'\nHF_TOKEN=new\n",
        ),
        ("PORT=2", "PORT=2\nHF_TOKEN=new\n"),
        ("\ufeffHF_TOKEN=old\n", "HF_TOKEN=new\n"),
        ("HF_TOKEN='new' # mine\n", "HF_TOKEN='new' # mine\n"),
    ],
)
def test_only_the_lines_of_a_variable_change(before: str, after: str, tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_bytes(before.encode())
    write(env_file, {"HF_TOKEN": "new"})

    assert env_file.read_bytes().decode() == after
    assert loaded(env_file).hf_token == "new"


def test_a_link_stays_one_and_others_may_not_read_its_file(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, env_file = tmp_path / "elsewhere" / "secrets", tmp_path / ".env"
    target.write_text("PORT=2\n")
    target.chmod(0o644)
    env_file.symlink_to(target)
    write(env_file, {"HF_TOKEN": "new"})

    assert env_file.is_symlink()
    assert target.read_text() == "PORT=2\nHF_TOKEN=new\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [it.name for it in target.parent.iterdir()] == ["secrets"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of other users")
def test_the_owner_of_a_file_keeps_it(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("PORT=2\n")
    os.chown(env_file, 65534, -1)
    write(env_file, {"HF_TOKEN": "new"})

    assert (env_file.stat().st_uid, loaded(env_file).hf_token) == (65534, "new")


async def test_a_file_that_cannot_be_read_or_written_is_reported_at_once(
    tmp_path: Path,
) -> None:
    (tmp_path / "binary").write_bytes(b"HF_TOKEN=\xff\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("binary", "folder", "loop", "missing/.env"):
        typist = Typist({})
        with pytest.raises((CannotStart, SettingsError), match=name):
            await init(typist, env_file=tmp_path / name, environment={}, asks=True)
        assert typist.lines == []


async def test_wrong_answers_and_passwords_are_not_shown(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    secret = "hunter2"
    env_file.write_text(f"REDIS_URL=redis://:{secret}@127.0.0.1:9/0\nDATA_DIR={tmp_path}\n")
    hostile = [f"{secret}\nPORT=1", f"{secret}\x1b[2J", secret * 2000]
    typist = Typist(
        {
            "DISCORD_TOKEN": [*hostile[:2], "none"],
            "SLACK_BOT_TOKEN": [*hostile, "none"],
            "HF_TOKEN": [*hostile[:2], "none"],
            "MODEL_URL": f"ftp://{secret}@x",
        }
    )
    questions = tuple(it for it in setup.all_questions() if it.variable != "MODEL_ID")
    works = await init(typist, env_file=env_file, environment={}, asks=True, questions=questions)

    assert not works
    assert "Enter keeps redis://***@127.0.0.1:9/0" in typist.text
    assert typist.text.count("has a blank or a special character in it") == 6
    assert secret not in typist.text
