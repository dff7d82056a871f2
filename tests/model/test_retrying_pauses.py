"""How long a failing model is left alone, on a clock that never waits."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from bot.domain import Message
from bot.errors import ModelUnavailable
from bot.model.endpoint import Answer
from bot.model.retrying import RetryingModel, RetryPolicy

POLICY = RetryPolicy(failures=1000)
MOST = 1.25  # times its length, that a pause may take


class _Hasty(selectors.DefaultSelector):
    """Does not wait for the next timer, but counts the seconds that it would have waited."""

    waited = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.waited += timeout or 0.0
        return super().select(0)


class _HastyLoop(asyncio.SelectorEventLoop):
    """An event loop in which every pause is over at once, and its clock the later."""

    def __init__(self) -> None:
        self._hasty = _Hasty()
        super().__init__(self._hasty)

    def time(self) -> float:
        return super().time() + self._hasty.waited


class _Away:
    """A model that cannot be reached; `asked_at` are the moments of its tries."""

    name = "away"

    def __init__(self) -> None:
        self.asked_at: list[float] = []

    @asynccontextmanager
    async def stream(self, prompt: Sequence[Message], *, deadline: float) -> AsyncIterator[Answer]:
        self.asked_at.append(asyncio.get_running_loop().time())
        raise ModelUnavailable("nobody is there")
        yield


async def _pauses() -> list[float]:
    """Return how long each pause of one answer took."""
    model = _Away()
    steady = RetryingModel(
        models=[model], policy=POLICY, total_timeout=600.0, stopping=asyncio.Event()
    )
    with pytest.raises(ModelUnavailable):
        async for _ in steady.stream([Message("user", "What is it?")]):
            pass
    return [later - earlier for earlier, later in pairwise(model.asked_at)]


def test_those_who_wait_do_not_come_back_at_the_same_moment() -> None:
    with asyncio.Runner(loop_factory=_HastyLoop) as runner:
        answers = [runner.run(_pauses()) for _ in range(20)]

    planned = [min(POLICY.pause * 2**n, POLICY.longest_pause) for n in range(20)]
    longer = [pause / plan for took in answers for pause, plan in zip(took, planned, strict=False)]
    assert min(longer) >= 1
    # What the computer takes for a try comes on top.
    assert max(longer) < MOST + 0.1
    assert min(longer) < 1.05
    assert max(longer) > 1.15
