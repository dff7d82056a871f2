"""The page tells what one can do there and has used, and forgets its person on request."""

from __future__ import annotations

from playwright.async_api import expect

from bot.commands.handlers import FORGET, FORGET_QUESTION, FORGOTTEN
from bot.domain import Person
from bot.store import Store
from bot.turns.allowed import AllowedTools
from bot.turns.script import person_key
from tests.emulators.model import ModelEmulator
from tests.support.stored import stored
from tests.support.waiting import until
from tests.support.web_page import address_of, browser, new_talk, page_of
from tests.web.conftest import OwnPage

QUESTION, ANSWER = "zebra", "walrus"


async def left_of(store: Store, *words: str) -> list[str]:
    return [one.name for one in await stored(store) if any(word in one for word in words)]


async def test_nothing_of_who_asks_to_be_forgotten_is_left(
    own_store: Store, model: ModelEmulator
) -> None:
    model.answer, talk, theirs = ANSWER, new_talk(), new_talk()
    async with (
        page_of(own_store, model) as (person, service),
        browser(address_of(service)) as other,
        person.page(talk) as screen,
    ):
        name = await person.ask(talk, QUESTION)
        await until(lambda: screen.is_done(name), why=screen.__str__)
        (key,) = [one.name for one in await stored(own_store) if one.name.startswith("history:")]
        person_id = key.split(":")[3]
        await other.ask(theirs, "lion")
        await person.send("PATCH", "/api/preferences", {"persona": QUESTION})
        # It grows when its person asks to be forgotten.
        model.delay = 1.0
        growing = await person.ask(talk, f"{QUESTION} two")
        await until(lambda: screen.answer(growing) or screen.turn(growing)["state"] == "running")

        told = await person.send("POST", "/api/forget-me")
        while not told[1]["done"]:
            told = await person.get("/api/forget-me")

        assert told[1]["said"] == FORGOTTEN
        assert await left_of(own_store, person_id, QUESTION) == []
        assert (await person.get("/api/conversations"))[1] == []
        assert [one["id"] for one in (await other.get("/api/conversations"))[1]] == [theirs]
        model.delay = 0.0
        name = await person.ask(new_talk(), "lion")
        usage = (await person.get("/api/help"))[1]["usage"]

    assert "Your questions today: 3" in usage


async def test_a_person_is_forgotten_in_the_page(
    own_page: OwnPage, own_store: Store, model: ModelEmulator
) -> None:
    model.answer = ANSWER
    async with own_page() as person:
        await person.open()
        await person.ask(QUESTION)
        await person.ended()
        await person.page.get_by_role("link", name="New conversation").click()
        await person.box.fill("a draft of a zebra")
        await person.conversations.get_by_role("link").click()
        await expect(person.turns).to_have_count(1)
        helping, question = person.page.locator("#help"), person.page.locator("#ask")

        await person.button("Help and usage").click()
        await expect(helping).to_contain_text("Ask me below.")
        await expect(helping).to_contain_text("Your questions today: 1")
        await expect(helping).not_to_contain_text("mentions")
        await helping.get_by_role("button", name=FORGET).click()
        await expect(question).to_contain_text(FORGET_QUESTION)
        await question.get_by_role("button", name="Cancel").click()
        await expect(person.conversations).to_have_count(1)

        await person.button("Help and usage").click()
        await helping.get_by_role("button", name=FORGET).click()
        await question.get_by_role("button", name=FORGET).click()
        await expect(person.page.locator("#toast")).to_have_text(FORGOTTEN)
        await expect(person.conversations).to_have_count(0)
        await expect(person.turns).to_have_count(0)
        kept = await person.read("() => JSON.stringify(localStorage)")

    assert await left_of(own_store, QUESTION, ANSWER) == []
    assert QUESTION not in kept


async def test_a_tool_that_was_allowed_for_always_is_asked_for_again(
    own_page: OwnPage, own_store: Store, model: ModelEmulator
) -> None:
    async with own_page() as person:
        await person.open()
        me = await person.read("() => fetch('/api/me').then((it) => it.json())")
        allowed = AllowedTools(own_store)
        of_me = own_store.key("allowed", person_key("web", Person(me["id"], me["name"])))
        helping = person.page.locator("#help")
        await person.button("Help and usage").click()
        await expect(helping.locator("#help-allowed")).to_be_empty()
        await helping.get_by_role("button", name="Close").click()
        await own_store.command("HSET", of_me, "tracker/make_ticket", "digest")

        await person.button("Help and usage").click()
        await helping.get_by_role("button", name="Ask me again for tracker/make_ticket").click()

        sentence = "I will ask you again before I use tracker/make_ticket."
        await expect(person.page.locator("#toast")).to_have_text(sentence)
        await expect(helping.locator("#help-allowed")).to_be_empty()
        assert await allowed.names("web", Person(me["id"], me["name"])) == []
