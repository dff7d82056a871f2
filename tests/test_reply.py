"""The reply: one writer, the newest text, and the whole text at the end."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bot import reply as reply_module
from bot.budget import EditBudgets
from bot.domain import Delta, EditBudget, Message, Page, Shown
from bot.draft import (
    PENDING,
    STOPPED,
    WAITING,
)
from bot.errors import (
    AnswerCut,
    LeaseLost,
    MessageGone,
    ModelUnavailable,
    PlaceGone,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.pages import Pager
from bot.reply import Reply, restore
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.fakes import FakeModel, FakeSurface
from tests.steady import steady
from tests.waiting import until

WORDS = [f"word{number} " for number in range(40)]
TEXT = "".join(WORDS)


class Saved:
    """What the reply saved, last."""

    def __init__(self) -> None:
        self.last = Shown()
        self.texts: list[str] = []
        self.lost_after: float = math.inf  # writes

    async def __call__(self, shown: Shown) -> None:
        self.lost_after -= 1
        if self.lost_after < 0:
            raise LeaseLost("1")
        self.last = shown
        self.texts.append(shown.said)


def a_reply(
    store: Store,
    surface: FakeSurface,
    *,
    pages: Sequence[str] = (),
    older: str = "",
    former: str = "",
    left: Shown | None = None,
    stop: asyncio.Event | None = None,
    saved: Saved | None = None,
    patience: float = 5.0,
    budgets: EditBudgets | None = None,
) -> Reply:
    return Reply(
        surface=surface,
        budgets=budgets or EditBudgets(store=store),
        left=left or Shown(tuple(pages), older, older),
        former=former,
        stop=stop or asyncio.Event(),
        save=saved or Saved(),
        patience=patience,
    )


async def spoken(*parts: Delta | float) -> AsyncGenerator[Delta]:
    """Deltas, with seconds of silence between."""
    for part in parts:
        if isinstance(part, float | int):
            await asyncio.sleep(part)
        else:
            yield part


async def test_the_final_text_is_what_the_model_said(store: Store) -> None:
    surface, saved = FakeSurface(), Saved()

    shown = await a_reply(store, surface, saved=saved).stream(FakeModel(WORDS).stream([]))

    assert surface.text == TEXT == shown.said == shown.text == saved.last.text
    assert saved.last.pages == ("m1",)
    assert (shown.outcome, shown.pages) == ("done", ("m1",))
    assert surface.screen["m1"].final


async def test_the_reply_grows_in_one_message(store: Store) -> None:
    surface = FakeSurface(edits=EditBudget("a", 101, 1.0, refills=False))

    await a_reply(store, surface).stream(FakeModel(WORDS, pause=0.005).stream([]))

    assert len(surface.states) >= 5
    assert all(TEXT.startswith(state) for state in surface.states)
    assert sorted(surface.states, key=len) == surface.states
    assert list(surface.screen) == ["m1"]


async def test_the_first_delta_is_shown_at_once(store: Store) -> None:
    surface = FakeSurface(edits=EditBudget("a", 5, 5.0, refills=False))
    shown = asyncio.create_task(
        a_reply(store, surface).stream(FakeModel(WORDS, pause=0.01).stream([]))
    )

    await asyncio.sleep(0.15)

    assert surface.states[0] == "word0"
    assert len(surface.states) <= 2
    await shown


async def test_writes_never_overlap_and_the_model_is_read_regardless(store: Store) -> None:
    surface = FakeSurface(latency=0.1)
    model = FakeModel(WORDS, pause=0.005)

    shown = asyncio.create_task(a_reply(store, surface).stream(model.stream([])))
    await shown

    assert surface.most_at_once == 1
    # 0.2 s of deltas in writes of 0.1 s: the reading was not held up by the writing.
    assert len(surface.states) <= 5
    assert surface.text == TEXT


async def test_interim_writes_keep_to_the_budget(store: Store) -> None:
    surface = FakeSurface(edits=EditBudget("a", 5, 1.0, refills=False))

    await a_reply(store, surface).stream(FakeModel(WORDS, pause=0.015).stream([]))

    # 0.6 s at four interim writes a second, one at the start, one at the end.
    assert 3 <= len(surface.states) <= 5


async def test_two_replies_share_one_budget(store: Store) -> None:
    budget = EditBudget("a", 10, 1.0, refills=False)
    surfaces = [FakeSurface(edits=budget, posts=budget), FakeSurface(edits=budget, posts=budget)]

    # Two objects that know nothing of each other, as in two processes.
    await asyncio.gather(
        *(
            a_reply(store, surface).stream(FakeModel(WORDS, pause=0.01).stream([]))
            for surface in surfaces
        )
    )

    assert [surface.text for surface in surfaces] == [TEXT, TEXT]
    assert sum(len(surface.states) for surface in surfaces) <= 10


async def test_a_long_reply_stands_on_pages(store: Store) -> None:
    surface = FakeSurface(limit=100)
    saved = Saved()

    shown = await a_reply(store, surface, saved=saved).stream(
        FakeModel(WORDS, pause=0.001).stream([])
    )

    assert len(surface.screen) > 2
    assert surface.text.split() == TEXT.split()
    assert list(surface.screen) == list(shown.pages) == list(saved.last.pages)
    assert all(page.final for page in surface.screen.values())


async def test_interim_writes_that_fail_do_not_end_a_reply(store: Store) -> None:
    surface = FakeSurface(errors=[None, WriteFailed("lost"), WriteDelayed("slow", retry_after=0.1)])

    shown = await a_reply(store, surface).stream(FakeModel(WORDS, pause=0.01).stream([]))

    assert shown.outcome == "done"
    assert surface.text == TEXT


async def test_the_final_write_is_repeated_until_it_is_through(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("1"), WriteDelayed("2", retry_after=0.1), None])

    await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))

    assert surface.text == TEXT


async def test_a_failed_interim_write_is_repeated_while_the_model_is_silent(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("lost")])
    writing = asyncio.create_task(a_reply(store, surface).stream(spoken("An answer.", 3.0)))

    await until(lambda: surface.states, within=2)

    assert surface.states == ["An answer."]
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_a_failed_interim_write_keeps_its_place_in_the_order(store: Store) -> None:
    budgets = Watched(store=store)
    surface = FakeSurface(errors=[WriteFailed("lost"), WriteDelayed("429", retry_after=0.1)])

    await a_reply(store, surface, budgets=budgets).stream(spoken("An", 0.2, " answer.", 1.0))

    assert surface.states == ["An answer."]
    assert len(set(budgets.sinces)) == 1


async def test_an_interim_write_is_not_repeated_at_once(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("down")] * 50)

    with pytest.raises(WriteFailed):
        await a_reply(store, surface, patience=0.1).stream(FakeModel(WORDS, pause=0.02).stream([]))

    # One at the first word, one half a second later, one at the end.
    assert 50 - len(surface.errors) <= 4


async def test_the_repeated_final_write_comes_later_each_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_module, "_FIRST_PAUSE", 0.02)
    surface = FakeSurface(errors=[WriteFailed("down")] * 50)
    began = time.perf_counter()

    with pytest.raises(WriteFailed):
        await a_reply(store, surface, patience=0.5).stream(FakeModel([TEXT]).stream([]))

    # After 0.02, 0.06, 0.14 and 0.3 seconds.
    assert 3 <= 50 - len(surface.errors) <= 6
    assert time.perf_counter() - began > 0.25


async def test_no_write_is_repeated_much_later_than_it_could_be(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(reply_module, "_LONGEST_PAUSE", 0.02)
    surface = FakeSurface(errors=[WriteFailed("down")] * 12)

    await a_reply(store, surface, patience=10).stream(FakeModel([TEXT]).stream([]))

    assert surface.text == TEXT


async def test_a_write_that_fails_after_one_that_was_taken_is_soon_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_module, "_FIRST_PAUSE", 0.02)
    surface, took = FakeSurface(errors=[WriteFailed("down")] * 6), 0.0

    async def deltas() -> AsyncGenerator[Delta]:
        nonlocal took
        yield "H"
        await until(lambda: surface.states)
        surface.errors, began = [WriteFailed("down")], time.perf_counter()
        yield "i"
        await until(lambda: surface.text == "Hi")
        took = time.perf_counter() - began

    await a_reply(store, surface).stream(deltas())

    # After six failures in a row it would be 1.3 seconds.
    assert took < 1


@dataclass
class Unwilling(FakeSurface):
    """Takes nothing but the end, and that at the second time."""

    refused: bool = False

    async def post(self, page: Page) -> str:
        if page.last and self.refused:
            return await super().post(page)
        self.refused = page.last
        raise WriteFailed("down")


async def test_an_end_does_not_wait_for_as_long_as_what_failed_before_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_module, "_FIRST_PAUSE", 0.05)
    surface = Unwilling()

    # By then a write waits for 1.6 seconds after its fifth failure.
    await a_reply(store, surface, patience=1.0).stream(spoken("H", 1.2, "i"))

    assert surface.text == "Hi"


async def test_an_end_does_not_wait_for_the_next_try_at_what_failed_before_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reply_module, "_FIRST_PAUSE", 8.0)
    surface, began = FakeSurface(errors=[WriteFailed("down")]), time.perf_counter()

    await a_reply(store, surface).stream(spoken("H", 0.3, "i"))

    assert surface.text == "Hi"
    assert time.perf_counter() - began < 6


async def test_a_final_write_that_has_to_wait_holds_all_processes(store: Store) -> None:
    surface = FakeSurface(errors=[WriteDelayed("429", retry_after=3600)])
    with pytest.raises(WriteDelayed):
        await a_reply(store, surface, patience=0.1).stream(FakeModel([TEXT]).stream([]))

    with pytest.raises(WriteDelayed):
        await EditBudgets(store=store).final(surface.posts, deadline=0.0)


async def test_a_delay_holds_the_bucket_that_it_names(store: Store) -> None:
    surface = FakeSurface(errors=[WriteDelayed("429", retry_after=0.6, bucket="another")])
    another = EditBudget("another", 100, 1.0, refills=False)
    began = time.perf_counter()
    writing = asyncio.create_task(a_reply(store, surface).stream(FakeModel([TEXT]).stream([])))
    await asyncio.sleep(0.1)

    await EditBudgets(store=store).final(surface.posts, deadline=math.inf)
    free_after = time.perf_counter() - began
    await EditBudgets(store=store).final(another, deadline=math.inf)
    paused_for = time.perf_counter() - began

    assert free_after < 0.5 < paused_for
    await writing
    # Its own slots were free: without waiting it would have been told so again and again.
    assert surface.states == [TEXT]
    assert time.perf_counter() - began > 0.55


async def test_replies_that_wait_for_one_bucket_take_turns(store: Store) -> None:
    budgets, budget = EditBudgets(store=store), EditBudget("a", 15, 1.5, refills=False)
    surfaces = [FakeSurface(edits=budget), FakeSurface(edits=budget)]
    deltas = [f"word{number} " for number in range(120)]

    await asyncio.gather(
        *(
            a_reply(store, surface, budgets=budgets).stream(
                FakeModel(deltas, pause=0.01).stream([])
            )
            for surface in surfaces
        )
    )

    assert min(len(surface.states) for surface in surfaces) >= 4


async def test_what_an_earlier_try_saved_without_a_message_is_not_waited_for(store: Store) -> None:
    surface = FakeSurface()

    await a_reply(store, surface, pages=(), older="Much longer words").stream(
        spoken("New", 0.2, " words")
    )

    assert surface.states == ["New", "New words"]


async def test_a_final_write_that_never_gets_through_is_told(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("down")] * 50)

    with pytest.raises(WriteFailed, match="down"):
        await a_reply(store, surface, patience=0.2).stream(FakeModel([TEXT]).stream([]))


async def test_a_message_that_takes_no_edits_is_followed_by_a_new_one(store: Store) -> None:
    surface = FakeSurface(errors=[None, WriteRefused("too old")])
    saved = Saved()

    shown = await a_reply(store, surface, saved=saved).stream(
        FakeModel([TEXT[:50], TEXT[50:]], pause=0.1).stream([])
    )

    assert shown.pages == ("m2",)
    assert saved.last.pages == ("m2",)
    assert surface.screen["m2"].text == TEXT


class TestTakesNoEdits:
    """A message that takes no edits any more, and a platform that loses answers."""

    async def test_its_page_is_posted_once_though_the_answer_is_lost(self, store: Store) -> None:
        surface, saved = Stubborn(lost={2}), Saved()

        shown = await a_reply(store, surface, saved=saved).stream(surface.speaking())

        assert surface.text == Stubborn.SAID
        assert list(surface.screen) == ["m2"] == list(shown.pages) == list(saved.last.pages)
        assert surface.refusals == 1

    async def test_its_page_is_posted_once_though_the_process_dies(self, store: Store) -> None:
        surface, saved = Stubborn(lost={2}), Saved()
        with pytest.raises(WriteFailed):
            await a_reply(store, surface, saved=saved, patience=0.1).stream(surface.speaking())
        surface.refusals = 0

        shown = await a_reply(store, surface, left=saved.last).stream(surface.speaking())

        assert surface.text == Stubborn.SAID
        assert shown.pages == ("m2",)

    async def test_it_stays_where_it_cannot_be_taken_away_either(self, store: Store) -> None:
        surface = Stubborn(stays=True)

        shown = await a_reply(store, surface).stream(surface.speaking())

        assert [page.text for page in surface.screen.values()] == ["Half of", Stubborn.SAID]
        assert (shown.outcome, shown.pages) == ("done", ("m2",))

    async def test_a_new_message_draws_on_the_budget_of_new_ones(self, store: Store) -> None:
        budgets = Watched(store=store)
        surface = Stubborn(watched=budgets)

        await a_reply(store, surface, budgets=budgets).stream(surface.speaking())

        # Where the answer ends in the moment of a slot, the final write takes one of its own.
        events = [event for event, _ in itertools.groupby(budgets.events)]
        assert events[-4:] == ["edit granted", "edit", "post granted", "post"]


class Watched(EditBudgets):
    """Edit budgets that tell what they granted; others may add what they did with it."""

    def __init__(self, *, store: Store) -> None:
        super().__init__(store=store)
        self.events: list[str] = []
        self.sinces: list[float] = []

    async def interim(
        self, budget: EditBudget, *, new: bool, since: float, wrote: float, unless: asyncio.Event
    ) -> bool:
        self.sinces.append(since)
        granted = await super().interim(budget, new=new, since=since, wrote=wrote, unless=unless)
        if granted:
            self.events.append(f"{budget.bucket} granted")
        return granted

    async def final(self, budget: EditBudget, *, deadline: float) -> None:
        await super().final(budget, deadline=deadline)
        self.events.append(f"{budget.bucket} granted")


@dataclass
class Stubborn(FakeSurface):
    """Takes no edit of the first message from the second delta on.

    As in Discord, a post that is repeated finds its message, unless an edit was refused since. The
    answers to the posts with the numbers `lost` are lost; what `stays` cannot be taken away either.
    """

    SAID = "Half of the text."

    lost: set[int] = field(default_factory=set)
    stays: bool = False
    watched: Watched | None = None
    refusals: int = 0
    known: dict[tuple[int, int], str] = field(default_factory=dict)
    is_old: bool = False

    async def speaking(self) -> AsyncGenerator[str]:
        yield "Half of"
        await asyncio.sleep(0.1)
        self.is_old = True
        yield " the text."

    async def post(self, page: Page) -> str:
        nonce = (page.number, self.refusals)
        if nonce in self.known:
            await super().edit(self.known[nonce], page)
            return self.known[nonce]
        self._tell("post")
        message_id = self.known[nonce] = await super().post(page)
        if self.posted in self.lost:
            raise WriteFailed("the answer is lost")
        return message_id

    async def edit(self, message_id: str, page: Page) -> None:
        if message_id != "m1" or not self.is_old or (not page.text and not self.stays):
            return await super().edit(message_id, page)
        self._tell("edit")
        self.refusals += 1
        raise WriteRefused("too old")

    def _tell(self, event: str) -> None:
        if self.watched:
            self.watched.events.append(event)


@dataclass
class ByState(FakeSurface):
    """Draws on another bucket for each kind of write, as Slack's streams do."""

    watched: Watched | None = None

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        if new:
            return EditBudget("start", 100, 1.0, refills=False)
        writes = 100 if page.final else 6
        return EditBudget("stop" if page.final else "append", writes, 1.0, refills=False)

    async def post(self, page: Page) -> str:
        self._tell(page, new=True)
        return await super().post(page)

    async def edit(self, message_id: str, page: Page) -> None:
        self._tell(page, new=False)
        await super().edit(message_id, page)

    def _tell(self, page: Page, *, new: bool) -> None:
        assert self.watched
        self.watched.events.append(self.budget(page, new=new).bucket)


