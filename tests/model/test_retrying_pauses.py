"""How long a failing model is waited for and left alone, on a clock that never waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from bot.concurrency import cancelled
from bot.domain import Delta, Message, Preferences, Reading, Retrying, Start, Tool, ToolCall
from bot.errors import (
    ModelBusy,
    ModelDenied,
    ModelError,
    ModelLoading,
    ModelSilent,
    ModelUnavailable,
)
from bot.model.client import NOTHING_CHOSEN, Answer
from bot.model.retrying import RetryingModel, RetryPolicy
from bot.ports import OnThought

PATIENT = RetryPolicy(failures=1000)
JITTER = 1.25  # times its length, that a pause may take
ANSWER = ("Well", ".")

_T = TypeVar("_T")


class _Selector(selectors.DefaultSelector):
    """Does not wait for the next timer, but counts the seconds that it would have waited."""

    waited = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.waited += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    """An event loop in which every pause is over at once; its clock shows pauses alone."""

    def __init__(self) -> None:
        self._pauses = _Selector()
        super().__init__(self._pauses)

    def time(self) -> float:
        return 1000.0 + self._pauses.waited


def run(main: Coroutine[Any, Any, _T]) -> _T:
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


class Hang:
    """Silence, for so long."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Broken:
    """Deltas, and then an error."""

    def __init__(self, *deltas: str, after: float = 0.0) -> None:
        self.deltas = deltas
        self.after = after


Outcome = ModelError | Hang | Broken | None


class FakeEndpoint:
    """Has one outcome for each attempt, and then answers; `asked_at` are the attempts' times."""

    def __init__(self, *outcomes: Outcome, name: str = "fake", forever: Outcome = None) -> None:
        self.name = name
        self.asked_at: list[float] = []
        self.outcomes = list(outcomes)
        self.forever = forever

    async def sees(self) -> bool:
        return False

    async def takes_tools(self) -> bool:
        return True

    @asynccontextmanager
    async def stream(
        self,
        prompt: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        deadline: float,
        preferences: Preferences = NOTHING_CHOSEN,
        on_thought: OnThought | None = None,
    ) -> AsyncIterator[Answer]:
        self.asked_at.append(now())
        match self.outcomes.pop(0) if self.outcomes else self.forever:
            case ModelError() as error:
                raise error
            case Hang(seconds=seconds):
                await asyncio.sleep(min(seconds, deadline - now()))
                raise ModelSilent("nothing came")
            case Broken() as broken:
                first, *others = broken.deltas
                yield Answer(first, breaking(others, broken.after))
            case None:
                yield Answer(ANSWER[0], deltas(ANSWER[1:]))


class PickyEndpoint(FakeEndpoint):
    """Answers every question but "bad"."""

    @asynccontextmanager
    async def stream(
        self,
        prompt: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        deadline: float,
        preferences: Preferences = NOTHING_CHOSEN,
        on_thought: OnThought | None = None,
    ) -> AsyncIterator[Answer]:
        self.forever = away() if prompt[-1].text == "bad" else None
        async with super().stream(prompt, deadline=deadline) as answer:
            yield answer


async def deltas(texts: Sequence[str]) -> AsyncGenerator[str | ToolCall, None]:
    for text in texts:
        yield text


async def breaking(texts: Sequence[str], after: float) -> AsyncGenerator[str | ToolCall, None]:
    for text in texts:
        yield text
    await asyncio.sleep(after)
    raise ModelUnavailable("broke off")


def retrying(
    *models: FakeEndpoint,
    policy: RetryPolicy = PATIENT,
    total: float = 600.0,
    stopping: asyncio.Event | None = None,
) -> RetryingModel:
    return RetryingModel(
        models=models, policy=policy, total_timeout=total, stopping=stopping or asyncio.Event()
    )


async def answer(model: RetryingModel) -> tuple[list[Delta], ModelError | None]:
    """Return the deltas but for pauses, and the error that ended them."""
    said, error = await all_deltas(model)
    return [one for one in said if not isinstance(one, Retrying)], error


async def all_deltas(
    model: RetryingModel, question: str = "What is it?"
) -> tuple[list[Delta], ModelError | None]:
    said: list[Delta] = []
    try:
        async for delta in model.stream([Message("user", question)]):
            if not isinstance(delta, Reading):
                said.append(delta)
    except ModelError as error:
        return said, error
    return said, None


def pauses(endpoint: FakeEndpoint) -> list[float]:
    return [later - earlier for earlier, later in pairwise(endpoint.asked_at)]


def away() -> ModelUnavailable:
    return ModelUnavailable("away")


def loading(seconds: float) -> ModelLoading:
    return ModelLoading("loading", retry_after=seconds)


