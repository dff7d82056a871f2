"""What the Slack emulator grants an app is what our manifest asks Slack for."""

from __future__ import annotations

from pathlib import Path

from tests.emulators.slack import EVENTS, SCOPES

MANIFEST = Path(__file__).parents[3] / "config" / "slack_manifest.yaml"


def test_the_manifest_asks_for_the_scopes_events_and_commands_that_are_emulated() -> None:
    assert sorted(listed("bot")) == sorted(SCOPES)
    assert sorted(listed("bot_events")) == sorted(EVENTS)
    assert listed("slash_commands") == ["command: /ask"]


def listed(name: str) -> list[str]:
    """Return the items under a name of the manifest, each its first line without a comment."""
    lines = MANIFEST.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip() == f"{name}:")
    indent = len(lines[start]) - len(lines[start].lstrip())
    items = []
    for line in lines[start + 1 :]:
        if len(line) - len(line.lstrip()) <= indent:
            break
        if line.lstrip().startswith("- "):
            items.append(line.split("#")[0].strip().removeprefix("- "))
    return items