async def test_every_write_has_a_slot_of_its_own_bucket(store: Store) -> None:
    budgets = Watched(store=store)
    surface = ByState(limit=80, watched=budgets)

    await a_reply(store, surface, budgets=budgets).stream(FakeModel(WORDS, pause=0.03).stream([]))

    events = budgets.events
    writes = [at for at, event in enumerate(events) if not event.endswith("granted")]
    assert len(surface.screen) > 3
    assert [events[at - 1] for at in writes] == [f"{events[at]} granted" for at in writes]
    # Slots that no page could use any more are few: there is no busy asking.
    assert len(events) - 2 * len(writes) <= len(surface.screen)


async def test_what_closes_a_refused_reply_has_a_slot_too(store: Store) -> None:
    budgets, refused = Watched(store=store), WriteRefused("moderated")
    surface = ByState(limit=80, watched=budgets, errors=[None, refused, refused, refused])

    await a_reply(store, surface, budgets=budgets).stream(spoken("Half", 0.1, " an oath"))

    events = budgets.events
    writes = [at for at, event in enumerate(events) if not event.endswith("granted")]
    assert [page.text for page in surface.screen.values()] == ["Half", WriteRefused.apology]
    assert [events[at - 1] for at in writes] == [f"{events[at]} granted" for at in writes]


