"""The reply that has a past: a try before it, a former answer, another start, or its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest

from bot.concurrency import empty_stream
from bot.domain import LeftOut, Page, Shown, Start
from bot.errors import GivenUp, ModelUnavailable, PlaceGone, WriteFailed, WriteRefused
from bot.reply.draft import (
    ANSWERED_BY,
    FAILED_ANEW,
    LEFT_OUT,
    PENDING,
    STOPPED,
    STOPPED_ANEW,
    WAITING,
)
from bot.reply.writer import ReplyTiming
from bot.store import Store
from tests.support.fakes import FakeModel, FakeSurface
from tests.support.replies import TEXT, WORDS, Saved, answer, make_reply, spoken
from tests.support.waiting import until


async def test_a_second_try_goes_on_in_the_same_message(store: Store) -> None:
    surface = FakeSurface()
    older = TEXT[:200]
    await answer(store, surface, older)
    surface.states.clear()

    shown = await make_reply(store, surface, message_ids=["m1"], older=older).stream(
        FakeModel(WORDS, pause=0.005).stream([])
    )

    assert all(len(state) >= len(older.rstrip()) for state in surface.states)
    assert (surface.text, shown.message_ids) == (TEXT, ("m1",))


async def test_a_second_try_that_is_shorter_leaves_no_old_page(store: Store) -> None:
    surface = FakeSurface(limit=100)
    first = await answer(store, surface, TEXT)

    await answer(store, surface, "Short.", message_ids=first.message_ids, older=first.text)

    assert len(first.message_ids) > 2
    assert surface.text == "Short."


@pytest.mark.parametrize("said", ["", TEXT[:20]])
async def test_a_second_try_that_fails_keeps_what_people_have_read(store: Store, said: str) -> None:
    surface, older = FakeSurface(), TEXT[:100]
    await answer(store, surface, older)

    shown = await make_reply(store, surface, message_ids=["m1"], older=older).stream(
        FakeModel([said] if said else [], error=ModelUnavailable("cut")).stream([])
    )

    assert surface.text == f"{older}\n\n{ModelUnavailable.apology}"
    assert (shown.said, shown.outcome) == (older, "failed")


class TestWrittenAnew:
    """A reply whose pages hold a former answer."""

    async def former(self, store: Store, surface: FakeSurface, text: str) -> Sequence[str]:
        shown = await answer(store, surface, text)
        surface.states.clear()
        return shown.message_ids

    async def test_the_new_answer_replaces_the_former_from_its_first_word(
        self, store: Store
    ) -> None:
        surface, former = FakeSurface(), "A former answer. " * 20
        ids = await self.former(store, surface, former)

        shown = await make_reply(store, surface, message_ids=ids, replaced=former).stream(
            FakeModel(WORDS, pause=0.005).stream([])
        )

        assert surface.states[0].startswith("word0")
        assert all(TEXT.startswith(state) for state in surface.states)
        assert (shown.outcome, shown.said, shown.message_ids) == ("done", TEXT, ("m1",))
        assert list(surface.screen) == ["m1"]

    async def test_no_former_words_stand_below_new_ones(self, store: Store) -> None:
        surface = FakeSurface(limit=100)
        ids = await self.former(store, surface, TEXT)

        shown = await make_reply(store, surface, message_ids=ids, replaced=TEXT).stream(
            spoken("A new", lambda: len(surface.states) == len(ids), " one.")
        )

        others = len(ids) - 1
        assert others > 1
        assert surface.states == ["A new", *[PENDING] * others, "A new one."]
        assert surface.text == "A new one."
        assert shown.message_ids == ("m1",)

    async def test_a_longer_new_answer_fills_the_former_pages_and_more(self, store: Store) -> None:
        surface = FakeSurface(limit=100)
        ids = await self.former(store, surface, "A former answer. " * 8)

        shown = await make_reply(store, surface, message_ids=ids, replaced="A former").stream(
            FakeModel(WORDS, pause=0.005).stream([])
        )

        assert surface.text.split() == TEXT.split()
        assert len(shown.message_ids) > len(ids) > 1
        assert shown.message_ids[: len(ids)] == ids

    @pytest.mark.parametrize(("older", "said"), [("", ""), ("", TEXT[:30]), ("Half a new one", "")])
    async def test_the_former_answer_comes_back_where_the_model_fails(
        self, store: Store, older: str, said: str
    ) -> None:
        surface, saved, former = FakeSurface(limit=150), Saved(), "A former answer. " * 20
        ids = await self.former(store, surface, former)
        options = {"message_ids": ids, "older": older, "replaced": former, "saved": saved}

        shown = await answer(store, surface, said, 0.05, ModelUnavailable("cut"), **options)

        notice = FAILED_ANEW.format(apology=ModelUnavailable.apology)
        assert surface.text.split() == f"{former}{notice}".split()
        assert (shown.outcome, shown.said) == ("failed", "")
        assert shown.text == f"{former}\n\n{notice}"
        assert not any("former" in text for text in saved.texts)

    async def test_the_former_answer_comes_back_where_a_stop_precedes_the_first_word(
        self, store: Store
    ) -> None:
        surface, stop = FakeSurface(), asyncio.Event()
        ids = await self.former(store, surface, TEXT)
        stop.set()

        shown = await make_reply(store, surface, message_ids=ids, replaced=TEXT, stop=stop).stream(
            FakeModel(pause=5).stream([])
        )

        assert surface.text == f"{TEXT}\n\n{STOPPED_ANEW}"
        assert (shown.outcome, shown.said) == ("stopped", "")

    async def test_a_stop_after_new_words_keeps_those(self, store: Store) -> None:
        surface, stop = FakeSurface(), asyncio.Event()
        ids = await self.former(store, surface, TEXT)

        shown = await make_reply(store, surface, message_ids=ids, replaced=TEXT, stop=stop).stream(
            spoken("New words", lambda: "New words" in surface.text, stop.set)
        )

        assert surface.text == f"New words\n\n{STOPPED}"
        assert shown.said == "New words"

    @pytest.mark.parametrize("refusal", [PlaceGone("no permission"), WriteRefused("moderated")])
    async def test_the_former_answer_comes_back_where_a_page_is_refused(
        self, store: Store, refusal: PlaceGone | WriteRefused
    ) -> None:
        surface = FakeSurface(limit=200)
        ids = await self.former(store, surface, "The former.")
        surface.errors = [None, refusal]

        shown = await answer(store, surface, TEXT, message_ids=ids, replaced="The former.")

        notice = FAILED_ANEW.format(apology=refusal.apology)
        assert surface.text == f"The former.\n\n{notice}"
        assert (shown.outcome, shown.said, shown.message_ids) == ("failed", "", ("m1",))

    async def test_deleting_the_reply_leaves_no_page_that_waits(self, store: Store) -> None:
        surface = FakeSurface(limit=100)
        ids = await self.former(store, surface, TEXT)
        writing = asyncio.create_task(
            make_reply(store, surface, message_ids=ids, replaced=TEXT).stream(
                spoken("New", lambda: "m1" not in surface.screen, " words")
            )
        )
        await until(lambda: surface.states.count(PENDING) == len(ids) - 1)

        del surface.screen["m1"]
        shown = await writing

        assert (shown.outcome, shown.said) == ("stopped", "")
        assert surface.screen == {}

    async def test_deleting_a_page_leaves_no_sign_of_life(self, store: Store) -> None:
        surface = FakeSurface(limit=100)
        ids = await self.former(store, surface, TEXT)
        timing = ReplyTiming(first_silence=0.02)
        reply = make_reply(store, surface, message_ids=ids, replaced=TEXT, timing=timing)

        shown = await reply.stream(
            spoken(lambda: WAITING in surface.text, lambda: surface.screen.pop("m1"), "New", 60.0)
        )

        assert shown.outcome == "stopped"
        assert WAITING not in surface.text
        assert all(page.final for page in surface.screen.values())


class TestStarts:
    """An answer that begins anew."""

    async def test_what_was_left_out_of_the_question_is_reported_below_the_answer(
        self, store: Store
    ) -> None:
        surface = FakeSurface()

        shown = await answer(store, surface, LeftOut(12345), "Yes.")

        assert surface.text == f"Yes.\n\n{LEFT_OUT.format(characters='12,345')}"
        assert "12,345" in surface.text
        assert shown.said == "Yes."

    async def test_a_model_that_read_it_all_says_so_by_saying_nothing(self, store: Store) -> None:
        surface = FakeSurface()

        await answer(store, surface, LeftOut(5), "Y", Start("other"), "Yes.")

        assert surface.text == f"Yes.\n\n{ANSWERED_BY.format(model='other')}"

    async def test_the_words_that_stay_keep_what_was_left_out(self, store: Store) -> None:
        surface, cut = FakeSurface(), ModelUnavailable("cut")

        await answer(store, surface, LeftOut(5), "Well, it is", Start(""), "W", cut)

        assert surface.text == f"Well, it is\n\n{LEFT_OUT.format(characters=5)}\n\n{cut.apology}"

    async def test_what_is_no_end_of_the_answer_leaves_no_final_page(self, store: Store) -> None:
        surface = FakeSurface()

        async def handed_over() -> AsyncGenerator[str]:
            yield "Half an"
            await until(lambda: surface.text)
            raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await make_reply(store, surface).stream(handed_over())

        assert surface.text == "Half an"
        assert not surface.screen["m1"].final


class TestLeftOut:
    """A person is told what was left out of the question, however the answer ends."""

    NOTICE = LEFT_OUT.format(characters=5)
    ROOM = 300  # for notices and a few words

    async def died(self, store: Store, surface: FakeSurface) -> Shown:
        """Return what a try leaves that dies in mid-answer."""
        saved, parts = Saved(), (LeftOut(5), "Well, it is", lambda: surface.text, ValueError("bug"))
        with pytest.raises(ValueError, match="bug"):
            await answer(store, surface, *parts, saved=saved)
        return saved.last

    async def test_where_the_rest_is_refused(self, store: Store) -> None:
        refused = WriteRefused("moderated")
        surface = FakeSurface(limit=self.ROOM, errors=[None, refused, refused])

        shown = await answer(store, surface, LeftOut(5), TEXT, lambda: surface.text, " An oath")

        assert surface.text.endswith(f"\n\n{self.NOTICE}\n\n{WriteRefused.apology}")
        assert surface.text.count(self.NOTICE) == 1
        assert TEXT.startswith(shown.said.partition("\n")[0])
        assert self.NOTICE not in shown.said

    @pytest.mark.parametrize(
        ("limit", "refusals", "shown"),
        [
            (ROOM, 2, ["Half\n\n{notice}\n\n{apology}"]),
            (ROOM, 3, ["Half", "{notice}\n\n{apology}"]),
            # Where there is no room for both, the apology comes first.
            (100, 2, ["Half\n\n{apology}"]),
        ],
    )
    async def test_where_the_message_takes_no_edit_either(
        self, store: Store, limit: int, refusals: int, shown: list[str]
    ) -> None:
        surface = FakeSurface(limit=limit, errors=[None, *[WriteRefused("moderated")] * refusals])

        await answer(store, surface, LeftOut(5), "Half", lambda: surface.text, " an oath")

        texts = {"notice": self.NOTICE, "apology": WriteRefused.apology}
        expected = [text.format(**texts) for text in shown]
        assert [page.text for page in surface.screen.values()] == expected

    @pytest.mark.parametrize("said", ["", "Well"])
    @pytest.mark.parametrize("error", [GivenUp(""), ModelUnavailable("cut")])
    async def test_where_the_next_try_comes_to_less(
        self, store: Store, said: str, error: GivenUp | ModelUnavailable
    ) -> None:
        surface = FakeSurface()
        earlier = await self.died(store, surface)

        shown = await answer(store, surface, said, error, earlier=earlier)

        assert surface.text == f"Well, it is\n\n{self.NOTICE}\n\n{error.apology}"
        assert shown.said == "Well, it is"
        assert shown.outcome == ("dead" if isinstance(error, GivenUp) else "failed")

    async def test_where_the_next_try_is_refused(self, store: Store) -> None:
        surface = FakeSurface()
        earlier = await self.died(store, surface)
        surface.errors = [WriteRefused("moderated")] * 2

        await answer(store, surface, "Well, it is an oath", earlier=earlier)

        assert surface.text == f"Well, it is\n\n{self.NOTICE}\n\n{WriteRefused.apology}"

    async def test_what_stands_below_the_answer_was_not_said(self, store: Store) -> None:
        surface = FakeSurface(limit=100)
        first = await answer(store, surface, TEXT)
        surface.errors = [None, PlaceGone("archived")]

        earlier = replace(first, outcome="")
        shown = await answer(store, surface, Start("other"), "Yes.", earlier=earlier)

        assert surface.screen["m1"].text == f"Yes.\n\n{ANSWERED_BY.format(model='other')}"
        assert (shown.outcome, shown.said) == ("failed", "Yes.")

    async def test_where_the_next_model_reads_it_all_it_is_no_matter(self, store: Store) -> None:
        surface = FakeSurface()
        earlier = await self.died(store, surface)

        await answer(store, surface, "Well, it is so.", earlier=earlier)

        assert surface.text == "Well, it is so."


class LosesTheEnd(FakeSurface):
    """Takes no final page."""

    async def edit(self, message_id: str, page: Page) -> None:
        if page.final:
            raise WriteFailed("lost")
        await super().edit(message_id, page)


class TestKnownEnd:
    """The end is saved before a final page is written, and what has it has only to write it."""

    async def test_it_is_saved_before_it_is_written(self, store: Store) -> None:
        saved, surface = Saved(), LosesTheEnd()

        with pytest.raises(WriteFailed):
            await make_reply(store, surface, saved=saved, patience=0.1).stream(
                spoken("H", lambda: surface.screen, "i")
            )

        assert not surface.screen["m1"].final
        assert saved.last == Shown(("m1",), "Hi", "Hi", outcome="done")

    @pytest.mark.parametrize("crashes", [True, False])
    async def test_a_crash_or_a_shutdown_beside_a_post_is_none(
        self, store: Store, crashes: bool
    ) -> None:
        surface, saved = FakeSurface(latency=0.3), Saved()
        rest = (lambda: surface.at_once, ValueError("a bug")) if crashes else (9.0,)
        reply = asyncio.create_task(answer(store, surface, "Half", *rest, saved=saved))
        await until(lambda: surface.at_once)

        if not crashes:
            reply.cancel()
        (error,) = await asyncio.gather(reply, return_exceptions=True)

        assert isinstance(error, ValueError if crashes else asyncio.CancelledError)
        assert saved.last.outcome == ""

    async def test_deltas_are_not_read(self, store: Store) -> None:
        surface, stop = FakeSurface(), asyncio.Event()
        message_id = await surface.post(Page(0, "Half", final=False))
        earlier = Shown((message_id,), f"Whole\n\n{STOPPED}", "Whole", outcome="stopped")
        stop.set()

        again = make_reply(store, surface, earlier=earlier, stop=stop)
        shown = await again.stream(spoken("Another"))

        assert shown == earlier
        assert (surface.text, surface.screen[message_id].last) == (earlier.text, True)

    async def test_what_is_refused_then_is_closed(self, store: Store) -> None:
        surface = FakeSurface()
        message_id = await surface.post(Page(0, "Half", final=False))
        earlier = Shown((message_id,), f"Half\n\n{STOPPED}", "Half", outcome="stopped")
        surface.errors = [WriteRefused("moderated")] * 2

        shown = await make_reply(store, surface, earlier=earlier).stream(empty_stream())

        assert surface.text == f"Half\n\n{WriteRefused.apology}"
        assert (shown.outcome, shown.said) == ("failed", "Half")

    async def test_a_notice_that_is_refused_then_is_no_answer(self, store: Store) -> None:
        surface = FakeSurface()
        message_id = await surface.post(Page(0, "Sorry.", final=False))
        earlier = Shown((message_id,), "Sorry.", outcome="failed")
        surface.errors = [WriteRefused("moderated")] * 2

        with pytest.raises(WriteRefused):
            await make_reply(store, surface, earlier=earlier).stream(empty_stream())

        assert surface.text == "Sorry."
