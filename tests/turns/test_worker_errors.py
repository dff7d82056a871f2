"""An error of our own, in any step: the person reads an apology, and the thread goes on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bot.concurrency import Backoff
from bot.errors import GivenUp
from bot.model import context_window
from bot.model.client import ModelClient
from bot.model.retrying import RetryingModel
from bot.reply.draft import Draft
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from bot.tokens.counters import TokenEstimator
from bot.turns import conversation
from bot.turns.conversation import Conversation
from bot.turns.queue import TurnLeases
from bot.turns.records import History
from bot.turns.repair import WorkPolicy
from tests.emulators.model import ModelEmulator
from tests.model.test_context_window import fitted
from tests.support.at_work import (
    POLICY,
    all_ended,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    working,
)
from tests.support.fakes import FakePlatform, FakeSurface
from tests.support.model import QUICK
from tests.support.waiting import until

STEPS = [
    (History, "read"),
    (FakePlatform, "read_context"),
    (TurnLeases, "save_context"),
    (conversation, "compose"),
    (context_window, "fit"),
    (TokenEstimator, "count"),
    (ModelClient, "stream"),
    (FakePlatform, "surface"),
    (Conversation, "_reply"),
    (Draft, "add"),
    (Draft, "pages"),
    (EditBudgets, "final"),
    (TurnLeases, "save"),
    (FakeSurface, "post"),
    (TurnLeases, "finish"),
]


@pytest.mark.parametrize(("owner", "name"), STEPS, ids=lambda one: getattr(one, "__name__", one))
async def test_a_question_that_an_error_of_our_own_meets_is_apologized_for_and_blocks_nobody(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: object,
    name: str,
) -> None:
    step, calls = getattr(owner, name), 0

    def planted(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        # Three attempts, of which one may count as the first again; the end itself fails thrice.
        if calls <= (3 if name == "finish" else 4):
            raise ValueError("a bug")
        return step(*args, **named)

    monkeypatch.setattr(owner, name, planted)
    platform, policy = FakePlatform(), replace(POLICY, retry=Backoff(0.0, 0.0))
    async with ModelEmulator() as emulator, fitted(emulator, counter=TokenEstimator(len)) as one:
        emulator.answer = "Hello."
        model = RetryingModel(
            models=[one], policy=QUICK, total_timeout=60, stopping=asyncio.Event()
        )
        worker = make_worker(store, platform, model, policy=policy, late_write_leases=0.1)
        async with working(worker):
            await make_queue(store).admit(make_turn(1))
            await make_queue(store).admit(make_turn(2))
            await all_ended(store)
            # A whole answer that could not be shown, or the apology, may follow as a repair.
            await until(lambda: len(platform.shown.screen) == 2)

    assert "Hello." in (texts := [page.text for page in platform.shown.screen.values()])
    assert set(texts) <= {"Hello.", GivenUp.apology, f"Hello.\n\n{GivenUp.apology}"}
    assert [await outcome(store, 1), await outcome(store, 2)] == ["dead", "done"]
    # A repair may meet the error, too.
    of_worker = [one for one in caplog.records if one.exc_info and one.name == "bot.turns.worker"]
    assert len(of_worker) == 1


def test_the_attempts_before_an_apology_take_less_than_ten_seconds() -> None:
    policy = WorkPolicy()

    pauses = [policy.retry.delay(number) for number in range(1, policy.attempts_at_errors)]

    assert sum(pauses) < 10
