"""`python -m bot check`: each broken set-up gets its line and its cure."""

from __future__ import annotations

import io
import socket
from argparse import Namespace
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import discord
import pytest

from adapters.discord import setup as discord_setup
from adapters.discord.settings import DiscordSettings
from adapters.discord.spec import PLATFORM as DISCORD
from adapters.slack import setup as slack_setup
from adapters.slack.settings import SlackSettings
from bot.app import assistant, check
from bot.app.platforms import load_settings
from bot.domain import Finding
from bot.errors import CannotStart
from bot.model import huggingface
from bot.model.server import ModelServer
from bot.model.transport import connect
from bot.store import Store, examine_server
from config.settings import SettingsError
from tests.emulators.discord import DiscordEmulator
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SCOPES, SlackEmulator
from tests.support.mcp_server import Handmade, said, tool
from tests.support.process import discord_variables, slack_variables
from tests.support.settings import settings_of

VIEW = 1 << 10
(INVITE,) = DISCORD.commands


@dataclass(slots=True)
class Scene:
    """Emulated Discord, Slack and model, a store, and the variables that lead there."""

    discord: DiscordEmulator
    slack: SlackEmulator
    model: ModelEmulator
    store: Store
    folder: Path

    async def check(self, **changes: str) -> tuple[bool, str]:
        """Return whether all would work with these variables, and what is printed."""
        variables = {
            "REDIS_URL": self.store.url,
            "DATA_DIR": str(self.folder),
            "PORT": "0",
            "WEB_PORT": "0",
            **discord_variables(self.discord, self.model),
            **slack_variables(self.slack, self.model),
            **changes,
        }
        output = io.StringIO()
        try:
            settings = load_settings(variables, self.folder / ".env")
        except SettingsError as error:
            return False, str(error)
        works = await check.check(settings, output, env_file=self.folder / ".env")
        return works, output.getvalue()


@asynccontextmanager
async def scene(
    store: Store, folder: Path, *, scopes: Collection[str] = SCOPES, message_content: bool = True
) -> AsyncIterator[Scene]:
    async with (
        DiscordEmulator(message_content=message_content) as discord,
        SlackEmulator(scopes=scopes) as slack,
        ModelEmulator() as model,
    ):
        yield Scene(discord, slack, model, store, folder)


async def test_secrets_in_files_work_and_are_not_shown(store: Store, tmp_path: Path) -> None:
    async with scene(store, tmp_path) as it:
        secrets = {
            "DISCORD_TOKEN": it.discord.token,
            "SLACK_BOT_TOKEN": it.slack.bot_token,
            "SLACK_APP_TOKEN": it.slack.app_token,
            "MODEL_URL": it.model.url,
        }
        files = {f"{name}_FILE": str(tmp_path / name) for name in secrets}
        for name, text in secrets.items():
            (tmp_path / name).write_text(f"{text}\n")
        works, text = await it.check(**dict.fromkeys(secrets, ""), **files)
        (tmp_path / "SLACK_BOT_TOKEN").write_text("xoxb-s3cret\n")
        refused, why = await it.check(**dict.fromkeys(secrets, ""), **files)

    assert (works, refused) == (True, False), text
    assert "Slack" in text
    assert "Slack refuses SLACK_BOT_TOKEN" in why
    assert not any(name in text + why for name in (*secrets.values(), "s3cret"))


async def test_a_set_up_that_works_has_no_cure(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / ".env").touch(mode=0o600)
    # As in a process of its own.
    for name in ("warn_nacl", "warn_dave"):
        monkeypatch.setattr(discord.VoiceClient, name, True)
    async with scene(store, tmp_path) as it:
        works, said = await it.check()

    assert works, said
    assert "voice" not in caplog.text
    assert "✗" not in said
    for subject in ("Settings", "Files", "Store", "Model", "Discord", "Slack", "Ports"):
        assert f"✓ {subject}: " in said
    assert "The workshop" in said
    assert it.discord.token not in said
    assert it.slack.bot_token not in said


NO_SLACK = "SLACK_BOT_TOKEN= SLACK_APP_TOKEN="


