"""A model that fails, over a real socket: asked again, left alone, followed by the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bot.domain import (
    BeginningLeftOut,
    Delta,
    Json,
    LeftOut,
    Message,
    Reading,
    Retrying,
    Start,
    Used,
)
from bot.errors import (
    AnswerCut,
    EmptyAnswer,
    ModelBusy,
    ModelDenied,
    ModelElsewhere,
    ModelError,
    ModelUnavailable,
    ModelUnknown,
    ModelUnpaid,
    PromptRefused,
    PromptTooLong,
)
from bot.model.retrying import RetryingModel
from tests.emulators.model import How, ModelEmulator
from tests.support.model import QUICK, open_retrying
from tests.support.waiting import until

PROMPT = [Message("user", "What is it?")]
SAID = "You said: What is it?"
ASK = "POST /v1/chat/completions"


async def answer(model: RetryingModel) -> list[Delta]:
    """Return what is said; the pauses between attempts have tests of their own."""
    told = Retrying | Reading | Used
    return [delta async for delta in model.stream(PROMPT) if not isinstance(delta, told)]


def words(said: Sequence[Delta]) -> str:
    """What stands at the end of an answer that may have begun anew."""
    text = ""
    for one in said:
        assert not isinstance(one, LeftOut | Retrying | BeginningLeftOut)
        if isinstance(one, str | Start):
            text = "" if isinstance(one, Start) else text + one
    return text


async def failure(model: RetryingModel) -> tuple[list[Delta], ModelError]:
    said: list[Delta] = []
    try:
        async for delta in model.stream(PROMPT):
            if not isinstance(delta, Retrying | Reading):
                said.append(delta)
    except ModelError as error:
        return said, error
    raise AssertionError(f"no failure after {said!r}")


def starts(said: Sequence[Delta]) -> list[Start]:
    return [one for one in said if isinstance(one, Start)]


class TestAgain:
    @pytest.mark.parametrize(
        ("how", "status"),
        [("status", 500), ("status", 502), ("status", 429), ("status", 503), ("error_event", 500)],
    )
    async def test_a_failure_that_passes_is_not_seen(self, how: How, status: int) -> None:
        async with ModelEmulator() as emulator, open_retrying(emulator) as model:
            emulator.fail(ASK, how, status=status, times=2)
            said = await answer(model)

        assert (words(said), starts(said)) == (SAID, [])
        assert len(emulator.requests) == 3

    async def test_a_server_that_comes_back_answers_who_waits(self) -> None:
        async with ModelEmulator() as emulator, open_retrying(emulator) as model:
            await emulator.refuse_connections()
            asked = asyncio.create_task(answer(model))
            done, _ = await asyncio.wait([asked], timeout=0.1)
            assert not done
            await emulator.accept_connections()

            assert words(await asked) == SAID

    async def test_a_model_that_says_nothing_is_asked_again(self) -> None:
        async with ModelEmulator() as emulator, open_retrying(emulator, idle=0.2) as model:
            emulator.fail(ASK, "hang")

            assert words(await answer(model)) == SAID
            await until(lambda: emulator.requests[0].hung_up_at)

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (401, ModelDenied),
            (402, ModelUnpaid),
            (403, ModelDenied),
            (307, ModelElsewhere),
            (404, ModelUnknown),
            (405, ModelElsewhere),
            (413, PromptTooLong),
            (422, PromptRefused),
        ],
    )
    async def test_what_does_not_pass_is_reported_at_once(
        self, status: int, error: type[ModelError]
    ) -> None:
        async with ModelEmulator() as emulator, open_retrying(emulator) as model:
            emulator.fail(ASK, status=status, times=9)
            _, told = await failure(model)

        assert type(told) is error
        assert len(emulator.requests) == 1

    async def test_an_empty_answer_is_reported_at_once(self) -> None:
        async with ModelEmulator() as emulator, open_retrying(emulator) as model:
            emulator.answer = ""
            _, told = await failure(model)

        assert type(told) is EmptyAnswer
        assert len(emulator.requests) == 1

    async def test_white_space_alone_is_an_empty_answer(self) -> None:
        async with ModelEmulator() as one, ModelEmulator() as two, open_retrying(one, two) as model:
            one.answer, one.chunk = " \n \n", 1
            said = await answer(model)

        assert (words(said), starts(said)) == (SAID, [Start("second")])

    async def test_a_break_after_white_space_is_one_before_the_first_word(self) -> None:
        async with ModelEmulator() as emulator, open_retrying(emulator) as model:
            emulator.answer, emulator.chunk = " \n \nYes.", 1
            emulator.fail(ASK, "reset", at_delta=3, times=3)
            said = await answer(model)

        assert (words(said), starts(said)) == (" \n \nYes.", [])
        assert len(emulator.requests) == 4


class TestBroken:
    @pytest.mark.parametrize("how", ["drop", "reset", "eof", "error_event", "garbage"])
    async def test_a_stream_that_breaks_off_is_asked_anew(self, how: How) -> None:
        async with ModelEmulator() as emulator, open_retrying(emulator) as model:
            emulator.fail(ASK, how, at_delta=2)
            said = await answer(model)

        assert said[:3] == ["You said", ": What i", Start("")]
        assert "".join(str(one) for one in said[3:]) == SAID

    async def test_a_silence_within_an_answer_is_a_break(self) -> None:
        async with ModelEmulator() as emulator, open_retrying(emulator, idle=1.0) as model:
            emulator.fail(ASK, "hang", at_delta=1)
            said = await answer(model)

        assert (words(said), starts(said)) == (SAID, [Start("")])

    async def test_it_is_asked_anew_once(self) -> None:
        async with ModelEmulator() as emulator, open_retrying(emulator) as model:
            emulator.fail(ASK, "drop", at_delta=2, times=9)
            said, told = await failure(model)

        assert said == ["You said", ": What i", Start(""), "You said", ": What i"]
        assert type(told) is ModelUnavailable
        assert len(emulator.requests) == 2

    async def test_a_model_that_dies_in_mid_answer_is_waited_for(self) -> None:
        async with ModelEmulator() as emulator, open_retrying(emulator) as model:
            emulator.fail(ASK, "drop", at_delta=2)
            emulator.fail(ASK, status=503, times=4)
            said = await answer(model)

        assert (words(said), starts(said)) == (SAID, [Start("")])
        assert len(emulator.requests) == 6


class TestFallbacks:
    @pytest.mark.parametrize("status", [401, 402, 403, 404])
    async def test_the_next_model_is_asked_for_one_that_cannot_answer(
        self, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with ModelEmulator() as one, ModelEmulator() as two, open_retrying(one, two) as model:
            one.fail(ASK, status=status)
            said = await answer(model)

        assert said[0] == Start("second")
        assert (words(said), len(starts(said))) == (SAID, 1)
        assert (len(one.requests), len(two.requests)) == (1, 1)
        assert (model.name, two.requests[0].body["model"]) == ("chosen", "second")
        assert "second answers for chosen: " in caplog.text
        assert f"answered HTTP {status}" in caplog.text

    async def test_a_model_that_keeps_failing_is_given_up_after_three_tries(self) -> None:
        async with ModelEmulator() as one, ModelEmulator() as two, open_retrying(one, two) as model:
            one.fail(ASK, times=9)
            said = await answer(model)

        assert (words(said), starts(said)) == (SAID, [Start("second")])
        assert len(one.requests) == 3

    async def test_an_answer_that_is_as_long_as_may_be_is_asked_of_no_other(self) -> None:
        async with ModelEmulator() as one, ModelEmulator() as two, open_retrying(one, two) as model:
            one.finish_reason = "length"
            said, told = await failure(model)

        assert (words(said), type(told)) == (SAID, AnswerCut)
        assert two.requests == []

    async def test_a_model_over_its_quota_is_left_alone_at_once(self) -> None:
        async with ModelEmulator() as one, ModelEmulator() as two, open_retrying(one, two) as model:
            one.fail(ASK, status=429, retry_after=30)
            first, second = await answer(model), await answer(model)

        assert (starts(first), starts(second)) == ([Start("second")], [Start("second")])
        assert len(one.requests) == 1

    async def test_they_are_asked_in_their_order(self) -> None:
        async with (
            ModelEmulator() as one,
            ModelEmulator() as two,
            ModelEmulator() as three,
            open_retrying(one, two, three) as model,
        ):
            one.fail(ASK, status=404)
            two.fail(ASK, status=402)
            said = await answer(model)

        assert (words(said), starts(said)) == (SAID, [Start("third")])

    async def test_where_all_fail_the_one_that_may_pass_is_reported(self) -> None:
        async with ModelEmulator() as one, ModelEmulator() as two, open_retrying(one, two) as model:
            one.fail(ASK, status=404)
            two.fail(ASK, status=429, retry_after=60)
            _, told = await failure(model)

        assert type(told) is ModelBusy

    async def test_the_chosen_one_answers_if_it_is_back_first(self) -> None:
        async with ModelEmulator() as one, ModelEmulator() as two, open_retrying(one, two) as model:
            one.fail(ASK, times=5)
            two.fail(ASK, times=99)
            said = await answer(model)

        assert (words(said), starts(said)) == (SAID, [])

    async def test_a_broken_answer_can_be_given_by_the_next_model(self) -> None:
        async with ModelEmulator() as one, ModelEmulator() as two, open_retrying(one, two) as model:
            one.fail(ASK, "drop", at_delta=2)
            one.fail(ASK, times=9)
            said = await answer(model)

        assert (words(said), starts(said)) == (SAID, [Start("second")])

    @pytest.mark.parametrize("code", [402, 429, 503])
    async def test_a_quota_that_ends_within_an_answer_is_followed_by_the_next_model(
        self, code: int
    ) -> None:
        async with ModelEmulator() as one, ModelEmulator() as two, open_retrying(one, two) as model:
            spent: Json = {"error": {"code": code, "message": "no more"}}
            one.fail(ASK, "error_event", at_delta=2, body=spent)
            one.fail(ASK, status=200, body=spent, times=9)
            said = await answer(model)
            one.heal()  # 402: it is not even asked again

        assert (words(said), starts(said)) == (SAID, [Start("second")])


class TestEndings:
    async def test_a_process_that_stops_lets_a_model_speak_to_its_end(self) -> None:
        stopping = asyncio.Event()
        stopping.set()
        async with ModelEmulator() as emulator, open_retrying(emulator, stopping=stopping) as model:
            assert words(await answer(model)) == SAID


FRAGILE = replace(QUICK, failures=4)


class TestBreaker:
    async def test_all_who_wait_are_answered_when_it_is_back(self) -> None:
        async with ModelEmulator() as emulator, open_retrying(emulator, policy=FRAGILE) as model:
            emulator.fail(ASK, times=12)
            said = await asyncio.gather(*(answer(model) for _ in range(10)))

        assert [words(one) for one in said] == [SAID] * 10
