"""A link shows others a conversation as it was: nothing private, and nothing that was deleted."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapters.web.spec import PLATFORM as WEB
from bot.app.export import export_person
from bot.domain import Json
from bot.store import Store, connect
from tests.emulators.model import ModelEmulator
from tests.support.outage import line
from tests.support.ports import free_port
from tests.support.process import bot
from tests.support.service import make_settings, serving
from tests.support.stored import stored
from tests.support.tool_servers import SEARCH, Search, answers
from tests.support.waiting import until
from tests.support.web_page import Browser, address_of, browser, new_talk, page_of, web_variables
from tests.web.test_sign_in import at_provider

TALK, OTHER = "talk-0001", "talk-0002"
GONE = "The link has ended or was revoked, or a part of it is missing."
DAY = 24 * 3600


async def share(person: Browser, talk: str = TALK, days: int = 7, press: str = "") -> Any:
    """Make a link; return what the page is told of it."""
    sent = {"id": press or new_talk(), "days": days}
    status, link = await person.send("POST", f"/api/conversations/{talk}/shares", sent)
    assert status == 201, link
    return link


async def read(person: Browser, token: str) -> tuple[int, Any]:
    return await person.get(f"/api/shared/{token}")


async def said(person: Browser, token: str) -> list[tuple[str, str]]:
    """Return the questions and answers that a link shows."""
    status, found = await read(person, token)
    assert status == 200, found
    return [(one["question"], one["answer"]) for one in found["turns"]]


async def links_in(store: Store) -> list[str]:
    return [one.name for one in await stored(store) if one.name.startswith("shared:")]


@asynccontextmanager
async def another(person: Browser, **headers: str) -> AsyncIterator[Browser]:
    """Another person at the same page."""
    async with browser(person.address) as one:
        one.session.headers.update(headers)
        yield one


async def test_a_link_shows_another_person_what_stood_there_and_nothing_of_later(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model) as (ann, _), another(ann) as bob:
        await ann.answered(TALK, "one?")
        screen = await ann.answered(TALK, "two?")
        link = await share(ann)
        before = await said(bob, link["token"])
        # Each puts another version in the place of what the link shows.
        for verb, more in (("regenerate", {}), ("edit", {"text": "edited?"})):
            _, pressed = await ann.press(TALK, list(screen.turns)[-1], verb, **more)
            async with ann.page(TALK) as screen:
                is_done = partial(screen.is_done, pressed["turn"])
                await until(is_done, why=screen.__str__)
        await ann.answered(TALK, "three?")
        await ann.send("PATCH", f"/api/conversations/{TALK}", {"title": "Renamed"})
        after = await said(bob, link["token"])
        _, found = await read(bob, link["token"])

    assert before == after == [(f"{it}?", f"You said: {it}?") for it in ("one", "two")]
    assert found["turns"][0]["title"] == "one?"
    assert found["by"] == ""


async def test_a_link_shows_sources_and_names_of_files_and_nothing_that_is_private(
    own_store: Store, model: ModelEmulator
) -> None:
    search = Search()
    search.may.set()
    answers(model, SEARCH, "It is so [1].")
    async with (
        search.serving() as variables,
        page_of(own_store, model, **variables) as (ann, _),
        another(ann) as bob,
    ):
        screen = await ann.answered(TALK, "Who won?")
        (turn,) = screen.turns.values()
        await ann.press(TALK, turn["id"], "rate", rating="good")
        link = await share(ann)
        _, found = await read(bob, link["token"])

    assert "(Steps: " in turn["below"]
    assert found.keys() == {"by", "made", "ends", "endings", "turns"}
    assert found["turns"] == [
        {
            "id": "0",
            "title": "Who won?",
            "question": "Who won?",
            "files": [],
            "answer": "It is so [1].",
            "below": "Sources:\n[1] https://example.org/1",
            "model": "emulated",
        }
    ]


async def test_what_is_deleted_is_gone_from_the_link_and_from_the_store_at_once(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model) as (ann, _), another(ann) as bob:
        (first,) = (await ann.answered(TALK, "zebra?")).turns
        await ann.answered(TALK, "two?")
        await ann.answered(OTHER, "walrus?")
        link, other = await share(ann), await share(ann, OTHER)
        await ann.press(TALK, first, "delete")
        # Before anybody reads it.
        kept = [one.name for one in await stored(own_store) if "zebra" in one]
        left = await said(bob, link["token"])
        _, found = await read(bob, link["token"])
        await ann.send("DELETE", f"/api/conversations/{OTHER}")
        names = await links_in(own_store)
        gone = await read(bob, other["token"])
        _, listed = await ann.get("/api/shares")

    assert left == [("two?", "You said: two?")]
    # It began as the question did.
    assert "title" not in found["turns"][0]
    assert not [name for name in kept if name.startswith("shared:")]
    assert gone == (404, {"error": GONE})
    assert names == [f"shared:{link['name']}"]
    assert [one["name"] for one in listed] == [link["name"]]


async def test_a_person_who_is_forgotten_leaves_no_link_and_is_given_them_before(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model) as (ann, _), another(ann) as bob:
        await ann.answered(TALK, "zebra?")
        await bob.answered(TALK, "mine?")
        link, his = await share(ann), await share(bob)
        _, me = await ann.get("/api/me")
        out, settings = io.StringIO(), make_settings(own_store, {})
        await export_person(settings, me["id"], out, report=io.StringIO())
        await ann.send("POST", "/api/forget-me")
        gone = False
        while not gone:
            gone = (await ann.get("/api/forget-me"))[1]["done"]
        forgotten = await read(bob, link["token"])
        stays = await said(ann, his["token"])
        found = [one.name for one in await stored(own_store) if me["id"] in one or "zebra" in one]

    exported = {one["key"]: one["value"] for one in json.loads(out.getvalue())["found"]}
    assert "zebra?" in str(exported[f"shared:{link['name']}"])
    assert link["token"] not in out.getvalue()
    assert link["name"] in str(exported[f"web:shares:{me['id']}"])
    assert forgotten == (404, {"error": GONE})
    assert stays == [("mine?", "You said: mine?")]
    assert not [name for name in found if "share" in name]


@pytest.mark.parametrize(
    ("who", "stranger", "signed_in"),
    [("off", 401, 404), ("people", 401, 200), ("anyone", 200, 200)],
)
async def test_those_read_whom_the_operator_lets(
    who: str, stranger: int, signed_in: int, own_store: Store, model: ModelEmulator
) -> None:
    own = {"WEB_PROXY_HEADER": "X-User"}
    async with serving(own_store, "worker", variables=web_variables(model, **own)):
        async with at(own_store, WEB_SHARES="anyone", **own) as ann:
            await ann.answered(TALK, "one?")
            link = await share(ann)
        async with at(own_store, WEB_SHARES=who, **own) as ann:
            made, _ = await ann.send(
                "POST", f"/api/conversations/{TALK}/shares", {"id": new_talk(), "days": 1}
            )
            by_ann, found = await read(ann, link["token"])
            async with browser(ann.address, enters=False) as nobody:
                by_nobody, seen = await read(nobody, link["token"])
                opened, _ = await nobody.get(f"/s/{link['token']}")
                others, _ = await nobody.get("/api/shares")
    assert made == (403 if who == "off" else 201)
    assert (by_ann, by_nobody) == (signed_in, stranger)
    assert opened == stranger
    assert others == 401
    # Who it is, only people learn who are known themselves.
    assert found.get("by") == ("ann" if signed_in == 200 else None)
    assert seen.get("by") == ("" if stranger == 200 else None)


@asynccontextmanager
async def at(store: Store, **variables: str) -> AsyncIterator[Browser]:
    """Ann at a page whose proxy names her."""
    async with (
        serving(store, "web", variables=web_variables(None, **variables)) as service,
        browser(address_of(service), enters=False) as ann,
    ):
        ann.session.headers["X-User"] = "ann"
        yield ann


async def test_a_link_for_people_stays_theirs_when_the_operator_lets_anyone_read(
    own_store: Store, model: ModelEmulator
) -> None:
    own = {"WEB_PROXY_HEADER": "X-User"}
    async with serving(own_store, "worker", variables=web_variables(model, **own)):
        async with at(own_store, **own) as ann:
            await ann.answered(TALK, "one?")
            older = await share(ann)
        async with at(own_store, WEB_SHARES="anyone", **own) as ann:
            newer = await share(ann)
            async with browser(ann.address, enters=False) as nobody:
                closed, _ = await read(nobody, older["token"])
                opened, _ = await read(nobody, newer["token"])

    assert (closed, opened) == (401, 200)


async def test_a_login_leads_back_to_the_link(own_store: Store, model: ModelEmulator) -> None:
    secret = {"password": "open sesame"}
    variables = web_variables(model, WEB_PASSWORD=secret["password"])
    async with (
        serving(own_store, "web", "worker", variables=variables) as service,
        browser(address_of(service), enters=False) as ann,
        browser(address_of(service), enters=False) as bob,
    ):
        await ann.send("POST", "/login", secret)
        await ann.answered(TALK, "one?")
        link = await share(ann)
        url = f"{bob.address}/s/{link['token']}"
        async with bob.session.get(url, allow_redirects=False) as response:
            where = response.headers["Location"]
        await bob.send("POST", "/login", secret)
        found = await said(bob, link["token"])
        _, listed = await bob.get("/api/conversations")

    assert where == f"/login?next=/s/{link['token']}"
    assert (found, listed) == ([("one?", "You said: one?")], [])


async def test_a_provider_leads_back_to_the_link(own_store: Store) -> None:
    async with at_provider(own_store) as (person, _):
        status, text = await person.get(f"/s/{'0' * 32}")

    assert status == 404
    assert "/static/shared.js" in text


async def test_no_link_is_told_from_another_that_is_none_and_no_log_has_one(
    own_store: Store, model: ModelEmulator, data_dir: Path
) -> None:
    logging.getLogger("aiohttp").setLevel(logging.DEBUG)
    async with (
        line(own_store.url, data_dir) as way,
        serving(own_store, "worker", variables=web_variables(model)),
        serving(own_store, "web", variables=web_variables(REDIS_URL=f"{way.url}?db=1")) as service,
        browser(address_of(service)) as ann,
    ):
        await ann.answered(TALK, "one?")
        revoked, ended, works = [await share(ann) for _ in range(3)]
        await ann.send("DELETE", f"/api/shares/{revoked['name']}")
        await own_store.command("PEXPIRE", own_store.key("shared", ended["name"]), 0)
        tokens = [revoked["token"], ended["token"], "0" * 32, "a:b", "%00", "x" * 3000]
        found = [await read(ann, token) for token in tokens]
        pages = []
        for token in (*tokens, works["token"]):
            async with ann.session.get(f"{ann.address}/s/{token}") as response:
                pages.append((response.status, await response.text()))
        headers = response.headers
        _, listed = await ann.get("/api/shares")
        await way.cut()
        away = [(await read(ann, works["token"]))[0], (await ann.get(f"/s/{works['token']}"))[0]]
        text = service.text()
        await way.mend()

    assert found == [(404, {"error": GONE})] * len(tokens)
    assert pages == [(404, pages[0][1])] * len(tokens) + [(200, pages[0][1])]
    assert away == [503, 503]
    assert [one["name"] for one in listed] == [works["name"]]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Robots-Tag"] == "noindex"
    assert headers["Cache-Control"] == "no-store"
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "/api/shared/{token}" in text
    assert not [one for one in (revoked, ended, works) if one["token"] in text]
    assert len(works["token"]) * 4 >= 128
    names = [f"shared share={one['name']} thread=web::" for one in (revoked, ended, works)]
    assert all(name in text for name in names)
    assert f"revoked share={revoked['name']} person=" in text
    assert "one?" not in text


async def test_guesses_are_bounded_and_close_no_link_that_is_one(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model) as (ann, _):
        await ann.answered(TALK, "one?")
        link = await share(ann)
        dead = [(await read(ann, "dead"))[0] for _ in range(30)]
        guesses = [(await read(ann, f"{number:032x}"))[0] for number in range(25)]
        _, why = await read(ann, "another")
        works = [(await ann.get(f"{at}/{link['token']}"))[0] for at in ("/api/shared", "/s")]
        (key,) = await own_store.command("KEYS", own_store.key("web", "wrong", "*"))
        size, seconds = [await own_store.command(it, key) for it in ("SCARD", "TTL")]

    # Many may follow a dead one.
    assert dead == [404] * 30
    assert guesses == [404] * 19 + [429] * 6
    assert works == [200, 200]
    assert why["error"].startswith("Too many wrong links")
    assert size == 20
    assert 0 < seconds <= 900


async def test_a_press_counts_once_and_not_after_its_link_was_revoked(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model) as (ann, _):
        await ann.answered(TALK, "one?")
        presses = [share(ann, press="press-0001", days=days) for days in (1, 7, 30)]
        links = await asyncio.gather(*presses)
        _, listed = await ann.get("/api/shares")
        revoked = [await ann.send("DELETE", f"/api/shares/{links[0]['name']}") for _ in range(2)]
        sent = {"id": "press-0001", "days": 7}
        late, _ = await ann.send("POST", f"/api/conversations/{TALK}/shares", sent)
        names = await links_in(own_store)

    assert links == listed * 3
    assert revoked == [(200, {})] * 2
    assert (late, names) == (410, [])


async def test_nobody_revokes_or_lists_another_persons_links(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model) as (ann, _), another(ann) as bob:
        await ann.answered(TALK, "one?")
        link = await share(ann)
        await bob.send("DELETE", f"/api/shares/{link['name']}")
        _, listed = await bob.get("/api/shares")
        theirs, _ = await bob.send(
            "POST", f"/api/conversations/{TALK}/shares", {"id": new_talk(), "days": 1}
        )
        found = await said(bob, link["token"])

    assert (listed, theirs) == ([], 404)
    assert found == [("one?", "You said: one?")]


async def test_a_person_has_so_many_links_and_one_that_ends_makes_room(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model) as (ann, _):
        await ann.answered(TALK, "one?")
        links = [await share(ann) for _ in range(100)]
        sent = {"id": "press-0001", "days": 7}
        path = f"/api/conversations/{TALK}/shares"
        full = await ann.send("POST", path, sent)
        key = own_store.key("shared", links[0]["name"])
        await own_store.command("DEL", key)
        room, last = await ann.send("POST", path, sent)
        # What they show counts, too.
        await own_store.command("HSET", own_store.key("shared", last["name"]), "bytes", "4000000")
        await ann.send("DELETE", f"/api/shares/{links[1]['name']}")
        large, why = await ann.send("POST", path, {"id": "press-0002", "days": 7})

    refusal = "You have as many links as I can keep. Revoke one of them first."
    assert full == (409, {"error": refusal})
    assert room == 201
    assert (large, why["error"]) == (409, refusal)


async def test_a_link_ends_with_its_conversation_at_the_latest(
    own_store: Store, model: ModelEmulator
) -> None:
    async with page_of(own_store, model, HISTORY_DAYS="2") as (ann, _):
        await ann.answered(TALK, "one?")
        now = time.time()
        short, long = await share(ann, days=1), await share(ann, days=30)
        seconds = [
            await own_store.command("TTL", own_store.key("shared", one["name"]))
            for one in (short, long)
        ]
        path, name = f"/api/conversations/{TALK}/shares", new_talk()
        bodies: list[Json] = [{"id": name, "days": 31}, {"id": "x", "days": 1}, {}, {"days": []}]
        wrong = [(await ann.send("POST", path, body))[0] for body in bodies]
    async with page_of(own_store, model, HISTORY_DAYS="0") as (ann, _):
        _, me = await ann.get("/api/me")
        none, _ = await read(ann, short["token"])

    assert [round((one["ends"] - now) / DAY, 2) for one in (short, long)] == [1, 2]
    assert [round(one / DAY, 2) for one in seconds] == [1, 2]
    assert wrong == [400] * 4
    assert (me["shares"], none) == ("off", 404)


async def test_a_conversation_without_an_answer_is_not_shared(
    own_store: Store, model: ModelEmulator
) -> None:
    model.answer = [(0.0, "Half"), (600.0, "never")]
    async with page_of(own_store, model) as (ann, _), ann.page(TALK) as screen:
        name = await ann.ask(TALK, "one?")
        await until(lambda: screen.answer(name), why=screen.__str__)
        path, sent = f"/api/conversations/{TALK}/shares", {"id": new_talk(), "days": 1}
        refused = await ann.send("POST", path, sent)
        await ann.press(TALK, name, "stop")
        await until(lambda: screen.is_done(name), why=screen.__str__)
        link = await share(ann)
        found = await said(ann, link["token"])

    assert refused == (409, {"error": "There is no answer to share yet."})
    assert found == [("one?", "Half")]


async def test_a_process_that_dies_while_it_makes_a_link_leaves_one(
    data_dir: Path, model: ModelEmulator
) -> None:
    port = free_port()
    async with connect(url="", data_dir=data_dir) as store:
        variables = web_variables(model, WEB_PORT=str(port), REDIS_URL=store.url)
        starts = [bot("web", "worker", data_dir=data_dir, variables=variables) for _ in range(2)]
        async with browser(f"http://127.0.0.1:{port}", enters=False) as ann:
            async with starts[0] as first:
                await until(lambda: "The page is at" in first.text(), why=first.text)
                await ann.get("/api/me")
                await ann.answered(TALK, "one?")
                pressed = asyncio.ensure_future(share(ann, press="press-0001"))
                while not await store.command("EXISTS", *await _links(store)):
                    pass
                first.process.send_signal(signal.SIGKILL)
                await first.process.wait()
                await asyncio.gather(pressed, return_exceptions=True)
            async with starts[1] as second:
                await until(lambda: "The page is at" in second.text(), why=second.text)
                link = await share(ann, press="press-0001")
                _, listed = await ann.get("/api/shares")
                found = await said(ann, link["token"])

    assert listed == [link]
    assert found == [("one?", "You said: one?")]


async def _links(store: Store) -> list[str]:
    return await store.command("KEYS", store.key("shared", "*")) or ["none"]


def test_a_restored_store_has_no_link_that_may_have_been_revoked_since() -> None:
    assert "shared:*" in WEB.sessions