class TestPauses:
    def test_they_double_up_to_the_longest(self) -> None:
        policy = RetryPolicy(failures=1000, pause=0.1, longest_pause=0.4)
        endpoint = FakeEndpoint(*(away() for _ in range(5)))

        said, error = run(answer(retrying(endpoint, policy=policy)))

        assert (said, error) == ([*ANSWER], None)
        planned = [0.1, 0.2, 0.4, 0.4, 0.4]
        for pause, plan in zip(pauses(endpoint), planned, strict=True):
            assert plan <= pause + 1e-9 <= plan * JITTER + 1e-6

    def test_each_begins_with_what_failed(self) -> None:
        error = away()

        said, _ = run(all_deltas(retrying(FakeEndpoint(error, error))))

        assert said == [Retrying(error), Retrying(error), *ANSWER]

    def test_those_who_wait_do_not_come_back_at_the_same_moment(self) -> None:
        longer = []
        for _ in range(20):
            endpoint = FakeEndpoint(forever=away())
            run(answer(retrying(endpoint)))
            planned = [min(PATIENT.pause * 2**n, PATIENT.longest_pause) for n in range(20)]
            longer += [it / plan for it, plan in zip(pauses(endpoint), planned, strict=False)]

        assert 1 - 1e-6 <= min(longer) < 1.05
        assert 1.15 < max(longer) <= JITTER + 1e-6

    def test_the_time_that_a_server_asks_for_is_waited(self) -> None:
        endpoint = FakeEndpoint(loading(20.0))

        said, _ = run(answer(retrying(endpoint)))

        assert said == [*ANSWER]
        assert 20 - 1e-6 <= pauses(endpoint)[0] <= 20 * JITTER + 1e-6

    # Pauses take up to a quarter longer.
    @pytest.mark.parametrize("seconds", [50.0, 3600.0])
    def test_a_pause_that_may_outlast_a_persons_patience_is_not_begun(self, seconds: float) -> None:
        endpoint = FakeEndpoint(loading(seconds))

        async def waiting() -> tuple[ModelError | None, float]:
            began = now()
            _, error = await answer(retrying(endpoint))
            return error, now() - began

        error, took = run(waiting())

        assert (type(error), took, len(endpoint.asked_at)) == (ModelLoading, 0.0, 1)

    def test_nothing_outlasts_the_time_of_a_reply(self) -> None:
        endpoint = FakeEndpoint(forever=Hang(30.0))

        async def waiting() -> tuple[ModelError | None, float]:
            began = now()
            _, error = await answer(retrying(endpoint, total=50.0))
            return error, now() - began

        error, took = run(waiting())

        assert (type(error), len(endpoint.asked_at)) == (ModelSilent, 2)
        assert 30.0 < took <= 50.0 + 1e-6


class TestBroken:
    def test_the_time_of_a_reply_bounds_the_second_stream(self) -> None:
        endpoint = FakeEndpoint(Broken("You"), forever=Hang(600.0))

        async def waiting() -> tuple[list[Delta], ModelError | None, float]:
            began = now()
            said, error = await answer(retrying(endpoint, total=100.0))
            return said, error, now() - began

        said, error, took = run(waiting())

        assert (said, type(error)) == (["You"], ModelSilent)
        assert took <= 100.0 + 1e-6

    def test_a_break_after_a_long_while_is_asked_anew_as_well(self) -> None:
        endpoint = FakeEndpoint(Broken("You", " said", after=200.0))

        said, error = run(answer(retrying(endpoint)))

        assert (said, error) == (["You", " said", Start(""), *ANSWER], None)

    def test_a_model_that_hangs_for_long_is_followed_by_the_next(self) -> None:
        endpoint, second = FakeEndpoint(Hang(70.0)), FakeEndpoint(name="second")

        said, _ = run(answer(retrying(endpoint, second)))

        assert said == [Start("second"), *ANSWER]

    def test_no_model_is_asked_when_the_time_of_a_reply_is_over(self) -> None:
        endpoint, second = FakeEndpoint(Hang(70.0)), FakeEndpoint(name="second")

        said, error = run(answer(retrying(endpoint, second, total=60.0)))

        assert (said, type(error), second.asked_at) == ([], ModelSilent, [])


class TestEndings:
    @pytest.mark.parametrize("how", ["cancel", "stop"])
    def test_a_pause_ends_if_nobody_wants_the_answer_or_the_process_stops(self, how: str) -> None:
        async def main() -> tuple[bool, float]:
            stopping = asyncio.Event()
            model = retrying(FakeEndpoint(loading(30.0)), stopping=stopping)
            asked = asyncio.create_task(answer(model))
            await asyncio.sleep(5.0)
            began = now()
            if how == "cancel":
                asked.cancel()
            else:
                stopping.set()
            await asyncio.wait([asked])
            return asked.cancelled(), now() - began

        assert run(main()) == (True, 0.0)