async def test_a_text_that_is_refused_altogether_ends_with_an_apology(store: Store) -> None:
    surface = FakeSurface(errors=[None, WriteRefused("moderated"), WriteRefused("moderated")])

    shown = await a_reply(store, surface).stream(
        FakeModel(["Half", " an oath"], pause=0.1).stream([])
    )

    assert surface.text == f"Half\n\n{WriteRefused.apology}"
    assert surface.screen["m1"].final
    assert (shown.outcome, shown.said) == ("failed", "Half")


async def test_a_first_text_that_is_refused_is_an_apology_alone(store: Store) -> None:
    surface = FakeSurface(errors=[WriteRefused("moderated")])

    shown = await a_reply(store, surface).stream(FakeModel(["An oath"]).stream([]))

    assert surface.text == WriteRefused.apology
    assert (shown.outcome, shown.said, shown.pages) == ("failed", "", ("m1",))


async def test_a_second_page_that_is_refused_is_followed_by_an_apology(store: Store) -> None:
    surface = FakeSurface(limit=100, errors=[None, WriteRefused("moderated")])

    shown = await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))

    assert surface.text.endswith(WriteRefused.apology)
    assert all(page.final for page in surface.screen.values())
    assert TEXT.startswith(shown.said)


@pytest.mark.parametrize("refusal", [PlaceGone("no permission"), WriteRefused("moderated")])
async def test_a_page_that_cannot_be_followed_says_so(
    store: Store, refusal: PlaceGone | WriteRefused
) -> None:
    surface, saved = FakeSurface(limit=150, errors=[None, refusal]), Saved()

    shown = await a_reply(store, surface, saved=saved).stream(FakeModel([TEXT]).stream([]))

    (page,) = surface.screen.values()
    words, _, apology = page.text.partition("\n\n")
    assert TEXT.startswith(words)
    assert len(words) > 50
    assert apology == refusal.apology
    assert page.final
    assert (shown.outcome, shown.said, shown.pages) == ("failed", words, ("m1",))
    assert saved.last.said == words