@pytest.mark.parametrize(
    ("broken", "line", "cure"),
    [
        ("DISCORD_TOKEN=wrong", "✗ Discord: DISCORD_TOKEN is refused by", "copy the bot's token"),
        (
            "DISCORD_API_URL=http://127.0.0.1:9/api",
            "✗ Discord: cannot log in at http://127.0.0.1:9/api",
            "",
        ),
        (
            "SLACK_BOT_TOKEN=xoxb-wrong",
            "✗ Slack: Slack refuses SLACK_BOT_TOKEN",
            "copy the Bot User OAuth Token (xoxb-…) under OAuth & Permissions",
        ),
        (
            "SLACK_BOT_TOKEN=xapp-1",
            "SLACK_BOT_TOKEN is an app-level token",
            "it belongs in SLACK_APP_TOKEN",
        ),
        ("SLACK_API_URL=http://127.0.0.1:9/", "✗ Slack: Slack cannot be reached at http://127", ""),
        (
            "SLACK_APP_TOKEN=xapp-wrong",
            "✗ Slack: Slack refuses SLACK_APP_TOKEN: ",
            "make an app-level token",
        ),
        (
            "SLACK_APP_TOKEN= SLACK_SIGNING_SECRET=abc",
            "✗ Slack: SLACK_SIGNING_SECRET does not look like one",
            'copy the "Signing Secret"',
        ),
        ("SLACK_APP_TOKEN=", "the role slack needs SLACK_APP_TOKEN or SLACK_SIGNING_SECRET", ""),
        ("MODEL_URL= MODEL_ID=", "✗ Settings: there is no model: set HF_TOKEN, MODEL_URL", ""),
        (
            "MODEL_URL=http://127.0.0.1:9/v1",
            "✗ Model: 127.0.0.1:9 cannot be reached",
            "is it running, and is MODEL_URL right?",
        ),
        ("REDIS_URL=redis://127.0.0.1:9", "✗ Store: REDIS_URL (127.0.0.1:9) cannot be used", ""),
        (
            f"WEB_HOST=0.0.0.0 DISCORD_TOKEN= {NO_SLACK}",
            "✗ Settings: WEB_HOST=0.0.0.0 is open to other machines",
            "set WEB_PASSWORD",
        ),
    ],
)
async def test_a_broken_variable_is_reported_with_its_cure(
    broken: str, line: str, cure: str, store: Store, tmp_path: Path
) -> None:
    changes = dict(word.split("=", 1) for word in broken.split())
    async with scene(store, tmp_path) as it:
        works, said = await it.check(**changes)

    assert not works
    assert line in said, said
    assert cure in said


@pytest.mark.parametrize(
    ("failure", "cure"),
    [
        ("unknown model", "check MODEL_ID and MODEL_URL"),
        ("wrong key", "set MODEL_API_KEY to a key that it accepts"),
        ("too many requests", "raise the limit of MODEL_API_KEY there"),
    ],
)
async def test_a_model_that_fails_is_asked_once_and_reported(
    failure: str, cure: str, store: Store, tmp_path: Path
) -> None:
    async with scene(store, tmp_path) as it:
        it.model.fail_as(failure, times=1)
        works, said = await it.check()

    assert not works
    assert "✗ Model: " in said
    assert cure in said


ROLE, ANN, BEN = "123456789012345678", "123456789012345679", "U0123ABCD"


