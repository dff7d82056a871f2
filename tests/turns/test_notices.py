"""The admins are told once that a server has used most of its quota, or all of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from bot.access.quotas import Estimate, Quota
from bot.domain import Person
from bot.errors import QuotaUsed
from bot.store import Store
from bot.turns.notices import QuotaNotices, text_of
from bot.turns.queue import TurnQueue
from tests.turns.test_queue import make_turn
from tests.turns.test_usage import make_queue


async def ask(queue: TurnQueue, quota: Quota, *numbers: int, estimate: Estimate) -> None:
    for number in numbers:
        with suppress(QuotaUsed):
            turn = make_turn(number, person=Person(f"u{number}", "Ann"))
            await queue.admit(turn, quota=quota, estimate=estimate)


async def told(store: Store, *, fails: int = 0, workers: int = 3) -> list[str]:
    """Return what several workers send until nothing is left; the first tries fail."""
    sent: list[str] = []
    failures = iter(range(fails))

    async def tell(text: str) -> bool:
        if next(failures, None) is not None:
            # As after the minute for which it was claimed.
            notices = store.key("notices")
            for one in await store.command("ZRANGE", notices, 0, -1):
                await store.command("ZADD", notices, 0, one)
            return False
        sent.append(text)
        return True

    async def is_over() -> bool:
        return not await store.command("ZCARD", store.key("notices"))

    script = make_queue(store).script
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        notices = [QuotaNotices(script, tell=tell, pause_seconds=0.01) for _ in range(workers)]
        tasks = [group.create_task(one.run()) for one in notices]
        while not await is_over():
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
    return sent


async def test_each_threshold_of_a_server_is_told_once_over_all_workers(store: Store) -> None:
    queue, quota = make_queue(store), Quota(server_tokens=1000)

    await ask(queue, quota, 1, 2, 3, estimate=Estimate(250))
    before = await told(store)
    await ask(queue, quota, *range(4, 9), estimate=Estimate(250))
    at_most = await told(store)
    await ask(queue, quota, *range(9, 14), estimate=Estimate(250))

    assert before == []
    assert [one.partition(" for today")[0] for one in sorted(at_most)] == [
        "The server console:local has used 80 % of its tokens",
        "The server console:local has used up its tokens",
    ]
    assert await store.command("ZCARD", store.key("notices")) == 0


async def test_a_notice_that_could_not_be_sent_is_sent_later(store: Store) -> None:
    await ask(make_queue(store), Quota(server_money=1000), 1, estimate=Estimate(1, 900))

    (text,) = await told(store, fails=2)

    assert "80 % of its money" in text


async def test_a_worker_that_dies_leaves_its_notice_for_a_minute(store: Store) -> None:
    queue = make_queue(store)
    await ask(queue, Quota(server_tokens=100), 1, estimate=Estimate(90))

    first = await queue.script.run("claim_notice")
    second = await queue.script.run("claim_notice")
    (left,) = await store.command("ZRANGE", store.key("notices"), 0, -1)
    due = await store.command("ZSCORE", store.key("notices"), left)

    assert (first, bool(second)) == (left, False)
    seconds, _ = await store.command("TIME")
    assert 50 < float(due) / 1000 - int(seconds) <= 61


async def test_a_damaged_notice_is_dropped_and_stops_no_worker(store: Store) -> None:
    damaged = ["", "x", "1 tokens 80 20783 console:local 1", "now tokens 80 20783 s 1 2"]
    for one in damaged:
        await store.command("ZADD", store.key("notices"), 0, one)
    await ask(make_queue(store), Quota(server_tokens=100), 1, estimate=Estimate(90))

    (text,) = await told(store)

    assert "80 % of its tokens" in text


@pytest.mark.parametrize(
    ("notice", "said"),
    [
        (("tokens", 80, "20783", "discord:1", 8123, 10000), "today: 8,123 of 10,000."),
        (("money", 80, "2026-11", "slack:T1", 8_500_000, 10_000_000), "2026-11: $8.50 of $10.00."),
        (("money", 100, "2026-11", "slack:T1", 9, 10), "so I refuse questions there until"),
    ],
)
def test_a_notice_says_who_has_used_what(
    notice: tuple[str, int, str, str, int, int], said: str
) -> None:
    assert said in text_of(*notice)
