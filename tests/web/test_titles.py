"""The model writes the titles of conversations, once, and never over a person's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.web.talks import Talks, thread_of, turn_id_of
from bot.domain import Person, Turn
from bot.errors import StoreUnavailable
from bot.store import Store
from tests.emulators.model import Asked, ModelEmulator
from tests.emulators.model.behaviour import render, tokens
from tests.support.fakes import RefusingStore
from tests.support.service import serving
from tests.support.stored import stored
from tests.support.waiting import until
from tests.support.web_page import Browser, address_of, browser, new_talk, page_of, web_variables

ON = {"WEB_TITLES": "on"}


def entitle(model: ModelEmulator, title: Any, answer: Any = "Because.") -> None:
    """Have the model answer, and write this title."""
    model.answer = lambda messages: title if asks_for_title(messages) else answer


def asks_for_title(messages: Sequence[dict[str, str]]) -> bool:
    return messages[-1]["content"].startswith("Write a title")


def for_titles(model: ModelEmulator) -> list[Asked]:
    return [one for one in model.requests if asks_for_title(one.messages)]


async def until_none_waits(store: Store) -> None:
    """Wait until every conversation has its title, or will have none."""
    async with asyncio.timeout(60):
        while await store.command("EXISTS", store.key("untitled", "web")):
            await asyncio.sleep(0.02)


async def listed(person: Browser) -> dict[str, str]:
    _, found = await person.get("/api/conversations")
    return {one["id"]: one["title"] for one in found}


async def test_another_process_with_the_model_writes_a_title_once(
    own_store: Store, model: ModelEmulator
) -> None:
    entitle(model, 'Title: "Blue skies"')
    talk, variables = new_talk(), web_variables(model, **ON)
    async with (
        serving(own_store, "worker", variables=variables),
        serving(own_store, "web", variables=web_variables(WEB_TITLES="on")) as service,
        browser(address_of(service)) as person,
        person.page(talk) as screen,
    ):
        await person.answered(talk, "why is the sky blue?")
        await until(lambda: screen.title == "Blue skies", why=lambda: screen.title)
        await person.answered(talk, "and at night?")
        await until_none_waits(own_store)
        titles = await listed(person)

    assert titles == {talk: "Blue skies"}
    (asked,) = for_titles(model)
    assert "why is the sky blue?" in asked.messages[-1]["content"]
    assert "Because." in asked.messages[-1]["content"]


@asynccontextmanager
async def writing_a_title(
    store: Store, model: ModelEmulator
) -> AsyncIterator[tuple[Browser, str, asyncio.Event]]:
    """A person, whose conversation gets its title when the event is set."""
    gate, talk = asyncio.Event(), new_talk()
    entitle(model, [(0.0, "Blue "), (gate, "skies")])
    async with page_of(store, model, **ON) as (person, _):
        await person.answered(talk, "why is the sky blue?")
        await until(lambda: for_titles(model) and for_titles(model)[-1].deltas)
        yield person, talk, gate


async def test_a_persons_title_wins_over_that_which_the_model_is_writing(
    own_store: Store, model: ModelEmulator
) -> None:
    async with writing_a_title(own_store, model) as (person, talk, gate):
        await person.send("PATCH", f"/api/conversations/{talk}", {"title": "My sky"})
        gate.set()
        await until(lambda: for_titles(model)[-1].finished)
        await person.answered(talk, "and at night?")
        await until_none_waits(own_store)
        titles = await listed(person)

    assert titles == {talk: "My sky"}
    assert len(for_titles(model)) == 1


async def test_a_deleted_conversation_gets_no_title(own_store: Store, model: ModelEmulator) -> None:
    async with writing_a_title(own_store, model) as (person, talk, gate):
        await person.send("DELETE", f"/api/conversations/{talk}")
        gate.set()
        await until(lambda: for_titles(model)[-1].finished)
        await until_none_waits(own_store)
        entitle(model, "Another")
        await person.answered(new_talk(), "why?")
        titles = await listed(person)

    assert talk not in titles
    assert [one for one in await stored(own_store) if "Blue skies" in one] == []


async def test_a_title_ends_for_a_question_and_is_written_after_it(
    own_store: Store, model: ModelEmulator
) -> None:
    async with writing_a_title(own_store, model) as (person, talk, _):
        screen = await person.answered(new_talk(), "how do fish sleep?")
        await until(lambda: for_titles(model)[0].hung_up_at)
        entitle(model, "Blue skies")
        await until_none_waits(own_store)
        titles = await listed(person)

    assert next(iter(screen.turns.values()))["answer"] == "Because."
    assert titles[talk] == "Blue skies"


@pytest.mark.parametrize("said", ["Once upon a time there was a sky. " * 9, "I'm sorry."])
async def test_what_is_no_title_leaves_the_beginning_of_the_question(
    own_store: Store, model: ModelEmulator, said: str
) -> None:
    entitle(model, said)
    talk = new_talk()
    async with page_of(own_store, model, **ON) as (person, _):
        await person.answered(talk, "why is the sky blue?")
        await until_none_waits(own_store)
        titles = await listed(person)

    assert titles == {talk: "why is the sky blue?"}
    assert len(for_titles(model)) == 1


async def test_a_title_counts_as_tokens_and_as_no_question(
    own_store: Store, model: ModelEmulator
) -> None:
    entitle(model, "Blue skies", "Because.")
    async with page_of(own_store, model, WEB_TITLES="on", QUESTIONS_PER_DAY="1") as (person, _):
        _, me = await person.get("/api/me")
        await person.answered(new_talk(), "why is the sky blue?")
        await until(lambda: for_titles(model))
        written = len(tokens("Because.")) + len(tokens("Blue skies"))
        wanted = sum(len(tokens(render(one.sent))) for one in model.requests) + written
        (day,) = [key for key in await own_store.command("KEYS", "*spent*") if me["id"] in key]
        async with asyncio.timeout(60):
            while (spent := await own_store.command("HGETALL", day))["tokens"] != str(wanted):
                await asyncio.sleep(0.02)
        sums = await own_store.command("KEYS", "*usage_of*")
        (line,) = (await own_store.command("HGETALL", sums[0])).values()

    assert spent["questions"] == "1"
    assert line.split()[:2] == ["1", str(wanted - written)]


@pytest.mark.parametrize("variable", ["HISTORY_DAYS=0", "WEB_TITLES=off"])
async def test_no_title_is_wanted_where_none_is_kept(
    own_store: Store, model: ModelEmulator, variable: str
) -> None:
    name, _, value = variable.partition("=")
    async with page_of(own_store, model, **{**ON, name: value}) as (person, _):
        await person.answered(new_talk(), "why?")
        waits = await own_store.command("EXISTS", own_store.key("untitled", "web"))

    assert not waits
    assert for_titles(model) == []


async def test_a_conversation_is_claimed_by_one_worker_and_again_if_that_dies(
    own_store: Store,
) -> None:
    talks = Talks(store=own_store, keep_seconds=600, wants_titles=True)
    ann, talk = Person("a" * 32, "Ann"), new_talk()
    thread = thread_of(ann, talk)
    turn = Turn(turn_id_of(ann, talk), thread, ann, "why?", {}, 1000.0)
    is_new = [await talks.add(turn, title="why?") for _ in range(2)]
    before = await talks.claim()
    await talks.put_off(thread, seconds=0.0)
    claims = await asyncio.gather(*(talks.claim() for _ in range(8)))
    # As after the minute for which it was claimed.
    await own_store.command("ZADD", own_store.key("untitled", "web"), 0, str(thread))
    again = await talks.claim()

    assert (is_new, before) == ([True, False], None)
    assert [one for one in claims if one] == [thread]
    assert again == thread


async def test_a_new_conversation_is_not_listed_before_it_has_a_title(store: Store) -> None:
    assert isinstance(store, RefusingStore)
    talks = Talks(store=store, keep_seconds=600)
    ann, talk = Person("a" * 32, "Ann"), new_talk()
    turn = Turn(turn_id_of(ann, talk), thread_of(ann, talk), ann, "why?", {}, time.time())
    store.refused.add(store.key("web", "titles", ann.id))
    with pytest.raises(StoreUnavailable):
        await talks.add(turn, title="why?")
    store.refused.clear()

    assert await talks.all_of(ann) == []


async def test_a_forgotten_person_waits_for_no_title(
    own_store: Store, model: ModelEmulator
) -> None:
    async with writing_a_title(own_store, model) as (person, _, gate):
        told = await person.send("POST", "/api/forget-me")
        async with asyncio.timeout(60):
            while not told[1]["done"]:
                told = await person.get("/api/forget-me")
        gate.set()
        await until(lambda: for_titles(model)[-1].finished or for_titles(model)[-1].hung_up_at)
        waits = await own_store.command("EXISTS", own_store.key("untitled", "web"))

    assert not waits
    assert [one for one in await stored(own_store) if "skies" in one] == []
