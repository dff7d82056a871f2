"""The worker: every turn ends, once, whatever happens to its worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from bot.domain import Delta, LeftOut, Page, Purpose, Shown, Start, Turn
from bot.errors import GivenUp, ModelUnavailable, PlaceGone, WriteDelayed, WriteFailed, WriteRefused
from bot.reply.draft import LEFT_OUT, STOPPED
from bot.store import Store
from bot.turns import worker as worker_module
from bot.turns.queue import Taken, Token, TurnQueue
from tests.support.at_work import (
    KEY,
    LEASE,
    LIMITS,
    WORDS,
    a_queue,
    a_turn,
    a_worker,
    all_ended,
    expire,
    outcome,
    ready,
    remembered,
    running,
    take,
)
from tests.support.fakes import FakeModel, FakePlatform, FakeSurface
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("short_reads")


async def test_an_admitted_turn_is_answered_and_remembered(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(["Hi", " Ann"])

    async with running(a_worker(store, platform, model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert platform.shown.text == "Hi Ann"
    assert await remembered(store) == [("question 1", "Hi Ann")]
    assert await outcome(store) == "done"


async def test_the_second_turn_sees_the_first_exchange(store: Store) -> None:
    model = FakeModel(["Hi"])

    async with running(a_worker(store, FakePlatform(), model)):
        await a_queue(store).admit(a_turn(1))
        await a_queue(store).admit(a_turn(2))
        await all_ended(store)

    assert [(message.role, message.text) for message in model.prompts[1]] == [
        ("system", "Be brief."),
        ("user", "question 1"),
        ("assistant", "Hi"),
        ("user", "question 2"),
    ]


async def test_a_failed_turn_is_remembered_by_what_was_shown(store: Store) -> None:
    model = FakeModel(["Half"], error=ModelUnavailable("cut"))

    async with running(a_worker(store, FakePlatform(), model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await outcome(store) == "failed"
    assert await remembered(store) == [("question 1", "Half")]


async def test_a_turn_without_a_word_leaves_nothing_in_the_history(store: Store) -> None:
    model = FakeModel([], error=ModelUnavailable("refused"))

    async with running(a_worker(store, FakePlatform(), model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await remembered(store) == []


async def test_stop_reaches_a_running_reply(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(WORDS * 20, pause=0.02)

    async with running(a_worker(store, platform, model)):
        await a_queue(store).admit(a_turn())
        async with asyncio.timeout(5):
            while not platform.shown.states:
                await asyncio.sleep(0.01)
        await a_queue(store).stop("console:1")
        async with asyncio.timeout(1):
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
async def test_who_says_more_than_is_kept_is_told(
    said: list[Delta], characters: int, store: Store
) -> None:
    platform = FakePlatform()

    async with running(a_worker(store, platform, FakeModel(said))):
        await a_queue(store).admit(replace(a_turn(), left_out=5))
        await all_ended(store)

    assert platform.shown.text == f"Yes.\n\n{LEFT_OUT.format(characters=characters)}"


async def test_threads_are_answered_side_by_side(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)

    async with running(a_worker(store, FakePlatform(), model)):
        for number in range(6):
            await a_queue(store).admit(a_turn(number, thread=f"t{number}"))
        async with asyncio.timeout(1.5):
            await all_ended(store)

    assert len(model.prompts) == 6


async def test_a_place_that_is_gone_ends_the_turn(store: Store) -> None:
    platform = FakePlatform(error=PlaceGone("no permission"))

    async with running(a_worker(store, platform, FakeModel())):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await outcome(store) == "failed"
    assert await remembered(store) == []


async def test_what_a_place_has_not_taken_is_not_remembered(store: Store) -> None:
    surface = FakeSurface(errors=[PlaceGone("no permission")])

    async with running(a_worker(store, FakePlatform(shown=surface), FakeModel(["Hi"]))):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await outcome(store) == "failed"
    assert await remembered(store) == []


async def test_a_place_that_goes_in_mid_reply_is_remembered_by_what_was_shown(
    store: Store,
) -> None:
    surface = FakeSurface(errors=[None, PlaceGone("archived")])

    async with running(
        a_worker(store, FakePlatform(shown=surface), FakeModel(["Half", " more"], pause=0.1))
    ):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await outcome(store) == "failed"
    assert surface.text == f"Half\n\n{PlaceGone.apology}"
    assert await remembered(store) == [("question 1", "Half")]


async def test_a_platform_that_is_away_gets_the_turn_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "LONGEST_BACK", 0.1)
    platform = FakePlatform(error=WriteFailed("connection refused"))

    async with running(a_worker(store, platform, FakeModel(["Hi"]))):
        await a_queue(store).admit(a_turn())
        await asyncio.sleep(0.2)
        platform.error = None
        await all_ended(store)

    assert platform.shown.text == "Hi"
    assert await outcome(store) == "done"


async def test_a_platform_that_asks_to_wait_is_given_the_time(store: Store) -> None:
    platform = FakePlatform(error=WriteDelayed("wait", retry_after=30.0))
    later = store.key("later", "console")

    async with running(a_worker(store, platform, FakeModel(["Hi"]))):
        await a_queue(store).admit(a_turn())
        async with asyncio.timeout(10):
            while not (due := await store.command("ZSCORE", later, str(KEY))):
                await asyncio.sleep(0.01)

    assert due / 1000 > time.time() + 15


async def test_a_place_that_takes_not_even_an_apology_is_not_tried_again(store: Store) -> None:
    surface, model = FakeSurface(errors=[WriteRefused("moderated")] * 2), FakeModel(["Hi"])

    async with running(a_worker(store, FakePlatform(shown=surface), model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

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


async def test_a_turn_that_fails_every_time_ends_with_an_apology(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "LONGEST_BACK", 0.0)
    monkeypatch.setattr(worker_module, "MAX_TRIES", 2)
    # The answer is whole, so it gets as many tries again.
    platform, model = FakePlatform(shown=Buggy()), FakeModel(["Hi"], pause=0.05)

    async with running(a_worker(store, platform, model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await outcome(store) == "dead"
    assert platform.shown.text == GivenUp.apology
    assert await remembered(store) == []
    assert len(model.prompts) == 1


async def test_a_dead_workers_reply_is_finished_in_the_same_message(store: Store) -> None:
    platform, text = FakePlatform(), "".join(WORDS)
    dead = a_queue(store, "dead")
    await dead.admit(a_turn())
    taken = await take(dead)
    half = await platform.shown.post(Page(0, text[:50], final=False))
    await dead.save(taken, Shown((half,), text[:50], text[:50]))

    async with running(a_worker(store, platform, FakeModel(WORDS), name="next")):
        async with asyncio.timeout(2 * LEASE):
            await all_ended(store)

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
        await until(lambda: self.model.prompts, within=5)
        async with super().surface(turn, purpose) as surface:
            yield surface


async def test_the_model_thinks_while_the_platform_opens_the_surface(store: Store) -> None:
    platform = Waiting()

    async with running(a_worker(store, platform, platform.model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert platform.shown.text == "Hi"


async def test_a_model_that_thinks_when_the_place_is_gone_is_hung_up_on(store: Store) -> None:
    model = FakeModel(pause=600)
    platform = Waiting(model=model, error=PlaceGone("no permission"))

    async with running(a_worker(store, platform, model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert (model.at_once, len(model.prompts)) == (0, 1)
    assert await outcome(store) == "failed"


@dataclass
class Told(FakePlatform):
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


async def test_a_platform_is_told_of_a_second_try_and_of_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.turns.queue.LANDED", 0.1)
    platform, dead = Told(), a_queue(store, "dead")
    await dead.admit(a_turn(1))
    await take(dead)
    await dead.admit(a_turn(2, thread="t2"))

    async with running(a_worker(store, platform, FakeModel(["Hi"]))):
        await until(lambda: platform.looked)
        await all_ended(store)

    assert platform.purposes == {
        "console:1": Purpose.RESUME,
        "console:2": Purpose.ANSWER,
    }
    assert platform.looked == ["console:1"]


class Unreadable(TurnQueue):
    """Cannot take the first turn."""

    first = True

    async def take(self, token: Token) -> Taken | None:
        if self.first:
            self.first = False
            raise ValueError("a bug")
        return await super().take(token)


async def test_a_turn_that_cannot_be_taken_is_told_of_and_stops_no_other(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Unreadable(
        store=store, worker="w1", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60
    )

    async with running(a_worker(store, FakePlatform(), FakeModel(["Hi"]), queue=queue)):
        for number in (1, 2):
            await a_queue(store).admit(a_turn(number, thread=f"t{number}"))
        await all_ended(store)

    assert await outcome(store, 1) == await outcome(store, 2) == "done"
    assert "A turn could not be given back" in caplog.text


class Broken(TurnQueue):
    """Has a bug in its reading."""

    async def ready(
        self, platforms: Sequence[str], *, count: int, block_seconds: float
    ) -> list[Token]:
        raise ValueError("a bug")


async def test_a_worker_that_cannot_go_on_says_so(store: Store) -> None:
    queue = Broken(store=store, worker="w1", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60)

    async with asyncio.timeout(10):
        with pytest.raises(ValueError, match="a bug"):
            await a_worker(store, FakePlatform(), FakeModel(), queue=queue).run(asyncio.Event())


async def test_a_turn_that_was_stopped_before_it_is_taken_again_asks_for_nothing_more(
    store: Store,
) -> None:
    platform, dead = FakePlatform(), a_queue(store, "dead")
    await dead.admit(a_turn())
    (token,) = await ready(dead)
    taken = await dead.take(token)
    assert taken
    half = await platform.shown.post(Page(0, "Half", final=False))
    await dead.save(taken, Shown((half,), "Half", "Half"))
    await dead.stop("console:1")
    await expire(store, token, "dead")

    # Neither a renewal nor a save tells of it in time.
    async with running(a_worker(store, platform, FakeModel(WORDS, pause=600), lease=60)):
        await all_ended(store)

    assert platform.shown.text == f"Half\n\n{STOPPED}"
    assert await remembered(store) == [("question 1", "Half")]


async def test_two_workers_answer_each_turn_once(store: Store) -> None:
    platform = FakePlatform()
    models = [FakeModel(["Hi"]), FakeModel(["Hi"])]

    async with (
        running(a_worker(store, platform, models[0], name="a")),
        running(a_worker(store, platform, models[1], name="b")),
    ):
        for number in range(20):
            await a_queue(store).admit(a_turn(number, thread=f"t{number % 4}"))
        await all_ended(store)

    assert len(models[0].prompts) + len(models[1].prompts) == 20
    assert len(platform.shown.screen) == 20
