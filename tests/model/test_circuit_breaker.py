"""The breaker: closed, open, and one try at a time in between."""

from __future__ import annotations

import asyncio
import logging

import pytest

from bot.errors import ModelBusy, ModelDenied, ModelError, ModelUnavailable
from bot.model.retrying import CircuitBreaker, RetryPolicy


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    policy = RetryPolicy(failures=3, open_for=1.0, longest_open=4.0)
    return CircuitBreaker(name="m", policy=policy, clock=clock)


def fail(breaker: CircuitBreaker, error: ModelError | None = None, *, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(ModelError), breaker.attempt():
            raise error or ModelUnavailable("down")


def work(breaker: CircuitBreaker) -> None:
    with breaker.attempt():
        pass


def test_it_opens_after_failures_in_a_row(breaker: CircuitBreaker) -> None:
    fail(breaker, times=2)
    work(breaker)
    fail(breaker, times=2)
    assert (breaker.delay, breaker.error) == (0.0, None)

    fail(breaker)

    assert breaker.delay == 1.0
    assert isinstance(breaker.error, ModelUnavailable)


def test_one_try_at_a_time_finds_out(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, times=3)

    clock.now += 1.0
    assert breaker.delay == 0.0
    with breaker.attempt():
        assert breaker.delay == 1.0

    assert (breaker.delay, breaker.error) == (0.0, None)


def test_a_probe_that_is_silent_is_alone_for_five_seconds(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, times=3)
    clock.now += 1.0

    with breaker.attempt():
        clock.now += 4.5
        assert breaker.delay == 0.5
        clock.now += 0.5
        assert breaker.delay == 0.0


def test_each_probe_that_fails_doubles_the_rest(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, times=3)
    rests = []
    for _ in range(4):
        rests.append(breaker.delay)
        clock.now += breaker.delay
        fail(breaker)

    assert rests == [1.0, 2.0, 4.0, 4.0]
    assert breaker.opened_at == 100.0

    work(breaker)
    fail(breaker, times=3)
    assert breaker.delay == 1.0


def test_a_probe_that_is_given_up_leaves_the_place_to_the_next(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, times=3)
    clock.now += 1.0

    with pytest.raises(asyncio.CancelledError), breaker.attempt():
        raise asyncio.CancelledError

    assert breaker.error
    assert breaker.delay == 0.0


def test_why_it_is_open_holds_nothing_of_the_try(breaker: CircuitBreaker) -> None:
    fail(breaker, times=3)

    assert breaker.error
    assert breaker.error.__traceback__ is None


def test_a_server_that_asks_for_time_gets_it_from_all(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, ModelBusy("busy", retry_after=30.0))

    assert breaker.delay == 30.0
    clock.now += 30.0
    fail(breaker, ModelBusy("busy", retry_after=1e6))
    assert breaker.delay == 300.0


def test_a_refusal_shows_that_somebody_is_there(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, ModelDenied("no"), times=9)
    assert breaker.delay == 0.0

    fail(breaker, times=3)
    clock.now += 1.0
    fail(breaker, ModelDenied("no"))

    assert breaker.error is None


def test_an_operator_reads_one_line_when_it_opens_and_one_when_it_closes(
    breaker: CircuitBreaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        fail(breaker, times=3)
        clock.now += breaker.delay
    work(breaker)
    work(breaker)

    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert all("Model m" in line for line in caplog.messages)
    assert "down" in caplog.messages[0]
