"""The page asks, shows the answer as it grows, and finds everything after a reload."""

from __future__ import annotations

from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.process import ANSWER, speak_slowly
from tests.support.waiting import until
from tests.support.web_page import new_talk, page_of


async def test_a_question_is_answered_in_the_page_while_the_answer_grows(
    own_store: Store, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=1.0)
    talk = new_talk()
    async with page_of(own_store, model) as (person, _), person.page(talk) as screen:
        assert not screen.known
        name = await person.ask(talk, "why is the sky blue?")
        await until(lambda: screen.is_done(name), why=screen.__str__)

    assert screen.answer(name) == ANSWER
    assert screen.turn(name)["question"] == "why is the sky blue?"
    assert screen.turn(name)["state"] == "done"
    grown = [data["add"] for event, data in screen.events if event == "turn" and data["add"]]
    assert len(grown) > 3
    assert sum(map(len, grown)) < 2 * len(ANSWER)


async def test_a_reload_in_mid_reply_shows_the_rest_of_it(
    own_store: Store, model: ModelEmulator
) -> None:
    speak_slowly(model, seconds=1.5)
    talk = new_talk()
    async with page_of(own_store, model) as (person, _):
        async with person.page(talk) as screen:
            name = await person.ask(talk, "why?")
            await until(lambda: len(screen.answer(name)) > 20, why=screen.__str__)
        async with person.page(talk) as reloaded:
            assert reloaded.answer(name).startswith(screen.answer(name)[:20])
            assert reloaded.turn(name)["state"] == "running"
            await until(lambda: reloaded.is_done(name), why=reloaded.__str__)
        async with person.page(talk) as later:
            pass

    assert reloaded.answer(name) == later.answer(name) == ANSWER
    assert later.turns == reloaded.turns
    assert later.title == "why?"
