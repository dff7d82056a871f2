"""A model that is silent for long: the reply shows a sign of life."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest

from bot.domain import Message, Page
from bot.errors import ModelUnavailable, WriteFailed, WriteRefused
from bot.reply import writer as reply_module
from bot.reply.draft import PENDING, STOPPED, WAITING
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.fakes import FakeModel, FakeSurface
from tests.support.model import open_retrying
from tests.support.replies import TEXT, WORDS, Saved, a_reply, spoken
from tests.support.waiting import until


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
        async with ModelEmulator() as emulator, open_retrying(emulator) as model:
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
        async with ModelEmulator() as emulator, open_retrying(emulator) as model:
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