class TestBreaker:
    def test_a_dead_model_is_not_hammered(self) -> None:
        endpoint = FakeEndpoint(forever=away())
        policy = RetryPolicy(failures=4)

        async def main() -> list[tuple[list[Delta], ModelError | None]]:
            model = retrying(endpoint, policy=policy)
            return await asyncio.gather(*(answer(model) for _ in range(50)))

        ends = run(main())

        assert {type(error) for _, error in ends} == {ModelUnavailable}
        # Fifty that began before the fourth failure, and then a probe after each rest: 1, 2, 4, …
        assert len(endpoint.asked_at) <= 50 + 8

    def test_nobody_waits_for_a_model_that_was_away_before_they_came(self) -> None:
        endpoint = FakeEndpoint(forever=away())
        policy = RetryPolicy(failures=1, open_for=40.0, longest_open=40.0)

        async def main() -> tuple[ModelError | None, float, int]:
            model = retrying(endpoint, policy=policy)
            await answer(model)
            await asyncio.sleep(60.0)
            await answer(model)  # a probe
            asked, began = len(endpoint.asked_at), now()
            _, error = await answer(model)
            return error, now() - began, len(endpoint.asked_at) - asked

        error, took, asked = run(main())

        assert (type(error), took, asked) == (ModelUnavailable, 0.0, 0)

    def test_the_next_question_finds_the_model_back(self) -> None:
        endpoint = FakeEndpoint(away(), away())
        policy = RetryPolicy(failures=2, wait=0.1, open_for=30.0)

        async def main() -> list[Delta]:
            model = retrying(endpoint, policy=policy)
            await asyncio.gather(answer(model), answer(model))
            await asyncio.sleep(30.0)
            return (await answer(model))[0]

        assert run(main()) == [*ANSWER]

    def test_a_new_question_does_not_wait_for_a_probe_that_hangs(self) -> None:
        endpoint = FakeEndpoint(away(), Hang(50.0))
        policy = RetryPolicy(failures=1, open_for=1.0)

        async def main() -> tuple[int, list[Delta]]:
            model = retrying(endpoint, policy=policy)
            impatient = asyncio.create_task(answer(model))
            await asyncio.sleep(2.0)
            patient = asyncio.create_task(answer(model))
            await asyncio.sleep(2.0)
            asked = len(endpoint.asked_at)
            impatient.cancel()
            return asked, (await patient)[0]

        assert run(main()) == (3, [*ANSWER])

    def test_a_question_that_always_fails_does_not_keep_others_from_the_model(self) -> None:
        endpoint = PickyEndpoint()

        async def main() -> float:
            model = retrying(endpoint, policy=RetryPolicy())
            failing = asyncio.create_task(all_deltas(model, "bad"))
            await asyncio.sleep(30.0)
            began = now()
            assert (await all_deltas(model, "good"))[0][-len(ANSWER) :] == [*ANSWER]
            await cancelled(failing)
            return now() - began

        assert run(main()) <= 1.3

    def test_first_attempts_while_it_is_open_are_one_a_second_and_heed_the_server(self) -> None:
        endpoint = FakeEndpoint(away(), ModelBusy("later", retry_after=20.0), forever=away())

        async def main() -> None:
            model = retrying(endpoint, policy=RetryPolicy(failures=1))
            crowd = [asyncio.create_task(answer(model)) for _ in range(50)]
            await asyncio.sleep(45.0)
            await cancelled(*crowd)

        run(main())
        _, second, *others = endpoint.asked_at
        assert others[0] >= second + 20.0
        assert len(others) <= 30

    def test_an_open_breaker_is_not_in_the_way_of_the_next_model(self) -> None:
        endpoint, second = FakeEndpoint(forever=away()), FakeEndpoint(name="second")
        policy = RetryPolicy(failures=3, open_for=300.0, longest_open=300.0)

        async def main() -> list[list[Delta]]:
            model = retrying(endpoint, second, policy=policy)
            return [(await answer(model))[0] for _ in range(2)]

        assert run(main()) == [[Start("second"), *ANSWER]] * 2
        assert (len(endpoint.asked_at), len(second.asked_at)) == (3, 2)

    def test_the_first_models_error_is_raised_if_no_failure_is_transient(self) -> None:
        first, second = FakeEndpoint(ModelDenied("one")), FakeEndpoint(ModelDenied("two"))

        _, error = run(answer(retrying(first, second)))

        assert str(error) == "one"
