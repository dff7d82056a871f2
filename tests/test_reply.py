"""The reply: one writer, the newest text, and the whole text at the end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import pytest

from bot.budget import EditBudgets
from bot.domain import EditBudget
from bot.errors import (
    LeaseLost,
    MessageGone,
    ModelUnavailable,
    PlaceGone,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.reply import STOPPED, Reply, restore
from bot.store import Store
from tests.fakes import FakeModel, FakeSurface

WORDS = [f"word{number} " for number in range(40)]
TEXT = "".join(WORDS)


class Saved:
    """What the reply saved, last."""

    def __init__(self) -> None:
        self.pages: list[str] = []
        self.shown = ""
        self.lost_after: float = math.inf  # writes

    async def __call__(self, pages: Sequence[str], shown: str) -> None:
        self.lost_after -= 1
        if self.lost_after < 0:
            raise LeaseLost("1")
        self.pages, self.shown = list(pages), shown


def a_reply(
    store: Store,
    surface: FakeSurface,
    *,
    pages: Sequence[str] = (),
    older: str = "",
    stop: asyncio.Event | None = None,
    saved: Saved | None = None,
    patience: float = 5.0,
) -> Reply:
    return Reply(
        surface=surface,
        budgets=EditBudgets(store=store),
        pages=pages,
        older=older,
        stop=stop or asyncio.Event(),
        save=saved or Saved(),
        patience=patience,
    )


async def test_the_final_text_is_what_the_model_said(store: Store) -> None:
    surface, saved = FakeSurface(), Saved()

    shown = await a_reply(store, surface, saved=saved).stream(FakeModel(WORDS).stream([]))

    assert surface.text == TEXT == shown.text == shown.shown == saved.shown
    assert saved.pages == ["m1"]
    assert (shown.outcome, shown.pages) == ("done", ("m1",))
    assert surface.screen["m1"].final


async def test_the_reply_grows_in_one_message(store: Store) -> None:
    surface = FakeSurface(budget=EditBudget("fake:1", 101, 1.0))

    await a_reply(store, surface).stream(FakeModel(WORDS, pause=0.005).stream([]))

    assert len(surface.states) >= 5
    assert all(TEXT.startswith(state) for state in surface.states)
    assert sorted(surface.states, key=len) == surface.states
    assert list(surface.screen) == ["m1"]


async def test_the_first_delta_is_shown_at_once(store: Store) -> None:
    surface = FakeSurface(budget=EditBudget("fake:1", 5, 5.0))
    shown = asyncio.create_task(
        a_reply(store, surface).stream(FakeModel(WORDS, pause=0.01).stream([]))
    )

    await asyncio.sleep(0.15)

    assert surface.states == ["word0"]
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
    surface = FakeSurface(budget=EditBudget("fake:1", 5, 1.0))

    await a_reply(store, surface).stream(FakeModel(WORDS, pause=0.015).stream([]))

    # 0.6 s at four interim writes a second, one at the start, one at the end.
    assert 3 <= len(surface.states) <= 5


async def test_two_replies_share_one_budget(store: Store) -> None:
    budget = EditBudget("fake:1", 10, 1.0)
    surfaces = [FakeSurface(budget=budget), FakeSurface(budget=budget)]

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
    assert list(surface.screen) == list(shown.pages) == saved.pages
    assert all(page.final for page in surface.screen.values())


async def test_an_interim_write_that_fails_is_skipped(store: Store) -> None:
    surface = FakeSurface(errors=[None, WriteFailed("lost"), WriteDelayed("slow", retry_after=0.1)])

    shown = await a_reply(store, surface).stream(FakeModel(WORDS, pause=0.01).stream([]))

    assert shown.outcome == "done"
    assert surface.text == TEXT


async def test_the_final_write_is_repeated_until_it_is_through(store: Store) -> None:
    surface = FakeSurface(errors=[WriteFailed("1"), WriteDelayed("2", retry_after=0.1), None])

    await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))

    assert surface.text == TEXT


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
    assert saved.pages == ["m2"]
    assert surface.screen["m2"].text == TEXT


async def test_a_text_that_is_refused_altogether_ends_with_an_apology(store: Store) -> None:
    surface = FakeSurface(errors=[None, WriteRefused("moderated"), WriteRefused("moderated")])

    shown = await a_reply(store, surface).stream(
        FakeModel(["Half", " an oath"], pause=0.1).stream([])
    )

    assert surface.text == f"Half\n\n{WriteRefused.apology}"
    assert surface.screen["m1"].final
    assert (shown.outcome, shown.text) == ("failed", "Half")


async def test_a_first_text_that_is_refused_is_an_apology_alone(store: Store) -> None:
    surface = FakeSurface(errors=[WriteRefused("moderated")])

    shown = await a_reply(store, surface).stream(FakeModel(["An oath"]).stream([]))

    assert surface.text == WriteRefused.apology
    assert (shown.outcome, shown.text, shown.pages) == ("failed", "", ("m1",))


async def test_a_second_page_that_is_refused_is_followed_by_an_apology(store: Store) -> None:
    surface = FakeSurface(limit=100, errors=[None, WriteRefused("moderated")])

    shown = await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))

    assert surface.text.endswith(WriteRefused.apology)
    assert all(page.final for page in surface.screen.values())
    assert TEXT.startswith(shown.text)


async def test_a_final_write_that_has_to_wait_too_long_is_given_back(store: Store) -> None:
    surface = FakeSurface(errors=[WriteDelayed("an hour", retry_after=3600)])

    with pytest.raises(WriteDelayed):
        await a_reply(store, surface, patience=1).stream(FakeModel([TEXT]).stream([]))


async def test_a_deleted_reply_stays_deleted_and_is_not_remembered(store: Store) -> None:
    surface = FakeSurface(errors=[None, MessageGone("m1")])
    model = FakeModel(WORDS, pause=0.01)

    shown = await a_reply(store, surface).stream(model.stream([]))

    assert (shown.outcome, shown.text) == ("stopped", "")
    assert len(surface.states) == 1
    assert model.hung_up == 1


async def test_a_place_that_is_gone_ends_the_reading(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)

    with pytest.raises(PlaceGone):
        await a_reply(store, FakeSurface(errors=[PlaceGone("no")])).stream(model.stream([]))

    assert model.hung_up == 1


async def test_a_model_that_breaks_off_leaves_its_words_and_an_apology(store: Store) -> None:
    surface = FakeSurface()

    shown = await a_reply(store, surface).stream(
        FakeModel(["Half an", " answer"], error=ModelUnavailable("cut")).stream([])
    )

    assert (shown.outcome, shown.text) == ("failed", "Half an answer")
    assert surface.text == f"Half an answer\n\n{ModelUnavailable.apology}" == shown.shown


async def test_a_model_that_says_nothing_leaves_an_apology_only(store: Store) -> None:
    surface = FakeSurface()

    shown = await a_reply(store, surface).stream(
        FakeModel([], error=ModelUnavailable("refused")).stream([])
    )

    assert (shown.outcome, shown.text) == ("failed", "")
    assert surface.text == ModelUnavailable.apology


async def test_stop_keeps_what_was_said_and_hangs_up(store: Store) -> None:
    surface, stop = FakeSurface(), asyncio.Event()
    model = FakeModel(WORDS, pause=0.02)

    asyncio.get_running_loop().call_later(0.1, stop.set)
    shown = await a_reply(store, surface, stop=stop).stream(model.stream([]))

    assert shown.outcome == "stopped"
    assert TEXT.startswith(shown.text)
    assert shown.text
    assert surface.text == f"{shown.text}\n\n{STOPPED}"
    assert model.hung_up == 1


async def test_stop_before_the_first_word_says_so(store: Store) -> None:
    surface, stop = FakeSurface(), asyncio.Event()
    stop.set()

    shown = await a_reply(store, surface, stop=stop).stream(FakeModel(pause=5).stream([]))

    assert (shown.text, surface.text) == ("", STOPPED)


async def test_a_second_try_goes_on_in_the_same_message(store: Store) -> None:
    surface = FakeSurface()
    older = TEXT[:200]
    await a_reply(store, surface).stream(FakeModel([older]).stream([]))
    surface.states.clear()

    shown = await a_reply(store, surface, pages=["m1"], older=older).stream(
        FakeModel(WORDS, pause=0.005).stream([])
    )

    assert all(len(state) >= len(older.rstrip()) for state in surface.states)
    assert (surface.text, shown.pages) == (TEXT, ("m1",))


async def test_a_second_try_that_is_shorter_leaves_no_old_page(store: Store) -> None:
    surface = FakeSurface(limit=100)
    first = await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))

    await a_reply(store, surface, pages=first.pages, older=first.shown).stream(
        FakeModel(["Short."]).stream([])
    )

    assert len(first.pages) > 2
    assert surface.text == "Short."


@pytest.mark.parametrize("said", ["", TEXT[:20]])
async def test_a_second_try_that_fails_keeps_what_people_have_read(store: Store, said: str) -> None:
    surface, older = FakeSurface(), TEXT[:100]
    await a_reply(store, surface).stream(FakeModel([older]).stream([]))

    shown = await a_reply(store, surface, pages=["m1"], older=older).stream(
        FakeModel([said] if said else [], error=ModelUnavailable("cut")).stream([])
    )

    assert surface.text == f"{older}\n\n{ModelUnavailable.apology}"
    assert (shown.text, shown.outcome) == (older, "failed")


async def test_a_second_try_that_is_stopped_keeps_what_people_have_read(store: Store) -> None:
    surface, older, stop = FakeSurface(), TEXT[:100], asyncio.Event()
    await a_reply(store, surface).stream(FakeModel([older]).stream([]))
    stop.set()

    shown = await a_reply(store, surface, pages=["m1"], older=older, stop=stop).stream(
        FakeModel(WORDS, pause=1).stream([])
    )

    assert surface.text == f"{older}\n\n{STOPPED}"
    assert shown.text == older


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

    assert surface.text == "Hi \U0001f600!" == shown.text


async def test_restore_writes_every_page_again(store: Store) -> None:
    surface = FakeSurface(limit=100)
    shown = await a_reply(store, surface).stream(FakeModel([TEXT]).stream([]))
    late = surface.screen["m1"]
    await surface.edit("m1", type(late)(0, "an older text", final=False))

    await restore(
        shown.shown,
        surface=surface,
        budgets=EditBudgets(store=store),
        pages=shown.pages,
        patience=5,
    )

    assert surface.text.split() == TEXT.split()
