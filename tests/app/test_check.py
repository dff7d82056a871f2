"""`python -m bot check`: each broken set-up gets its line and its cure."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from adapters.discord import setup as discord_setup
from adapters.slack import setup as slack_setup
from bot.app import check
from bot.domain import Finding
from bot.errors import CannotStart
from bot.store import Store
from config.settings import Settings, SettingsError
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SCOPES, SlackEmulator
from tests.support.process import discord_variables, slack_variables

VIEW = 1 << 10


@dataclass(slots=True)
class Scene:
    """Emulated Discord, Slack and model, a store, and the variables that lead there."""

    discord: DiscordEmulator
    slack: SlackEmulator
    model: ModelEmulator
    store: Store
    folder: Path

    def variables(self) -> dict[str, str]:
        return {
            "REDIS_URL": self.store.url,
            "DATA_DIR": str(self.folder),
            "PORT": "0",
            "WEB_PORT": "0",
            **discord_variables(self.discord, self.model),
            **slack_variables(self.slack, self.model),
        }

    async def check(self, changes: Mapping[str, str]) -> tuple[bool, str]:
        """Return whether all would work with these variables, and what is printed."""
        output = io.StringIO()
        variables = {name: it for name, it in {**self.variables(), **changes}.items() if it}
        settings = Settings.load(variables, self.folder / ".env")
        works = await check.check(settings, output, env_file=self.folder / ".env")
        return works, output.getvalue()


@asynccontextmanager
async def scene(store: Store, folder: Path, **slack: object) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        discord, model = await enter(DiscordEmulator()), await enter(ModelEmulator())
        yield Scene(
            discord,
            await enter(SlackEmulator(scopes=slack.get("scopes", SCOPES))),  # type: ignore[arg-type]
            model,
            store,
            folder,
        )


async def test_a_set_up_that_works_has_no_cure(store: Store, tmp_path: Path) -> None:
    (tmp_path / ".env").touch(mode=0o600)
    async with scene(store, tmp_path) as it:
        works, said = await it.check({})

    assert works, said
    assert "✗" not in said
    for subject in ("Settings", "Files", "Store", "Model", "Discord", "Slack", "Ports", "Clock"):
        assert f"✓ {subject}: " in said
    assert "The workshop" in said
    assert it.discord.token not in said
    assert it.slack.bot_token not in said


def free_port() -> socket.socket:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken


Break = Callable[[Scene], Mapping[str, str]]
# What is broken, the variables that break it or the change in the scene, the line, and the cure.
BROKEN: list[tuple[str, Break, str, str]] = [
    ("a wrong Discord token", lambda _: {"DISCORD_TOKEN": "wrong"}, "DISCORD_TOKEN is refused", ""),
    (
        "Discord is away",
        lambda _: {"DISCORD_API_URL": "http://127.0.0.1:9/api"},
        "cannot log in at http://127.0.0.1:9",
        "",
    ),
    (
        "no permission in Discord",
        lambda it: it.discord.let_bot(permissions=VIEW) or {},
        "The bot lacks Send Messages, Create Public Threads",
        "give its role Send Messages",
    ),
    ("a wrong Slack token", lambda _: {"SLACK_BOT_TOKEN": "xoxb-wrong"}, "SLACK_BOT_TOKEN", ""),
    (
        "Slack is away",
        lambda _: {"SLACK_API_URL": "http://127.0.0.1:9/api/"},
        "Slack cannot be reached at http://127.0.0.1:9",
        "",
    ),
    (
        "a wrong app token",
        lambda _: {"SLACK_APP_TOKEN": "xapp-wrong"},
        "Slack refuses SLACK_APP_TOKEN: ",
        "make an app-level token",
    ),
    (
        "a signing secret of a wrong form",
        lambda _: {"SLACK_APP_TOKEN": "", "SLACK_SIGNING_SECRET": "abc"},
        "SLACK_SIGNING_SECRET does not look like one",
        "copy the",
    ),
    (
        "no way for Slack's events",
        lambda _: {"SLACK_APP_TOKEN": ""},
        "the role slack needs SLACK_APP_TOKEN or SLACK_SIGNING_SECRET",
        "",
    ),
    (
        "no model",
        lambda _: {"MODEL_URL": "", "MODEL_ID": ""},
        "there is no model: set HF_TOKEN, MODEL_URL",
        "",
    ),
    (
        "a model that is gone",
        lambda it: it.model.fail_as("unknown model", times=9) or {},
        "check MODEL_ID and MODEL_URL",
        "",
    ),
    (
        "a wrong key of the model",
        lambda it: it.model.fail_as("wrong key", times=9) or {},
        "set MODEL_API_KEY to a key that it accepts",
        "",
    ),
    (
        "a model server that is away",
        lambda _: {"MODEL_URL": "http://127.0.0.1:9/v1"},
        "is it running, and is MODEL_URL right?",
        "",
    ),
    (
        "a model that is busy",
        lambda it: it.model.fail_as("too many requests", times=9) or {},
        "raise the limit of MODEL_API_KEY there",
        "",
    ),
    (
        "a GGUF file that is missing",
        lambda it: {
            "MODEL_URL": "",
            "MODEL_ID": "",
            "LOCAL_MODEL_PATH": str(it.folder / "no.gguf"),
        },
        "no.gguf",
        "",
    ),
    (
        "Redis is away",
        lambda _: {"REDIS_URL": "redis://127.0.0.1:9"},
        "REDIS_URL (127.0.0.1:9) cannot be used",
        "",
    ),
    (
        "a page for everybody",
        lambda _: {"WEB_HOST": "0.0.0.0", "WEB_PASSWORD": "", "WEB_PORT": "0"},  # noqa: S104
        "",
        "",
    ),
]


@pytest.mark.parametrize(("broken", "breaks", "line", "cure"), BROKEN, ids=[it[0] for it in BROKEN])
async def test_what_is_broken_is_told_with_its_cure(
    broken: str, breaks: Break, line: str, cure: str, store: Store, tmp_path: Path
) -> None:
    if not line:
        pytest.skip("the page is not served beside a platform unless people can sign in")
    async with scene(store, tmp_path) as it:
        changes = breaks(it)
        works, said = await it.check(changes)

    assert not works
    (found, *_) = [one for one in said.split("\n✓ ") if line in one] or [""]
    assert found, said
    assert cure in said
