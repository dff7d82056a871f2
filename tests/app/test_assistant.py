"""From settings to a model that reads as much of a question as it has room for."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from bot.access.preferences import ModelChoice
from bot.app.assistant import Assistant, model_choices, open_assistant
from bot.domain import Delta, Message, Preferences, Reading, Start, Used
from bot.errors import ModelUnknown
from bot.files.pictures import read_picture
from config.settings import Settings
from tests.emulators.model import ModelEmulator
from tests.support.pictures import png
from tests.support.settings import settings_of

MISTRAL = "mistralai/Mistral-7B-Instruct-v0.3"
LONG = "start " + "Straßenbahnhaltestelle, " * 2000 + "end"


async def answer(mind: Assistant, question: str = LONG) -> list[Delta]:
    """Return what is said, without what is told of tokens."""
    deltas = mind.model.stream([Message("user", question)])
    return [delta async for delta in deltas if not isinstance(delta, Reading | Used)]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]


@pytest.mark.parametrize(("key", "warned"), [("sk-s3cret", True), ("", False)])
async def test_a_key_that_goes_to_another_machine_unencrypted_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str, *, warned: bool
) -> None:
    async with ModelEmulator() as emulator:
        # It is this machine, but no address says so.
        url = emulator.url.replace("127.0.0.1", "0.0.0.0")
        settings = settings_of(model_url=url, model_api_key=key, data_dir=tmp_path)
        async with open_assistant(settings, asyncio.Event()):
            pass

    assert any("MODEL_API_KEY" in line for line in warnings(caplog)) is warned
    assert "s3cret" not in caplog.text


async def test_a_server_that_refuses_the_connection_is_reported_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening
        port = closed.getsockname()[1]
        settings = settings_of(
            model_url=f"http://bot:s3cret@127.0.0.1:{port}/v1", data_dir=tmp_path
        )
        async with open_assistant(settings, asyncio.Event()):
            pass

    (line,) = [each for each in warnings(caplog) if "MODEL_URL" in each]
    assert f"127.0.0.1:{port} cannot be reached: is it running, and is MODEL_URL right?" in line
    assert "s3cret" not in caplog.text


async def test_the_token_for_hugging_face_goes_to_no_other_server(tmp_path: Path) -> None:
    async with ModelEmulator() as emulator:
        emulator.answer = "Well."
        settings = settings_of(hf_token="hf_s3cret", model_url=emulator.url, data_dir=tmp_path)
        async with open_assistant(settings, asyncio.Event()) as mind:
            await answer(mind, "Hello")

    sent = [value for one in emulator.requests for value in one.headers.values()]
    assert sent
    assert not any("hf_s3cret" in value for value in sent)


@pytest.mark.parametrize("models", [(), (("eyes", "Eyes", ""),)])
async def test_questions_with_pictures_go_to_the_vision_model(
    tmp_path: Path, models: tuple[tuple[str, str, str], ...]
) -> None:
    cat = read_picture("cat.png", png(3, 5))
    assert cat
    async with ModelEmulator(flavour="ollama") as emulator:
        # The lists need not say that it sees.
        emulator.models, emulator.seeing = ("first:latest", "eyes:latest"), ("eyes:latest",)
        emulator.fail("POST /api/show", status=404, times=2)
        settings = settings_of(
            model_id="first",
            models=models,
            model_url=emulator.url,
            vision_model="eyes",
            data_dir=tmp_path,
        )
        async with open_assistant(settings, asyncio.Event()) as mind:
            emulator.requests.clear()
            question = Message("user", "What is it?", files=(cat,))
            deltas = [delta async for delta in mind.model.stream([question])]
            await answer(mind, "Hello")
            chosen = mind.model.chosen(Preferences(model="eyes"))
            own = [delta async for delta in chosen.stream([question])]

    names = ["eyes:latest", "first:latest", "eyes:latest"]
    assert [one.body["model"] for one in emulator.requests] == names
    # Who chose it knows it.
    assert not any(isinstance(delta, Start) for delta in own)
    assert [len(one.pictures) for one in emulator.requests] == [1, 0, 1]
    assert Start("Eyes" if models else "eyes:latest") in deltas


async def test_the_only_model_of_a_server_is_no_other_model(tmp_path: Path) -> None:
    async with ModelEmulator(flavour="vllm") as emulator:
        emulator.models = ("gemma",)
        settings = settings_of(
            model_id="mine", model_fallbacks=("other",), model_url=emulator.url, data_dir=tmp_path
        )
        async with open_assistant(settings, asyncio.Event()) as mind:
            (only,) = model_choices(settings, mind)
            # A failure after which another model would be asked at once.
            emulator.fail("chat/completions", status=404, body="{}")
            with pytest.raises(ModelUnknown):
                await answer(mind, "Hello")

    assert only.label == "gemma"
    assert [asked.body["model"] for asked in emulator.requests] == ["gemma"]


async def said_by(mind: Assistant, preferences: Preferences) -> list[Delta]:
    return await answer(replace(mind, model=mind.model.chosen(preferences)), "Hello")


def with_choices(emulator: ModelEmulator, data_dir: Path, max_tokens: int = 100) -> Settings:
    emulator.answer = "Well."
    emulator.models = ("small", "large:latest", "other")
    return settings_of(
        model_id="small",
        models=(("large", "Clever", ""), ("gone", "Gone", "")),
        model_url=emulator.url,
        data_dir=data_dir,
        temperature=0.5,
        max_tokens=max_tokens,
    )


async def test_each_question_goes_to_the_model_that_is_chosen_in_its_manner(tmp_path: Path) -> None:
    async with ModelEmulator() as emulator:
        settings = with_choices(emulator, tmp_path)
        async with open_assistant(settings, asyncio.Event()) as mind:
            said = await asyncio.gather(
                said_by(mind, Preferences()),
                said_by(mind, Preferences(model="large", temperature=0.0)),
                said_by(mind, Preferences(model="small", max_tokens=7)),
                said_by(mind, Preferences(max_tokens=1000)),
            )

    asked = {
        (one.body["model"], one.body["temperature"], one.body["max_tokens"])
        for one in emulator.requests
    }
    assert list(said) == [["Well."]] * 4
    assert asked == {
        ("small", 0.5, 100),
        ("large:latest", 0.0, 100),
        ("small", 0.5, 7),
        ("small", 0.5, 100),
    }


@pytest.mark.parametrize("name", ["gone", "no longer in MODELS"])
async def test_for_a_model_that_is_gone_another_answers_and_says_so(
    tmp_path: Path, name: str
) -> None:
    async with ModelEmulator(flavour="vllm") as emulator:
        settings = with_choices(emulator, tmp_path)
        async with open_assistant(settings, asyncio.Event()) as mind:
            said = await said_by(mind, Preferences(model=name))

    assert said == [Start("small"), "Well."]


async def test_people_read_the_label_of_a_model(tmp_path: Path) -> None:
    async with ModelEmulator(flavour="vllm") as emulator:
        settings = with_choices(emulator, tmp_path)
        labels = (("small", "Quick", ""), ("large", "Clever", ""), ("gone", "Gone", ""))
        settings = replace(settings, models=labels)
        async with open_assistant(settings, asyncio.Event()) as mind:
            said = await said_by(mind, Preferences(model="gone"))
            clever = mind.model.chosen(Preferences(model="large"))
            choices = model_choices(settings, mind)

    assert said == [Start("Quick"), "Well."]
    assert (mind.model.name, clever.name) == ("Quick", "Clever")
    assert mind.label.startswith("Quick at ")
    assert choices[0] == ModelChoice("small", "Quick")


async def test_the_only_model_of_a_server_does_not_answer_for_a_chosen_one(tmp_path: Path) -> None:
    async with ModelEmulator(flavour="vllm") as emulator:
        settings = with_choices(emulator, tmp_path)
        emulator.models = ("mine",)
        async with open_assistant(settings, asyncio.Event()) as mind:
            said = [
                await said_by(mind, Preferences(model="small")),
                await said_by(mind, Preferences(model="large")),
            ]

    assert said == [["Well."], [Start("mine"), "Well."]]


async def test_a_chosen_model_has_its_own_context_size(tmp_path: Path) -> None:
    async with ModelEmulator(flavour="vllm") as emulator:
        emulator.context = 300
        settings = with_choices(emulator, tmp_path, max_tokens=1000)
        emulator.models = ("large:latest", "other")  # the first one is not known
        async with open_assistant(settings, asyncio.Event()) as mind:
            await said_by(mind, Preferences(model="large"))

    assert [one.body["max_tokens"] for one in emulator.requests] == [150]


def test_people_choose_among_the_models_of_one_source(tmp_path: Path) -> None:
    settings = settings_of(
        model_url="http://some", model_id="a", models=(("b", "Fast", "for most"), ("c", "c", ""))
    )

    assert model_choices(settings) == (
        ModelChoice("a", "a"),
        ModelChoice("b", "Fast", "for most"),
        ModelChoice("c", "c"),
    )
    assert model_choices(replace(settings, model_id="b")) == (
        ModelChoice("b", "Fast", "for most"),
        ModelChoice("c", "c"),
    )
    assert model_choices(replace(settings, models=())) == (ModelChoice("a", "a"),)
    assert model_choices(replace(settings, model_url="", model_id="demo")) == ()
    assert model_choices(replace(settings, model_url="", local_model_path=tmp_path)) == ()
