"""Events wait for the store, or for Discord, in their order, and not without end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any, ClassVar

import pytest

from adapters.discord.gateway.inbox import Admission, Deletion, Inbox, InboxItem, Release, Work
from adapters.discord.tuning import Tuning
from bot.concurrency import Backoff, do_nothing
from bot.errors import (
    PlaceGone,
    StoreUnavailable,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from tests.support.waiting import until

QUICK = Tuning(store_retry=Backoff(0.01, 0.02), lookup_retry=Backoff(0.01, 0.02))


def ask(inbox: Inbox, turn_id: str, run: Work, **options: Any) -> None:
    inbox.add(make_question(turn_id, run, **options))


def make_question(
    turn_id: str,
    run: Work,
    *,
    channel: int,
    asker: int = 0,
    lookup: Work | None = None,
    done: Release = do_nothing,
) -> Admission:
    return Admission(run, done, turn_id=turn_id, channel=channel, asker=asker, lookup=lookup)


def delete(
    inbox: Inbox,
    turn_ids: list[str],
    run: Work,
    *,
    channels: set[int],
    done: Release = do_nothing,
) -> None:
    inbox.add(Deletion(run, done, turn_ids=turn_ids, channels=channels))


def dropped(caplog: pytest.LogCaptureFixture) -> list[object]:
    """Return how many events each line of the log says were dropped, as there were too many."""
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    return [one.args[0] for one in errors if isinstance(one.args, tuple) and one.args]


@asynccontextmanager
async def working(inbox: Inbox) -> AsyncIterator[None]:
    task = asyncio.create_task(inbox.work())
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

    def __call__(self, name: str) -> Work:
        async def run() -> None:
            self.tries += 1
            if self.away:
                raise self.away
            await asyncio.sleep(self.takes)
            self.done.append(name)

        return run


OLDEST = [f"{number}" for number in range(51, 150)]


@pytest.mark.parametrize(
    ("by_one", "talks", "left"),
    [
        (True, False, ["early", *OLDEST]),  # of the person who asks most
        (False, True, ["early", *OLDEST]),  # of what only the store knows to be for the bot
        (False, False, ["50", *OLDEST]),
    ],
)
async def test_of_more_than_a_hundred_waiting_questions_some_are_dropped(
    by_one: bool, talks: bool, left: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    inbox, errand = Inbox(QUICK), Errands()
    ask(inbox, "early", errand("early"), channel=1, asker=1)
    for number in range(150):
        asker = 2 if by_one else 2 + number
        one = make_question(f"{number}", errand(f"{number}"), channel=1, asker=asker)
        one.needs_store_check = talks and number < 149
        inbox.add(one)

    async with working(inbox):
        await until(lambda: dropped(caplog))
        errand.away = None
        await until(lambda: len(errand.done) == 100)

    assert errand.done == left


async def test_of_more_than_a_thousand_waiting_deletions_the_oldest_are_dropped_and_no_question(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inbox, errand = Inbox(QUICK), Errands()
    for number in range(3):
        ask(inbox, f"{number}", errand(f"question {number}"), channel=1)
    for number in range(1002):
        delete(inbox, [f"another {number}"], errand(f"{number}"), channels={9})

    async with working(inbox):
        await until(lambda: dropped(caplog) == [2])
        errand.away = None
        await until(lambda: len(errand.done) == 1003)

    assert errand.done[:4] == ["question 0", "question 1", "question 2", "2"]


async def test_a_question_that_is_deleted_while_it_waits_is_not_admitted() -> None:
    inbox, errand = Inbox(QUICK), Errands()
    for number in range(3):
        ask(inbox, f"{number}", errand(f"question {number}"), channel=1)
    async with working(inbox):
        await until(lambda: errand.tries)

        delete(inbox, ["0", "2"], errand("deletion"), channels={9})
        errand.away = None
        await until(lambda: "deletion" in errand.done)

    assert errand.done == ["question 1", "deletion"]


@pytest.mark.parametrize("failure", [PlaceGone("no"), WriteRefused("no")])
async def test_an_errand_that_can_never_succeed_is_dropped_at_once(
    failure: SurfaceError, caplog: pytest.LogCaptureFixture
) -> None:
    inbox, errand = Inbox(QUICK), Errands()
    errand.away = failure
    ask(inbox, "1", errand("1"), channel=1)

    async with working(inbox):
        await until(lambda: caplog.records)
        errand.away = None
        ask(inbox, "2", errand("2"), channel=1)
        await until(lambda: errand.done)

    assert errand.done == ["2"]
    assert [(one.levelno, one.exc_info) for one in caplog.records] == [(logging.WARNING, None)]


@pytest.mark.parametrize("failure", [WriteFailed("no"), WriteDelayed("no", retry_after=0.01)])
async def test_a_question_waits_for_discord_as_long_as_it_takes_and_holds_up_its_place_alone(
    failure: SurfaceError, caplog: pytest.LogCaptureFixture
) -> None:
    inbox, errand, look = Inbox(QUICK), Errands(), Errands()
    errand.away, look.away = None, failure
    over: list[str] = []
    for name, place in (("first", 1), ("second", 1), ("elsewhere", 2)):
        asked = look("look") if name == "first" else None
        ask(inbox, name, errand(name), channel=place, lookup=asked, done=partial(over.append, name))
    delete(inbox, ["another"], errand("deletion"), channels={9})

    async with working(inbox):
        await until(lambda: look.tries > 4)
        between = [*errand.done], [*over]
        look.away = None
        await until(lambda: len(errand.done) > 3)

    assert between == (["elsewhere", "deletion"], ["elsewhere"])
    assert errand.done[2:] == ["first", "second"]
    assert [one.args and one.args[0] for one in caplog.records] == [1]  # type: ignore[index]


async def test_of_more_than_a_hundred_questions_that_wait_for_discord_the_oldest_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inbox, errand, look = Inbox(QUICK), Errands(), Errands()
    errand.away, look.away = None, WriteFailed("away")
    for number in range(103):
        ask(inbox, f"{number}", errand(f"{number}"), channel=number, lookup=look("look"))

    async with working(inbox):
        await until(lambda: sum(map(int, map(str, dropped(caplog)))) == 3)
        look.away = None
        await until(lambda: len(errand.done) == 100)

    assert sorted(errand.done, key=int) == [f"{number}" for number in range(3, 103)]


async def test_a_place_that_waits_for_discord_drops_no_question_of_other_places() -> None:
    inbox, errand, look = Inbox(QUICK), Errands(), Errands()
    errand.away, errand.takes, look.away = None, 0.001, WriteFailed("away")
    ask(inbox, "waits", errand("waits"), channel=0, lookup=look("look"))
    for number in range(150):
        ask(inbox, f"{number}", errand(f"{number}"), channel=1 + number)

    async with working(inbox):
        await until(lambda: len(errand.done) == 150, why=lambda: len(errand.done))

    assert errand.done == [f"{number}" for number in range(150)]


async def test_a_look_for_what_was_missed_outlasts_any_number_of_deletions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inbox, errand = Inbox(QUICK), Errands()
    inbox.add(InboxItem(errand("look")))
    for number in range(1001):
        delete(inbox, [f"{number}"], errand(f"{number}"), channels={9})

    async with working(inbox):
        await until(lambda: dropped(caplog) == [1])
        errand.away = None
        await until(lambda: len(errand.done) > 1000)

    assert errand.done[:2] == ["look", "1"]


@pytest.mark.parametrize("failure", [PlaceGone("no"), ValueError("no")])
async def test_a_question_of_which_discord_tells_nothing_is_dropped_alone(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    inbox, errand, look = Inbox(QUICK), Errands(), Errands()
    errand.away, look.away = None, failure
    ask(inbox, "1", errand("1"), channel=1, lookup=look("look"))
    ask(inbox, "2", errand("2"), channel=1)

    async with working(inbox):
        await until(lambda: errand.done)

    assert errand.done == ["2"]
    assert len(caplog.records) == 1


async def test_a_question_that_is_deleted_while_it_waits_for_discord_is_not_admitted() -> None:
    inbox, errand, look = Inbox(QUICK), Errands(), Errands()
    errand.away, look.away = None, WriteFailed("away")
    ask(inbox, "1", errand("1"), channel=1, lookup=look("look"))

    async with working(inbox):
        await until(lambda: look.tries)
        delete(inbox, ["1"], errand("deletion"), channels={9})
        ask(inbox, "2", errand("2"), channel=1)
        # Discord goes on to tell nothing, but nobody asks any more.
        await until(lambda: len(errand.done) > 1)

    assert sorted(errand.done) == ["2", "deletion"]


async def test_discord_is_not_asked_again_before_it_wants_to_be() -> None:
    inbox, errand, looked_up = Inbox(QUICK), Errands(), asyncio.Event()
    errand.away = None

    async def lookup() -> None:
        looked_up.set()
        raise WriteDelayed("busy", retry_after=3600.0)

    ask(inbox, "1", errand("1"), channel=1, lookup=lookup)
    async with working(inbox):
        await looked_up.wait()
        looked_up.clear()
        # Far more than the pauses without a wish of Discord's.
        await asyncio.sleep(0.1)

        assert not looked_up.is_set()


async def test_nobody_asks_discord_while_the_work_does_not_go_on() -> None:
    inbox, errand, look = Inbox(QUICK), Errands(), Errands()
    errand.away, look.takes, look.away = None, 60.0, None
    ask(inbox, "1", errand("1"), channel=1, lookup=look("look"))
    async with working(inbox):
        await until(lambda: look.tries)
    look.takes = 0.0

    async with working(inbox):
        await until(lambda: errand.done)

    assert (look.tries, look.done) == (2, ["look"])


class NotedBackoff(Backoff):
    """Makes no pause, and notes after how many failures one was asked for."""

    noted: ClassVar[list[int]] = []

    def delay(self, failures: int) -> float:
        self.noted.append(failures)
        return 0.0


async def test_pauses_grow_while_the_store_is_away_and_are_short_again_the_next_time() -> None:
    NotedBackoff.noted.clear()
    inbox, tries = Inbox(Tuning(store_retry=NotedBackoff(1.0, 1.0))), count(1)

    async def run() -> None:
        if next(tries) not in (4, 7):
            raise StoreUnavailable("away")

    over: list[int] = []
    for number in range(2):
        inbox.add(InboxItem(run, partial(over.append, number)))

    async with working(inbox):
        await until(lambda: over == [0, 1])

    assert NotedBackoff.noted == [1, 2, 3, 1, 2]


async def test_what_was_cut_off_is_run_when_the_work_goes_on() -> None:
    inbox, errand, look = Inbox(QUICK), Errands(), Errands()
    errand.away, errand.takes, look.away = None, 60.0, WriteFailed("away")
    ask(inbox, "1", errand("1"), channel=1, lookup=look("look"))
    ask(inbox, "2", errand("2"), channel=2)
    async with working(inbox):
        await until(lambda: errand.tries and look.tries)
    errand.takes, look.away = 0.0, None

    async with working(inbox):
        await until(lambda: len(errand.done) > 1)

    assert sorted(errand.done) == ["1", "2"]


@pytest.mark.parametrize(
    "failure", [StoreUnavailable("no"), WriteFailed("no"), WriteDelayed("no", retry_after=0.01)]
)
async def test_an_errand_waits_for_the_store_and_for_discord_as_long_as_it_takes(
    failure: Exception,
) -> None:
    inbox, errand = Inbox(QUICK), Errands()
    errand.away = failure
    ask(inbox, "1", errand("1"), channel=1)

    async with working(inbox):
        await until(lambda: errand.tries > 2)
        errand.away = None
        await until(lambda: errand.done)

    assert errand.done == ["1"]


async def test_a_inbox_tells_of_each_errand_that_is_over_however_it_ended() -> None:
    inbox, over, run = Inbox(QUICK), list[str](), list[str]()

    def errand(name: str) -> Work:
        async def go() -> None:
            run.append(name)
            if name == "refused":
                raise WriteRefused("no")

        return go

    for name in ("refused", "deleted", "second"):
        ask(inbox, name, errand(name), channel=1, done=partial(over.append, name))
    delete(
        inbox, ["deleted"], errand("deletion"), channels={9}, done=partial(over.append, "deletion")
    )
    inbox.put_first(
        [
            make_question(one, errand(one), channel=1, done=partial(over.append, one))
            for one in ("first", "next")
        ]
    )

    working = asyncio.create_task(inbox.work())
    await until(lambda: "deletion" in over)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

    assert run == ["first", "next", "refused", "second", "deletion"]
    assert over == ["deleted", "first", "next", "refused", "second", "deletion"]


async def test_an_errand_that_is_cut_off_is_not_over() -> None:
    inbox, over = Inbox(QUICK), list[str]()
    began = asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    ask(inbox, "1", hang, channel=1, done=partial(over.append, "1"))
    working = asyncio.create_task(inbox.work())
    await began.wait()

    working.cancel()
    await asyncio.gather(working, return_exceptions=True)

    assert not over


async def test_deletions_do_not_stand_before_questions_of_other_places() -> None:
    inbox, errand = Inbox(QUICK), Errands()
    errand.away = None
    for number in range(300):
        delete(inbox, [f"another {number}"], errand("deletion"), channels={1, 100 + number})
    inbox.add(InboxItem(errand("anything else")))
    ask(inbox, "1", errand("question"), channel=2)

    async with working(inbox):
        await until(lambda: len(errand.done) == 302)

    assert errand.done[:2] == ["anything else", "question"]


async def test_a_question_comes_after_the_earlier_deletions_of_its_place() -> None:
    inbox, errand = Inbox(QUICK), Errands()
    errand.away = None
    delete(inbox, ["elsewhere"], errand("deleted elsewhere"), channels={1})
    delete(inbox, ["here"], errand("deleted here"), channels={2, 3})
    ask(inbox, "1", errand("question"), channel=3)
    delete(inbox, ["later"], errand("deleted later"), channels={3})

    async with working(inbox):
        await until(lambda: len(errand.done) == 4)

    assert errand.done == ["deleted here", "question", "deleted elsewhere", "deleted later"]


async def test_a_deletion_comes_after_the_admission_that_is_under_way() -> None:
    inbox, errand = Inbox(QUICK), Errands()
    ask(inbox, "1", errand("question"), channel=1)

    async with working(inbox):
        await until(lambda: errand.tries)
        delete(inbox, ["2"], errand("deletion"), channels={1})
        ask(inbox, "3", errand("next"), channel=1)
        errand.away = None
        await until(lambda: len(errand.done) == 3)

    assert errand.done == ["question", "deletion", "next"]
