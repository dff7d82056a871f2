"""The example of a platform, as an installed package beside an unchanged bot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.app.platforms import all_specs
from bot.errors import CannotStart
from tests.emulators.model import ModelEmulator
from tests.platforms.harness import LOOPBACK, installed, loopback, uninstalled
from tests.support.process import ROOT, bot, python
from tests.support.waiting import until


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    folder = tmp_path / "installed"
    folder.mkdir()
    paths = [*installed(folder, monkeypatch), str(ROOT)]
    yield {"PYTHONPATH": os.pathsep.join(paths)}
    uninstalled()


async def test_it_is_answered_by_a_process_that_finds_it_by_its_entry_point(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    async with ModelEmulator() as model, loopback() as here:
        model.answer = lambda _: "In the hills."
        variables = environment | {"LOOPBACK_URL": here.address, "MODEL_URL": model.url}
        async with bot(data_dir=tmp_path, variables=variables) as process:
            asked = await here.ask("where does it rain?")
            await until(lambda: len(here.chat.messages) > 1, why=process.text)
            answer = next(one for one in here.chat.messages.values() if one.author == "parley")
            await until(lambda: answer.text == "In the hills.", why=process.text)

    assert "Running as loopback, worker" in process.text()
    assert asked.text == "where does it rain?"


async def test_its_set_up_is_checked_and_its_settings_are_known(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    async with loopback() as here:
        variables = environment | {"LOOPBACK_URL": here.address, "LOOPBACK_ULR": "x"}
        async with python("-m", "bot", "check", folder=tmp_path, variables=variables) as wrong:
            _, mistakes = await wrong.communicate()
        del variables["LOOPBACK_ULR"]
        async with python("-m", "bot", "check", folder=tmp_path, variables=variables) as right:
            found, _ = await right.communicate()

    assert b"did you mean LOOPBACK_URL?" in mistakes
    assert "✓ Loopback: The chat answers" in found.decode()


def test_a_package_that_names_no_platform_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = tmp_path / "odd-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: odd\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[parley.platforms]\nodd = json:loads\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    all_specs.cache_clear()
    try:
        with pytest.raises(CannotStart, match="json:loads is no platform"):
            all_specs()
    finally:
        uninstalled()


def test_the_adapter_is_short() -> None:
    lines = (LOOPBACK / "parley_loopback" / "platform.py").read_text().splitlines()

    assert len(lines) <= 300


def test_each_adapter_with_a_spec_is_found() -> None:
    names = [spec.name for spec in all_specs()]

    assert names[:5] == ["discord", "matrix", "slack", "web", "console"]