async def test_a_page_that_takes_no_edit_is_followed_by_an_apology(store: Store) -> None:
    refused = WriteRefused("moderated")
    surface = FakeSurface(errors=[None, refused, refused, refused])

    await a_reply(store, surface).stream(spoken("Half", 0.1, " an oath"))

    assert [page.text for page in surface.screen.values()] == ["Half", WriteRefused.apology]


async def test_an_apology_stands_below_code_and_not_in_it(store: Store) -> None:
    surface, older = FakeSurface(), "```py\nx = 1"
    first = await a_reply(store, surface).stream(FakeModel([older]).stream([]))
    surface.errors = [WriteRefused("moderated"), WriteRefused("moderated")]

    await a_reply(store, surface, pages=first.pages, older=older).stream(
        FakeModel(["```py\nx = 1; an_oath()"]).stream([])
    )

    assert surface.text == f"{older}\n```\n\n{WriteRefused.apology}"


async def test_a_final_write_that_has_to_wait_too_long_is_given_back(store: Store) -> None:
    surface = FakeSurface(errors=[WriteDelayed("an hour", retry_after=3600)])

    with pytest.raises(WriteDelayed):
        await a_reply(store, surface, patience=1).stream(FakeModel([TEXT]).stream([]))


async def test_a_deleted_reply_stays_deleted_and_is_not_remembered(store: Store) -> None:
    surface = FakeSurface(errors=[None, MessageGone("m1")])
    model = FakeModel(WORDS, pause=0.01)

    shown = await a_reply(store, surface).stream(model.stream([]))

    assert (shown.outcome, shown.said) == ("stopped", "")
    assert len(surface.states) == 1
    assert model.hung_up == 1


