"""Nobody changes or reads what is another person's, from another site, or from outside."""

from __future__ import annotations

import time

import aiohttp
import pytest
import yarl
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from adapters.web.sign_in import COOKIE, Cookies
from bot.domain import Json, Person
from bot.errors import CannotStart, NothingAsked
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.service import serving, starting
from tests.support.waiting import until
from tests.support.web_page import WRITES, address_of, browser, new_talk, page_of, web_variables


async def test_two_people_never_see_each_others_words(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    async with page_of(own_store, model) as (ann, service), ann.page(talk) as screen:
        name = await ann.ask(talk, "a secret")
        await until(lambda: screen.is_done(name), why=screen.__str__)
        async with browser(address_of(service)) as bob:
            _, listed = await bob.get("/api/conversations")
            _, found = await bob.get("/api/conversations?search=secret")
            exported, _ = await bob.get(f"/api/conversations/{talk}/export")
            renamed, _ = await bob.send("PATCH", f"/api/conversations/{talk}", {"title": "mine"})
            pressed = [
                (await bob.press(talk, name, verb, text="b", rating="bad"))[0]
                for verb in ("stop", "regenerate", "continue", "edit", "rate")
            ]
            # The same ids are another conversation, and another question.
            async with bob.page(talk) as empty:
                assert not empty.turns
            own = await bob.answered(talk, "my own", name)
            last = model.requests[-1].messages
            await bob.press(talk, name, "delete")
            await bob.send("DELETE", f"/api/conversations/{talk}")
        async with ann.page(talk) as later:
            pass

    assert (listed, found) == ([], [])
    assert (exported, renamed, pressed) == (404, 404, [410] * 5)
    assert "a secret" not in str(last)
    assert own.answer(name) == "You said: my own"
    assert later.answer(name) == screen.answer(name) == "You said: a secret"
    assert not screen.gone


async def test_what_is_no_question_is_refused_and_leaves_nothing(
    own_store: Store, model: ModelEmulator
) -> None:
    talk = new_talk()
    path = f"/api/conversations/{talk}/questions"
    async with page_of(own_store, model) as (person, _):
        blank = await person.send("POST", path, {"id": new_talk(), "text": " \n"})
        bodies: list[Json] = [{}, {"id": "x", "text": "a"}, {"id": new_talk(), "text": 1}, [], None]
        others = [(await person.send("POST", path, body))[0] for body in bodies]
        bad, _ = await person.send("POST", "/api/conversations/a:b/questions", {})
        async with person.session.post(
            person.address + path, data=b'{"id": "\xff', headers=WRITES
        ) as response:
            garbage = response.status
        async with person.session.post(
            person.address + path, data=b" " * 600_000, headers=WRITES
        ) as response:
            large = response.status
        half = {"id": new_talk(), "text": "half \ud83d of it"}
        await person.answered(talk, half["text"], half["id"])
        _, listed = await person.get("/api/conversations")

    assert blank == (400, {"error": NothingAsked.apology})
    assert others == [400] * 5
    assert (bad, garbage, large) == (404, 400, 413)
    assert [one["title"] for one in listed] == ["half \ufffd of it"]


async def test_a_change_needs_the_header_and_this_origin(own_store: Store) -> None:
    async with (
        serving(own_store, "web", variables=web_variables()) as service,
        browser(address_of(service)) as person,
    ):
        path = f"/api/conversations/{new_talk()}/questions"
        own = {**WRITES, "Origin": person.address}
        refused = [
            {},
            {"Content-Type": "text/plain"},
            {**WRITES, "Origin": "https://evil.example"},
            {**WRITES, "Origin": "null"},
            {**WRITES, "Origin": "http://[broken"},
            {**WRITES, "Sec-Fetch-Site": "cross-site"},
            {**WRITES, "Sec-Fetch-Site": "same-site"},
        ]
        body = {"id": new_talk(), "text": "why?"}
        answers = [(await person.send("POST", path, body, headers))[0] for headers in refused]
        out, _ = await person.send("POST", "/logout", None, {})
        taken, _ = await person.send("POST", path, body, own)

    assert answers == [403] * len(refused)
    assert (out, taken) == (403, 202)


async def test_behind_a_proxy_the_origin_is_the_address_that_people_see(own_store: Store) -> None:
    variables = web_variables(WEB_URL="https://chat.example", WEB_PASSWORD="open sesame")
    async with (
        serving(own_store, "web", variables=variables) as service,
        browser(address_of(service), enters=False) as person,
    ):
        answers = [
            (await person.send("POST", "/logout", None, {**WRITES, "Origin": origin}))[0]
            for origin in ("https://chat.example", "https://evil.example")
        ]

    # Nobody has logged in yet.
    assert answers == [401, 403]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "localhost.evil.example:80"},
        {"Host": ""},
        {"X-Forwarded-For": "1.2.3.4"},
        {"Via": "1.1 proxy"},
    ],
)
async def test_without_a_login_only_this_machine_is_served(
    own_store: Store, headers: dict[str, str]
) -> None:
    async with (
        serving(own_store, "web", variables=web_variables()) as service,
        browser(address_of(service), enters=False) as person,
    ):
        status, answer = await person.get("/api/me", **headers)

    assert status == 403
    assert "error" in answer


