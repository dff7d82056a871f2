"""What /metrics tells of the models."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, aclosing

import pytest
from prometheus_client import REGISTRY

from bot.domain import Message
from bot.errors import AnswerCut, ModelError, PromptRefused
from bot.model.client import RequestMetrics
from tests.emulators.model import ModelEmulator
from tests.support.model import OneAttempt, open_model
from tests.support.waiting import at_least

ASK = "POST /v1/chat/completions"
PROMPT = [Message("user", "What is it?")]
SAID = "You said: What is it?"


def number(name: str, model: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"parley_model_{name}", {"model": model, **labels}) or 0.0


def tokens(model: str) -> tuple[float, float]:
    read, written = (number("tokens_total", model, direction=it) for it in ("in", "out"))
    return read, written


def open_named(emulator: ModelEmulator, name: str) -> AbstractAsyncContextManager[OneAttempt]:
    """Open a model of the test's own name, for counters only rise."""
    return open_model(base_url=emulator.url, model=name, idle_timeout=30.0, total_timeout=60.0)


async def words(model: OneAttempt) -> str:
    return "".join([delta async for delta in model.stream(PROMPT)])


async def answer(emulator: ModelEmulator, name: str, *, times: int = 1) -> str:
    """Return the last answer of a model of this name."""
    async with open_named(emulator, name) as model:
        return [await words(model) for _ in range(times)][-1]


async def test_tokens_are_those_that_the_server_counted() -> None:
    async with ModelEmulator() as emulator:
        assert await answer(emulator, "counted", times=2) == SAID

    assert emulator.requests[0].body["stream_options"] == {"include_usage": True}
    # "What is it?" within the template, and "You said: What is it?", marks and all.
    assert tokens("counted") == (2 * 10, 2 * 7)


async def test_a_server_that_tells_no_count_is_not_counted() -> None:
    async with ModelEmulator() as emulator:
        emulator.finish_reason = None
        emulator.done = 'data: {"choices": [], "usage": null}\n\ndata: [DONE]'
        emulator.refuses = ["stream_options"]
        assert await answer(emulator, "uncounted") == SAID

    assert tokens("uncounted") == (0, 0)
    assert number("tokens_per_second_count", "uncounted") == 0
    assert number("first_token_seconds_count", "uncounted") == 1


async def test_a_server_that_does_not_know_the_field_is_asked_without_it_from_then_on() -> None:
    async with ModelEmulator() as emulator:
        emulator.refuses = ["stream_options"]
        assert await answer(emulator, "strict", times=2) == SAID

    assert ["stream_options" in asked.body for asked in emulator.requests] == [True, False, False]
    assert number("failures_total", "strict", kind="UsageRefused") == 0


async def test_a_refusal_that_repeats_the_question_changes_nothing() -> None:
    echo = {"detail": [{"msg": "bad", "input": '{"stream_options": 1}'}]}
    async with ModelEmulator() as emulator:
        emulator.fail(ASK, status=422, body=echo, times=2)
        async with open_named(emulator, "echoed") as model:
            with pytest.raises(PromptRefused) as refused:
                await words(model)
            assert await words(model) == SAID

    assert type(refused.value) is PromptRefused
    asked = ["stream_options" in asked.body for asked in emulator.requests]
    assert asked == [True, False, True]


@pytest.mark.parametrize(
    "usage",
    [
        '{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}',
        # With every event, or beside the last words: the last is right.
        '{"choices": [{"delta": {}, "finish_reason": "stop"}],'
        ' "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
        'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}',
    ],
)
async def test_a_count_may_come_after_the_end_of_the_text(usage: str) -> None:
    name = f"late {len(usage)}"
    async with ModelEmulator() as emulator:
        emulator.refuses = ["stream_options"]
        emulator.done = f"data: {usage}\n\ndata: [DONE]"
        await answer(emulator, name)

    assert tokens(name) == (3, 5)


@pytest.mark.parametrize("usage", ["[]", '"no"', '{"prompt_tokens": "3"}', "{{", "null"])
async def test_no_count_is_too_strange(usage: str) -> None:
    async with ModelEmulator() as emulator:
        emulator.refuses = ["stream_options"]
        emulator.done = f'data: {{"choices": [], "usage": {usage}}}\n\ndata: [DONE]'

        assert await answer(emulator, "strange") == SAID

    assert tokens("strange") == (0, 0)


async def test_the_first_token_and_the_speed_are_measured() -> None:
    async with ModelEmulator() as emulator:
        emulator.answer, emulator.chunk = "one two three four five", 4
        emulator.first_delay, emulator.delay = 0.3, 0.05
        await answer(emulator, "timed")

    assert number("first_token_seconds_sum", "timed") >= at_least(0.3)
    assert number("first_token_seconds_bucket", "timed", le="0.25") == 0
    # Four tokens after the first, in five pauses of 0.05 s.
    assert 0 < number("tokens_per_second_sum", "timed") <= 16.5


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "ModelDenied"), (429, "ModelBusy"), (500, "ModelUnavailable")]
)
async def test_failures_are_counted_by_kind(status: int, kind: str) -> None:
    async with ModelEmulator() as emulator:
        emulator.fail(ASK, status=status)
        with pytest.raises(ModelError):
            await answer(emulator, "failing")

    assert number("failures_total", "failing", kind=kind) == 1
    assert number("first_token_seconds_count", "failing") == 0


async def test_an_answer_that_is_stopped_or_cut_is_no_failure() -> None:
    with pytest.raises(AnswerCut), RequestMetrics("cut"):
        raise AnswerCut("MAX_TOKENS")
    async with (
        ModelEmulator() as emulator,
        open_named(emulator, "stopped") as model,
        aclosing(model.stream(PROMPT)) as stream,
    ):
        await anext(stream)

    failed = [
        sample
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "parley_model_failures_total"
        and sample.labels["model"] in ("cut", "stopped")
    ]
    assert failed == []
    assert number("first_token_seconds_count", "stopped") == 1
