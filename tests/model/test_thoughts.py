"""What a model thinks is told beside its answer, over real sockets, however the server sends it."""

from __future__ import annotations

import pytest

from bot.domain import Delta, Start
from bot.errors import EmptyAnswer, ModelError
from bot.reply.thoughts import Thoughts
from tests.emulators.model import ModelEmulator
from tests.model.test_client import PROMPT, connected, deltas, serve_body
from tests.model.test_client_bounds import connected as connected_for_long
from tests.model.test_client_bounds import make_event, serve_pieces
from tests.support.model import OneAttempt, open_retrying

THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Well, "}]}


async def read(model: OneAttempt) -> tuple[str, str]:
    """Return what the model has thought, and its answer."""
    thoughts = Thoughts()
    said = [delta async for delta in model.stream(PROMPT, on_thought=thoughts)]
    return thoughts.value.text, "".join(said)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_thoughts_in_a_field_of_their_own_are_told(field: str) -> None:
    async with ModelEmulator() as emulator, connected(emulator.url) as model:
        emulator.thoughts, emulator.thinks_in, emulator.answer = "Well, 6 * 7.", field, "42"

        assert await read(model) == ("Well, 6 * 7.", "42")


@pytest.mark.parametrize(
    ("said", "thought", "text"),
    [
        ("<think>Well, 6 * 7.</think>42", "Well, 6 * 7.", "42"),
        ("\n<think>\nA < b, </ or so.\n</think>\n\n42", "A < b, </ or so.\n", "42"),
        ("[THINK]Well.[/THINK]42", "Well.", "42"),
        ("<think></think>42", "", "42"),
        ("<think>\n\n</think>\n\n42", "", "42"),
        ("<think>1</think>42 <think>2</think>", "1", "42 <think>2</think>"),
        ("4 < 2", "", "4 < 2"),
    ],
)
@pytest.mark.parametrize("length", [1, 3, 1000])
async def test_thoughts_in_the_text_are_told_without_their_marks(
    said: str, thought: str, text: str, length: int
) -> None:
    async with ModelEmulator() as emulator, connected(emulator.url) as model:
        emulator.answer, emulator.chunk = said, length

        assert await read(model) == (thought, text)


async def test_a_thought_that_comes_in_two_fields_is_told_once_and_in_parts_whole() -> None:
    body = deltas(
        {"reasoning": "Hm. ", "reasoning_content": "Hm. ", "content": ""},
        {"content": [THINKING, {"type": "text", "text": "4"}]},
        {"content": "2"},
    )
    async with serve_body(body) as url, connected(url) as model:
        assert await read(model) == ("Hm. Well, ", "42")


@pytest.mark.parametrize(
    "strange",
    [
        {"reasoning": {"text": "no"}},
        {"reasoning_content": ["no"]},
        {"content": [{"type": "thinking", "thinking": "no"}]},
        {"content": [{"type": "thinking", "thinking": [{"text": 1}]}]},
        {"content": [{"type": "thinking"}]},
    ],
)
async def test_a_thought_in_a_form_that_nobody_knows_costs_no_answer(
    strange: dict[str, object],
) -> None:
    body = deltas({"reasoning": "Hm."}, strange, {"content": "42"})

    async with serve_body(body) as url, connected(url) as model:
        assert await read(model) == ("Hm.", "42")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_thoughts_without_an_end_fail_as_thoughts(field: str) -> None:
    async with (
        serve_pieces([make_event("hm " * 9000, field=field)], again=True) as (url, hung_up),
        connected_for_long(url) as model,
    ):
        with pytest.raises(EmptyAnswer, match="only thoughts"):
            await read(model)
        await hung_up.wait()


async def test_an_answer_that_begins_anew_has_no_thoughts_of_the_attempt_before() -> None:
    thought = iter(["First thoughts.", "Second thoughts."])
    thoughts, said = Thoughts(), list[Delta]()
    async with ModelEmulator() as emulator, open_retrying(emulator) as model:
        emulator.answer, emulator.thoughts = "It is 42.", lambda _: next(thought)
        emulator.fail("completions", "drop", at_delta=1)
        async for delta in model.stream(PROMPT, on_thought=thoughts):
            said.append(delta)

    assert Start("") in said
    assert thoughts.value.text == "Second thoughts."


async def test_a_model_that_only_thinks_fails_as_one(model: ModelEmulator) -> None:
    model.thoughts, model.answer, model.finish_reason = "Hm.", "", "length"
    async with connected(model.url) as client:
        with pytest.raises(ModelError, match="raise MAX_TOKENS"):
            await read(client)
