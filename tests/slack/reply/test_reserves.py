"""No more pages begin to grow in Slack than can be ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

from adapters.slack.reply.status import RECEIVED
from adapters.slack.reply.streams import PER_MINUTE, method_budget
from bot.domain import Delta, Purpose, Turn
from bot.errors import WriteDelayed
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.support.slack_platform import LIMITS
from tests.support.slack_scene import TEXT, WORDS, Scene, growing, make_scene
from tests.support.waiting import until


async def use_up(budgets: EditBudgets, scene: Scene, method: str) -> None:
    budget = method_budget(scene.platform.workspace, method)
    for _ in range(PER_MINUTE[method]):
        await budgets.final(budget, deadline=0.0)
    await budgets.pause(budget, 60.0)  # a slot that comes back while the machine is busy


def in_dm(scene: Scene) -> Turn:
    asker = scene.turn.person.id
    channel, now = scene.slack.dm(asker), f"{time.time():.6f}"
    return replace(scene.turn, place={"channel": channel, "thread": None, "question": now})


async def test_a_stream_is_begun_with_the_slot_that_ends_it(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with make_scene(budgets) as scene, scene.platform.surface(scene.turn) as surface:
        async with budgets.reserving():
            await surface.post(growing("Because"))
            stops = store.key("budget", f"slack:stop:{scene.slack.team_id}:owed")
            owed = await store.command("ZCARD", stops)

        assert owed == 1
        assert scene.calls("chat.startStream") == 1


async def test_a_resumed_answer_keeps_what_ends_the_stream_of_the_dead_process(
    store: Store,
) -> None:
    async with make_scene() as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message = await surface.post(growing("Because of the rivers"))

        async def said() -> AsyncGenerator[Delta]:
            for method in ("stop", "update"):
                owed = store.key("budget", f"slack:{method}:{scene.slack.team_id}:owed")
                async with asyncio.timeout(10):
                    while not await store.command("ZCARD", owed):
                        await asyncio.sleep(0.01)
            yield "Because."

        await scene.stream(
            store, said(), [message], "Because of the rivers", purpose=Purpose.RESUME
        )

        assert [text.strip() for text in scene.texts()] == ["Because."]


async def test_without_a_slot_for_its_end_no_stream_is_begun(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with make_scene(budgets) as scene:
        await use_up(budgets, scene, "stop")

        await scene.grow(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert not scene.calls("chat.startStream")
        # What is posted instead grows.
        assert scene.calls("chat.update")


async def test_an_answer_that_may_not_grow_is_posted_whole(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with make_scene(budgets) as scene:
        await use_up(budgets, scene, "start")
        await use_up(budgets, scene, "update")

        await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert (scene.calls("chat.postMessage"), scene.calls("chat.update")) == (1, 0)
        assert scene.status() == ""


async def test_in_a_dm_a_notice_says_that_the_answer_comes(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with make_scene(budgets, limits=replace(LIMITS, unseen_after=0.01)) as scene:
        scene.turn = in_dm(scene)
        async with scene.platform.surface(scene.turn):
            await until(lambda: scene.slack.ephemerals)

        assert [notice.text for notice in scene.slack.ephemerals] == [RECEIVED]


async def test_an_answer_in_a_dm_that_has_begun_needs_no_notice(store: Store) -> None:
    budgets = EditBudgets(store=store)
    limits = replace(LIMITS, unseen_after=1.0)  # a busy machine begins later than at once
    async with make_scene(budgets, limits=limits) as scene:
        scene.turn = in_dm(scene)
        async with scene.platform.surface(scene.turn, Purpose.ANSWER) as surface:
            await surface.post(growing("Because"))
            await asyncio.sleep(1.1)

        assert not scene.slack.ephemerals


async def test_posts_count_in_the_workspace_too() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        budget = surface.budget(replace(growing("Because."), final=True), new=True)

        assert budget
        assert budget.within
        assert (budget.within.writes, budget.within.seconds) == (300, 60.0)
        assert not budget.owes


async def test_more_than_is_documented_is_tried_if_the_operator_says_so() -> None:
    async with (
        make_scene(limits=replace(LIMITS, factor=2.0)) as scene,
        scene.platform.surface(scene.turn) as surface,
    ):
        post = surface.budget(replace(growing("Because."), final=True), new=True)
        update = surface.budget(growing("Because"), new=False)

        # What a channel takes stays: its limit is one a second for everybody.
        assert post
        assert (post.writes, post.within.writes if post.within else 0) == (5, 600)
        assert update
        assert (update.writes, [owed.writes for owed in update.owes]) == (100, [100])


async def test_each_request_that_ends_the_stream_of_a_dead_process_takes_a_slot(
    store: Store,
) -> None:
    budgets = EditBudgets(store=store)
    async with make_scene(budgets) as scene:
        async with scene.platform.surface(scene.turn) as surface:
            message = await surface.post(growing("Because"))
        await use_up(budgets, scene, "stop")

        async with scene.platform.surface(scene.turn, Purpose.RESUME) as surface:
            with contextlib.suppress(TimeoutError, WriteDelayed):
                async with asyncio.timeout(0.2):
                    await surface.edit(message, replace(growing("Because."), final=True))

        assert not scene.calls("chat.stopStream")
