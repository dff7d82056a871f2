"""The door: what is kept of a question."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.domain import Person, ThreadKey, Turn
from bot.errors import NothingAsked
from bot.history import History
from bot.intake import MAX_QUESTION, Intake
from bot.prompt import CUT
from bot.store import Store
from bot.turns import Limits, TurnQueue


async def test_a_question_is_kept_up_to_its_longest(store: Store) -> None:
    queue = TurnQueue(
        store=store, worker="w1", limits=Limits(1, 1, 1, 1), lease_seconds=1, keep_seconds=60
    )
    intake = Intake(queue=queue, history=History(store=store, keep_seconds=60))
    key = ThreadKey("console", "local", "ann", "t1")
    text = "h" + "x" * MAX_QUESTION + "t"

    await queue.ready(["console"], count=1, block_seconds=0.1)  # listens from now on
    await intake.admit(Turn("console:1", key, Person("u1", "Ann"), text, {}, 1000.0))

    (token,) = await queue.ready(["console"], count=1, block_seconds=5)
    taken = await queue.take(token)
    assert taken
    kept, left_out = taken.turn.text, taken.turn.left_out
    assert (len(kept), left_out) == (MAX_QUESTION, 2 + len(CUT))
    assert kept[0] + kept[-1] == "ht"
    assert CUT in kept


async def test_who_asks_nothing_again_and_again_is_told_once(store: Store) -> None:
    queue = TurnQueue(
        store=store, worker="w1", limits=Limits(1, 1, 1, 1), lease_seconds=1, keep_seconds=60
    )
    intake = Intake(queue=queue, history=History(store=store, keep_seconds=60))
    key = ThreadKey("console", "local", "ann", "t1")
    empty = Turn("console:1", key, Person("u1", "Ann"), " \n", {}, 1000.0)

    told = [await asked_nothing(intake, replace(empty, id=f"console:{n}")) for n in range(3)]
    elsewhere = await asked_nothing(intake, replace(empty, key=replace(key, channel="ben")))

    assert told == [False, True, True]
    assert not elsewhere
    assert await queue.depth() == 0


async def asked_nothing(intake: Intake, turn: Turn) -> bool:
    with pytest.raises(NothingAsked) as caught:
        await intake.admit(turn)
    return caught.value.told