async def test_a_deleted_page_leaves_no_stop_on_the_others(store: Store) -> None:
    # A process died, and left its Stop on the last page.
    surface = FakeSurface(limit=100)
    first = await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))
    surface.screen[first.pages[-1]] = Page(2, "its words", final=False)
    del surface.screen["m1"]

    shown = await a_reply(store, surface, pages=first.pages, older=TEXT).stream(
        spoken(TEXT, 0.05, " more", 5.0)
    )

    assert (shown.outcome, shown.said) == ("stopped", "")
    assert "m1" not in surface.screen
    assert list(surface.screen) == list(first.pages[1:])
    assert all(page.final and not page.last for page in surface.screen.values())
    assert surface.text.endswith(f"word39  more\n\n{STOPPED}")


async def test_who_lost_the_lease_closes_no_page(store: Store) -> None:
    surface, saved = FakeSurface(limit=100), Saved()
    ids = [await surface.post(Page(number, "words", final=False)) for number in range(2)]
    del surface.screen["m1"]
    # It is lost after the write that finds the message gone.
    saved.lost_after = 1

    with pytest.raises(LeaseLost):
        await a_reply(store, surface, pages=ids, older="words", saved=saved).stream(
            spoken(TEXT, 0.05, " more")
        )

    assert surface.text == "words"


async def test_a_deleted_page_is_the_end_though_no_other_may_be_written_for_long(
    store: Store,
) -> None:
    few = EditBudget("few", 1, 3600.0, refills=False)
    surface = FakeSurface(limit=100, edits=few)
    ids = [await surface.post(Page(number, "words", final=False)) for number in range(3)]
    del surface.screen["m1"]

    shown = await a_reply(store, surface, pages=ids, older="words", patience=0.2).stream(
        spoken(TEXT, 0.05, " more")
    )

    assert (shown.outcome, shown.said) == ("stopped", "")


async def test_a_place_that_is_gone_ends_the_reading(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)

    surface = FakeSurface(errors=[PlaceGone("no")])
    with pytest.raises(PlaceGone):
        await a_reply(store, surface).stream(model.stream([]))

    assert model.hung_up == 1
    assert not surface.screen


async def test_a_place_that_takes_no_last_edit_either_is_told(store: Store) -> None:
    gone = PlaceGone("locked")
    surface = FakeSurface(limit=100, errors=[None, gone, gone])

    with pytest.raises(PlaceGone):
        await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))

    assert len(surface.screen) == 1


