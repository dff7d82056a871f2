"""The worker: every turn ends, once, whatever happens to its worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bot.concurrency import Backoff
from bot.domain import Delta, LeftOut, Page, Purpose, Shown, Start, Turn
from bot.errors import GivenUp, ModelUnavailable, PlaceGone, WriteDelayed, WriteFailed, WriteRefused
from bot.reply.draft import LEFT_OUT, STOPPED
from bot.store import Store
from bot.turns.queue import Taken, TurnLeases
from tests.support.at_work import (
    KEY,
    POLICY,
    WORDS,
    all_ended,
    answer,
    expire_all,
    make_leases,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    remembered,
    take,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform, FakeSurface
from tests.support.waiting import until


async def test_an_admitted_turn_is_answered_and_remembered(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(["Hi", " Ann"])

    await answer(store, platform, model, make_turn())

    assert platform.shown.text == "Hi Ann"
    assert await remembered(store) == [("question 1", "Hi Ann")]
    assert await outcome(store) == "done"


async def test_the_second_turn_sees_the_first_exchange(store: Store) -> None:
    model = FakeModel(["Hi"])

    await answer(store, FakePlatform(), model, make_turn(1), make_turn(2))

    assert [(message.role, message.text) for message in model.prompts[1]] == [
        ("system", "Be brief."),
        ("user", "question 1"),
        ("assistant", "Hi"),
        ("user", "question 2"),
    ]


@pytest.mark.parametrize("shown", [["Half"], []])
async def test_a_failed_turn_is_remembered_by_what_was_shown(
    store: Store, shown: list[str]
) -> None:
    model = FakeModel(shown, error=ModelUnavailable("cut"))

    await answer(store, FakePlatform(), model, make_turn())

    assert await outcome(store) == "failed"
    assert await remembered(store) == [("question 1", one) for one in shown]


async def test_stop_reaches_a_running_reply(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(WORDS * 20, pause=0.02)

    async with working(make_worker(store, platform, model)):
        await make_queue(store).admit(make_turn())
        await until(lambda: platform.shown.states)
        await make_queue(store).changes.stop("console:1")
        await all_ended(store)

    assert await outcome(store) == "stopped"
    assert platform.shown.text.endswith("(Stopped.)")


@pytest.mark.parametrize(
    ("said", "characters"),
    [
        (["Yes", "."], 5),
        ([LeftOut(7), "Yes", "."], 12),
        (["No", Start(""), "Yes", "."], 5),
        ([LeftOut(7), "No", Start(""), "Yes", "."], 5),
    ],
)
async def test_a_question_longer_than_is_kept_gets_a_notice(
    said: list[Delta], characters: int, store: Store
) -> None:
    platform = FakePlatform()

    await answer(store, platform, FakeModel(said), replace(make_turn(), left_out=5))

    assert platform.shown.text == f"Yes.\n\n{LEFT_OUT.format(characters=characters)}"


@pytest.mark.parametrize("opens", [True, False])
async def test_a_place_that_is_gone_ends_the_turn(store: Store, opens: bool) -> None:
    gone = PlaceGone("no permission")
    platform = FakePlatform(shown=FakeSurface(errors=[gone])) if opens else FakePlatform(error=gone)

    await answer(store, platform, FakeModel(), make_turn())

    assert await outcome(store) == "failed"
    assert await remembered(store) == []


async def test_a_place_that_goes_in_mid_reply_is_remembered_by_what_was_shown(store: Store) -> None:
    surface = FakeSurface(errors=[None, PlaceGone("archived")])
    model = FakeModel(["Half", lambda: surface.text, " more"])

    await answer(store, FakePlatform(shown=surface), model, make_turn())

    assert await outcome(store) == "failed"
    assert surface.text == f"Half\n\n{PlaceGone.apology}"
    assert await remembered(store) == [("question 1", "Half")]


async def test_a_platform_that_is_away_gets_the_turn_again(store: Store) -> None:
    platform = FakePlatform(error=WriteFailed("connection refused"))
    policy = replace(POLICY, retry=Backoff(0.01, 0.01))

    async with working(make_worker(store, platform, FakeModel(["Hi"]), policy=policy)):
        await make_queue(store).admit(make_turn())
        await until(lambda: platform.opened > 1)
        platform.error = None
        await all_ended(store)

    assert platform.shown.text == "Hi"
    assert await outcome(store) == "done"


async def test_a_platform_that_asks_to_wait_is_given_the_time(store: Store) -> None:
    before, platform = time.time(), FakePlatform(error=WriteDelayed("wait", retry_after=30.0))
    wanted, due = (before + 29) * 1000, 0.0

    async with working(make_worker(store, platform, FakeModel(["Hi"]))):
        await make_queue(store).admit(make_turn())
        async with asyncio.timeout(60):
            # Until then it is the end of the lease.
            while due < wanted:
                due = await store.command("ZSCORE", store.key("due", "console"), str(KEY)) or 0.0
                await asyncio.sleep(0.01)


async def test_a_place_that_takes_not_even_an_apology_is_not_tried_again(store: Store) -> None:
    surface, model = FakeSurface(errors=[WriteRefused("moderated")] * 2), FakeModel(["Hi"])

    await answer(store, FakePlatform(shown=surface), model, make_turn())

    assert (surface.screen, len(model.prompts)) == ({}, 1)
    assert await outcome(store) == "failed"


@dataclass
class Buggy(FakeSurface):
    """Takes nothing but the end of an answer, and that not at the first four times."""

    bugs: int = 4

    async def post(self, page: Page) -> str:
        if not page.last:
            raise WriteFailed("away")
        self.bugs -= 1
        if self.bugs >= 0:
            raise ValueError("a bug")
        return await super().post(page)


async def test_a_turn_that_fails_every_time_ends_with_an_apology(store: Store) -> None:
    policy = replace(POLICY, max_attempts=2, attempts_at_errors=9, retry=Backoff(0.0, 0.0))
    # The answer is whole, so it gets as many attempts again.
    platform, model = FakePlatform(shown=Buggy()), FakeModel(["Hi"], pause=0.05)

    async with working(make_worker(store, platform, model, policy=policy)):
        await make_queue(store).admit(make_turn())
        await until(lambda: platform.shown.text == GivenUp.apology)

    assert await outcome(store) == "dead"
    assert await remembered(store) == []
    assert len(model.prompts) == 1


async def test_a_dead_workers_reply_is_finished_in_the_same_message(store: Store) -> None:
    platform, text = FakePlatform(), "".join(WORDS)
    dead = make_queue(store, "dead")
    await dead.admit(make_turn())
    taken = await take(dead)
    half = await platform.shown.post(Page(0, text[:50], final=False))
    await dead.leases.save(taken, Shown((half,), text[:50], text[:50]))

    await answer(store, platform, FakeModel(WORDS), name="next")

    assert list(platform.shown.screen) == [half]
    assert platform.shown.text == text
    assert await remembered(store) == [("question 1", text)]


@dataclass
class Waiting(FakePlatform):
    """Opens no surface before the model is asked."""

    model: FakeModel = field(default_factory=lambda: FakeModel(["Hi"]))

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[FakeSurface]:
        await until(lambda: self.model.prompts)
        async with super().surface(turn, purpose) as surface:
            yield surface


async def test_the_model_thinks_while_the_platform_opens_the_surface(store: Store) -> None:
    platform = Waiting()

    await answer(store, platform, platform.model, make_turn())

    assert platform.shown.text == "Hi"


async def test_a_model_that_thinks_when_the_place_is_gone_is_hung_up_on(store: Store) -> None:
    model = FakeModel(pause=600)
    platform = Waiting(model=model, error=PlaceGone("no permission"))

    await answer(store, platform, model, make_turn())

    assert (model.at_once, len(model.prompts)) == (0, 1)
    assert await outcome(store) == "failed"


@dataclass
class Purposes(FakePlatform):
    """Records the purpose of each turn's first surface, and the turns whose strays were read."""

    purposes: dict[str, Purpose] = field(default_factory=dict)
    looked: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[FakeSurface]:
        self.purposes.setdefault(turn.id, purpose)
        async with super().surface(turn, purpose) as surface:
            yield surface

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        self.looked.append(turn.id)
        return await super().orphaned_messages(turn, but=but)


