"""What a model has thought, as the page reads it over HTTP, and what becomes of it."""

from __future__ import annotations

import asyncio

import pytest

from bot.errors import NotRemembered
from bot.reply.draft import STOPPED, THINKING
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.at_work import all_ended
from tests.support.stored import stored
from tests.support.waiting import until
from tests.support.web_page import Browser, browser, new_talk, page_of

THOUGHTS = "First, a walrus <b>thinks</b>."


async def thoughts(person: Browser, talk: str, turn: str) -> tuple[int, object]:
    return await person.get(f"/api/conversations/{talk}/turns/{turn}/thoughts")


async def places(store: Store) -> list[str]:
    """Return the kinds of keys that have a word of the thoughts."""
    return [one.name.partition(":")[0] for one in await stored(store) if "walrus" in one]


async def test_thoughts_are_read_by_their_person_alone_and_stand_nowhere_else(
    own_store: Store, model: ModelEmulator
) -> None:
    talk, model.thoughts, model.answer = new_talk(), THOUGHTS, "It is 42."
    async with page_of(own_store, model) as (person, _), browser(person.address) as other:
        shown = await person.answered(talk, "why?", "first-one")
        await person.answered(talk, "and why?")

        assert shown.answer("first-one") == "It is 42."
        assert shown.turn("first-one")["thought"] == 1
        assert await thoughts(person, talk, "first-one") == (200, {"text": THOUGHTS})
        refused = {"error": NotRemembered.apology}
        assert (await thoughts(other, talk, "first-one"))[1] == refused
        _, exported = await person.get(f"/api/conversations/{talk}/export")
        assert "It is 42." in exported
        assert "walrus" not in exported
        await all_ended(own_store)
        assert await places(own_store) == ["thoughts", "thoughts"]
    assert "walrus" not in str([one.messages for one in model.requests])


async def test_a_page_that_is_opened_while_the_model_thinks_shows_it_and_stop_is_at_once(
    own_store: Store, model: ModelEmulator
) -> None:
    talk, never = new_talk(), asyncio.Event()
    model.thoughts = [(0.0, THOUGHTS), (never, "never")]
    async with page_of(own_store, model) as (person, service):
        async with person.page(talk) as screen:
            turn = await person.ask(talk, "why?")
            await until(lambda: screen.turn(turn).get("thought"), why=service.text)
        async with person.page(talk) as screen:
            await until(lambda: screen.turn(turn).get("note") == THINKING, why=screen.__str__)
            assert (screen.turn(turn)["state"], screen.answer(turn)) == ("running", "")
            assert screen.turn(turn)["thought"]
            assert await thoughts(person, talk, turn) == (200, {"text": THOUGHTS})
            await person.press(talk, turn, "stop")
            await until(lambda: screen.is_done(turn), why=screen.__str__)
            assert screen.turn(turn)["below"] == STOPPED

        assert await thoughts(person, talk, turn) == (200, {"text": THOUGHTS})


@pytest.mark.parametrize("how", ["turn", "conversation", "person"])
async def test_thoughts_go_with_what_they_belong_to(
    own_store: Store, model: ModelEmulator, how: str
) -> None:
    talk, model.thoughts = new_talk(), THOUGHTS
    async with page_of(own_store, model) as (person, service), person.page(talk) as screen:
        turn = await person.ask(talk, "why?")
        await until(lambda: screen.is_done(turn), why=service.text)
        await all_ended(own_store)
        assert await places(own_store) == ["thoughts"]
        model.thoughts, model.answer = "", "Another answer."

        if how == "turn":
            await person.press(talk, turn, "delete")
        elif how == "conversation":
            await person.send("DELETE", f"/api/conversations/{talk}")
        else:
            await person.send("POST", "/api/forget-me")
            async with asyncio.timeout(60):
                while not (await person.get("/api/forget-me"))[1]["done"]:
                    await asyncio.sleep(0.02)

        assert await places(own_store) == []


async def test_without_a_history_thoughts_end_with_their_answer(
    own_store: Store, model: ModelEmulator
) -> None:
    talk, gate = new_talk(), asyncio.Event()
    model.thoughts, model.answer = THOUGHTS, [(gate, "It is 42.")]
    async with (
        page_of(own_store, model, HISTORY_DAYS="0") as (person, service),
        person.page(talk) as screen,
    ):
        turn = await person.ask(talk, "why?")
        await until(lambda: screen.turn(turn).get("thought"), why=service.text)
        assert await thoughts(person, talk, turn) == (200, {"text": THOUGHTS})
        gate.set()
        await until(lambda: screen.is_done(turn), why=service.text)
        await all_ended(own_store)

        assert screen.answer(turn) == "It is 42."
        assert await thoughts(person, talk, turn) == (200, {"text": ""})
        assert await places(own_store) == []