async def test_a_model_that_breaks_off_leaves_its_words_and_an_apology(store: Store) -> None:
    surface = FakeSurface()

    shown = await a_reply(store, surface).stream(
        FakeModel(["Half an", " answer"], error=ModelUnavailable("cut")).stream([])
    )

    assert (shown.outcome, shown.said) == ("failed", "Half an answer")
    assert surface.text == f"Half an answer\n\n{ModelUnavailable.apology}" == shown.text


async def test_a_crash_shows_no_end_though_a_slot_comes_in_the_same_moment(store: Store) -> None:
    crash = asyncio.Event()
    surface = FakeSurface()

    async def deltas() -> AsyncGenerator[Delta]:
        yield "Hello"
        await until(lambda: surface.posted)
        yield " world"
        await crash.wait()
        raise RuntimeError("not a model's failure")

    class Slow(EditBudgets):
        async def interim(self, *args: Any, **terms: Any) -> bool:
            granted = await super().interim(*args, **terms)
            if surface.posted:
                # The slot was granted, and its answer is still on its way.
                crash.set()
                await terms["unless"].wait()
            return granted

    with pytest.raises(RuntimeError):
        await a_reply(store, surface, budgets=Slow(store=store)).stream(deltas())

    assert [page.final for page in surface.screen.values()] == [False]


async def test_a_model_that_says_nothing_leaves_an_apology_only(store: Store) -> None:
    surface = FakeSurface()

    shown = await a_reply(store, surface).stream(
        FakeModel([], error=ModelUnavailable("refused")).stream([])
    )

    assert (shown.outcome, shown.said) == ("failed", "")
    assert surface.text == ModelUnavailable.apology


async def test_stop_keeps_what_was_said_and_hangs_up(store: Store) -> None:
    surface, stop = FakeSurface(), asyncio.Event()
    model = FakeModel(WORDS, pause=0.02)

    asyncio.get_running_loop().call_later(0.1, stop.set)
    shown = await a_reply(store, surface, stop=stop).stream(model.stream([]))

    assert shown.outcome == "stopped"
    assert TEXT.startswith(shown.said)
    assert shown.said
    assert surface.text == f"{shown.said}\n\n{STOPPED}"
    assert model.hung_up == 1


async def test_stop_before_the_first_word_says_so(store: Store) -> None:
    surface, stop = FakeSurface(), asyncio.Event()
    stop.set()

    shown = await a_reply(store, surface, stop=stop).stream(FakeModel(pause=5).stream([]))

    assert (shown.said, surface.text) == ("", STOPPED)


async def test_an_answer_that_is_cut_says_so_below_its_words(store: Store) -> None:
    surface = FakeSurface()

    shown = await a_reply(store, surface).stream(
        FakeModel(["One, two,", " three"], error=AnswerCut("MAX_TOKENS=3")).stream([])
    )

    assert surface.text == f"One, two, three\n\n{AnswerCut.apology}" == shown.text
    assert (shown.outcome, shown.said) == ("done", "One, two, three")


async def test_only_the_end_of_a_reply_is_its_last_page(store: Store) -> None:
    surface = FakeSurface(limit=100, latency=0.01)
    growing = asyncio.create_task(
        a_reply(store, surface).stream(FakeModel(WORDS, pause=0.01).stream([]))
    )
    await until(lambda: len(surface.screen) > 1)
    early = list(surface.screen.values())

    await growing

    assert not any(page.last for page in early)
    assert [page.last for page in surface.screen.values()][-2:] == [False, True]
    assert sum(page.last for page in surface.screen.values()) == 1