async def test_a_platform_knows_a_second_attempt(store: Store) -> None:
    platform, dead = Purposes(), make_queue(store, "dead")
    await dead.admit(make_turn(1))
    await take(dead)
    await dead.admit(make_turn(2, thread="t2"))

    worker = make_worker(store, platform, FakeModel(["Hi"]), late_write_leases=0.1)
    async with working(worker):
        await until(lambda: platform.looked)
        await all_ended(store)

    assert platform.purposes == {"console:1": Purpose.RESUME, "console:2": Purpose.ANSWER}
    assert platform.looked == ["console:1"]


class Unreadable(TurnLeases):
    """Cannot take the first turn."""

    first = True

    async def take(self, *of: Any, **how: Any) -> Taken | float:
        taken = await super().take(*of, **how)
        if self.first and isinstance(taken, Taken):
            self.first = False
            raise ValueError("a bug")
        return taken


async def test_a_turn_that_cannot_be_taken_is_logged_and_stops_no_other(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    leases = make_leases(Unreadable, store)

    async with working(make_worker(store, FakePlatform(), FakeModel(["Hi"]), leases=leases)):
        for number in (1, 2):
            await make_queue(store).admit(make_turn(number, thread=f"t{number}"))
        await all_ended(store)

    assert await outcome(store, 1) == await outcome(store, 2) == "done"
    assert [one.levelname for one in caplog.records if one.exc_info] == ["ERROR"]


class Broken(TurnLeases):
    """Has a bug in its waiting."""

    async def wait(self, platforms: Sequence[str], seconds: float) -> None:
        raise ValueError("a bug")


async def test_a_worker_that_cannot_go_on_says_so(store: Store) -> None:
    leases = make_leases(Broken, store)

    async with asyncio.timeout(60):
        with pytest.raises(ValueError, match="a bug"):
            await make_worker(store, FakePlatform(), FakeModel(), leases=leases).run(
                asyncio.Event()
            )


async def test_a_turn_that_was_stopped_before_it_is_taken_again_asks_for_nothing_more(
    store: Store,
) -> None:
    platform, dead = FakePlatform(), make_queue(store, "dead")
    await dead.admit(make_turn())
    taken = await take(dead)
    half = await platform.shown.post(Page(0, "Half", final=False))
    await dead.leases.save(taken, Shown((half,), "Half", "Half"))
    await dead.changes.stop("console:1")
    await expire_all(store)

    # Neither a renewal nor a save tells of it in time.
    await answer(store, platform, FakeModel(WORDS, pause=600), lease=60)

    assert platform.shown.text == f"Half\n\n{STOPPED}"
    assert await remembered(store) == [("question 1", "Half")]
