"""Repairs: late writes and orphaned messages of a worker that lost its lease."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bot.concurrency import Backoff
from bot.domain import Exchange, Page, Purpose, Shown, Turn
from bot.errors import SurfaceError, WriteDelayed, WriteFailed
from bot.store import Store
from bot.turns.queue import Taken, TurnLeases, TurnQueue
from bot.turns.repair import WorkPolicy
from tests.support.at_work import (
    KEY,
    LEASE,
    POLICY,
    WORDS,
    all_ended,
    all_repaired,
    cuttable,
    due_repair,
    expire_all,
    make_leases,
    make_queue,
    make_turn,
    make_worker,
    pending_repairs,
    press,
    repairing,
    take,
    until_shown,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform, FakeSurface
from tests.support.waiting import until


async def taken_by_another(store: Store) -> tuple[TurnQueue, Taken]:
    """Let another worker take the turn, as after a pause of the first."""
    other = make_queue(store, "other")
    async with asyncio.timeout(60):
        while True:
            # The first worker may have renewed its lease meanwhile.
            await expire_all(store)
            if isinstance(taken := await other.leases.take(["console"]), Taken):
                return other, taken


async def lose_the_turn(store: Store, *message_ids: str) -> None:
    """Let another worker take the turn and end it."""
    other, taken = await taken_by_another(store)
    await other.leases.finish(taken, Shown(message_ids, "The end.", outcome="done"), None)


@asynccontextmanager
async def late_reply(
    store: Store, platform: FakePlatform, *, orphan: bool = False, policy: WorkPolicy = POLICY
) -> AsyncIterator[FakeModel]:
    """Begin a reply that another worker is to end; `orphan` leaves a message nobody knows of."""
    slow = FakeModel(WORDS * 20, pause=0.02)
    async with working(make_worker(store, platform, slow, name="late", policy=policy)):
        await make_queue(store).admit(make_turn())
        await until(lambda: platform.shown.screen)
        if orphan:
            platform.left = ["m1", await platform.shown.post(Page(0, "Half", final=False))]
        yield slow


@pytest.mark.parametrize("is_silent", [False, True])
async def test_a_worker_that_lost_its_lease_hangs_up_and_restores_the_final_text(
    store: Store, is_silent: bool
) -> None:
    platform, policy = FakePlatform(), replace(POLICY, post_grace=0.1)

    async with late_reply(store, platform, policy=policy) as slow:
        slow.pause = 600 if is_silent else slow.pause
        await lose_the_turn(store, "m1")
        await until_shown(platform, {"m1": "The end."})

    assert slow.hung_up == 1


class LateAnswers(FakeSurface):
    """Shows what is posted, and says so half a second later."""

    async def post(self, page: Page) -> str:
        message_id = await super().post(page)
        await asyncio.sleep(0.5)
        return message_id


async def test_a_post_that_is_under_way_when_the_lease_is_lost_goes(store: Store) -> None:
    platform = FakePlatform(shown=LateAnswers())

    async with late_reply(store, platform):
        other, taken = await taken_by_another(store)
        theirs = await FakeSurface.post(platform.shown, Page(0, "The end.", final=True))
        await other.leases.finish(taken, Shown((theirs,), "The end.", outcome="done"), None)

        await until_shown(platform, {theirs: "The end."})


class LateEnds(TurnLeases):
    """Tells that the end of a turn is stored a lease after it was."""

    told = False

    async def finish(
        self, taken: Taken, shown: Shown, exchange: Exchange | None, **use: Any
    ) -> str:
        older = await super().finish(taken, shown, exchange, **use)
        await asyncio.sleep(LEASE)
        self.told = True
        return older


async def test_a_renewal_refused_while_the_end_is_stored_is_no_lost_turn(store: Store) -> None:
    platform = FakePlatform()
    leases = make_leases(LateEnds, store)

    async with working(make_worker(store, platform, FakeModel(["Hi"]), leases=leases)):
        await make_queue(store).admit(make_turn())
        await until(lambda: leases.told)
        await asyncio.sleep(LEASE)

    # A repair would open it once more.
    assert platform.opened == 1


async def test_the_final_text_is_restored_however_the_store_was_away_meanwhile(
    store: Store, valkey_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    platform = FakePlatform()
    async with cuttable(store, valkey_url) as (way, cut_off), late_reply(cut_off, platform) as slow:
        other, taken = await taken_by_another(store)
        await until(lambda: slow.hung_up)
        await way.cut()
        await until(lambda: "Cannot take turns" in caplog.text)
        await other.leases.finish(taken, Shown(("m1",), "The end.", outcome="done"), None)
        await way.mend()

        await until_shown(platform, {"m1": "The end."})


@dataclass
class Reluctant(FakeSurface):
    """Fails when a message is to be taken away for the first time."""

    failed: bool = False

    async def edit(self, message_id: str, page: Page) -> None:
        if not page.text and not self.failed:
            self.failed = True
            raise WriteFailed("away")
        await super().edit(message_id, page)


@pytest.mark.parametrize("surface", [FakeSurface, Reluctant])
async def test_a_message_that_only_the_loser_of_a_lease_knows_goes(
    surface: type[FakeSurface], store: Store
) -> None:
    platform = FakePlatform(shown=surface())

    async with late_reply(store, platform):
        theirs = await platform.shown.post(Page(0, "Half", final=False))
        await lose_the_turn(store, theirs)

        await until_shown(platform, {theirs: "The end."})


@dataclass
class Looking(FakePlatform):
    """Tells whether it was asked for orphaned messages."""

    looked: bool = False

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        self.looked = True
        return await super().orphaned_messages(turn, but=but)


async def test_a_message_that_nobody_knows_of_goes(store: Store) -> None:
    policy = replace(POLICY, save_leases=5)
    platform = Looking()

    async with late_reply(store, platform, orphan=True, policy=policy):
        another = await platform.shown.post(Page(0, "Of the next turn.", final=False))
        platform.left = [*platform.left, another]
        await lose_the_turn(store, "m1")
        # The next turn saves its message later than it posts it.
        await until(lambda: platform.looked)
        await asyncio.sleep(0.1)
        await store.command("SET", store.key("posted", "console", another), str(KEY))

        await until_shown(platform, {"m1": "The end.", another: "Of the next turn."})


async def test_what_a_killed_process_wrote_over_an_answer_goes(store: Store) -> None:
    platform, queue = FakePlatform(left=["m1"], unfinished=["m1"]), make_queue(store, lease=LEASE)
    await queue.admit(make_turn(1))
    await queue.leases.release(await take(queue), delay_seconds=0, counts=True)
    again = await take(queue)
    await queue.leases.finish(again, Shown(("m1",), "The end.", outcome="done"), None)
    # It had the turn before, and nobody lives who would report it.
    assert await platform.shown.post(Page(0, "The model is busy.", final=False)) == "m1"

    async with repairing(queue, platform, POLICY):
        await until_shown(platform, {"m1": "The end."})


async def test_a_repair_that_dies_over_the_pages_of_an_answer_is_made_again(store: Store) -> None:
    platform = FakePlatform(left=["m1"], unfinished=["m1"])
    queue, whole = make_queue(store, lease=LEASE), " ".join(["word"] * 600)
    await queue.admit(make_turn(1))
    await queue.leases.release(await take(queue), delay_seconds=0, counts=True)
    ended = Shown(("m1", "m2"), whole, whole, outcome="done")
    await queue.leases.finish(await take(queue), ended, None)
    for number in (0, 1):
        await platform.shown.post(Page(number, "?", final=False))
    platform.shown.errors = [None, RuntimeError("the process dies")]

    async with repairing(queue, platform, replace(POLICY, repair_leases=1)):
        await until(lambda: platform.shown.screen["m1"].final)
        # A message that is closed tells nobody that the other one is not.
        platform.unfinished = []
        await until(lambda: platform.shown.screen["m2"].final)

    assert platform.shown.text.split() == whole.split()


@pytest.mark.parametrize("saves", [True, False])
async def test_a_message_that_a_turn_under_way_has_not_saved_yet_stays(
    saves: bool, store: Store
) -> None:
    policy = replace(POLICY, save_leases=0.1)
    platform, queue = FakePlatform(left=["m1"]), make_queue(store, lease=60)
    for number in (1, 2, 3):
        await queue.admit(make_turn(number))
    first = await take(queue)
    await queue.leases.finish(first, Shown((), outcome="done"), None)
    second = await take(queue)
    # Posted while the worker of the second turn does not reach the store.
    await platform.shown.post(Page(0, "Half", final=False))

    async with repairing(queue, platform, policy):
        await queue.repairs.report_late_writes(first.turn, ())
        await asyncio.sleep(LEASE)
        shown = list(platform.shown.screen)
        await queue.leases.finish(second, Shown(("m1",) if saves else (), outcome="done"), None)
        await all_repaired(store)

    assert shown == ["m1"]
    assert list(platform.shown.screen) == (["m1"] if saves else [])


@pytest.mark.parametrize(
    ("error", "pause"), [(WriteFailed("away"), 60.0), (WriteDelayed("wait", retry_after=60), 0.0)]
)
async def test_a_platform_that_is_away_is_not_hammered_to_repair(
    error: SurfaceError, pause: float, store: Store
) -> None:
    platform = FakePlatform()
    policy = replace(POLICY, repair_retry=Backoff(pause, pause))

    async with late_reply(store, platform, orphan=True, policy=policy):
        platform.error = error
        await lose_the_turn(store, "m1")
        await until(lambda: platform.opened > 1)
        await asyncio.sleep(LEASE)

    # For the reply, and for the first attempt at its repair.
    assert platform.opened == 2


@pytest.mark.parametrize("error", [WriteFailed("away"), WriteDelayed("wait", retry_after=0.1)])
async def test_a_platform_that_is_away_is_repaired_later(error: SurfaceError, store: Store) -> None:
    platform = FakePlatform()

    async with late_reply(store, platform, orphan=True):
        platform.error = error
        await lose_the_turn(store, "m1")
        await until(lambda: platform.opened > 2)
        platform.error = None

        await until_shown(platform, {"m1": "The end."})


async def test_a_search_for_orphans_that_fails_is_repeated(store: Store) -> None:
    platform = FakePlatform(unseen=2)

    async with late_reply(store, platform, orphan=True):
        # One that a person has deleted meanwhile.
        platform.left = ["m1", "gone", "m2"]
        await lose_the_turn(store, "m1")

        await until_shown(platform, {"m1": "The end."})


async def test_a_message_of_an_earlier_attempt_that_its_answer_does_not_need_goes(
    store: Store,
) -> None:
    platform, dead = FakePlatform(), make_queue(store, "dead")
    await dead.admit(make_turn())
    await take(dead)
    platform.left = [await platform.shown.post(Page(1, "Half", final=False))]

    async with working(make_worker(store, platform, FakeModel(WORDS), late_write_leases=0.2)):
        await until_shown(platform, {"m2": "".join(WORDS)})


# Repairs are queued


async def ended_by_a_second_try(queue: TurnQueue, number: int = 1) -> Taken:
    await queue.admit(make_turn(number, thread=f"t{number}"))
    await queue.leases.release(await take(queue), delay_seconds=0, counts=True)
    taken = await take(queue)
    await queue.leases.finish(taken, Shown(("m1",), "The end.", outcome="done"), None)
    return taken


async def test_what_a_dead_worker_began_to_repair_is_repaired_by_another(store: Store) -> None:
    platform, queue = FakePlatform(), make_queue(store)
    await platform.shown.post(Page(0, "The end.", final=True))
    platform.left = [await platform.shown.post(Page(0, "Half", final=False))]
    await ended_by_a_second_try(queue)
    await due_repair(make_queue(store, "dead"), seconds=0.5)

    async with repairing(queue, platform):
        await until_shown(platform, {"m1": "The end."})
        await all_repaired(store)


async def test_an_end_that_is_written_late_is_none_that_gave_way_meanwhile(store: Store) -> None:
    policy = replace(POLICY, repair_retry=Backoff(LEASE, LEASE))
    platform, queue = FakePlatform(), make_queue(store)
    platform.shown.screen["m1"] = Page(0, "Half", final=True, last=True)
    platform.shown.errors = [WriteFailed("away")]
    await queue.admit(make_turn())
    await queue.leases.release(await take(queue), delay_seconds=0, counts=True)
    await queue.leases.finish(await take(queue), Shown(("m1",), "Sorry.", outcome="dead"), None)

    async with repairing(queue, platform, policy):
        await until(lambda: not platform.shown.errors)
        await press(store)
        anew = await take(queue)
        await platform.shown.edit("m1", Page(0, "New", final=False))
        await asyncio.sleep(3 * LEASE)
        assert platform.shown.text == "New"

        await queue.leases.finish(anew, Shown(("m1",), "New", outcome="done"), None)
        await all_repaired(store)

    assert platform.shown.text == "New"


async def test_an_answer_that_needed_one_attempt_is_not_looked_at(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())

    await queue.leases.finish(await take(queue), Shown(("m1",), "The end.", outcome="done"), None)

    assert await pending_repairs(store) == 0


async def test_what_was_lost_under_way_is_repaired_after_its_end(store: Store) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn())
    first = await take(queue)
    await queue.repairs.report_late_writes(first.turn, ("m1", "m2"))
    running = await queue.repairs.claim("console", seconds=60)
    await queue.leases.release(first, delay_seconds=0, counts=True)
    await queue.repairs.report_late_writes(first.turn, ())
    waiting = await queue.repairs.claim("console", seconds=60)

    taken = await take(queue)
    await queue.repairs.report_late_writes(taken.turn, ("m3",))
    await queue.leases.finish(taken, Shown(("m1",), "The end.", outcome="done"), None)
    landing = await queue.repairs.claim("console", seconds=60)
    repair = await due_repair(queue)

    assert (running, waiting, landing) == (None, None, None)
    assert (repair.turn, repair.late_writes) == (taken.turn, ("m1", "m2", "m3"))
    await queue.repairs.complete(repair)
    assert await pending_repairs(store) == 0


async def test_each_late_write_is_repaired_once(store: Store) -> None:
    queue = make_queue(store)
    taken = await ended_by_a_second_try(queue)
    repairs = [await due_repair(queue)]

    # It comes while the first repair is under way.
    await queue.repairs.report_late_writes(taken.turn, ("m2",))
    await queue.repairs.complete(repairs[0])
    repairs.append(await due_repair(queue))
    await queue.repairs.complete(repairs[1])
    await queue.repairs.report_late_writes(taken.turn, ("m3",))
    repairs.append(await due_repair(queue))

    assert [one.late_writes for one in repairs] == [(), ("m2",), ("m3",)]


@dataclass
class Counting(FakePlatform):
    """Counts the surfaces that were closed."""

    closed: int = 0

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[FakeSurface]:
        async with super().surface(turn, purpose) as surface:
            yield surface
        self.closed += 1


async def test_a_reply_that_is_the_newest_again_keeps_its_buttons(store: Store) -> None:
    platform, queue = Counting(), make_queue(store)
    await queue.admit(make_turn())
    await queue.leases.finish(await take(queue), Shown(("m1",), "Hi", "Hi", outcome="done"), None)
    page = Page(0, "Hi", final=True)
    await platform.shown.post(page)

    async with repairing(queue, platform) as reconciler:
        reconciler.take_buttons_away("console:1")
        await until(lambda: platform.closed)

    assert platform.shown.screen["m1"] == page


@pytest.mark.parametrize("has_buttons", [True, False])
async def test_an_older_reply_is_written_again_where_it_has_buttons(
    store: Store, has_buttons: bool
) -> None:
    surface, queue = FakeSurface(has_buttons=has_buttons), make_queue(store)
    for number in (1, 2):
        await queue.admit(make_turn(number))
        shown = Shown((f"m{number}",), "Hi", "Hi", outcome="done")
        await queue.leases.finish(await take(queue), shown, None)
        await surface.post(Page(0, "Hi", final=True, last=True))
    platform = Counting(shown=surface)

    async with repairing(queue, platform) as reconciler:
        reconciler.take_buttons_away("console:1")
        await until(lambda: platform.closed)

    assert (surface.screen["m1"].end == "older") is has_buttons


async def test_a_page_whose_rest_went_below_is_closed_after_the_end_of_the_turn(
    store: Store,
) -> None:
    # Longer than an edit is waited for.
    surface = FakeSurface(errors=[None, WriteDelayed("slow", retry_after=8.0)])
    model, queue = FakeModel(["One tw", "o three."], pause=0.3), make_queue(store)

    async with working(make_worker(store, FakePlatform(shown=surface), model, patience=30.0)):
        await queue.admit(make_turn())
        await all_ended(store)
        assert [page.final for page in surface.screen.values()] == [False, True]
        await until(lambda: surface.screen["m1"].final)

    assert [page.text for page in surface.screen.values()] == ["One", "two three."]


@pytest.mark.parametrize("text", ["One three.", ""])
async def test_a_page_is_not_closed_once_its_reply_was_written_again_or_forgotten(
    store: Store, text: str
) -> None:
    platform, queue = Counting(), make_queue(store)
    await queue.admit(make_turn())
    ended = Shown(("m1", "m2"), text, text, outcome="done")
    taken = await take(queue)
    await queue.leases.finish(taken, ended, None)
    page = Page(0, "New", final=True)
    await platform.shown.post(page)

    async with repairing(queue, platform) as reconciler:
        reconciler.close(taken.turn, replace(ended, text="One two."), Page(0, "One", final=True))
        await until(lambda: platform.closed)

    assert platform.shown.screen["m1"] == page


async def test_what_cannot_be_repaired_is_given_up(store: Store) -> None:
    queue, looks = make_queue(store), 0
    taken = await ended_by_a_second_try(queue)
    await due_repair(queue, seconds=0.0)
    # It begins anew with what is told later.
    await queue.repairs.report_late_writes(taken.turn, ())
    while await pending_repairs(store):
        if await queue.repairs.claim("console", seconds=0.0):
            looks += 1
        await asyncio.sleep(0.002)

    assert looks == 200


async def test_a_turn_of_another_version_holds_up_no_other(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    queue = make_queue(store)
    strange = await ended_by_a_second_try(queue, 1)
    await ended_by_a_second_try(queue, 2)
    await store.command("HSET", store.key("turn", strange.turn.id), "place", "[]")

    repair = await due_repair(queue)

    assert repair.turn.id == "console:2"
    ((level, line),) = [(one.levelname, one.getMessage()) for one in caplog.records]
    assert (level, "console:1" in line) == ("WARNING", True)
    await queue.repairs.complete(repair)
    assert await pending_repairs(store) == 0


@dataclass
class Buggy(FakePlatform):
    """Fails over the first turn with an error of its own."""

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        if turn.id == "console:1":
            raise ValueError("a bug")
        return await super().orphaned_messages(turn, but=but)


async def test_a_bug_over_one_turn_holds_up_no_other(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    platform, queue = Buggy(), make_queue(store)
    await ended_by_a_second_try(queue, 1)
    await ended_by_a_second_try(queue, 2)

    async with repairing(queue, platform):
        async with asyncio.timeout(60):
            while await pending_repairs(store) != 1:
                await asyncio.sleep(0.02)
        await until(lambda: "Turn console:1" in caplog.text)

    assert {one.levelname for one in caplog.records if one.exc_info} == {"ERROR"}
