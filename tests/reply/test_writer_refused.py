"""A platform that takes no more of a reply, or has lost some of it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from bot.domain import Delta, EditBudget, LeftOut, Page
from bot.errors import LeaseLost, MessageGone, PlaceGone, WriteFailed, WriteRefused
from bot.reply.draft import STOPPED
from bot.store import Store
from tests.support.fakes import FakeModel, FakeSurface
from tests.support.replies import TEXT, WORDS, Saved, Watched, answer, make_reply, spoken
from tests.support.waiting import until


class TestTakesNoEdits:
    """A message that takes no edits any more, and a platform that loses answers."""

    @pytest.mark.parametrize("lost", [set[int](), {2}])
    async def test_its_page_is_posted_once_even_if_the_answer_is_lost(
        self, store: Store, lost: set[int]
    ) -> None:
        surface, saved = Stubborn(lost=set(lost)), Saved()

        shown = await make_reply(store, surface, saved=saved).stream(surface.speaking())

        assert surface.text == Stubborn.SAID
        assert list(surface.screen) == ["m2"]
        assert shown.message_ids == saved.last.message_ids == ("m2",)
        assert surface.refusals == 1

    async def test_its_page_is_posted_once_though_the_process_dies(self, store: Store) -> None:
        surface, saved = Stubborn(lost={2, 3}), Saved()
        with pytest.raises(WriteFailed):
            await make_reply(store, surface, saved=saved, patience=0.1).stream(surface.speaking())
        surface.refusals, surface.lost = 0, set()

        shown = await make_reply(store, surface, earlier=saved.last).stream(surface.speaking())

        assert surface.text == Stubborn.SAID
        assert shown.message_ids == ("m2",)

    async def test_it_stays_where_it_cannot_be_taken_away_either(self, store: Store) -> None:
        surface = Stubborn(stays=True)

        shown = await make_reply(store, surface).stream(surface.speaking())

        assert [page.text for page in surface.screen.values()] == ["Half of", Stubborn.SAID]
        assert (shown.outcome, shown.message_ids) == ("done", ("m2",))

    async def test_a_new_message_draws_on_the_budget_of_new_ones(self, store: Store) -> None:
        budgets = Watched(store=store)
        surface = Stubborn(watched=budgets)

        await make_reply(store, surface, budgets=budgets).stream(surface.speaking())

        # Where the answer ends in the moment of a slot, the final write takes one of its own.
        events = [event for event, _ in itertools.groupby(budgets.events)]
        edit = events.index("edit")
        assert events[edit - 1 : edit + 3] == ["edit granted", "edit", "post granted", "post"]


@dataclass
class Stubborn(FakeSurface):
    """Takes no edit of the first message from the second delta on.

    As in Discord, a post that is repeated finds its message, unless an edit was refused since. The
    answers to the posts with the numbers `lost`, repeated ones included, are lost; what `stays`
    cannot be taken away either.
    """

    SAID = "Half of the text."

    lost: set[int] = field(default_factory=set)
    stays: bool = False
    watched: Watched | None = None
    refusals: int = 0
    calls: int = 0  # to post
    known: dict[tuple[int, int], str] = field(default_factory=dict)
    is_old: bool = False

    async def speaking(self) -> AsyncGenerator[str]:
        yield "Half of"
        await until(lambda: self.screen)
        self.is_old = True
        yield " the text."

    async def post(self, page: Page) -> str:
        self.calls += 1
        nonce = (page.number, self.refusals)
        if nonce in self.known:
            await super().edit(self.known[nonce], page)
        else:
            self._tell("post")
            self.known[nonce] = await super().post(page)
        if self.calls in self.lost:
            raise WriteFailed("the answer is lost")
        return self.known[nonce]

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
            return EditBudget("start", 100, 1.0)
        writes = 100 if page.final else 6
        return EditBudget("stop" if page.final else "append", writes, 1.0)

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

    await make_reply(store, surface, budgets=budgets).stream(
        FakeModel(WORDS, pause=0.03).stream([])
    )

    events = budgets.events
    writes = [at for at, event in enumerate(events) if not event.endswith("granted")]
    assert len(surface.screen) > 3
    assert [events[at - 1] for at in writes] == [f"{events[at]} granted" for at in writes]
    # Slots that no page could use any more are few: there is no busy asking.
    assert len(events) - 2 * len(writes) <= len(surface.screen)


async def test_what_closes_a_refused_reply_has_a_slot_too(store: Store) -> None:
    budgets, refused = Watched(store=store), WriteRefused("moderated")
    surface = ByState(limit=80, watched=budgets, errors=[None, refused, refused, refused])

    await answer(store, surface, "Half", lambda: surface.screen, " an oath", budgets=budgets)

    events = budgets.events
    writes = [at for at, event in enumerate(events) if not event.endswith("granted")]
    assert [page.text for page in surface.screen.values()] == ["Half", WriteRefused.apology]
    assert [events[at - 1] for at in writes] == [f"{events[at]} granted" for at in writes]


@pytest.mark.parametrize("parts", [["An oath"], [LeftOut(5), "An oath"]])
async def test_a_first_text_that_is_refused_is_an_apology_alone(
    store: Store, parts: list[Delta]
) -> None:
    surface = FakeSurface(errors=[WriteRefused("moderated")])

    shown = await answer(store, surface, *parts)

    assert surface.text == WriteRefused.apology
    assert (shown.outcome, shown.said, shown.message_ids) == ("failed", "", ("m1",))


@pytest.mark.parametrize("refusal", [PlaceGone("no permission"), WriteRefused("moderated")])
async def test_a_page_that_cannot_be_followed_says_so(
    store: Store, refusal: PlaceGone | WriteRefused
) -> None:
    surface, saved = FakeSurface(limit=150, errors=[None, refusal]), Saved()

    shown = await answer(store, surface, TEXT, saved=saved)

    (page,) = surface.screen.values()
    words, _, apology = page.text.partition("\n\n")
    assert TEXT.startswith(words)
    assert len(words) > 50
    assert apology == refusal.apology
    assert page.final
    assert (shown.outcome, shown.said, shown.message_ids) == ("failed", words, ("m1",))
    assert saved.last.said == words


async def test_an_apology_stands_below_code_and_not_in_it(store: Store) -> None:
    surface, older = FakeSurface(), "```py\nx = 1"
    first = await answer(store, surface, older)
    surface.errors = [WriteRefused("moderated"), WriteRefused("moderated")]

    await make_reply(store, surface, message_ids=first.message_ids, older=older).stream(
        spoken("```py\nx = 1; an_oath()")
    )

    assert surface.text == f"{older}\n```\n\n{WriteRefused.apology}"


async def test_a_deleted_reply_stays_deleted_and_is_not_remembered(store: Store) -> None:
    surface = FakeSurface(errors=[None, MessageGone("m1")])
    model = FakeModel([*WORDS, lambda: False], pause=0.01)

    shown = await make_reply(store, surface).stream(model.stream([]))

    assert (shown.outcome, shown.said) == ("stopped", "")
    assert len(surface.states) == 1
    assert model.hung_up == 1


async def test_a_deleted_page_leaves_no_stop_on_the_others(store: Store) -> None:
    # A process died, and left its Stop on the last page.
    surface = FakeSurface(limit=100)
    first = await answer(store, surface, TEXT)
    surface.screen[first.message_ids[-1]] = Page(2, "its words", final=False)
    del surface.screen["m1"]

    shown = await make_reply(store, surface, message_ids=first.message_ids, older=TEXT).stream(
        spoken(TEXT, 0.05, " more", 5.0)
    )

    assert (shown.outcome, shown.said) == ("stopped", "")
    assert "m1" not in surface.screen
    assert list(surface.screen) == list(first.message_ids[1:])
    assert all(page.final and not page.last for page in surface.screen.values())
    assert surface.text.endswith(f"word39  more\n\n{STOPPED}")


async def test_who_lost_the_lease_closes_no_page(store: Store) -> None:
    surface, saved = FakeSurface(limit=100), Saved()
    ids = [await surface.post(Page(number, "words", final=False)) for number in range(2)]
    del surface.screen["m1"]
    # It is lost after the write that finds the message gone.
    saved.lost_after = 1

    with pytest.raises(LeaseLost):
        await make_reply(store, surface, message_ids=ids, older="words", saved=saved).stream(
            spoken(TEXT, 0.05, " more")
        )

    assert surface.text == "words"


async def test_a_deleted_page_is_the_end_though_no_other_may_be_written_for_long(
    store: Store,
) -> None:
    few = EditBudget("few", 1, 3600.0)
    surface = FakeSurface(limit=100, edits=few)
    ids = [await surface.post(Page(number, "words", final=False)) for number in range(3)]
    del surface.screen["m1"]
    surface.most_at_once = 0

    shown = await make_reply(store, surface, message_ids=ids, older="words", patience=0.2).stream(
        spoken(TEXT, lambda: surface.most_at_once, 0.05, " more")
    )

    assert (shown.outcome, shown.said) == ("stopped", "")


async def test_a_place_that_is_gone_ends_the_reading(store: Store) -> None:
    model = FakeModel([*WORDS, lambda: False], pause=0.01)

    surface = FakeSurface(errors=[PlaceGone("no")])
    with pytest.raises(PlaceGone):
        await make_reply(store, surface).stream(model.stream([]))

    assert model.hung_up == 1
    assert not surface.screen


async def test_a_place_that_takes_no_last_edit_either_is_reported(store: Store) -> None:
    gone = PlaceGone("locked")
    surface = FakeSurface(limit=100, errors=[None, gone, gone])

    with pytest.raises(PlaceGone):
        await answer(store, surface, TEXT)

    assert len(surface.screen) == 1