class TestSilence:
    """A model that says nothing for long: 0.2 s here, 0.4 s before the first word."""

    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reply_module, "SILENCE", 0.2)
        monkeypatch.setattr(reply_module, "FIRST_SILENCE", 0.4)

    async def test_a_sign_stands_below_the_words_until_the_next(self, store: Store) -> None:
        surface, saved = FakeSurface(), Saved()

        shown = await a_reply(store, surface, saved=saved).stream(
            spoken("Well", 0.6, ", yes", 0.6, ".")
        )

        assert surface.states == [
            "Well",
            f"Well\n\n{WAITING}",
            "Well, yes",
            f"Well, yes\n\n{WAITING}",
            "Well, yes.",
        ]
        assert shown.said == shown.text == "Well, yes."
        assert not any(WAITING in text for text in saved.texts)

    async def test_a_silence_costs_one_write_and_no_time(self, store: Store) -> None:
        surface = FakeSurface()
        began = time.process_time()

        await a_reply(store, surface).stream(spoken("Well", 1.5))

        assert surface.states == ["Well", f"Well\n\n{WAITING}", "Well"]
        assert time.process_time() - began < 0.5

    async def test_a_model_that_goes_on_gets_no_sign(self, store: Store) -> None:
        surface = FakeSurface()

        await a_reply(store, surface).stream(FakeModel(WORDS, pause=0.02).stream([]))

        assert not any(WAITING in state for state in surface.states)

    async def test_before_the_first_word_the_sign_takes_longer(self, store: Store) -> None:
        surface, saved = FakeSurface(), Saved()

        await a_reply(store, surface).stream(spoken(0.3, "Quick."))
        shown = await a_reply(store, surface, saved=saved).stream(spoken(0.6, "Slow."))

        assert surface.states == ["Quick.", WAITING, "Slow."]
        assert (shown.said, shown.pages) == ("Slow.", ("m2",))
        assert not any(WAITING in text for text in saved.texts)

    @pytest.mark.parametrize("estimated", [None, 0.8])
    async def test_a_model_that_loads_is_waited_for_with_a_sign(
        self, estimated: float | None, store: Store
    ) -> None:
        surface = FakeSurface()
        async with ModelEmulator() as emulator, steady(emulator) as model:
            if estimated:
                body = {"error": "Model mistral is currently loading", "estimated_time": estimated}
                emulator.fail("completions", status=503, body=body)
            else:
                emulator.fail("completions", status=503, retry_after=1)
            prompt = [Message("user", "What is it?")]

            shown = await a_reply(store, surface).stream(model.stream(prompt))

        assert surface.states[0] == WAITING
        assert surface.text == shown.said == "You said: What is it?"

    async def test_a_sign_stands_below_a_broken_answer_until_it_is_there_anew(
        self, store: Store
    ) -> None:
        surface = FakeSurface()
        async with ModelEmulator() as emulator, steady(emulator) as model:
            emulator.fail("completions", "drop", at_delta=2)
            emulator.fail("completions", status=503, retry_after=1)
            prompt = [Message("user", "What is it?")]

            shown = await a_reply(store, surface).stream(model.stream(prompt))

        assert f"You said: What i\n\n{WAITING}" in surface.states
        assert surface.text == shown.said == "You said: What is it?"

    async def test_a_sign_gives_way_to_the_apology(self, store: Store) -> None:
        surface = FakeSurface()

        shown = await a_reply(store, surface).stream(
            FakeModel([""], error=ModelUnavailable("cut"), pause=0.6).stream([])
        )

        assert surface.states == [WAITING, ModelUnavailable.apology]
        assert (shown.said, surface.text) == ("", ModelUnavailable.apology)

    async def test_a_sign_gives_way_to_the_stop(self, store: Store) -> None:
        surface, stop = FakeSurface(), asyncio.Event()

        asyncio.get_running_loop().call_later(0.4, stop.set)
        shown = await a_reply(store, surface, stop=stop).stream(spoken("Well", 5.0))

        assert surface.states == ["Well", f"Well\n\n{WAITING}", f"Well\n\n{STOPPED}"]
        assert shown.said == "Well"

    async def test_a_sign_that_does_not_fit_is_left_out(self, store: Store) -> None:
        surface = FakeSurface(limit=100)

        await a_reply(store, surface).stream(spoken("x" * 95, 0.5, "yz"))

        assert surface.states == ["x" * 95, "x" * 95 + "yz"]

    async def test_a_sign_stands_below_a_block_of_code(self, store: Store) -> None:
        surface = FakeSurface()

        await a_reply(store, surface).stream(spoken("```\none\n", 0.5, "two\n```"))

        assert surface.states[1] == f"{surface.states[0]}\n\n{WAITING}"
        assert surface.states[0].endswith("```")
        assert surface.text == "```\none\ntwo\n```"

    async def test_a_second_try_shows_its_silence_in_one_write(self, store: Store) -> None:
        surface, saved = FakeSurface(limit=100), Saved()
        older = TEXT[:150]
        first = await a_reply(store, surface).stream(FakeModel([older]).stream([]))
        stood = list(surface.states)
        surface.states.clear()

        await a_reply(store, surface, pages=first.pages, older=older, saved=saved).stream(
            spoken(0.6, TEXT)
        )

        assert len(stood) == 2
        assert saved.texts[0] == older
        assert surface.states[0] == f"{stood[1]}\n\n{WAITING}"
        assert surface.text.split() == TEXT.split()

    async def test_a_former_answer_stands_above_the_sign(self, store: Store) -> None:
        surface = FakeSurface(limit=100)
        first = await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))
        stood = [page.text for page in surface.screen.values()]
        surface.states.clear()

        shown = await a_reply(store, surface, pages=first.pages, former=TEXT).stream(
            spoken(0.6, "New", 0.1, ".")
        )

        waiting = [PENDING] * (len(stood) - 1)
        assert surface.states == [f"{stood[-1].rstrip()}\n\n{WAITING}", "New", *waiting, "New."]
        assert shown.said == "New."

    async def test_what_is_refused_after_a_sign_leaves_the_words_alone(self, store: Store) -> None:
        refused = WriteRefused("moderated")
        surface = FakeSurface(errors=[None, None, refused, refused])

        shown = await a_reply(store, surface).stream(spoken("Half", 0.4, " an oath"))

        assert surface.text == f"Half\n\n{WriteRefused.apology}"
        assert shown.said == "Half"

    async def test_a_sign_whose_answer_was_lost_is_taken_back(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reply_module, "_FIRST_PAUSE", 0.02)

        @dataclass
        class LosesTheSign(FakeSurface):
            async def edit(self, message_id: str, page: Page) -> None:
                await super().edit(message_id, page)
                if WAITING in page.text:
                    raise WriteFailed("the answer is lost")

        surface = LosesTheSign()
        writing = asyncio.create_task(
            a_reply(store, surface).stream(spoken("Well", 0.3, "\n", 1.0, "so"))
        )
        await until(lambda: WAITING in surface.text)

        await until(lambda: surface.text == "Well", within=2)

        await writing

    async def test_a_notice_stands_below_an_unfinished_block_of_code(self, store: Store) -> None:
        surface, stop = FakeSurface(), asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, stop.set)

        shown = await a_reply(store, surface, stop=stop).stream(spoken("```py\nx = 1", 5.0))

        assert surface.text == f"```py\nx = 1\n```\n\n{STOPPED}" == shown.text
        assert shown.said == "```py\nx = 1"