@pytest.mark.parametrize(
    ("lists", "line"),
    [
        ({"ALLOWED_ROLES": ROLE}, "✗ Settings: ALLOWED_ROLES lets nobody in on Slack"),
        ({"ALLOWED_ROLES": ROLE, "ALLOWED_PEOPLE": ANN}, "✗ Settings: ALLOWED_ROLES lets nobody"),
        ({"ALLOWED_PEOPLE": ANN}, "✗ Settings: ALLOWED_PEOPLE names nobody of Slack"),
        ({"ALLOWED_PEOPLE": BEN}, "✗ Settings: ALLOWED_PEOPLE names nobody of Discord"),
        ({"ALLOWED_SERVERS": "T01,E01"}, "! Settings: ALLOWED_SERVERS names no server of Discord"),
        (
            {"ALLOWED_SERVERS": "E01,123456789012345678"},
            "! Settings: ALLOWED_SERVERS names no workspace",
        ),
        ({"ALLOWED_CHANNELS": "C01"}, "! Settings: ALLOWED_CHANNELS names no channel of Discord"),
        ({"ALLOWED_PEOPLE": f"{ANN},{BEN}"}, ""),
        ({"ALLOWED_PEOPLE": BEN, "ADMINS": ANN}, ""),
        ({"ALLOWED_PEOPLE": BEN, "ALLOWED_ROLES": ROLE}, ""),
    ],
)
async def test_lists_that_leave_a_platform_out_are_reported_by_check_and_start(
    lists: dict[str, str], line: str, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(store, tmp_path) as it:
        _, said = await it.check(**lists)

    cure = "add people of Discord to ALLOWED_PEOPLE or ALLOWED_ROLES"
    assert (cure in said) is ("nobody of Discord" in line)
    named = [one for one in said.splitlines() if one[2:].startswith("Settings: ALLOWED_")]
    assert [one.startswith(line) for one in named] == [True] * bool(line), said
    logged = [record.getMessage() for record in caplog.records if "ALLOWED_" in record.getMessage()]
    assert [one.split(": add")[0] for one in logged] == [one[12:] for one in named]


async def test_without_the_intent_and_a_server_there_is_advice(
    store: Store, tmp_path: Path
) -> None:
    async with scene(store, tmp_path, message_content=False) as it:
        it.discord.let_bot(leave=True)
        works, said = await it.check()

    assert works, said
    assert "! Discord: Message Content Intent is off" in said
    assert 'switch on "Message Content Intent"' in said
    assert "! Discord: The bot is in no server yet" in said
    assert f"oauth2/authorize?client_id={it.discord.application_id}" in said


async def test_a_permission_that_is_missing_is_named(store: Store, tmp_path: Path) -> None:
    async with scene(store, tmp_path) as it:
        it.discord.let_bot(permissions=VIEW)
        works, said = await it.check()

    lacks = (
        "Send Messages, Create Public Threads, Send Messages in Threads, Read Message History, "
        "Attach Files"
    )
    assert not works
    assert f"✗ Discord: The bot lacks {lacks} in The workshop" in said
    assert f"give its role {lacks}" in said


async def test_each_named_server_and_channel_is_examined() -> None:
    async with DiscordEmulator() as discord:
        hidden = discord.channel("hidden")
        discord.hide_history(hidden)
        found = [
            finding
            async for finding in discord_setup.examine(
                DiscordSettings(token=discord.token, api_url=discord.api_url),
                servers=[discord.guild_id, "1"],
                channels=[discord.channel_id, hidden, "2"],
            )
        ]

    wrong = [each.text for each in found if each.wrong]
    assert wrong[:2] == [
        "The bot is not in server 1 of ALLOWED_SERVERS",
        f"The bot lacks Read Message History in channel {hidden} of ALLOWED_CHANNELS",
    ]
    assert wrong[2].startswith("The bot cannot see channel 2 of ALLOWED_CHANNELS: ")
    assert any(each.cure.startswith("correct the id, or let") for each in found)
    assert any(each.text.startswith("The bot may answer in #") for each in found)


async def test_scopes_that_are_missing_are_named(store: Store, tmp_path: Path) -> None:
    few = {*SCOPES} - {"chat:write", "users:read"}
    async with scene(store, tmp_path, scopes=few) as it:
        works, said = await it.check()
    async with scene(store, tmp_path, scopes={*SCOPES} - {"users:read"}) as it:
        still_works, told = await it.check()

    assert not works
    assert "✗ Slack: The app lacks chat:write" in said
    assert still_works, told
    assert "! Slack: The app lacks users:read: I do not know what people are called" in told


async def test_a_channel_without_the_bot_is_reported() -> None:
    async with SlackEmulator() as slack:
        found = [
            finding
            async for finding in slack_setup.examine(
                SlackSettings(
                    bot_token=slack.bot_token, signing_secret="0" * 32, api_url=slack.api_url
                ),
                workspaces=["T404"],
                channels=[slack.channel_id, "C404"],
            )
        ]

    assert [each.text for each in found if each.wrong] == [
        f"Parley ({slack.team_id}) is not one of ALLOWED_SERVERS",
        "The bot does not see C404 of ALLOWED_CHANNELS",
    ]
    assert Finding("Slack", f"The bot is in {slack.channel_id}") in found


async def test_a_store_that_may_lose_turns_is_reported(store: Store, tmp_path: Path) -> None:
    used = int((await store.redis.info("memory"))["used_memory"])
    changes = {
        "appendonly": "no",
        "save": "",
        "maxmemory-policy": "allkeys-lru",
        "maxmemory": str(used + used // 100),
    }
    before = await store.redis.config_get(*changes)
    try:
        for name, chosen in changes.items():
            await store.redis.config_set(name, chosen)
        found = await examine_server(store)
    finally:
        for name in changes:
            await store.redis.config_set(name, before[name] or "")

    told = {each.text: each.cure for each in found}
    assert told["It keeps nothing on disk: turns can be lost"] == "set appendonly yes"
    assert told["It drops keys when memory is short: turns can be lost"].startswith("set maxmemory")
    assert told["It has hardly any memory left"].startswith("raise maxmemory")


async def test_a_file_that_others_can_read_and_a_taken_port_are_reported(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / ".env").touch(mode=0o644)
    (tmp_path / ".env").chmod(0o644)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with scene(store, tmp_path) as it:
            works, said = await it.check(PORT=str(port), WEB_PORT=str(port))

    assert not works
    assert f"chmod 600 {tmp_path / '.env'}" in said
    assert f"! Ports: PORT={port} on 127.0.0.1 cannot be used: Address already in use" in said
    # The page is not served beside Discord and Slack without a way to sign in.
    assert "WEB_PORT" not in said


async def test_the_ports_of_a_page_and_another_machine_are_tried(
    store: Store, tmp_path: Path
) -> None:
    async with scene(store, tmp_path) as it:
        _, said = await it.check(WEB_PASSWORD="a long one", HOST="192.0.2.1")

    assert "✓ Ports: WEB_PORT=0 is free" in said
    assert "! Ports: PORT=0 on 192.0.2.1 cannot be used: Cannot assign requested address" in said
    assert "set PORT or HOST to another" in said
    assert "QUESTIONS_PER_DAY" in said


async def test_a_folder_in_place_of_the_file_is_no_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir(mode=0o755)
    async with scene(store, tmp_path) as it:
        works, said = await it.check()

    assert works, said
    assert f"✓ Files: There is no file {tmp_path / '.env'}" in said


async def test_hugging_face_that_cannot_be_reached_is_reported_with_a_cure(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "ROUTER", "http://127.0.0.1:9/v1")
    monkeypatch.setattr(assistant, "ROUTER", "http://127.0.0.1:9/v1")
    async with scene(store, tmp_path) as it:
        works, said = await it.check(MODEL_URL="", HF_TOKEN="hf_x", MODEL_ID="org/model")

    assert not works
    assert "is this machine online, or does it need a proxy (HTTPS_PROXY)?" in said
    assert "Cannot connect to host" not in said


async def test_hugging_face_tells_context_and_price() -> None:
    async with ModelEmulator(flavour="router") as emulator:
        emulator.models = ("org/chosen",)
        emulator.providers = {"novita": "live", "groq": "error"}
        server = ModelServer(emulator.url, "hf_x", "org/chosen", own=False)
        async with connect(server) as router:
            found = await huggingface.examine(router, "org/chosen", hub=emulator.root)
            gone = await huggingface.examine(router, "org/other", hub=emulator.root)
            emulator.permissions = []
            refused = await huggingface.examine(router, "org/chosen", hub=emulator.root)

    assert [each.text.split(",")[0] for each in found] == [
        "novita serves org/chosen",
        "org/chosen failed the last check at groq",
    ]
    assert gone[0].wrong
    assert gone[0].cure.startswith("set MODEL_ID to a model that somebody serves")
    assert refused[0].text == "HF_TOKEN may not call any model"


async def test_the_invitation_has_what_the_bot_needs() -> None:
    output = io.StringIO()
    async with DiscordEmulator() as discord:
        settings = settings_of(discord_token=discord.token, discord_api_url=discord.api_url)
        await INVITE.run(settings, Namespace(), output)

    query = parse_qs(urlsplit(output.getvalue().strip()).query)
    assert query["client_id"] == [discord.application_id]
    assert query["scope"] == ["bot applications.commands"]
    # View Channels, Send Messages, Attach Files, Read Message History, Create Public Threads, Send
    # Messages in Threads: these bits of Discord's documentation, "Permissions".
    assert int(query["permissions"][0]) == sum(1 << bit for bit in (10, 11, 15, 16, 35, 38))


async def test_without_a_token_nobody_can_be_invited() -> None:
    with pytest.raises(CannotStart, match="DISCORD_TOKEN"):
        await INVITE.run(settings_of(), Namespace(), io.StringIO())


async def test_the_tools_of_the_operator_are_examined(store: Store, tmp_path: Path) -> None:
    async def call(*_: object) -> dict[str, Any]:
        return said("Nothing.")

    office = Handmade([tool("create")], call)
    servers = tmp_path / "servers.toml"
    async with scene(store, tmp_path) as it, office.serving() as address:
        servers.write_text(
            f"[servers.office]\nurl = '{address}'\n"
            "tools = { create = 'effects', close = 'effects' }\n"
        )
        works, output = await it.check(
            MCP_SERVERS=str(servers), SEARCH_URL="http://127.0.0.1:9", HF_TOKEN=""
        )

    assert not works
    assert "✓ Tools: office offers office/create" in output
    assert "✗ Tools: office: It has no tool close, but create." in output
    assert "✗ Tools: The search service cannot be reached." in output
    assert "correct SEARCH_URL (a SearXNG answers in JSON" in output
