"""What counts as a title, and when a worker has one written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import pytest

from bot.access.quotas import Prices
from bot.concurrency import running
from bot.domain import Exchange, Retrying, Shown, ThreadKey
from bot.errors import ModelUnavailable
from bot.store import Store
from bot.turns.queue import Taken
from bot.turns.records import History
from bot.turns.titles import TitleMaker, title_in
from tests.support.fakes import FakeModel
from tests.support.waiting import until
from tests.turns.test_queue import make_turn
from tests.turns.test_usage import make_queue

_NUMBERS = count()


class FakeUntitled:
    """Conversations of which each wants a title once."""

    def __init__(self, *threads: ThreadKey) -> None:
        self.due = list(threads)
        self.titles: dict[ThreadKey, str] = {}
        self.pauses: list[float] = []

    async def claim(self) -> ThreadKey | None:
        return self.due.pop(0) if self.due else None

    async def put_off(self, thread: ThreadKey, *, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.due.append(thread)
        await asyncio.sleep(0.01)
        return True

    async def entitle(self, thread: ThreadKey, title: str) -> bool:
        self.titles[thread] = title
        return True


@pytest.mark.parametrize(
    ("said", "title"),
    [
        ("Blue skies", "Blue skies"),
        ('  **"Blue skies."**\n', "Blue skies"),
        ("# Title: Blue skies", "Blue skies"),
        ("**Titel:** „Blauer Himmel“", "Blauer Himmel"),
        ("タイトル\uff1a「青い空」", "青い空"),
        ("Here is a title:\n\n- Blue skies", "Blue skies"),
        ("Blue skies\n\nThis title says what it is about.", "Blue skies"),
        ("<think>Which one?\nTitle: None</think>\nBlue skies", "Blue skies"),
        ("Why is C# so sharp?", "Why is C# so sharp?"),
        ("Sort lists in C#", "Sort lists in C#"),
        ("Blue\x1b[31m \u202eskies", "Blue[31m skies"),
        ("And then...", "And then..."),
        ("a" * 60, "a" * 60),
        ("a" * 61, ""),
        ("Once upon a time " * 9, ""),
        ("<think>Which one", ""),
        ("I'm sorry, but I can't help with that.", ""),
        ("I\u2019m unable to do this.", ""),
        ("Es tut mir leid, das geht nicht.", ""),
        ("Title:", ""),
        ("…!", ""),
        ("", ""),
    ],
)
def test_a_title_is_what_is_left_without_all_around_it(said: str, title: str) -> None:
    assert title_in(said) == title


async def answered(store: Store, *, hours_ago: float = 0.0) -> ThreadKey:
    """Have a first question answered in a new conversation, and return it."""
    key = ThreadKey("console", "", "me", f"hours-{hours_ago}-{next(_NUMBERS)}")
    asked = make_turn(next(_NUMBERS), key=key)
    queue, turn = make_queue(store), replace(asked, asked_at=time.time() - 3600 * hours_ago)
    await queue.admit(turn)
    taken = await queue.leases.take(["console"])
    assert isinstance(taken, Taken)
    exchange = Exchange(turn.id, turn.person, turn.asked_at, "why?", "because")
    await queue.leases.finish(taken, Shown(outcome="done"), exchange, used=0, bill="")
    return turn.key


async def entitled(
    store: Store, model: FakeModel, *, answering: Sequence[object] = (), hours_ago: float = 0.0
) -> FakeUntitled:
    """Return what became of a conversation; nothing if nothing came in a moment."""
    untitled = FakeUntitled(await answered(store, hours_ago=hours_ago))
    maker = maker_of(store, model, untitled)
    async with running(maker.run(answering)):
        if answering:
            await asyncio.sleep(0.2)
        else:
            await until(lambda: untitled.titles)
    return untitled


def maker_of(store: Store, model: FakeModel, untitled: FakeUntitled) -> TitleMaker:
    return TitleMaker(
        untitled={"console": untitled},
        model=model,
        queue=make_queue(store),
        history=History(store=store, keep_seconds=600.0),
        beside=0,
        prices=Prices(),
        pause_seconds=0.01,
    )


async def test_a_title_is_made_of_the_first_question_and_its_answer(store: Store) -> None:
    model = FakeModel(deltas=("Title: ", "Blue skies"))
    untitled = await entitled(store, model)

    assert list(untitled.titles.values()) == ["Blue skies"]
    assert model.prompts[0][-1].text.endswith("Question:\nwhy?\n\nAnswer:\nbecause")


async def test_a_failing_model_is_not_asked_again_for_a_title(store: Store) -> None:
    waits = Retrying(ModelUnavailable("away"))
    failing = [FakeModel(error=ModelUnavailable("away")), FakeModel(deltas=(waits, "Blue skies"))]
    for model in failing:
        untitled = await entitled(store, model)

        assert list(untitled.titles.values()) == [""]
        assert len(model.prompts) == 1


async def test_no_title_is_begun_beside_answers_or_for_an_old_conversation(store: Store) -> None:
    model = FakeModel(deltas=("Blue skies",))
    beside = await entitled(store, model, answering=["a turn"])
    old = await entitled(store, model, hours_ago=25)

    assert beside.titles == {}
    assert list(old.titles.values()) == [""]
    assert model.prompts == []


async def test_a_title_makes_way_for_a_turn_and_is_made_later(store: Store) -> None:
    gate = asyncio.Event()
    model = FakeModel(deltas=("Blue ", gate.is_set, "skies"))
    untitled = FakeUntitled(await answered(store))
    maker = maker_of(store, model, untitled)
    async with running(maker.run([])):
        await until(lambda: model.at_once)
        maker.make_way()
        await until(lambda: untitled.pauses)
        gate.set()
        await until(lambda: untitled.titles)

    assert (model.hung_up, len(model.prompts)) == (1, 2)
    assert list(untitled.titles.values()) == ["Blue skies"]


async def test_a_title_that_makes_way_again_and_again_is_asked_for_ever_more_seldom(
    store: Store,
) -> None:
    pauses = [await pause_after(store, hours_ago) for hours_ago in (0, 1, 10)]

    # So a day has less than twenty of them.
    assert [round(it / 3600) for it in pauses] == [0, 1, 10]
    assert pauses[0] >= 2.0


async def pause_after(store: Store, hours_ago: float) -> float:
    """Return for how long a title is put off that has made way for a turn."""
    model = FakeModel(deltas=(asyncio.Event().is_set,))
    untitled = FakeUntitled(await answered(store, hours_ago=hours_ago))
    maker = maker_of(store, model, untitled)
    async with running(maker.run([])):
        await until(lambda: model.at_once)
        maker.make_way()
        await until(lambda: untitled.pauses)
    return untitled.pauses[0]
