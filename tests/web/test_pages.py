"""The page asks, shows the answer as it grows, and finds everything after a reload."""

from __future__ import annotations

import time
from pathlib import Path

from bot.errors import StoreUnavailable
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.outage import line
from tests.support.process import ANSWER, speak_slowly
from tests.support.service import serving
from tests.support.waiting import until
from tests.support.web_page import address_of, browser, new_talk, page_of, web_variables


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


async def test_a_store_that_comes_back_leaves_no_gap_in_an_open_page(
    own_store: Store, model: ModelEmulator, data_dir: Path
) -> None:
    model.answer = [(0.0, "Well, "), (1.0, "then"), (0.0, ".")]
    talk = new_talk()
    async with (
        line(own_store.url, data_dir) as way,
        serving(own_store, "worker", variables=web_variables(model)),
        serving(own_store, "web", variables=web_variables(REDIS_URL=f"{way.url}?db=1")) as service,
        browser(address_of(service)) as person,
        person.page(talk) as screen,
    ):
        name = await person.ask(talk, "why?")
        await until(lambda: screen.answer(name), why=screen.__str__)
        states = screen.states
        await way.cut()
        sent = {"id": new_talk(), "text": "and?"}
        path = f"/api/conversations/{talk}/questions"
        refused = await person.send("POST", path, sent)
        async with person.session.get(
            f"{person.address}/api/conversations/{new_talk()}/events"
        ) as events:
            away = events.status
        await until(lambda: model.requests[0].finished)
        await way.mend()
        await until(lambda: screen.is_done(name), why=screen.__str__)
        await person.ask(talk, "and?", sent["id"])
        await until(lambda: screen.is_done(sent["id"]), why=screen.__str__)

    assert refused == (503, {"error": StoreUnavailable.apology})
    assert away == 503
    assert screen.answer(name) == "Well, then."
    assert screen.states == states


async def test_all_of_a_conversation_expires_with_its_history(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    async with page_of(own_store, model, HISTORY_DAYS="2") as (person, _):
        await person.answered(talk, "why?")
        keys = await own_store.command("KEYS", own_store.key("web", "*"))
        seconds = {key: await own_store.command("TTL", key) for key in keys}
        for key in keys:
            if "talks" in key:
                await own_store.command("ZADD", key, time.time() - 3 * 24 * 3600, talk)
        _, listed = await person.get("/api/conversations")
        titles = [key for key in keys if "titles" in key]
        left = await own_store.command("EXISTS", *titles)

    secret = own_store.key("web", "secret")
    assert seconds.pop(secret) == -1
    assert len(seconds) == 3
    assert all(0 < one <= 2 * 24 * 3600 for one in seconds.values())
    assert (listed, left) == ([], 0)
