"""A model's tokenizer comes from its repository, by the real library, and never in the way."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bot.domain import Json, Message
from bot.tokens import tokenizers
from bot.tokens.counters import TokenEstimator
from tests.emulators.hub import HubEmulator, hub

PROMPT = [Message("user", "Hello world")]
REPOSITORY = Path(__file__).parents[2]
FIND = """
import logging, sys
from pathlib import Path
from bot.tokens import tokenizers
from bot.domain import Message
logging.basicConfig(level=logging.INFO, format="%(message)s")
def found(counter):
    print("counted", counter.count([Message("user", "Hello world")]))
tokenizers.find(
    sys.argv[1], token=sys.argv[2], data_dir=Path(sys.argv[3]), endpoint=None, found=found
).join(20)
"""


async def looked_for(
    model: str, data_dir: Path, emulator: HubEmulator, *, token: str = ""
) -> list[TokenEstimator]:
    found: list[TokenEstimator] = []
    thread = tokenizers.find(
        model, token=token, data_dir=data_dir, endpoint=emulator.url, found=found.append
    )
    await asyncio.to_thread(thread.join, 20)
    return found


async def run_alone(
    emulator: HubEmulator, data_dir: Path, *, token: str = "", offline: bool = False
) -> str:
    """Look for a tokenizer in a process whose HF_ENDPOINT is the emulator."""
    variables = {
        "HF_ENDPOINT": emulator.url,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",  # as bot.model.client does
    }
    if offline:
        variables["HF_HUB_OFFLINE"] = "1"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", FIND, "org/model", token, str(data_dir)],
        env=os.environ | variables,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout + done.stderr


def make_tokenizer() -> bytes:
    """Return a tokenizer.json that has a token for each word."""
    tokenizers = pytest.importorskip("tokenizers", reason="pip install tokenizers")
    vocabulary = {"[UNK]": 0, "Hello": 1, "world": 2}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return str(tokenizer.to_str()).encode()


async def test_a_file_is_downloaded_and_kept(tmp_path: Path) -> None:
    async with hub() as emulator:
        emulator.files["org/model/tokenizer.json"] = make_tokenizer()
        emulator.gated.add("org/model")
        first = await run_alone(emulator, tmp_path, token=emulator.token)
        asked = len(emulator.asked)
        second = await run_alone(emulator, tmp_path, token=emulator.token)

    assert first.startswith("counted 10\n")
    assert second.startswith("counted 10\n")
    assert asked == len(emulator.asked) > 0
    assert {given for _, given in emulator.asked} == {emulator.token}


async def test_offline_the_hub_is_not_asked(tmp_path: Path) -> None:
    async with hub() as emulator:
        emulator.files["org/model/tokenizer.json"] = make_tokenizer()
        missing = await run_alone(emulator, tmp_path, offline=True)
        asked = list(emulator.asked)
        await run_alone(emulator, tmp_path)
        there = await run_alone(emulator, tmp_path, offline=True)

    assert asked == []
    assert "are estimated" in missing
    assert "HF_HUB_OFFLINE" in missing
    assert there.startswith("counted 10\n")


@pytest.mark.parametrize("name", ["org/model", "org/model:8b"])
async def test_a_models_folder_has_its_tokenizer_and_is_no_name_at_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes(make_tokenizer())
    (tmp_path / "org" / "bare").mkdir()
    monkeypatch.chdir(tmp_path)
    async with hub() as emulator:
        found = await looked_for(name, tmp_path, emulator)
        none = await looked_for("org/bare", tmp_path, emulator)

    assert [type(each) for each in found] == [TokenEstimator]
    assert none == []
    assert emulator.asked == []


@pytest.mark.parametrize("token", ["", "hf_without_access"])
async def test_a_gated_file_is_done_without(tmp_path: Path, token: str) -> None:
    async with hub() as emulator:
        emulator.files["org/model/tokenizer.json"] = make_tokenizer()
        emulator.gated.add("org/model")
        said = await run_alone(emulator, tmp_path, token=token)

    (line,) = [line for line in said.splitlines() if "are estimated" in line]
    assert "org/model" in line
    assert "hf_without_access" not in said
    assert "counted" not in said


async def test_another_models_tokenizer_counts_its_texts(tmp_path: Path) -> None:
    async with hub() as emulator:
        emulator.files["org/model/tokenizer.json"] = make_tokenizer()
        (counter,) = await looked_for("org/model", tmp_path, emulator)

    assert isinstance(counter, TokenEstimator)
    assert counter.count(PROMPT) >= 2 + 8
    assert counter.count([Message("user", "Hello " * 100)]) - counter.count(PROMPT) == 98


@pytest.mark.parametrize("content", [None, b"", b"{}", json.dumps([1]).encode(), b"\xff" * 1000])
async def test_a_file_that_is_missing_or_broken_is_done_without(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with hub() as emulator:
        if content is not None:
            emulator.files["org/model/tokenizer.json"] = content
        found = await looked_for("org/model", tmp_path, emulator)

    assert found == []
    (line,) = [each for each in caplog.messages if "are estimated" in each]
    assert "org/model" in line


def changed(tokenizer: bytes, changes: Mapping[str, Json]) -> bytes:
    return json.dumps({**json.loads(tokenizer), **changes}).encode()


SHORTENED: Json = {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
FILLED: Json = {
    "strategy": {"Fixed": 3000},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "[UNK]",
}


@pytest.mark.parametrize(
    "changes",
    [{"truncation": SHORTENED}, {"padding": FILLED}],
    ids=["truncation", "padding"],
)
async def test_a_file_makes_no_text_shorter_or_longer_than_its_tokens(
    tmp_path: Path, changes: Mapping[str, Json]
) -> None:
    async with hub() as emulator:
        emulator.files["org/model/tokenizer.json"] = changed(make_tokenizer(), changes)
        (counter,) = await looked_for("org/model", tmp_path, emulator)

    assert counter.count([Message("user", "Hello " * 100)]) - counter.count(PROMPT) == 98


async def test_a_file_that_is_far_too_large_is_not_fetched(tmp_path: Path) -> None:
    async with hub() as emulator:
        emulator.files["org/model/tokenizer.json"] = make_tokenizer()
        emulator.size = 10**9
        found = await looked_for("org/model", tmp_path, emulator)

    assert found == []
    assert [call for call, _ in emulator.asked] == ["HEAD tokenizer.json"]


async def test_a_hub_that_hangs_keeps_nobody_waiting(tmp_path: Path) -> None:
    found: list[TokenEstimator] = []
    async with hub() as emulator:
        emulator.hangs = True
        thread = tokenizers.find(
            "org/model", token="", data_dir=tmp_path, endpoint=emulator.url, found=found.append
        )

        assert thread.is_alive()
        assert thread.daemon
    await asyncio.to_thread(thread.join, 20)
    assert found == []


async def test_without_a_token_none_of_the_machine_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_machine")
    async with hub() as emulator:
        await looked_for("org/model", tmp_path, emulator)

    assert {given for _, given in emulator.asked} == {""}


def make_tokenizer_with(expression: str) -> bytes:
    """Return a tokenizer.json that splits texts by an expression and has no token for any word."""
    tokenizers = pytest.importorskip("tokenizers", reason="pip install tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(expression), "isolated"
    )
    return str(tokenizer.to_str()).encode()


# It tries each way to make a run of letters of pairs and single ones.
SLOW = r"(a|aa)+$"


@pytest.mark.parametrize(
    ("expression", "text"),
    [("x", "Hello world"), (SLOW, "a" * 40 + "b")],
    ids=["raises", "panics"],
)
async def test_the_estimate_takes_over_from_a_tokenizer_that_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, expression: str, text: str
) -> None:
    caplog.set_level(logging.INFO)
    prompt = [Message("user", text)]
    async with hub() as emulator:
        emulator.files["org/model/tokenizer.json"] = make_tokenizer_with(expression)
        found = await looked_for("org/model", tmp_path, emulator)

    counted = [found[0].count(prompt), found[0].count([Message("user", text * 2)])]

    assert counted[0] == TokenEstimator().count(prompt)
    assert counted[1] > counted[0]
    assert [each.share for each in found] == [TokenEstimator().share]
    (line,) = [each for each in caplog.messages if "are estimated" in each]
    assert text not in line
