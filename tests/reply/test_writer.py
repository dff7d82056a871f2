"""The reply: one writer, the newest text, and the whole text at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bot.domain import Delta, EditBudget, Page, Shown
from bot.errors import (
    AnswerCut,
    LeaseLost,
    MessageGone,
    ModelUnavailable,
    SurfaceError,
    WriteFailed,
    WriteRefused,
)
from bot.reply.draft import STOPPED, with_notice
from bot.reply.edit_budget import EditBudgets
from bot.reply.pages import Pager
from bot.reply.writer import restore
from bot.store import Store
from tests.support.fakes import FakeModel, FakeSurface
from tests.support.replies import TEXT, WORDS, Saved, answer, make_reply, spoken


async def test_the_final_text_is_what_the_model_said(store: Store) -> None:
    surface, saved = FakeSurface(), Saved()

    shown = await make_reply(store, surface, saved=saved).stream(FakeModel(WORDS).stream([]))

    assert surface.text == TEXT == shown.said == shown.text == saved.last.text
    assert saved.last.message_ids == ("m1",)
    assert (shown.outcome, shown.message_ids) == ("done", ("m1",))
    assert surface.screen["m1"].final


async def test_the_reply_grows_in_one_message(store: Store) -> None:
    surface = FakeSurface()

    await make_reply(store, surface).stream(
        spoken("a", lambda: surface.states == ["a"], "b", lambda: surface.text == "ab", "c")
    )

    assert surface.states == ["a", "ab", "abc"]
    assert list(surface.screen) == ["m1"]


async def test_writes_never_overlap_and_the_model_is_read_regardless(store: Store) -> None:
    is_read = asyncio.Event()

    class Slow(FakeSurface):
        async def post(self, page: Page) -> str:
            # Ends with the answer only: if this held up the reading, neither would ever end.
            await is_read.wait()
            return await super().post(page)

    surface = Slow(latency=0.01)

    async def deltas() -> AsyncGenerator[Delta]:
        for word in WORDS:
            yield word
            await asyncio.sleep(0)
        is_read.set()

    await make_reply(store, surface).stream(deltas())

    assert surface.most_at_once == 1
    assert surface.text == TEXT


async def test_a_long_reply_stands_on_pages(store: Store) -> None:
    surface = FakeSurface(limit=100)
    saved = Saved()

    shown = await make_reply(store, surface, saved=saved).stream(
        FakeModel(WORDS, pause=0.001).stream([])
    )

    assert len(surface.screen) > 2
    assert surface.text.split() == TEXT.split()
    assert list(surface.screen) == list(shown.message_ids) == list(saved.last.message_ids)
    assert all(page.final for page in surface.screen.values())


@pytest.mark.parametrize("said", ["", "Half an answer"])
async def test_a_model_that_breaks_off_leaves_its_words_and_an_apology(
    store: Store, said: str
) -> None:
    surface = FakeSurface()

    shown = await answer(store, surface, said, ModelUnavailable("cut"))

    assert (shown.outcome, shown.said) == ("failed", said)
    assert surface.text == with_notice(said, ModelUnavailable.apology) == shown.text


async def test_an_end_is_no_interim_write_though_a_slot_comes_in_the_same_moment(
    store: Store,
) -> None:
    surface = FakeSurface(errors=[None, WriteFailed("lost")])

    class Slow(EditBudgets):
        async def interim(self, *args: Any, **terms: Any) -> bool:
            granted = await super().interim(*args, **terms)
            if surface.posted:
                await terms["unless"].wait()
            return granted

    # The final write fails, and there is no time to repeat it.
    with pytest.raises(WriteFailed):
        await make_reply(store, surface, patience=0.1, budgets=Slow(store=store)).stream(
            spoken("H", lambda: surface.posted, "i")
        )


async def test_a_crash_shows_no_end_though_a_slot_comes_in_the_same_moment(store: Store) -> None:
    crash = asyncio.Event()
    surface = FakeSurface()

    class Slow(EditBudgets):
        async def interim(self, *args: Any, **terms: Any) -> bool:
            granted = await super().interim(*args, **terms)
            if surface.posted:
                # The slot was granted, and its answer is still on its way.
                crash.set()
                await terms["unless"].wait()
            return granted

    parts = ("Hello", lambda: surface.posted, " world", crash.is_set, RuntimeError("no model's"))
    with pytest.raises(RuntimeError):
        await answer(store, surface, *parts, budgets=Slow(store=store))

    assert [page.final for page in surface.screen.values()] == [False]


async def test_stop_keeps_what_was_said_and_hangs_up(store: Store) -> None:
    surface, stop = FakeSurface(), asyncio.Event()
    model = FakeModel(["Well, it", lambda: surface.text, " is", stop.set])

    shown = await make_reply(store, surface, stop=stop).stream(model.stream([]))

    assert (shown.outcome, shown.said) == ("stopped", "Well, it is")
    assert surface.text == f"Well, it is\n\n{STOPPED}"
    assert model.hung_up == 1


async def test_stop_before_the_first_word_says_so(store: Store) -> None:
    surface, stop = FakeSurface(), asyncio.Event()
    stop.set()

    shown = await make_reply(store, surface, stop=stop).stream(FakeModel(pause=5).stream([]))

    assert (shown.said, surface.text) == ("", STOPPED)


async def test_an_answer_that_is_cut_says_so_below_its_words(store: Store) -> None:
    surface = FakeSurface()

    shown = await answer(store, surface, "One, two,", " three", AnswerCut("MAX_TOKENS=3"))

    assert surface.text == f"One, two, three\n\n{AnswerCut.apology}" == shown.text
    assert (shown.outcome, shown.said) == ("done", "One, two, three")


async def test_nothing_is_written_once_the_lease_is_lost(store: Store) -> None:
    surface, saved = FakeSurface(), Saved()
    saved.lost_after = 4
    model = FakeModel()
    # Each word is written before the next one comes.
    model.deltas = [
        part
        for number, word in enumerate(WORDS, 1)
        for part in (word, lambda least=number: len(surface.states) >= least)
    ]

    with pytest.raises(LeaseLost):
        await make_reply(store, surface, saved=saved).stream(model.stream([]))

    assert len(surface.states) <= 4
    assert model.hung_up == 1


async def test_an_unfinished_code_block_is_shown_closed(store: Store) -> None:
    surface = FakeSurface()

    await make_reply(store, surface).stream(
        FakeModel(["```python\na", " = 1\n", "b = 2\n```"], pause=0.05).stream([])
    )

    assert all(state.count("```") == 2 for state in surface.states)
    assert surface.text == "```python\na = 1\nb = 2\n```"


async def test_restore_keeps_the_message_below_a_page_that_was_cut(store: Store) -> None:
    text = " ".join(f"word{number}" for number in range(60))
    surface = FakeSurface(screen={one: Page(0, "?", final=True) for one in ("m1", "m2")})
    shown = Shown(("m1", "m2"), text, text, outcome="done", cut=(0, 100))

    await restore(shown, surface=surface, budgets=EditBudgets(store=store), patience=5)

    first, second = (page.text for page in surface.screen.values())
    assert f"{first} {second}" == text
    assert 80 < len(first) <= 100


@pytest.mark.parametrize("error", [None, MessageGone("m1"), WriteRefused("too old")])
async def test_restore_writes_every_page_again_and_posts_nothing(
    store: Store, error: SurfaceError | None
) -> None:
    surface = FakeSurface(limit=100)
    shown = await answer(store, surface, TEXT)
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

    await make_reply(store, surface).stream(FakeModel(pieces, pause=0.0005).stream([]))

    shown = [page.text for page in surface.screen.values()]
    assert shown == Pager(limit=200, measure=len).cut(MARKUP)


@dataclass
class Counting(FakeSurface):
    """Counts how often the writer looks at a page."""

    looks: int = 0

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        self.looks += 1
        return super().budget(page, new=new)


async def test_eight_thousand_deltas_cost_no_more_looks_than_there_are_slots(store: Store) -> None:
    surface = Counting(edits=EditBudget("edit", 5, 3600.0))

    await make_reply(store, surface).stream(FakeModel(["word "] * 8000).stream([]))

    assert surface.looks < 20 * len(surface.screen)