async def test_every_answer_forbids_what_a_page_does_not_need(own_store: Store) -> None:
    async with (
        serving(own_store, "web", variables=web_variables()) as service,
        browser(address_of(service)) as person,
    ):
        found = []
        for path in ("/", "/api/me", "/api/conversations", "/static/none.js", "/api/none", "/no"):
            async with person.session.get(person.address + path) as response:
                found.append((path, response.headers))
        url = f"{person.address}/api/conversations/{new_talk()}/events"
        async with person.session.get(url) as response:
            found.append((url, response.headers))

    for path, headers in found:
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        if "/api/" in path:
            assert headers["Cache-Control"] == "no-store"
    assert found[-1][1]["X-Accel-Buffering"] == "no"
    assert "Content-Encoding" not in found[-1][1]


async def test_a_cookie_is_signed_and_no_script_reads_it(own_store: Store) -> None:
    async with (
        serving(own_store, "web", variables=web_variables()) as service,
        browser(address_of(service), enters=False) as person,
    ):
        async with person.session.get(f"{person.address}/api/me") as response:
            cookie = response.cookies[COOKIE]
        body, _, signature = cookie.value.partition(".")
        forged = [f"{body}x.{signature}", f"{body}.", body, ".", "ä", "a" * 9000]
        answers = []
        for value in forged:
            async with aiohttp.ClientSession(cookies={COOKIE: value}) as session:
                url = yarl.URL(f"{person.address}/api/conversations")
                async with session.get(url) as response:
                    answers.append(response.status)

    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    assert int(cookie["max-age"]) == 30 * 24 * 3600
    assert answers[:-1] == [401] * (len(forged) - 1)
    assert answers[-1] in (400, 401)


def test_a_cookie_lets_nobody_in_who_was_away_for_too_long() -> None:
    cookies = Cookies(secret=b"secret", way="", keep_seconds=60.0, secure=False)
    found = []
    for age in (0.0, 3600.0):
        response = web.Response()
        value = {"id": "1", "name": "Ann", "since": time.time() - age}
        cookies.set_signed(COOKIE, response, value, seconds=60.0)
        kept = f"{COOKIE}={response.cookies[COOKIE].coded_value}"
        visitor = cookies.read(make_mocked_request("GET", "/", headers={"Cookie": kept}))
        found.append(visitor and visitor.person)

    assert found == [Person("1", "Ann"), None]


async def test_a_page_without_a_login_listens_on_this_machine_only(own_store: Store) -> None:
    with pytest.raises(CannotStart, match="set WEB_PASSWORD, WEB_OIDC_ISSUER or WEB_PROXY_HEADER"):
        async with starting(own_store, "web", variables=web_variables(WEB_HOST="0.0.0.0")) as one:
            await one.task


async def test_a_taken_port_ends_the_start_with_its_name(own_store: Store) -> None:
    async with serving(own_store, "web", variables=web_variables()) as service:
        port = str(yarl.URL(address_of(service)).port)
        with pytest.raises(CannotStart, match=f"WEB_PORT={port} "):
            async with starting(own_store, "web", variables=web_variables(WEB_PORT=port)) as one:
                await one.task
