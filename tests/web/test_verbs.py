"""Stop, Regenerate, Continue, edits, ratings and deletion in the page."""

from __future__ import annotations

import asyncio
import time

from bot.errors import AnswerCut, HasEnded, NotRemembered, NotTheLast
from bot.reply.draft import STOPPED
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.stored import stored
from tests.support.waiting import until
from tests.support.web_page import Browser, Screen, new_talk, page_of


async def answered(person: Browser, screen: Screen, talk: str, text: str) -> str:
    name = await person.ask(talk, text)
    await until(lambda: screen.is_done(name), why=screen.__str__)
    return name


async def test_stop_ends_the_answer_where_it_is(own_store: Store, model: ModelEmulator) -> None:
    model.answer, talk = [(0.0, "Well, "), (0.0, "then"), (600.0, "never")], new_talk()
    async with page_of(own_store, model) as (person, _), person.page(talk) as screen:
        name = await person.ask(talk, "why?")
        await until(lambda: screen.answer(name) == "Well, then", why=screen.__str__)
        status, _ = await person.press(talk, name, "stop")
        await until(lambda: screen.is_done(name), why=screen.__str__)
        again = await person.press(talk, name, "stop")

    assert status == 202
    turn = screen.turn(name)
    assert (turn["answer"], turn["below"], turn["state"]) == ("Well, then", STOPPED, "stopped")
    assert again == (409, {"error": HasEnded.apology})


async def test_regenerate_replaces_the_answer_and_counts_a_repeated_press_once(
    own_store: Store, model: ModelEmulator
) -> None:
    talk, press = new_talk(), {"id": "press-one"}
    async with page_of(own_store, model) as (person, _), person.page(talk) as screen:
        model.answer = "One"
        name = await answered(person, screen, talk, "why?")
        model.answer = "Another"
        first = await person.press(talk, name, "regenerate", **press)
        await until(lambda: screen.answer(name) == "Another", why=screen.__str__)
        await until(lambda: screen.is_done(name), why=screen.__str__)
        second = await person.press(talk, name, "regenerate", **press)
        await answered(person, screen, talk, "and now?")
        await until(lambda: screen.turn(name)["end"] == "older", why=screen.__str__)

    assert (first[0], second[0]) == (202, 202)
    assert len(model.requests) == 3
    assert [screen.answer(each) for each in screen.turns] == ["Another", "Another"]


