"""Turns whose admission, or whose lease, the replicas of the store do not have."""

from __future__ import annotations

import pytest

from bot.access.quotas import Quota
from bot.commands.handlers import excuse
from bot.domain import Exchange, Shown
from bot.errors import LeaseLost, TooFewReplicas
from bot.store import Store
from bot.turns.queue import Taken
from tests.support.at_work import ANN, make_queue, make_turn, take


def without_replicas(store: Store) -> Store:
    """Return the same store for a process that waits for a replica, of which there is none."""
    prefix = store.key().removesuffix(":{0}")
    return Store(client=store.redis, url=store.url, prefix=prefix, replicas=1)


async def test_a_refused_admission_that_is_sent_again_is_answered_once_and_counts_once(
    store: Store,
) -> None:
    queue, hasty, turn = make_queue(store), make_queue(without_replicas(store)), make_turn(1)
    quota = Quota(questions=1)

    for _ in range(2):
        with pytest.raises(TooFewReplicas):
            await hasty.admit(turn, quota=quota)
    assert await queue.admit(turn, quota=quota)

    assert (await take(queue)).turn.id == turn.id
    assert not isinstance(await queue.leases.take(["console"]), Taken)
    assert (await queue.usage(turn.key, ANN, quota)).questions == 1


def test_a_person_reads_that_what_too_few_replicas_have_may_still_be_done() -> None:
    said = "I may lose this. If nothing comes of it within a minute, please try again."

    assert excuse(TooFewReplicas(0, 1)) == TooFewReplicas.apology == said


async def test_a_turn_that_replicas_do_not_know_as_taken_is_given_back_and_not_counted(
    store: Store,
) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(1))

    for _ in range(2):
        with pytest.raises(TooFewReplicas):
            await make_queue(without_replicas(store)).leases.take(["console"])

    assert (await take(queue)).attempts == 1


async def test_what_is_saved_twice_for_want_of_replicas_counts_once(store: Store) -> None:
    queue, leases = make_queue(store), make_queue(without_replicas(store)).leases
    await queue.admit(make_turn(1))
    taken = await take(queue)
    shown = Shown(("m1",), "Yes.", "Yes.", outcome="done")
    exchange = Exchange(taken.turn.id, ANN, 1000.0, "question 1", "Yes.")

    with pytest.raises(TooFewReplicas):
        await leases.save_step(taken, "begun:a", "{}", effect="e", counts=True)
    for _ in range(2):
        with pytest.raises(TooFewReplicas):
            await leases.finish(taken, shown, exchange, used=3)
    await queue.leases.finish(taken, shown, exchange, used=3)

    used = await queue.usage(taken.turn.key, ANN, Quota())
    assert (used.questions, used.tokens) == (1, 3)


async def test_a_refusal_needs_no_replicas(store: Store) -> None:
    queue, hasty = make_queue(store), make_queue(without_replicas(store))
    await queue.admit(make_turn(1))
    old = await take(queue)
    await queue.leases.release(old, delay_seconds=0, counts=False)

    with pytest.raises(LeaseLost):
        await hasty.leases.finish(old, Shown(outcome="done"), None)


async def test_what_a_reply_shows_is_saved_without_replicas(store: Store) -> None:
    queue, hasty = make_queue(store), make_queue(without_replicas(store))
    await queue.admit(make_turn(1))
    taken = await take(queue)

    await hasty.leases.save(taken, Shown(("m1",), "Ye", "Ye"))

    assert not await hasty.leases.renew(taken)