async def test_nothing_is_written_once_the_lease_is_lost(store: Store) -> None:
    surface, saved = FakeSurface(), Saved()
    saved.lost_after = 4
    model = FakeModel(WORDS, pause=0.01)

    with pytest.raises(LeaseLost):
        await a_reply(store, surface, saved=saved).stream(model.stream([]))

    assert len(surface.states) <= 4
    assert model.hung_up == 1


async def test_an_unfinished_code_block_is_shown_closed(store: Store) -> None:
    surface = FakeSurface()

    await a_reply(store, surface).stream(
        FakeModel(["```python\na", " = 1\n", "b = 2\n```"], pause=0.05).stream([])
    )

    assert all(state.count("```") == 2 for state in surface.states)
    assert surface.text == "```python\na = 1\nb = 2\n```"


async def test_an_emoji_cut_between_two_deltas_is_shown_whole(store: Store) -> None:
    surface = FakeSurface()

    shown = await a_reply(store, surface).stream(FakeModel(["Hi \ud83d", "\ude00!"]).stream([]))

    assert surface.text == "Hi \U0001f600!" == shown.said


async def test_restore_writes_every_page_again(store: Store) -> None:
    surface = FakeSurface(limit=100)
    shown = await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))
    late = surface.screen["m1"]
    await surface.edit("m1", type(late)(0, "an older text", final=False))

    await restore(shown, surface=surface, budgets=EditBudgets(store=store), patience=5)

    assert surface.text.split() == TEXT.split()


@pytest.mark.parametrize("error", [MessageGone("m1"), WriteRefused("too old")])
async def test_restore_posts_nothing(store: Store, error: SurfaceError) -> None:
    surface = FakeSurface(limit=100)
    shown = await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))
    surface.screen["m2"] = replace(surface.screen["m2"], text="an older text")
    posted, surface.errors = surface.posted, [error]

    await restore(shown, surface=surface, budgets=EditBudgets(store=store), patience=5)

    assert (surface.posted, surface.text.split()) == (posted, TEXT.split())


MARKUP = (
    "# Title\n\nSome **bold words** and `code`, a [link](https://example.org).\n\n"
    "| a | b |\n|---|---|\n" + "| 1 | two |\n" * 20 + "\n1. one\n1. two\n1. three\n\n"
    "```py\n" + "x = 1\n" * 30 + "```\n\nDone, \U0001f600."
)


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 10_000])
async def test_any_pieces_end_on_the_same_pages(store: Store, chunk: int) -> None:
    surface = FakeSurface(limit=200)
    pieces = [MARKUP[at : at + chunk] for at in range(0, len(MARKUP), chunk)]

    await a_reply(store, surface).stream(FakeModel(pieces, pause=0.0005).stream([]))

    shown = [page.text for page in surface.screen.values()]
    assert shown == Pager(limit=200, measure=len).cut(MARKUP)


async def test_eight_thousand_deltas_cost_no_more_than_a_moment(store: Store) -> None:
    words = [f"**word** {number}, `x`. " + "\n\n" * (number % 40 == 0) for number in range(8000)]
    surface = FakeSurface(edits=EditBudget("edit", 5, 5.0, refills=False))

    began = time.process_time()
    async for _ in FakeModel(words).stream([]):
        pass
    model = time.process_time() - began
    began = time.process_time()
    await a_reply(store, surface).stream(FakeModel(words).stream([]))

    # 0.06 to 0.14 s when this was measured, in about 100 writes.
    assert time.process_time() - began - model < 0.3
