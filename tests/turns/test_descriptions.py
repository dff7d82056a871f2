"""Descriptions of pictures, which are kept in their place."""

from __future__ import annotations

import asyncio

import pytest

from bot.domain import FileText, Preferences, Used
from bot.model.retrying import RetryingModel
from bot.text.files import file_block, left_out_of
from bot.tokens.counters import Meter
from bot.turns.files import describe
from tests.emulators.model import ModelEmulator
from tests.model.test_pictures import CALL, opened, picture
from tests.support.waiting import until


async def described(model: RetryingModel, *, seconds: float = 20.0) -> tuple[FileText | None, Used]:
    meter = Meter()
    deadline = asyncio.get_running_loop().time() + seconds
    found = await describe(model, picture(), chosen=Preferences(), meter=meter, deadline=deadline)
    return found, meter.used


async def test_a_description_is_a_text_of_the_file_and_its_tokens_are_counted() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing, emulator.answer = emulator.models, "A  grey\ncat,\non a mat. "
        async with opened(emulator) as model:
            found, used = await described(model)

    (asked,) = emulator.requests
    assert len(asked.pictures) == 1
    assert asked.body["temperature"] == 0.0
    text = "A picture, which shows: A grey cat, on a mat."
    assert found == FileText("cat.png", text, unit="picture")
    assert file_block([found]).splitlines()[1:-1] == [
        "| A picture, which shows: A grey cat, on a mat."
    ]
    assert left_out_of([found]) == ""
    assert used.read > 100
    assert used.written > 5


async def test_a_long_description_ends_after_500_characters() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing, emulator.answer = emulator.models, "w" * 600
        async with opened(emulator) as model:
            found, _ = await described(model)

    assert found
    assert found.text == f"A picture, which shows: {'w' * 500}"


async def test_a_description_that_reaches_its_limit_of_tokens_is_kept() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing, emulator.answer = emulator.models, "a " * 600
        async with opened(emulator) as model:
            found, _ = await described(model)

    assert found
    assert "a a a" in found.text


async def test_a_model_that_thinks_for_long_describes_a_picture() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing = emulator.models
        emulator.answer = f"<think>{'Is it a cat? ' * 200}</think>A cat."
        async with opened(emulator, max_tokens=2000) as model:
            found, _ = await described(model)

    assert found
    assert found.text == "A picture, which shows: A cat."


async def test_a_description_that_breaks_off_is_made_again_whole() -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing, emulator.answer = emulator.models, "A grey cat on a mat."
        emulator.fail(CALL, "drop", at_delta=1)
        async with opened(emulator) as model:
            found, _ = await described(model)

    assert found
    assert found.text == "A picture, which shows: A grey cat on a mat."


@pytest.mark.parametrize("why", ["blind", "refused", "failed", "silent"])
async def test_a_picture_that_no_model_sees_is_not_described(why: str) -> None:
    async with ModelEmulator() as emulator:
        emulator.seeing = () if why == "blind" else emulator.models
        match why:
            case "refused":
                emulator.fail(CALL, status=400, body={"error": {"message": "no image"}})
            case "failed":
                emulator.fail(CALL, status=401)
            case "silent":
                emulator.fail(CALL, "hang")
        async with opened(emulator) as model:
            found, _ = await described(model, seconds=0.5 if why == "silent" else 20.0)

    assert found is None


async def test_a_caller_that_is_cancelled_ends_the_request() -> None:
    begun = asyncio.Event()
    async with ModelEmulator() as emulator:
        emulator.seeing, emulator.answer = emulator.models, [(begun, "never")]
        async with opened(emulator) as model:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await described(model)
            await until(lambda: not emulator.running)
