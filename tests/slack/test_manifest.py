"""The manifest: what is written of it, and that the emulator grants what it asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from adapters.slack.manifest import EVENTS, SCOPES, WITHOUT, as_yaml, manifest
from bot.app.platforms import load_settings
from bot.commands.handlers import COMMANDS
from config.settings import SettingsError
from tests.emulators.slack import EVENTS as EMULATED_EVENTS
from tests.emulators.slack import SCOPES as EMULATED_SCOPES

ROOT = Path(__file__).parents[2]
FILE = ROOT / "config" / "slack_manifest.yaml"


def test_the_file_is_what_the_code_asks_for() -> None:
    # python -m bot manifest > config/slack_manifest.yaml
    assert FILE.read_text(encoding="utf-8") == as_yaml(manifest())


@pytest.mark.parametrize("base_url", ["", "https://bot.example"])
def test_the_yaml_reads_as_the_manifest(base_url: str) -> None:
    prompts = [("Yes: #1", 'Say "on", {now}: [x] & <b>\n- é')]

    asked = manifest(base_url=base_url, prompts=prompts)

    assert yaml.safe_load(as_yaml(asked)) == asked


def test_each_scope_and_event_has_its_reason_in_the_file() -> None:
    lines = FILE.read_text(encoding="utf-8").splitlines()

    for name, reason in {**SCOPES, **EVENTS}.items():
        assert f'"{name}" # {reason}' in "\n".join(lines)


def test_the_emulator_grants_the_scopes_and_events_of_the_manifest() -> None:
    assert set(SCOPES) == EMULATED_SCOPES
    assert set(EVENTS) == EMULATED_EVENTS
    assert set(WITHOUT) <= set(SCOPES)


def test_several_workspaces_come_back_to_the_address_and_get_tokens_that_rotate() -> None:
    back = "https://bot.example/slack/oauth_redirect"

    asked = yaml.safe_load(as_yaml(manifest(redirect_url=back)))

    assert asked["oauth_config"]["redirect_urls"] == [back]
    settings = asked["settings"]
    assert settings["token_rotation_enabled"] is settings["org_deploy_enabled"] is True
    assert manifest()["settings"]["token_rotation_enabled"] is False  # type: ignore[index,call-overload]


def test_over_http_events_commands_and_presses_have_the_address() -> None:
    asked = yaml.safe_load(as_yaml(manifest(base_url="https://bot.example/")))

    url = "https://bot.example/slack/events"
    assert [one["url"] for one in asked["features"]["slash_commands"]] == [url, url]
    settings = asked["settings"]
    assert settings["event_subscriptions"]["request_url"] == url
    assert settings["interactivity"]["request_url"] == url
    assert settings["socket_mode_enabled"] is False


def test_it_names_no_model() -> None:
    assert "Mistral" not in FILE.read_text(encoding="utf-8")


def test_names_are_as_long_as_slack_takes_them() -> None:
    # docs: App manifest reference, features.
    features = yaml.safe_load(FILE.read_text(encoding="utf-8"))["features"]

    assert all(len(one["name"]) <= 24 for one in features["shortcuts"])
    assert all(len(one["description"]) <= 150 for one in features["shortcuts"])
    assert all(len(one["command"]) <= 32 for one in features["slash_commands"])
    assert all(len(one["usage_hint"]) <= 1000 for one in features["slash_commands"])
    assert all(name in features["slash_commands"][1]["usage_hint"] for name in COMMANDS)


def test_the_command_line_prints_it_with_the_operators_prompts(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bot", "manifest", "--http", "https://bot.example"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "SLACK_SUGGESTED_PROMPTS": "Hi: Hello? | News: What is new?"},
    )

    prompts = (("Hi", "Hello?"), ("News", "What is new?"))
    assert ended.stderr == ""
    assert ended.stdout == as_yaml(manifest(base_url="https://bot.example", prompts=prompts))


def test_install_link_prints_where_workspaces_install_the_app(tmp_path: Path) -> None:
    def printed(**variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bot", "install-link"]
        environment = {"PYTHONPATH": str(ROOT), **variables}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment
        )

    ended = printed(
        SLACK_CLIENT_ID="1.2",
        SLACK_CLIENT_SECRET="secret",
        SLACK_STORE_KEY="c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I=",
        SLACK_PUBLIC_URL="https://bot.example/",
    )

    assert ended.stderr == ""
    assert ended.stdout.startswith("https://bot.example/slack/install\n")
    assert "https://bot.example/slack/oauth_redirect" in ended.stdout
    assert "install-link needs SLACK_CLIENT_ID" in printed().stderr


@pytest.mark.parametrize("text", ["Hi", "Hi:", ": Hello?", "|".join(["A: b"] * 5)])
def test_prompts_are_up_to_four_with_a_title_and_a_message(text: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SLACK_SUGGESTED_PROMPTS"):
        load_settings({"SLACK_SUGGESTED_PROMPTS": text}, tmp_path / ".env")
