"""Discord's rate limits, kept before they are reached and learnt from its answers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps

import aiohttp
import pytest

from adapters.discord.rest import (
    GLOBAL_LIMIT,
    BudgetKind,
    edit_budget,
    fail_at_once,
    limit_requests,
)
from bot.domain import EditBudget
from bot.errors import WriteDelayed
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.support.fakes import NoLimits


@asynccontextmanager
async def calling(
    emulator: DiscordEmulator, budgets: EditBudgets
) -> AsyncIterator[aiohttp.ClientSession]:
    """Call the API as the platform does, without a library between."""
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bot {emulator.token}"},
        trace_configs=[limit_requests(fail_at_once(), budgets)],
    ) as session:
        yield session


async def get(session: aiohttp.ClientSession, emulator: DiscordEmulator, path: str) -> int:
    async with session.get(emulator.api_url + path) as answer:
        return answer.status


def within_a_window(test: Callable[[Store], Awaitable[None]]) -> Callable[[Store], Awaitable[None]]:
    """Begin a test again if a busy machine needs more than the window of the global limit."""

    @wraps(test)
    async def run(store: Store) -> None:
        for left in reversed(range(10)):
            began_at = time.monotonic()
            try:
                await test(store)
            except pytest.fail.Exception:
                if not left or time.monotonic() - began_at < GLOBAL_LIMIT.seconds:
                    raise
                await asyncio.sleep(GLOBAL_LIMIT.seconds)
            else:
                return

    return run


async def use_up(budgets: EditBudgets, left: int) -> None:
    """Take the slots of the global limit, of which so many are left."""
    for _ in range(left):
        await budgets.call(GLOBAL_LIMIT, deadline=0.0)
    with pytest.raises(WriteDelayed):
        await budgets.call(GLOBAL_LIMIT, deadline=0.0)


@within_a_window
async def test_all_processes_together_keep_to_the_global_limit(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with (
        DiscordEmulator() as emulator,
        calling(emulator, budgets) as one,
        calling(emulator, EditBudgets(store=store)) as other,
    ):
        # What another test was granted in this task, and did not use.
        budgets.use_booked_slot(GLOBAL_LIMIT)
        for session in (one, other) * 3:
            await get(session, emulator, "/users/@me")

        await use_up(budgets, GLOBAL_LIMIT.writes - 6)
        # A request without a slot waits for one.
        assert await get(other, emulator, "/users/@me") == 200


@within_a_window
async def test_a_request_that_came_with_a_slot_is_not_counted_again(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with DiscordEmulator() as emulator, calling(emulator, budgets) as session:
        edits = edit_budget("edit", emulator.channel_id)
        for _ in range(edits.writes):
            await budgets.final(edits, deadline=math.inf)
            await get(session, emulator, "/users/@me")

        await use_up(budgets, GLOBAL_LIMIT.writes - edits.writes)


@within_a_window
async def test_a_second_request_with_one_slot_is_counted(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with DiscordEmulator() as emulator, calling(emulator, budgets) as session:
        await budgets.final(edit_budget("edit", emulator.channel_id), deadline=math.inf)
        for _ in range(2):
            await get(session, emulator, "/users/@me")

        await use_up(budgets, GLOBAL_LIMIT.writes - 2)


@within_a_window
async def test_one_slot_covers_one_request_of_all_that_a_task_begins(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with DiscordEmulator() as emulator, calling(emulator, budgets) as session:
        await budgets.final(edit_budget("edit", emulator.channel_id), deadline=math.inf)
        await asyncio.gather(*(get(session, emulator, "/users/@me") for _ in range(3)))

        await use_up(budgets, GLOBAL_LIMIT.writes - 3)


async def test_requests_of_interactions_do_not_wait_for_the_others(store: Store) -> None:
    budgets = EditBudgets(store=store)
    await budgets.pause(GLOBAL_LIMIT, 60)
    async with DiscordEmulator() as emulator, calling(emulator, budgets) as session:
        assert await get(session, emulator, "/webhooks/1/token/messages/@original") == 404


async def test_a_global_refusal_holds_every_request(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with DiscordEmulator() as emulator, calling(emulator, budgets) as session:
        emulator.fail(
            "GET /users/@me",
            status=429,
            retry_after=3600,
            headers={"X-RateLimit-Global": "true", "Retry-After": "3600"},
        )
        with pytest.raises(WriteDelayed):
            await get(session, emulator, "/users/@me")

        with pytest.raises(WriteDelayed):
            await get(session, emulator, f"/channels/{emulator.channel_id}")

        assert len(emulator.requests) == 1


async def test_a_ban_by_cloudflare_holds_every_request(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with DiscordEmulator() as emulator, calling(emulator, budgets) as session:
        emulator.fail(
            "GET /users/@me", via=False, status=429, body="error code: 1015", retry_after=3600
        )
        with pytest.raises(WriteDelayed):
            await get(session, emulator, "/users/@me")

        with pytest.raises(WriteDelayed):
            await get(session, emulator, f"/channels/{emulator.channel_id}")

        assert len(emulator.requests) == 1


@pytest.mark.parametrize(
    ("path", "via", "body"),
    [
        ("/users/@me", True, None),
        ("/users/@me", True, "error code: 1015"),
        ("/users/@me", False, None),
        # Its requests are none of those that all share.
        ("/webhooks/1/token/messages/@original", False, "error code: 1015"),
    ],
)
async def test_another_refusal_holds_no_request_but_its_own(
    path: str, via: bool, body: object
) -> None:
    learnt = Learnt()
    async with DiscordEmulator() as emulator, calling(emulator, learnt) as session:
        emulator.fail(f"GET {path}", via=via, status=429, body=body, retry_after=1)

        with pytest.raises(WriteDelayed):
            await get(session, emulator, path)

        assert learnt.pauses == []


class Learnt(NoLimits):
    """Writes down what is learnt and waited for, and waits for nothing."""

    def __init__(self) -> None:
        self.windows: list[tuple[str, int, float]] = []
        self.pauses: list[tuple[str, float]] = []

    def learn(self, bucket: str, *, writes: int, seconds: float) -> None:
        self.windows.append((bucket, writes, seconds))

    async def pause(self, budget: EditBudget, seconds: float) -> None:
        self.pauses.append((budget.bucket, seconds))


async def test_what_is_believed_is_what_discord_was_seen_to_do() -> None:
    async with DiscordEmulator() as emulator:
        limits = emulator.limits
        kinds: list[tuple[BudgetKind, tuple[int, float]]] = [
            ("post", limits.create),
            ("edit", limits.edit),
            ("old", limits.old_edits),
            ("ask", limits.webhook),
            ("thread", limits.thread),
        ]

        for kind, bucket in kinds:
            believed = edit_budget(kind, "1")
            assert (believed.writes, believed.seconds) == bucket


async def test_only_the_first_answer_of_a_window_teaches() -> None:
    learnt = Learnt()
    async with DiscordEmulator() as emulator, calling(emulator, learnt) as session:
        emulator.limits.create, emulator.limits.edit = (3, 7.0), (4, 9.0)
        path = f"{emulator.api_url}/channels/{emulator.channel_id}/messages"
        for number in range(3):
            async with session.post(path, json={"content": f"{number}"}) as answer:
                sent = await answer.json()
        for number in range(2):
            async with session.patch(f"{path}/{sent['id']}", json={"content": f"{number}"}):
                emulator.clock.advance(1)

        place = emulator.channel_id
        assert [(bucket, writes, round(seconds)) for bucket, writes, seconds in learnt.windows] == [
            (f"discord:post:{place}", 3, 7),
            (f"discord:edit:{place}", 4, 9),
        ]


async def test_a_new_thread_teaches_how_many_fit() -> None:
    learnt = Learnt()
    async with DiscordEmulator() as emulator, calling(emulator, learnt) as session:
        emulator.limits.thread = (3, 200.0)
        said = await emulator.say(emulator.channel_id, emulator.user("Ada"), "why?")
        path = f"{emulator.api_url}/channels/{emulator.channel_id}/messages/{said}/threads"

        async with session.post(path, json={"name": "why"}) as answer:
            assert answer.status == 201

        assert [(bucket, writes, round(seconds)) for bucket, writes, seconds in learnt.windows] == [
            (f"discord:thread:{emulator.channel_id}", 3, 200)
        ]


async def test_the_answer_that_empties_a_window_holds_the_next_write_until_its_end() -> None:
    learnt = Learnt()
    async with DiscordEmulator() as emulator, calling(emulator, learnt) as session:
        emulator.limits.create = (2, 7.0)
        path = f"{emulator.api_url}/channels/{emulator.channel_id}/messages"

        for number in range(2):
            async with session.post(path, json={"content": f"{number}"}):
                emulator.clock.advance(1)

        assert [(bucket, round(seconds)) for bucket, seconds in learnt.pauses] == [
            (f"discord:post:{emulator.channel_id}", 6)
        ]


async def test_the_webhook_of_an_interaction_teaches_without_telling_its_token() -> None:
    learnt = Learnt()
    async with DiscordEmulator() as emulator, calling(emulator, learnt) as session:
        headers = {
            "X-RateLimit-Limit": "4",
            "X-RateLimit-Remaining": "3",
            "X-RateLimit-Reset-After": "2.5",
        }
        emulator.fail("PATCH /webhooks", status=404, headers=headers)

        path = f"/webhooks/1/a-token_{'x' * 9}/messages/@original"
        async with session.patch(emulator.api_url + path, json={}):
            pass

        budget = edit_budget("ask", f"a-token_{'x' * 9}")
        assert learnt.windows == [(budget.bucket, 4, 2.5)]
        assert "token" not in budget.bucket


@pytest.mark.parametrize(
    ("body", "header", "seconds"),
    [
        ({"message": "slow down", "retry_after": 0.3, "global": True}, "1", 0.3),
        ("error code: 1015", "7", 7.0),
        ("error code: 1015", "", 5.0),
        ({"message": "slow down", "retry_after": None}, "1", 5.0),
    ],
)
async def test_the_time_to_wait_is_as_exact_as_it_is_told(
    body: object, header: str, seconds: float
) -> None:
    learnt = Learnt()
    async with DiscordEmulator() as emulator, calling(emulator, learnt) as session:
        headers = {"X-RateLimit-Global": "true", "Retry-After": header}
        emulator.fail("GET /users/@me", status=429, body=body, headers=headers)

        with pytest.raises(WriteDelayed) as delayed:
            await get(session, emulator, "/users/@me")

        assert delayed.value.retry_after == seconds
        assert learnt.pauses == [(GLOBAL_LIMIT.bucket, seconds)]


async def test_the_answer_that_opens_a_window_tells_how_large_it_is() -> None:
    learnt = Learnt()
    async with DiscordEmulator() as emulator, calling(emulator, learnt) as session:
        emulator.limits.create = (3, 3600.0)
        path = f"/channels/{emulator.channel_id}/messages"
        for _ in range(2):
            async with session.post(emulator.api_url + path, json={"content": "one"}) as answer:
                assert answer.status == 200

        ((bucket, writes, seconds),) = learnt.windows
        assert (bucket, writes) == (edit_budget("post", emulator.channel_id).bucket, 3)
        assert seconds == pytest.approx(3600.0, abs=60)