async def test_a_failed_new_answer_leaves_the_earlier_one_and_says_so(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    async with page_of(own_store, model) as (person, _), person.page(talk) as screen:
        model.answer = "One"
        name = await answered(person, screen, talk, "why?")
        model.answer = [(0.0, ""), (600.0, "never")]
        await person.press(talk, name, "regenerate")
        await until(lambda: screen.turn(name)["state"] == "running", why=screen.__str__)
        assert screen.answer(name) == "One"
        await person.press(talk, name, "stop")
        await until(lambda: screen.is_done(name), why=screen.__str__)

    assert screen.answer(name) == "One"
    assert "the earlier answer stays" in screen.turn(name)["below"]


async def test_continue_goes_on_where_an_answer_was_cut(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    cut = page_of(own_store, model, MAX_TOKENS="4")
    async with cut as (person, _), person.page(talk) as screen:
        model.answer = "One two three four five six seven eight"
        name = await answered(person, screen, talk, "count")
        ended = screen.turn(name)["end"], screen.turn(name)["below"]
        model.answer = "and"
        status, answer = await person.press(talk, name, "continue", id="go-on-press")
        again = await person.press(talk, name, "continue", id="go-on-press")
        await until(lambda: screen.is_done("go-on-press"), why=screen.__str__)
        await until(lambda: screen.turn(name)["end"] == "older", why=screen.__str__)

    assert ended == ("cut", AnswerCut.apology)
    assert (status, answer) == (202, {"turn": "go-on-press"}) == again
    following = screen.turn("go-on-press")
    assert (following["question"], following["continues"]) == ("", True)
    assert following["answer"] == "and"
    assert list(screen.turns) == [name, "go-on-press"]


async def test_an_edit_has_the_last_question_answered_anew_and_no_other(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    async with page_of(own_store, model) as (person, _), person.page(talk) as screen:
        first = await answered(person, screen, talk, "one")
        last = await answered(person, screen, talk, "two")
        status, _ = await person.press(talk, last, "edit", text="three")
        await until(lambda: screen.answer(last) == "You said: three", why=screen.__str__)
        await until(lambda: screen.is_done(last), why=screen.__str__)
        refused = await person.press(talk, first, "edit", text="four")
        empty, _ = await person.press(talk, last, "edit", text=" ")

    assert (status, empty) == (202, 400)
    assert screen.turn(last)["question"] == "three"
    assert refused == (409, {"error": NotTheLast.apology})
    assert screen.answer(first) == "You said: one"


async def test_a_rating_stays_and_can_change(own_store: Store, model: ModelEmulator) -> None:
    talk = new_talk()
    async with page_of(own_store, model) as (person, _):
        async with person.page(talk) as screen:
            name = await answered(person, screen, talk, "why?")
            await person.press(talk, name, "rate", rating="bad")
            await until(lambda: screen.turn(name)["rating"] == "bad", why=screen.__str__)
            await person.press(talk, name, "rate", rating="good")
            status, _ = await person.press(talk, name, "rate", rating="great")
        async with person.page(talk) as later:
            await until(lambda: later.turn(name)["rating"] == "good", why=later.__str__)
            await person.press(talk, name, "rate", rating="")
            await until(lambda: later.turn(name)["rating"] == "", why=later.__str__)

    assert status == 400


async def test_a_deleted_turn_is_gone_from_the_page_and_from_later_prompts(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    async with page_of(own_store, model) as (person, _), person.page(talk) as screen:
        name = await answered(person, screen, talk, "a secret")
        kept = await answered(person, screen, talk, "why?")
        status, _ = await person.press(talk, name, "delete")
        await until(lambda: name not in screen.turns, why=screen.__str__)
        again, _ = await person.press(talk, name, "delete")
        refused = await person.press(talk, name, "regenerate")
        await answered(person, screen, talk, "and?")

    assert (status, again) == (200, 200)
    assert refused == (410, {"error": NotRemembered.apology})
    assert kept in screen.turns
    assert "a secret" not in str(model.requests[-1].messages)


async def test_the_deletion_of_an_unknown_conversation_leaves_nothing(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    async with page_of(own_store, model) as (person, _):
        status, _ = await person.send("DELETE", f"/api/conversations/{talk}")
        found = await stored(own_store)

    assert status == 200
    assert not [one.name for one in found if talk in one]


async def test_what_was_chosen_for_a_conversation_expires_with_it(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    async with page_of(own_store, model) as (person, _), person.page(talk) as screen:
        await answered(person, screen, talk, "why?")
        at = f"/api/conversations/{talk}/preferences"
        status, _ = await person.send("PATCH", at, {"persona": "a walrus"})
        (found,) = [one for one in await stored(own_store) if "a walrus" in one]

    assert status == 200
    assert found.expires_ms > 0


async def test_a_deleted_conversation_is_gone_everywhere_even_while_it_grows(
    own_store: Store, model: ModelEmulator
) -> None:
    talk, other = new_talk(), new_talk()
    model.answer = [(0.0, "Well, "), (600.0, "never")]
    async with page_of(own_store, model) as (person, _), person.page(talk) as screen:
        name = await person.ask(talk, "a secret")
        await until(lambda: screen.answer(name), why=screen.__str__)
        model.answer = "Well."
        await person.ask(other, "another")
        status, _ = await person.send("DELETE", f"/api/conversations/{talk}")
        await until(lambda: screen.gone, why=screen.__str__)
        _, listed = await person.get("/api/conversations")
        exported, _ = await person.get(f"/api/conversations/{talk}/export")
        sent = {"id": name, "text": "a secret"}
        repeated, _ = await person.send("POST", f"/api/conversations/{talk}/questions", sent)
        async with person.page(talk) as later:
            pass
        found = await stored(own_store)

    assert (status, exported, repeated) == (200, 404, 410)
    assert not [one for one in found if "a secret" in one]
    (live,) = [one for one in found if one.kind == "stream" and talk in one]
    assert "Well" not in live
    assert live.expires_ms <= 60_000
    assert [one["id"] for one in listed] == [other]
    assert not later.known
    assert not later.turns


async def test_no_word_of_a_deleted_conversation_is_left(
    own_store: Store, model: ModelEmulator
) -> None:
    talk, other = new_talk(), new_talk()
    async with page_of(own_store, model) as (person, _), person.page(talk) as screen:
        model.answer = "walrus"
        await answered(person, screen, talk, "zebra one")
        name = await answered(person, screen, talk, "zebra two")
        model.answer = "walrus again"
        await person.press(talk, name, "regenerate", id="press-one")
        await until(lambda: screen.answer(name) == "walrus again", why=screen.__str__)
        await until(lambda: screen.is_done(name), why=screen.__str__)
        model.answer = [(0.0, "walrus"), (600.0, "never")]
        growing = await person.ask(talk, "zebra three")
        await person.ask(talk, "zebra four")
        await until(lambda: screen.answer(growing), why=screen.__str__)
        await person.send("DELETE", f"/api/conversations/{talk}")
        model.answer = "lion"
        async with person.page(other) as later:
            await answered(person, later, other, "another")
        # The growing answer is ended by its worker.
        async with asyncio.timeout(60):
            while not await _is_ended(own_store, growing):
                await asyncio.sleep(0.02)
        found = [one for one in await stored(own_store) if "zebra" in one or "walrus" in one]

    # What its worker wrote last expires within a minute.
    assert all(one.name.startswith("live:") and 0 < one.expires_ms <= 60_000 for one in found)


async def _is_ended(store: Store, question: str) -> bool:
    (key,) = await store.command("KEYS", store.key("turn", f"*{question}"))
    return await store.command("HGET", key, "state") not in ("queued", "running")


async def test_conversations_are_listed_found_and_renamed(
    own_store: Store, model: ModelEmulator
) -> None:
    first, second = new_talk(), new_talk()
    async with page_of(own_store, model) as (person, _):
        async with person.page(first) as screen:
            await answered(person, screen, first, "why is the sky blue?\n" + "And so on. " * 30)
            await person.ask(second, "how do fish sleep?")
            path = f"/api/conversations/{first}"
            empty, _ = await person.send("PATCH", path, {"title": " "})
            _, before = await person.get("/api/conversations")
            await person.send("PATCH", path, {"title": "The \x1bsky"})
            await until(lambda: screen.title == "The sky", why=lambda: screen.title)
        _, found = await person.get("/api/conversations?search=SKY the")
        _, none = await person.get("/api/conversations?search=cheese")
        unknown, _ = await person.send("PATCH", "/api/conversations/not-there", {"title": "a"})

    titles = {one["id"]: one["title"] for one in before}
    assert titles[second] == "how do fish sleep?"
    assert titles[first].startswith("why is the sky blue? And so on.")
    assert titles[first].endswith("…")
    assert len(titles[first]) <= 61
    assert [one["id"] for one in before] == [second, first]
    assert [one["id"] for one in found] == [first]
    assert (none, empty, unknown) == ([], 400, 404)
    assert time.time() - found[0]["updated"] < 600


async def test_a_conversation_is_exported_as_it_was_written(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    async with page_of(own_store, model) as (person, _), person.page(talk) as screen:
        model.answer = "Because:\n\n```py\na < b\n```"
        await answered(person, screen, talk, "Why <b>so</b>?")
        async with person.session.get(
            f"{person.address}/api/conversations/{talk}/export"
        ) as response:
            text = await response.text()

    assert response.content_type == "text/markdown"
    assert response.headers["Content-Disposition"] == 'attachment; filename="why-b-so-b.md"'
    assert text.startswith("# Why <b>so</b>?\n\n## You, ")
    assert (
        "UTC\n\nWhy <b>so</b>?\n\n## Parley (emulated)\n\nBecause:\n\n```py\na < b\n```\n" in text
    )


async def test_what_was_never_there_is_deleted_without_a_trace(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    async with page_of(own_store, model) as (person, _), person.page(talk) as screen:
        await answered(person, screen, talk, "why?")
        before = await keys(own_store)
        turn, _ = await person.press(talk, new_talk(), "delete")
        elsewhere, _ = await person.press(new_talk(), new_talk(), "delete")
        whole, _ = await person.send("DELETE", f"/api/conversations/{new_talk()}")
        after = await keys(own_store)

    # A deletion that is sent again says the same as the first time.
    assert (turn, elsewhere, whole) == (200, 200, 200)
    assert after == before


async def keys(store: Store) -> set[str]:
    """The keys of the store but for those of its processes."""
    found = await store.redis.keys("*")
    return {one for one in map(str, found) if "process-" not in one}
