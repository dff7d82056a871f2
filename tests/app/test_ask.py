"""Questions of scripts, over an emulated model server."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest

import bot
from bot.errors import ModelError, PromptRefused
from config.settings import Settings
from tests.emulators.model import ModelEmulator
from tests.support.pictures import gif
from tests.support.waiting import until

COMPLETIONS = "POST /v1/chat/completions"


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: ModelEmulator) -> Path:
    """The folder of a script whose .env, and nothing else, names the emulated model."""
    for variable in fields(Settings):
        monkeypatch.delenv(variable.name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    choose(tmp_path, MODEL_URL=model.url)
    return tmp_path


def choose(folder: Path, **variables: str) -> None:
    lines = [f"{name}={value}\n" for name, value in variables.items()]
    (folder / ".env").write_text("".join(lines))


async def test_many_questions_are_asked_at_once_and_each_knows_only_itself(
    chosen: Path, model: ModelEmulator
) -> None:
    choose(chosen, MODEL_URL=model.url, SYSTEM_PROMPT="Be brief.")
    async with bot.asking() as ask:
        answers = await asyncio.gather(*(ask(f"Number {number}") for number in range(8)))

    assert answers == [f"You said: Number {number}" for number in range(8)]
    assert sorted(each.messages[1]["content"] for each in model.requests) == [
        f"Number {number}" for number in range(8)
    ]
    assert all(each.messages[0]["content"].startswith("Be brief.") for each in model.requests)
    assert all(len(each.messages) == 2 for each in model.requests)


async def test_a_cut_answer_is_returned_and_the_log_says_that_it_is_cut(
    chosen: Path, model: ModelEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    choose(chosen, MODEL_URL=model.url, MAX_TOKENS="3")
    model.answer = "one two three four five six"
    async with bot.asking() as ask:
        said = await ask("Count.")

    assert said
    assert model.answer.startswith(said)
    assert said != model.answer
    assert [each.levelno for each in caplog.records if "MAX_TOKENS=3" in each.getMessage()] == [
        logging.WARNING
    ]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("MAX_TOKENS", "many", "MAX_TOKENS='many' is not a whole number"),
        ("LOCAL_MODEL_PATH", __file__, "LOCAL_MODEL_PATH="),
    ],
)
async def test_what_the_settings_do_not_allow_is_a_model_error_too(
    chosen: Path, name: str, value: str, told: str
) -> None:
    choose(chosen, **{name: value})

    with pytest.raises(ModelError) as failed:
        async with bot.asking():
            pass

    assert str(failed.value).startswith(told)


async def test_no_question_is_refused(chosen: Path, model: ModelEmulator) -> None:
    async with bot.asking() as ask:
        with pytest.raises(PromptRefused):
            await ask(" \n")

    assert not model.requests


async def test_a_question_that_is_too_long_loses_its_middle_and_the_log_says_so(
    chosen: Path, model: ModelEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    choose(
        chosen,
        MODEL_URL=model.url,
        CONTEXT_TOKENS="300",
        MAX_TOKENS="100",
        SYSTEM_PROMPT_LINE="off",
    )
    async with bot.asking() as ask:
        said = await ask("start " + "middle " * 2000 + "end")

    assert "[…]" in said
    (record,) = [each for each in caplog.records if each.name == "bot.app.ask"]
    assert record.levelno == logging.WARNING


async def test_who_is_cancelled_hangs_up(chosen: Path, model: ModelEmulator) -> None:
    model.first_delay = 60
    async with bot.asking() as ask:
        asked = asyncio.ensure_future(ask("Hello"))
        await until(lambda: model.running)
        asked.cancel()
        await until(lambda: not model.running)

    assert asked.cancelled()


async def test_an_answer_grows_and_knows_what_was_said_before(
    chosen: Path, model: ModelEmulator
) -> None:
    model.answer = " one two three four \n"
    async with bot.asking() as ask:
        said = [
            each
            async for each in ask.stream("And?", history=[("First", "Second")], system="Be brief.")
        ]

    assert said[-1] == "one two three four"
    assert len(said) > 1
    assert all(later.startswith(earlier) for earlier, later in pairwise(said))
    assert [each["content"] for each in model.requests[0].messages] == [
        *("Be brief.", "First", "Second", "And?")
    ]


async def test_a_script_asks_about_files(
    chosen: Path, model: ModelEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    (chosen / "notes.txt").write_text("The key is under the mat.")
    (chosen / "cat.gif").write_bytes(gif(3, 5))

    files: list[str | Path] = ["notes.txt", chosen / "cat.gif"]
    said = await bot.ask_async("Where is it?", files=files)

    assert "| The key is under the mat.\n" in said
    assert "I cannot see pictures, so I have not looked at `cat.gif`." in caplog.messages


async def test_a_model_that_sees_gets_the_picture(
    chosen: Path, model: ModelEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    model.seeing = model.models
    (chosen / "cat.gif").write_bytes(gif(3, 5))

    async with bot.asking() as ask:
        await ask("What is it?", files=["cat.gif"])

    assert model.requests[0].pictures == [("image/gif", gif(3, 5))]
    assert not any("cat.gif" in line for line in caplog.messages)


async def test_each_question_has_its_own_files(chosen: Path, model: ModelEmulator) -> None:
    (chosen / "notes.txt").write_text("The key is under the mat.")
    async with bot.asking() as ask:
        first = await ask("Where?", files=["notes.txt"])
        said = [each async for each in ask.stream("Sure?", history=[("Where?", "There.")])]

    assert "under the mat" in first
    assert "under the mat" not in said[-1]
