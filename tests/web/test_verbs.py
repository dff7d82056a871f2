"""Stop, Regenerate, Continue, edits, ratings and deletion in the page."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from bot.errors import AnswerCut, HasEnded, NotRemembered, StoreUnavailable
from bot.reply.draft import STOPPED
from bot.store import Store
from bot.turns.changes import TurnChanges
from tests.emulators.model import ModelEmulator
from tests.support.stored import stored
from tests.support.waiting import until
from tests.support.web_page import Browser, Screen, browser, new_talk, page_of

ENDLESS = [(0.0, "Well, "), (0.0, "then"), (600.0, "never")]


@dataclass
class Talk:
    """A conversation that one person has open."""

    id: str
    person: Browser
    screen: Screen
    model: ModelEmulator

    @property
    def path(self) -> str:
        return f"/api/conversations/{self.id}"

    async def answered(self, text: str, answer: str = "") -> str:
        self.model.answer = answer or self.model.answer
        name = await self.person.ask(self.id, text)
        await self.until_done(name)
        return name

    async def until_done(self, name: str, answer: str = "") -> None:
        screen = self.screen
        await until(
            lambda: screen.is_done(name) and answer in screen.answer(name), why=screen.__str__
        )

    async def press(self, turn: str, verb: str, **body: str) -> tuple[int, Any]:
        return await self.person.press(self.id, turn, verb, **body)


@pytest.fixture
async def talk(own_store: Store, model: ModelEmulator) -> AsyncIterator[Talk]:
    name = new_talk()
    async with (
        page_of(own_store, model, MAX_TOKENS="40") as (person, _),
        person.page(name) as screen,
    ):
        yield Talk(name, person, screen, model)


async def test_stop_ends_the_answer_where_it_is(talk: Talk) -> None:
    talk.model.answer = ENDLESS
    name = await talk.person.ask(talk.id, "why?")
    await until(lambda: talk.screen.answer(name) == "Well, then", why=talk.screen.__str__)
    status, _ = await talk.press(name, "stop")
    await talk.until_done(name)
    again = await talk.press(name, "stop")

    turn = talk.screen.turn(name)
    assert (turn["answer"], turn["below"], turn["state"]) == ("Well, then", STOPPED, "stopped")
    assert (status, again) == (202, (409, {"error": HasEnded.apology}))


async def test_regenerate_keeps_the_answer_before_and_counts_a_repeated_press_once(
    talk: Talk,
) -> None:
    name = await talk.answered("why?", "One")
    talk.model.answer = "Another"
    first = await talk.press(name, "regenerate", id="press-one")
    await talk.until_done("press-one", "Another")
    second = await talk.press(name, "regenerate", id="press-one")
    third = await talk.answered("and now?")
    await until(lambda: talk.screen.turn("press-one")["end"] == "older", why=talk.screen.__str__)

    assert first == second == (202, {"turn": "press-one"})
    assert len(talk.model.requests) == 3
    assert list(talk.screen.turns) == ["press-one", third]
    assert talk.screen.turn("press-one")["versions"] == [name, "press-one"]
    assert talk.screen.turn("press-one")["first"] == name
    assert talk.screen.turn(third)["versions"] == []


async def test_a_version_is_opened_with_what_followed_it_on_all_pages(talk: Talk) -> None:
    echo = talk.model.answer
    first = await talk.answered("one", "walrus")
    second = await talk.answered("two", "seal")
    talk.model.answer = echo
    edited = await talk.press(first, "edit", text="three", id="edit-one")
    again = await talk.press(first, "edit", text="three", id="edit-one")
    await talk.until_done("edit-one", "You said: three")
    asked = talk.model.requests[-1].messages
    shown = list(talk.screen.turns)
    async with talk.person.page(talk.id) as other:
        opened = [await talk.press(first, "open") for _ in range(2)]
        await until(lambda: list(other.turns) == [first, second], why=other.__str__)
        await until(lambda: list(talk.screen.turns) == [first, second], why=talk.screen.__str__)
    _, exported = await talk.person.get(f"{talk.path}/export")
    await talk.answered("four")

    assert edited == again == (202, {"turn": "edit-one"})
    assert shown == ["edit-one"]
    assert "walrus" not in str(asked)
    assert opened == [(200, {})] * 2
    assert "walrus" in exported
    assert "three" not in exported
    # The model sees the branch that is open.
    seen = str(talk.model.requests[-1].messages)
    assert "walrus" in seen
    assert "seal" in seen
    assert "three" not in seen


async def test_a_version_of_which_no_answer_came_back_is_shown(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = TurnChanges.branch

    async def cut_off(*called: Any, **how: Any) -> bool:
        await branch(*called, **how)
        raise StoreUnavailable("away")

    name = await talk.answered("why?", "One")
    talk.model.answer = "Another"
    monkeypatch.setattr(TurnChanges, "branch", cut_off)
    status, _ = await talk.press(name, "regenerate", id="press-one")
    await talk.until_done("press-one", "Another")

    assert status == 503
    assert talk.screen.turn("press-one")["versions"] == [name, "press-one"]


async def test_a_growing_version_is_edited_in_its_place_and_not_left(talk: Talk) -> None:
    echo = talk.model.answer
    first = await talk.answered("one")
    talk.model.answer = ENDLESS
    await talk.press(first, "edit", text="two", id="edit-one")
    await until(lambda: talk.screen.answer("edit-one"), why=talk.screen.__str__)
    busy, _ = await talk.press(first, "open")
    talk.model.answer = echo
    await talk.press("edit-one", "edit", text="three", id="edit-two")
    await talk.until_done("edit-one", "You said: three")

    assert busy == 429
    # What grows is changed in its place: nobody has seen an answer that could be kept.
    assert talk.screen.turn("edit-one")["versions"] == [first, "edit-one"]


async def test_a_message_is_deleted_with_its_versions_and_what_followed_them(
    own_store: Store, talk: Talk
) -> None:
    kept = await talk.answered("stays", "lion")
    first = await talk.answered("zebra one", "walrus")
    await talk.answered("zebra two", "walrus")
    talk.model.answer = "walrus"
    await talk.press(first, "edit", text="zebra three", id="edit-one")
    await talk.until_done("edit-one")
    statuses = [(await talk.press("edit-one", "delete"))[0] for _ in range(2)]
    await until(lambda: list(talk.screen.turns) == [kept], why=talk.screen.__str__)
    found = [one for one in await stored(own_store) if "zebra" in one or "walrus" in one]
    _, whole = await talk.person.get("/api/conversations.json")
    await talk.press(kept, "delete")
    _, listed = await talk.person.get("/api/conversations")

    assert statuses == [200, 200]
    assert found == []
    assert "lion" in str(whole)
    # Nothing of the other branches keeps the conversation in the list.
    assert listed == []


async def test_a_version_that_a_stale_page_deletes_is_no_version_any_more(talk: Talk) -> None:
    first = await talk.answered("one")
    second = await talk.answered("two")
    await talk.press(first, "edit", text="three", id="edit-one")
    await talk.until_done("edit-one", "three")
    before = talk.screen.turn("edit-one")["versions"]
    deleted = await talk.press(first, "delete")
    await until(lambda: talk.screen.turn("edit-one")["versions"] != before, why=talk.screen.__str__)

    assert (before, deleted) == ([first, "edit-one"], (200, {}))
    assert talk.screen.turn("edit-one")["versions"] == ["edit-one"]
    assert second not in talk.screen.turns


async def test_without_a_history_there_are_no_versions(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model, HISTORY_DAYS="0") as (person, _):
        name = new_talk()
        async with person.page(name) as screen:
            turn = await person.ask(name, "one")
            await until(lambda: screen.is_done(turn), why=screen.__str__)
            _, about = await person.get("/api/me")
            await person.press(name, turn, "edit", text="two")
            regenerated, _ = await person.press(name, turn, "regenerate")
            opened, _ = await person.press(name, turn, "open")
    found = [one.name.partition(":")[0] for one in await stored(own_store)]

    assert about["versions"] is False
    assert (regenerated, opened) == (410, 200)
    assert not {*found} & {"versions", "aside"}


async def test_continue_goes_on_where_an_answer_was_cut(talk: Talk) -> None:
    name = await talk.answered("count", "one two three four five six seven eight " * 10)
    ended = talk.screen.turn(name)["end"], talk.screen.turn(name)["below"]
    talk.model.answer = "and"
    pressed = [await talk.press(name, "continue", id="go-on-press") for _ in range(2)]
    await talk.until_done("go-on-press")
    await until(lambda: talk.screen.turn(name)["end"] == "older", why=talk.screen.__str__)

    assert ended == ("cut", AnswerCut.apology)
    assert pressed == [(202, {"turn": "go-on-press"})] * 2
    following = talk.screen.turn("go-on-press")
    assert (following["question"], following["continues"]) == ("", True)
    assert following["answer"] == "and"
    assert list(talk.screen.turns) == [name, "go-on-press"]


async def test_an_edit_without_a_word_or_a_change_does_nothing(talk: Talk) -> None:
    name = await talk.answered("one")
    empty, _ = await talk.press(name, "edit", text=" ")
    same = await talk.press(name, "edit", text="one", id="edit-one")

    assert empty == 400
    assert same == (202, {"turn": name})
    assert len(talk.model.requests) == 1


async def test_a_rating_stays_and_can_change(talk: Talk) -> None:
    name = await talk.answered("why?")
    statuses = []
    for rating in ("bad", "great", "good"):
        statuses.append((await talk.press(name, "rate", rating=rating))[0])
    async with talk.person.page(talk.id) as later:
        await until(lambda: later.turn(name)["rating"] == "good", why=later.__str__)
        await talk.press(name, "rate", rating="")
        await until(lambda: later.turn(name)["rating"] == "", why=later.__str__)

    assert statuses == [200, 400, 200]


async def test_a_deleted_turn_is_gone_from_the_page_and_from_later_prompts(talk: Talk) -> None:
    name, kept = await talk.answered("a secret"), await talk.answered("why?")
    status, _ = await talk.press(name, "delete")
    await until(lambda: name not in talk.screen.turns, why=talk.screen.__str__)
    again, _ = await talk.press(name, "delete")
    refused = await talk.press(name, "regenerate")
    await talk.answered("and?")

    assert (status, again) == (200, 200)
    assert refused == (410, {"error": NotRemembered.apology})
    assert kept in talk.screen.turns
    assert "a secret" not in str(talk.model.requests[-1].messages)


async def test_what_was_never_there_is_deleted_without_a_trace(
    own_store: Store, talk: Talk
) -> None:
    await talk.answered("why?")
    before = await keys(own_store)
    turn, _ = await talk.press(new_talk(), "delete")
    elsewhere, _ = await talk.person.press(new_talk(), new_talk(), "delete")
    whole, _ = await talk.person.send("DELETE", f"/api/conversations/{new_talk()}")

    # A deletion that is sent again says the same as the first time.
    assert (turn, elsewhere, whole) == (200, 200, 200)
    assert await keys(own_store) == before


async def keys(store: Store) -> set[str]:
    """The keys of the store but for those of its processes."""
    found = await store.redis.keys("*")
    return {one for one in map(str, found) if "process-" not in one}


async def test_a_deleted_conversation_is_gone_everywhere_even_while_it_grows(
    own_store: Store, talk: Talk
) -> None:
    other = new_talk()
    name = await talk.answered("zebra one", "walrus")
    talk.model.answer = "walrus again"
    await talk.press(name, "regenerate", id="press-one")
    await talk.until_done("press-one", "walrus again")
    talk.model.answer = [(0.0, "walrus"), (600.0, "never")]
    growing = await talk.person.ask(talk.id, "zebra two")
    await talk.person.ask(talk.id, "zebra three")
    await until(lambda: talk.screen.answer(growing), why=talk.screen.__str__)
    talk.model.answer = "lion"
    await talk.person.ask(other, "another")
    status, _ = await talk.person.send("DELETE", talk.path)
    await until(lambda: talk.screen.gone, why=talk.screen.__str__)
    _, listed = await talk.person.get("/api/conversations")
    exported, _ = await talk.person.get(f"{talk.path}/export")
    sent = {"id": growing, "text": "zebra two"}
    repeated, _ = await talk.person.send("POST", f"{talk.path}/questions", sent)
    async with talk.person.page(talk.id) as later:
        pass
    # The growing answer is ended by its worker.
    async with asyncio.timeout(60):
        while not await _is_ended(own_store, growing):
            await asyncio.sleep(0.02)
    found = [one for one in await stored(own_store) if "zebra" in one or "walrus" in one]

    assert (status, exported, repeated) == (200, 404, 410)
    assert [one["id"] for one in listed] == [other]
    assert not later.known
    assert not later.turns
    # What its worker wrote last expires within a minute.
    assert all(one.name.startswith("live:") and 0 < one.expires_ms <= 60_000 for one in found)


async def _is_ended(store: Store, question: str) -> bool:
    (key,) = await store.command("KEYS", store.key("turn", f"*{question}"))
    return await store.command("HGET", key, "state") not in ("queued", "running")


async def test_what_was_chosen_for_a_conversation_expires_and_goes_with_it(
    own_store: Store, talk: Talk
) -> None:
    await talk.answered("why?")
    status, _ = await talk.person.send("PATCH", f"{talk.path}/preferences", {"persona": "walrus"})
    (found,) = [one for one in await stored(own_store) if "walrus" in one]
    await talk.person.send("DELETE", talk.path)

    assert status == 200
    assert found.expires_ms > 0
    assert await own_store.redis.keys("*preferences*") == []


async def test_a_search_finds_what_was_said_and_where(talk: Talk) -> None:
    person, model = talk.person, talk.model
    first = await talk.answered("why is the Himmel ÜBER uns blue?", "GitHub says\n\nRayleigh.")
    last = await talk.answered("and at sunset?", "Longer ways through the air.")
    model.answer = "They rest."
    await person.answered(new_talk(), "how do fish sleep?")
    async with browser(person.address) as stranger:
        _, found_by_stranger = await stranger.get("/api/conversations?search=rayleigh")

    async def search(words: str) -> list[tuple[str, str, str]]:
        _, found = await person.get(f"/api/conversations?search={quote(words)}")
        return [(one["id"], one.get("turn", ""), one.get("said", "")) for one in found]

    title, apart = await search("himmel"), await search("github sunset")
    both, umlaut = await search("himmel longer"), await search("über rayleigh")
    none = [await search(words) for words in ("cheese", "himmel fish", "%", "uber", "a" * 300)]
    await person.press(talk.id, last, "delete")
    deleted = await search("longer")

    assert title == [(talk.id, "", "")]
    assert apart == [(talk.id, last, "and at sunset?")]
    assert both == [(talk.id, last, "Longer ways through the air.")]
    assert umlaut == [(talk.id, first, "GitHub says Rayleigh.")]
    assert none == [[], [], [], [], []]
    assert found_by_stranger == deleted == []


async def test_conversations_are_listed_found_and_renamed(talk: Talk) -> None:
    person, second = talk.person, new_talk()
    await talk.answered("why is the sky blue?\n" + "And so on. " * 30)
    await person.ask(second, "how do fish sleep?")
    empty, _ = await person.send("PATCH", talk.path, {"title": " "})
    _, before = await person.get("/api/conversations")
    await person.send("PATCH", talk.path, {"title": "The \x1bsky"})
    await until(lambda: talk.screen.title == "The sky", why=lambda: talk.screen.title)
    _, found = await person.get("/api/conversations?search=SKY the")
    _, none = await person.get("/api/conversations?search=cheese")
    unknown, _ = await person.send("PATCH", "/api/conversations/not-there", {"title": "a"})

    titles = {one["id"]: one["title"] for one in before}
    assert titles[second] == "how do fish sleep?"
    assert titles[talk.id].startswith("why is the sky blue? And so on.")
    assert titles[talk.id].endswith("…")
    assert len(titles[talk.id]) <= 61
    assert [one["id"] for one in before] == [second, talk.id]
    assert [one["id"] for one in found] == [talk.id]
    assert (none, empty, unknown) == ([], 400, 404)
    assert time.time() - found[0]["updated"] < 600


async def test_a_conversation_is_pinned_archived_and_brought_back_by_a_question(
    own_store: Store, talk: Talk
) -> None:
    person, second = talk.person, new_talk()
    await talk.answered("one?")
    await person.answered(second, "two?")

    async def put(place: object) -> int:
        status, _ = await person.send("PATCH", talk.path, {"place": place})
        return status

    async def places() -> list[tuple[str, str]]:
        _, listed = await person.get("/api/conversations")
        return [(one["id"], one["place"]) for one in listed]

    before, pinned = await places(), [await put("pinned"), await places()]
    archived = [await put("archived"), await put("archived"), await places()]
    refused = [await put(one) for one in ("on top", 1, None, ["pinned"])]
    name = await talk.answered("and?")
    back = await places()
    await put("archived")
    # Another version is asked, too.
    await talk.press(name, "regenerate", id="press-one")
    await talk.until_done("press-one")
    again = await places()
    async with browser(person.address) as stranger:
        foreign, _ = await stranger.send("PATCH", talk.path, {"place": "pinned"})
    await person.send("DELETE", talk.path)

    assert before == [(second, ""), (talk.id, "")]
    assert pinned == [200, [(talk.id, "pinned"), (second, "")]]
    assert archived == [200, 200, [(second, ""), (talk.id, "archived")]]
    assert (refused, foreign) == ([400] * 4, 404)
    assert back == [(talk.id, ""), (second, "")]
    assert again == back
    assert await own_store.command("KEYS", own_store.key("web", "places", "*")) == []


async def test_all_conversations_of_a_person_are_exported(talk: Talk) -> None:
    person = talk.person
    await talk.answered("why is the sky blue?", "Air scatters **blue** light: äöü.")
    talk.model.answer = "They rest."
    await person.answered(new_talk(), "how do fish sleep?")
    files = {}
    for form in ("md", "json"):
        async with person.session.get(f"{person.address}/api/conversations.{form}") as response:
            files[form] = await response.text()
            name = response.headers["Content-Disposition"]
            assert name == f'attachment; filename="conversations.{form}"'
    async with browser(person.address) as stranger:
        _, nothing = await stranger.get("/api/conversations.json")

    fish, sky = json.loads(files["json"])
    assert (fish["title"], sky["title"]) == ("how do fish sleep?", "why is the sky blue?")
    assert sky["turns"][0]["answer"] == "Air scatters **blue** light: äöü."
    assert fish["turns"][0]["question"] == "how do fish sleep?"
    first, second = files["md"].split("\n---\n\n")
    assert first.startswith("# how do fish sleep?\n\n## You, ")
    assert second.endswith("Air scatters **blue** light: äöü.\n")
    assert nothing == []


async def test_a_conversation_is_exported_as_it_was_written(talk: Talk) -> None:
    await talk.answered("Why <b>so</b>?", "Because:\n\n```py\na < b\n```")
    async with talk.person.session.get(f"{talk.person.address}{talk.path}/export") as response:
        text = await response.text()

    assert response.content_type == "text/markdown"
    assert response.headers["Content-Disposition"] == 'attachment; filename="why-b-so-b.md"'
    assert text.startswith("# Why <b>so</b>?\n\n## You, ")
    assert (
        "UTC\n\nWhy <b>so</b>?\n\n## Parley (emulated)\n\nBecause:\n\n```py\na < b\n```\n" in text
    )
