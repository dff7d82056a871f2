"""How many streams Slack takes, how fast they grow, and the pauses that it asks for."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace

import pytest

from bot.domain import EditBudget, Page
from bot.errors import WriteDelayed
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.emulators.slack.rates import CHANNEL, TIER_2, TIER_3, TIER_4
from tests.support.slack_platform import LIMITS, Slots, joined
from tests.support.slack_scene import TEXT, WORDS, growing, make_scene
from tests.support.waiting import until


@pytest.mark.parametrize("method", ["chat.appendStream", "chat.stopStream"])
async def test_a_pause_that_slack_asks_for_loses_no_text(store: Store, method: str) -> None:
    async with make_scene(limits=replace(LIMITS, factor=10.0)) as scene:
        scene.slack.fail(method, status=429, retry_after=0.2)

        await scene.grow(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert not scene.calls("chat.update")


async def test_while_slack_wants_no_stream_begun_a_page_is_posted_at_once(store: Store) -> None:
    async with make_scene() as scene:
        scene.slack.fail("chat.startStream", status=429, retry_after=60)

        async with asyncio.timeout(50):
            await scene.answer(store, WORDS)
            # How often depends on the machine.
            assert scene.calls("chat.update")
            await scene.answer(store, WORDS)
        scene.slack.clock.advance(60)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()] * 2
        assert scene.calls("chat.startStream") == 1


async def test_a_pause_of_starts_is_known_to_all_processes(store: Store) -> None:
    async with make_scene(EditBudgets(store=store)) as scene:
        scene.slack.fail("chat.startStream", status=429, retry_after=60)
        await scene.answer(store, WORDS)

        async with joined(scene.slack, budgets=EditBudgets(store=store)) as scene.platform:
            async with asyncio.timeout(50):
                await scene.answer(store, WORDS)

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()] * 2
        assert scene.calls("chat.startStream") == 1


async def test_where_as_many_streams_were_begun_as_may_be_a_page_is_posted_at_once(
    store: Store,
) -> None:
    budgets = EditBudgets(store=store)
    async with make_scene(budgets) as scene:
        starts = EditBudget(f"slack:start:{scene.slack.team_id}", 20, 60.0, shape="refills")
        for _ in range(20):
            await budgets.final(starts, deadline=math.inf)

        answering = asyncio.create_task(scene.answer(store, WORDS, pause=0.03))
        await until(scene.texts)
        await answering

        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]
        assert not scene.calls("chat.startStream")


async def test_what_is_posted_instead_of_a_stream_takes_a_slot_for_it(store: Store) -> None:
    budgets = EditBudgets(store=store)
    async with make_scene(budgets) as scene:
        scene.slack.fail("chat.startStream", status=429, retry_after=60)
        posts = f"slack:post:{scene.slack.channel_id}"
        pause_ends = time.monotonic() + 0.5
        await budgets.pause(EditBudget(posts, 5, 5.2, shape="refills"), 0.5)

        answering = asyncio.create_task(scene.answer(store, WORDS, pause=0.03))
        await until(scene.texts)
        was_paused = time.monotonic() < pause_ends
        await answering

        assert not was_paused
        assert [text.strip() for text in scene.texts()] == [TEXT.strip()]


async def test_each_stream_takes_a_slot_and_none_starts_without() -> None:
    async with make_scene(Slots(20)) as scene:
        async with scene.platform.surface(scene.turn) as surface:
            await asyncio.gather(*(surface.post(growing("Because")) for _ in range(20)))
            begun = scene.calls("chat.startStream"), scene.calls("chat.postMessage")
            with pytest.raises(WriteDelayed):
                await surface.post(growing("Because"))

        assert begun == (20, 0)
        assert scene.calls("chat.startStream") == 20


async def test_each_kind_of_write_has_the_budget_of_its_method() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        grows, other = growing("Because so"), growing("Or not")
        ends, empty = Page(0, "Because so.", final=True), Page(0, "", final=True)
        start = surface.budget(grows, new=True)
        await surface.post(growing("Because"))

        kinds = [surface.budget(page, new=False) for page in (grows, ends, other, empty)]

        names = [budget.bucket.split(":")[1] for budget in kinds if budget]
        assert names == ["append", "stop", "stop", "update"]
        # It is begun at once or not at all.
        assert start is None


@pytest.mark.parametrize(
    ("method", "page"),
    [
        ("chat.appendStream", growing("Because so")),
        ("chat.stopStream", Page(0, "Because so.", final=True)),
    ],
)
async def test_what_a_pause_holds_back_is_added_after_it(method: str, page: Page) -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        message_id = await surface.post(growing("Because"))
        scene.slack.fail(method, status=429, retry_after=7)

        with pytest.raises(WriteDelayed):
            await surface.edit(message_id, page)
        await surface.edit(message_id, page)

        assert scene.texts() == [page.text]


async def test_no_budget_is_larger_than_what_slack_allows() -> None:
    async with make_scene() as scene, scene.platform.surface(scene.turn) as surface:
        ends, empty = Page(0, "Because so.", final=True), Page(0, "", final=True)
        post = surface.budget(ends, new=True)
        await surface.post(growing("Because"))
        append = surface.budget(growing("Because so"), new=False)
        stop, update = surface.budget(ends, new=False), surface.budget(empty, new=False)

        for budget, rate in [(post, CHANNEL), (append, TIER_4), (stop, TIER_2), (update, TIER_3)]:
            assert budget
            assert budget.writes <= rate.burst
            assert budget.writes / budget.seconds <= rate.calls / rate.seconds
