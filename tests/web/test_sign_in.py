"""A password, a proxy's header and OpenID Connect tell who may use the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import yarl

from bot.store import Store
from tests.support.service import serving
from tests.support.web_page import Browser, address_of, browser, new_talk, web_variables


@asynccontextmanager
async def at_page(store: Store, variables: dict[str, str]) -> AsyncIterator[Browser]:
    """A new browser at a new process, which has not opened the page."""
    async with (
        serving(store, "web", variables=variables) as service,
        browser(address_of(service), enters=False) as person,
    ):
        yield person


async def test_a_password_lets_in_and_the_cookie_outlives_the_process(own_store: Store) -> None:
    variables = web_variables(WEB_PASSWORD="open sesame", WEB_HOST="127.0.0.1")
    talk = new_talk()
    async with at_page(own_store, variables) as person:
        before = await person.get("/api/conversations")
        url = f"{person.address}/c/{talk}"
        async with person.session.get(url, allow_redirects=False) as response:
            where = response.headers["Location"]
        wrong = await person.send("POST", "/login", {"password": "open"})
        right, _ = await person.send("POST", "/login", {"password": "open sesame"})
        await person.ask(talk, "why?")
        _, me = await person.get("/api/me")
        cookies = {one.key: one.value for one in person.session.cookie_jar}
    async with at_page(own_store, variables) as person:
        person.session.cookie_jar.update_cookies(cookies, yarl.URL(person.address))
        _, listed = await person.get("/api/conversations")
        await person.send("POST", "/logout")
        after, _ = await person.get("/api/conversations")
    async with at_page(own_store, variables | {"WEB_PASSWORD": "another"}) as person:
        person.session.cookie_jar.update_cookies(cookies, yarl.URL(person.address))
        signed_out, _ = await person.get("/api/conversations")

    assert before == (401, {"error": "Please log in.", "login": "password"})
    assert where == f"/login?next=/c/{talk}"
    assert (wrong[0], right, me["login"]) == (403, 200, "password")
    assert [one["id"] for one in listed] == [talk]
    assert (after, signed_out) == (401, 401)


async def test_wrong_passwords_are_slowed_down(own_store: Store) -> None:
    variables = web_variables(WEB_PASSWORD="open sesame")
    async with at_page(own_store, variables) as person:
        answers = [(await person.send("POST", "/login", {"password": str(n)}))[0] for n in range(7)]
        right, _ = await person.send("POST", "/login", {"password": "open sesame"})
        keys = await own_store.command("KEYS", own_store.key("web", "wrong", "*"))
        seconds = await own_store.command("TTL", keys[0])

    assert answers == [403] * 5 + [429] * 2
    assert right == 429
    assert 60 < seconds <= 900


async def test_a_trusted_proxy_names_the_person(own_store: Store) -> None:
    talk = new_talk()
    named = web_variables(WEB_PROXY_HEADER="X-User")
    async with at_page(own_store, named) as person:
        nobody, _ = await person.get("/api/me")
        _, me = await person.get("/api/me", **{"X-User": "ann", "X-Forwarded-For": "1.2.3.4"})
        headers = {"X-Parley": "1", "X-User": "ann"}
        body = {"id": new_talk(), "text": "why?"}
        path = f"/api/conversations/{talk}/questions"
        asked, _ = await person.send("POST", path, body, headers)
        _, anns = await person.get("/api/conversations", **{"X-User": "ann"})
        _, bobs = await person.get("/api/conversations", **{"X-User": "bob"})
        cookies = len(person.session.cookie_jar)
    async with at_page(own_store, named | {"WEB_PROXY_ADDRESS": "10.0.0.7"}) as person:
        forged, _ = await person.get("/api/me", **{"X-User": "ann"})

    assert (nobody, me["name"], asked, forged) == (401, "ann", 202, 401)
    assert [one["id"] for one in anns] == [talk]
    assert (bobs, cookies) == ([], 0)
