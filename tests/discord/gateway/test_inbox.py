"""Events wait for the store, or for Discord, in their order, and not without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from adapters.discord.gateway.inbox import Backlog, Job
from bot.errors import (
    PlaceGone,
    StoreUnavailable,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from tests.support.waiting import until


@pytest.fixture
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.discord.gateway.inbox._FIRST_PAUSE", 0.01)
    monkeypatch.setattr("adapters.discord.gateway.inbox._LONGEST_LOOK_PAUSE", 0.02)


@asynccontextmanager
async def working(backlog: Backlog) -> AsyncIterator[None]:
    task = asyncio.create_task(backlog.work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Errands:
    """Makes errands that fail while `away`, and writes their names down when they are done.

    `tries` counts how often any of them was begun.
    """

    def __init__(self) -> None:
        self.away: Exception | None = StoreUnavailable("away")
        self.takes = 0.0  # seconds
        self.done: list[str] = []
        self.tries = 0

    def __call__(self, name: str) -> Job:
        async def run() -> None:
            self.tries += 1
            if self.away:
                raise self.away
            await asyncio.sleep(self.takes)
            self.done.append(name)

        return run


async def test_of_more_than_a_hundred_waiting_questions_the_oldest_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(103):
        backlog.add_question(f"{number}", errand(f"{number}"), place=1)

    async with working(backlog):
        await until(lambda: "dropped" in caplog.text)
        errand.away = None
        await until(lambda: len(errand.done) == 100)

    assert errand.done == [f"{number}" for number in range(3, 103)]


async def test_whoever_asks_most_drops_no_question_of_other_people(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backlog, errand = Backlog(), Errands()
    backlog.add_question("early", errand("early"), place=1, asker=1)
    for number in range(150):
        backlog.add_question(f"{number}", errand(f"{number}"), place=1, asker=2)

    async with working(backlog):
        await until(lambda: "dropped" in caplog.text)
        errand.away = None
        await until(lambda: len(errand.done) == 100)

    assert errand.done == ["early", *(f"{number}" for number in range(51, 150))]


async def test_deletions_drop_no_question_of_other_people() -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(3):
        backlog.add_question(f"{number}", errand(f"question {number}"), place=1)
    for number in range(101):
        backlog.add_deletion([f"another {number}"], errand("deletion"), places={9})

    async with working(backlog):
        await until(lambda: errand.tries)
        errand.away = None
        await until(lambda: len(errand.done) == 104)

    assert errand.done[:3] == ["question 0", "question 1", "question 2"]


async def test_of_more_than_a_thousand_waiting_deletions_the_oldest_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(1002):
        backlog.add_deletion([f"{number}"], errand(f"{number}"), places={9})

    async with working(backlog):
        await until(lambda: "2 events from Discord were dropped" in caplog.text)
        errand.away = None
        await until(lambda: len(errand.done) == 1000)

    assert errand.done[0] == "2"


async def test_a_question_that_is_deleted_while_it_waits_is_not_admitted() -> None:
    backlog, errand = Backlog(), Errands()
    for number in range(3):
        backlog.add_question(f"{number}", errand(f"question {number}"), place=1)
    async with working(backlog):
        await until(lambda: errand.tries)

        backlog.add_deletion(["0", "2"], errand("deletion"), places={9})
        errand.away = None
        await until(lambda: "deletion" in errand.done)

    assert errand.done == ["question 1", "deletion"]


@pytest.mark.parametrize("failure", [PlaceGone("no"), WriteRefused("no")])
async def test_an_errand_that_can_never_succeed_is_dropped_at_once(
    failure: SurfaceError, caplog: pytest.LogCaptureFixture
) -> None:
    backlog, errand = Backlog(), Errands()
    errand.away = failure
    backlog.add_question("1", errand("1"), place=1)

    async with working(backlog):
        await until(lambda: "dropped" in caplog.text)
        errand.away = None
        backlog.add_question("2", errand("2"), place=1)
        await until(lambda: errand.done)

    assert errand.done == ["2"]
    assert [record.exc_info for record in caplog.records] == [None]


@pytest.mark.parametrize("failure", [WriteFailed("no"), WriteDelayed("no", retry_after=0.01)])
async def test_a_question_waits_for_discord_as_long_as_it_takes_and_holds_up_its_place_alone(
    failure: SurfaceError, caplog: pytest.LogCaptureFixture, haste: None
) -> None:
    backlog, errand, look = Backlog(), Errands(), Errands()
    errand.away, look.away = None, failure
    over: list[str] = []
    for name, place in (("first", 1), ("second", 1), ("elsewhere", 2)):
        asked = look("look") if name == "first" else None
        backlog.add_question(
            name, errand(name), place=place, look=asked, done=partial(over.append, name)
        )
    backlog.add_deletion(["another"], errand("deletion"), places={9})

    async with working(backlog):
        await until(lambda: look.tries > 4)
        between = [*errand.done], [*over]
        look.away = None
        await until(lambda: len(errand.done) > 3)

    assert between == (["elsewhere", "deletion"], ["elsewhere"])
    assert errand.done[2:] == ["first", "second"]
    assert caplog.text.count("questions in channel 1 wait for Discord") == 1


async def test_of_more_than_a_hundred_questions_that_wait_for_discord_the_oldest_are_dropped(
    caplog: pytest.LogCaptureFixture, haste: None
) -> None:
    backlog, errand, look = Backlog(), Errands(), Errands()
    errand.away, look.away = None, WriteFailed("away")
    for number in range(103):
        backlog.add_question(f"{number}", errand(f"{number}"), place=number, look=look("look"))

    async with working(backlog):
        await until(lambda: "3 events from Discord were dropped" in caplog.text)
        look.away = None
        await until(lambda: len(errand.done) == 100)

    assert sorted(errand.done, key=int) == [f"{number}" for number in range(3, 103)]


async def test_a_place_that_waits_for_discord_drops_no_question_of_other_places(
    haste: None,
) -> None:
    backlog, errand, look = Backlog(), Errands(), Errands()
    errand.away, errand.takes, look.away = None, 0.001, WriteFailed("away")
    backlog.add_question("waits", errand("waits"), place=0, look=look("look"))
    for number in range(150):
        backlog.add_question(f"{number}", errand(f"{number}"), place=1 + number)

    async with working(backlog):
        await until(lambda: len(errand.done) == 150, within=10, why=lambda: len(errand.done))

    assert errand.done == [f"{number}" for number in range(150)]


async def test_a_look_for_what_was_missed_outlasts_any_number_of_deletions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backlog, errand = Backlog(), Errands()
    backlog.add(errand("look"))
    for number in range(1001):
        backlog.add_deletion([f"{number}"], errand(f"{number}"), places={9})

    async with working(backlog):
        await until(lambda: "1 events from Discord were dropped" in caplog.text, within=10)
        errand.away = None
        await until(lambda: len(errand.done) > 1000)

    assert errand.done[:2] == ["look", "1"]


@pytest.mark.parametrize("failure", [PlaceGone("no"), ValueError("no")])
async def test_a_question_of_which_discord_tells_nothing_is_dropped_alone(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    backlog, errand, look = Backlog(), Errands(), Errands()
    errand.away, look.away = None, failure
    backlog.add_question("1", errand("1"), place=1, look=look("look"))
    backlog.add_question("2", errand("2"), place=1)

    async with working(backlog):
        await until(lambda: errand.done)

    assert errand.done == ["2"]
    assert "dropped" in caplog.text or "not handled" in caplog.text


async def test_a_question_that_is_deleted_while_it_waits_for_discord_is_not_admitted(
    haste: None,
) -> None:
    backlog, errand, look = Backlog(), Errands(), Errands()
    errand.away, look.away = None, WriteFailed("away")
    backlog.add_question("1", errand("1"), place=1, look=look("look"))

    async with working(backlog):
        await until(lambda: look.tries)
        backlog.add_deletion(["1"], errand("deletion"), places={9})
        backlog.add_question("2", errand("2"), place=1)
        # Discord goes on to tell nothing, but nobody asks any more.
        await until(lambda: len(errand.done) > 1)

    assert errand.done == ["deletion", "2"]


async def test_discord_is_not_asked_again_before_it_wants_to_be(haste: None) -> None:
    backlog, errand = Backlog(), Errands()
    errand.away = None
    clock, looks = asyncio.get_running_loop().time, list[float]()

    async def look() -> None:
        looks.append(clock())
        if len(looks) == 1:
            raise WriteDelayed("busy", retry_after=0.3)

    backlog.add_question("1", errand("1"), place=1, look=look)

    async with working(backlog):
        await until(lambda: errand.done)

    assert looks[1] - looks[0] > 0.29


async def test_nobody_asks_discord_while_the_work_does_not_go_on(haste: None) -> None:
    backlog, errand, look = Backlog(), Errands(), Errands()
    errand.away, look.takes, look.away = None, 60.0, None
    backlog.add_question("1", errand("1"), place=1, look=look("look"))
    async with working(backlog):
        await until(lambda: look.tries)
    look.takes = 0.0

    async with working(backlog):
        await until(lambda: errand.done)

    assert (look.tries, look.done) == (2, ["look"])


async def test_pauses_grow_while_the_store_is_away_and_are_short_again_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.discord.gateway.inbox._FIRST_PAUSE", 0.05)
    backlog, clock, tries = Backlog(), asyncio.get_running_loop().time, list[float]()

    async def errand() -> None:
        tries.append(clock())
        if len(tries) not in (6, 8):
            raise StoreUnavailable("away")

    backlog.add(errand)
    backlog.add(errand)

    async with working(backlog):
        await until(lambda: len(tries) == 8)

    assert tries[5] - tries[4] > 0.7
    assert tries[7] - tries[6] < 1.5


async def test_what_was_cut_off_is_run_when_the_work_goes_on(haste: None) -> None:
    backlog, errand, look = Backlog(), Errands(), Errands()
    errand.away, errand.takes, look.away = None, 60.0, WriteFailed("away")
    backlog.add_question("1", errand("1"), place=1, look=look("look"))
    backlog.add_question("2", errand("2"), place=2)
    async with working(backlog):
        await until(lambda: errand.tries and look.tries, within=10)
    errand.takes, look.away = 0.0, None

    async with working(backlog):
        await until(lambda: len(errand.done) > 1, within=10)

    assert sorted(errand.done) == ["1", "2"]


@pytest.mark.parametrize(
    "failure", [StoreUnavailable("no"), WriteFailed("no"), WriteDelayed("no", retry_after=0.01)]
)
async def test_an_errand_waits_for_the_store_and_for_discord_as_long_as_it_takes(
    failure: Exception, haste: None
) -> None:
    backlog, errand = Backlog(), Errands()
    errand.away = failure
    backlog.add_question("1", errand("1"), place=1)

    async with working(backlog):
        await until(lambda: errand.tries > 2)
        errand.away = None
        await until(lambda: errand.done)

    assert errand.done == ["1"]


async def test_a_backlog_tells_of_each_errand_that_is_over_however_it_ended() -> None:
    backlog, over, run = Backlog(), list[str](), list[str]()

    def errand(name: str) -> Job:
        async def go() -> None:
            run.append(name)
            if name == "refused":
                raise WriteRefused("no")

        return go

    for name in ("refused", "deleted", "second"):
        backlog.add_question(name, errand(name), place=1, done=partial(over.append, name))
    backlog.add_deletion(
        ["deleted"], errand("deletion"), places={9}, done=partial(over.append, "deletion")
    )
    backlog.put_first(
        (one, errand(one), 1, 0, partial(over.append, one)) for one in ("first", "next")
    )

    working = asyncio.create_task(backlog.work())
    await until(lambda: "deletion" in over)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

    assert run == ["first", "next", "refused", "second", "deletion"]
    assert over == ["deleted", "first", "next", "refused", "second", "deletion"]


async def test_an_errand_that_is_cut_off_is_not_over() -> None:
    backlog, over = Backlog(), list[str]()
    began = asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    backlog.add_question("1", hang, place=1, done=partial(over.append, "1"))
    working = asyncio.create_task(backlog.work())
    await began.wait()

    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

    assert not over


async def test_deletions_do_not_stand_before_questions_of_other_places() -> None:
    backlog, errand = Backlog(), Errands()
    errand.away = None
    for number in range(300):
        backlog.add_deletion([f"another {number}"], errand("deletion"), places={1, 100 + number})
    backlog.add(errand("anything else"))
    backlog.add_question("1", errand("question"), place=2)

    async with working(backlog):
        await until(lambda: len(errand.done) == 302)

    assert errand.done[:2] == ["anything else", "question"]


async def test_a_question_comes_after_the_earlier_deletions_of_its_place() -> None:
    backlog, errand = Backlog(), Errands()
    errand.away = None
    backlog.add_deletion(["elsewhere"], errand("deleted elsewhere"), places={1})
    backlog.add_deletion(["here"], errand("deleted here"), places={2, 3})
    backlog.add_question("1", errand("question"), place=3)
    backlog.add_deletion(["later"], errand("deleted later"), places={3})

    async with working(backlog):
        await until(lambda: len(errand.done) == 4)

    assert errand.done == ["deleted here", "question", "deleted elsewhere", "deleted later"]


async def test_a_deletion_comes_after_the_admission_that_is_under_way(haste: None) -> None:
    backlog, errand = Backlog(), Errands()
    backlog.add_question("1", errand("question"), place=1)

    async with working(backlog):
        await until(lambda: errand.tries)
        backlog.add_deletion(["2"], errand("deletion"), places={1})
        backlog.add_question("3", errand("next"), place=1)
        errand.away = None
        await until(lambda: len(errand.done) == 3)

    assert errand.done == ["question", "deletion", "next"]
