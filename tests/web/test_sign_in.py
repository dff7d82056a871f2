"""A password, a proxy's header and OpenID Connect tell who may use the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import yarl
from joserfc.jwk import OctKey, RSAKey

from adapters.web.sign_in import origin_of, person_of
from bot.store import Store
from tests.emulators.identity import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from tests.support.ports import free_port
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
        person.session.cookie_jar.update_cookies(cookies, yarl.URL(person.address))
        copied, _ = await person.get("/api/conversations")
        await person.send("POST", "/login", {"password": "open sesame"})
        anew, mine = await person.get("/api/conversations")
    async with at_page(own_store, variables | {"WEB_PASSWORD": "another one"}) as person:
        person.session.cookie_jar.update_cookies(cookies, yarl.URL(person.address))
        signed_out, _ = await person.get("/api/conversations")

    assert before == (401, {"error": "Please log in.", "login": "password"})
    assert where == f"/login?next=/c/{talk}"
    assert (wrong[0], right, me["login"]) == (403, 200, "password")
    assert [one["id"] for one in listed] == [talk]
    assert (after, copied, signed_out) == (401, 401, 401)
    assert (anew, mine) == (200, [])


async def test_wrong_passwords_are_slowed_down(own_store: Store) -> None:
    variables = web_variables(WEB_PASSWORD="open sesame")
    async with at_page(own_store, variables) as person:
        wrong = [person.send("POST", "/login", {"password": str(n)}) for n in range(7)]
        answers = sorted(status for status, _ in await asyncio.gather(*wrong))
        right, _ = await person.send("POST", "/login", {"password": "open sesame"})
        keys = await own_store.command("KEYS", own_store.key("web", "wrong", "*"))
        seconds = await own_store.command("TTL", keys[0])

    assert answers == [403] * 5 + [429] * 2
    assert right == 429
    assert 60 < seconds <= 900


async def test_an_address_makes_so_many_new_people_and_those_it_has_stay(own_store: Store) -> None:
    async with at_page(own_store, web_variables(WEB_PASSWORD="open sesame")) as person:
        known, _ = await person.send("POST", "/login", {"password": "open sesame"})
        async with browser(person.address, enters=False) as other:
            made = []
            for _ in range(100):
                other.session.cookie_jar.clear()
                status, _ = await other.send("POST", "/login", {"password": "open sesame"})
                made.append(status)
        again, _ = await person.send("POST", "/login", {"password": "open sesame"})
        keys = await own_store.command("KEYS", own_store.key("web", "guests", "*"))
        seconds = await own_store.command("TTL", keys[0])

    assert (known, again) == (200, 200)
    assert made == [200] * 99 + [429]
    assert 0 < seconds <= 3600


async def test_behind_a_proxy_a_stranger_locks_out_nobody_else(own_store: Store) -> None:
    sesame = web_variables(WEB_PASSWORD="open sesame")

    async def log_in(person: Browser, password: str, forwarded: str) -> int:
        headers = {"X-Parley": "1", "X-Forwarded-For": forwarded}
        status, _ = await person.send("POST", "/login", {"password": password}, headers)
        return status

    async with at_page(own_store, sesame | {"WEB_PROXY_ADDRESS": "127.0.0.1"}) as person:
        # What is left of the proxy's own entry is made up, and changes nothing.
        guesses = [await log_in(person, "x", f"{n}.1.1.1, 6.6.6.6") for n in range(6)]
        owner = await log_in(person, "open sesame", "6.6.6.6, 7.7.7.7, 127.0.0.1")
    async with at_page(own_store, sesame | {"WEB_PROXY_ADDRESS": "10.0.0.7"}) as person:
        direct = [await log_in(person, "x", f"{n}.1.1.1") for n in range(6)]

    assert guesses == direct == [403] * 5 + [429]
    assert owner == 200


@pytest.mark.parametrize(
    ("remote", "forwarded", "origin"),
    [
        ("9.9.9.9", "1.1.1.1", "9.9.9.9"),
        ("10.0.0.7", "", "10.0.0.7"),
        ("10.0.0.7", "1.1.1.1,2.2.2.2:4711", "2.2.2.2"),
        ("::ffff:10.0.0.7", "1.1.1.1, [2001:db8::1]:80, 10.0.0.8", "2001:db8::1"),
        ("10.0.0.7", "1.1.1.1, unknown", "10.0.0.7"),
        ("10.0.0.7", "10.0.0.8", "10.0.0.8"),
        ("", "1.1.1.1", "None"),
    ],
)
def test_only_what_the_proxies_add_tells_where_a_request_came_from(
    remote: str, forwarded: str, origin: str
) -> None:
    found = origin_of(remote, forwarded, proxies=("10.0.0.7", "10.0.0.8"))
    assert str(found) == origin


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
        async with person.session.get(
            f"{person.address}/api/me", headers=[("X-User", "eve"), ("X-User", "ann")]
        ) as response:
            twice = response.status
    async with at_page(own_store, named | {"WEB_PROXY_ADDRESS": "10.0.0.7"}) as person:
        forged, _ = await person.get("/api/me", **{"X-User": "ann"})

    assert (nobody, me["name"], asked, forged, twice) == (401, "ann", 202, 401, 401)
    assert [one["id"] for one in anns] == [talk]
    assert (bobs, cookies) == ([], 0)


async def test_a_name_of_another_site_that_leads_here_is_nobody(own_store: Store) -> None:
    named = web_variables(WEB_PROXY_HEADER="X-User", WEB_URL="https://chat.example/")
    hosts = ("evil.example", "chat.example", "localhost:5006", "[::1]:5006", "a][b")
    async with at_page(own_store, named) as person:
        url = f"{person.address}/api/me"
        found = []
        for host in hosts:
            headers = {"X-User": "ann", "Host": host}
            async with person.session.get(url, headers=headers) as response:
                found.append(response.status)
        rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
        question = {"id": new_talk(), "text": "why?"}
        path = f"/api/conversations/{new_talk()}/questions"
        headers = {"X-Parley": "1", "X-User": "ann"} | rebound
        asked, told = await person.send("POST", path, question, headers)

    assert found == [403, 200, 200, 200, 403]
    assert asked == 403
    assert "WEB_URL" in told["error"]


def test_names_that_are_no_text_are_two_people() -> None:
    # As the server reads bytes that are not UTF-8.
    ann, bob = (person_of("proxy", name, name=name) for name in ("Ren\udce9", "Ren\udce8"))

    assert ann.name == bob.name == "Ren\ufffd"
    assert ann.id != bob.id


async def test_over_https_no_other_host_of_the_domain_can_set_the_cookie(own_store: Store) -> None:
    variables = web_variables(WEB_PASSWORD="open sesame", WEB_URL="https://chat.example")
    async with at_page(own_store, variables) as person:
        url, sent = f"{person.address}/login", {"password": "open sesame"}
        async with person.session.post(url, json=sent, headers={"X-Parley": "1"}) as response:
            cookie = response.headers["Set-Cookie"]
        pair = cookie.partition(";")[0]
        known, _ = await person.get("/api/me", Cookie=pair)
        other, _ = await person.get("/api/me", Cookie=pair.removeprefix("__Host-"))

    assert pair.startswith("__Host-parley=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    assert (known, other) == (200, 401)


@asynccontextmanager
async def at_provider(store: Store) -> AsyncIterator[tuple[Browser, IdentityProvider]]:
    """A browser at a page that leaves it to a provider to know people."""
    home = f"http://127.0.0.1:{free_port()}"
    async with IdentityProvider() as provider:
        variables = provider.variables(home) | {"WEB_PORT": home.rpartition(":")[2]}
        async with at_page(store, variables) as person:
            yield person, provider
            assert not provider.violations


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_provider_signs_people_in(own_store: Store, method: str) -> None:
    talk = new_talk()
    async with at_provider(own_store) as (person, provider):
        provider.methods = [method]
        before = await person.get("/api/me")
        async with person.session.get(f"{person.address}/c/{talk}") as response:
            landed = str(response.url)
        _, me = await person.get("/api/me")
        await person.ask(talk, "why?")
        async with browser(person.address, enters=False) as second:
            # The same person at another browser, while the provider has a new key.
            provider.rotate()
            await second.get("/")
            _, listed = await second.get("/api/conversations")
        async with browser(person.address, enters=False) as other:
            provider.claims = {"sub": "8", "email": "bob@example.com", "aud": [CLIENT_ID]}
            await other.get("/")
            _, bob = await other.get("/api/me")
            _, bobs = await other.get("/api/conversations")

    assert before == (401, {"error": "Please log in.", "login": "oidc"})
    assert landed == f"{person.address}/c/{talk}"
    assert (me["name"], bob["name"]) == ("Ann", "bob@example.com")
    assert [one["id"] for one in listed] == [talk]
    assert bobs == []
    assert provider.key_requests >= 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "another"},
        {"iss": "https://evil.example"},
        {"exp": 1},
        {"nonce": "another"},
        {"sub": None},
        {"azp": "another"},
    ],
    ids=str,
)
async def test_a_token_for_something_else_lets_nobody_in(
    own_store: Store, wrong: dict[str, object]
) -> None:
    async with at_provider(own_store) as (person, provider):
        provider.claims = {"sub": "7", **wrong}
        status, text = await person.get("/")
        me, _ = await person.get("/api/me")

    assert (status, me) == (403, 401)
    assert "The sign-in did not work" in text


@pytest.mark.parametrize("listed", ["aud", "nonce", "iss"])
async def test_a_token_for_others_too_lets_nobody_in(own_store: Store, listed: str) -> None:
    async with at_provider(own_store) as (person, provider):
        provider.listed = (listed,)
        status, _ = await person.get("/")
        me, _ = await person.get("/api/me")
        provider.claims["azp"] = CLIENT_ID
        named, _ = await person.get("/")

    assert (status, me) == (403, 401)
    # With several audiences, `azp` says for which one the token is.
    assert named == (200 if listed == "aud" else 403)


async def test_a_forged_token_lets_nobody_in(own_store: Store) -> None:
    async with at_provider(own_store) as (person, provider):
        # Another key of the same name, and the client's own secret as the key.
        provider.signs_with = RSAKey.generate_key(2048, {"kid": "one"})
        first, _ = await person.get("/")
        provider.signs_with = OctKey.import_key(CLIENT_SECRET * 2, {"kid": "one"})
        provider.algorithm = "HS256"
        second, _ = await person.get("/")
        me, _ = await person.get("/api/me")

    assert (first, second, me) == (403, 403, 401)


async def test_a_sign_in_that_another_browser_began_lets_nobody_in(own_store: Store) -> None:
    async with at_provider(own_store) as (person, _):
        url = f"{person.address}/login?next=//evil.example"
        async with person.session.get(url, allow_redirects=False) as response:
            at_the_provider = response.headers["Location"]
        async with person.session.get(at_the_provider, allow_redirects=False) as response:
            back = response.headers["Location"].removeprefix(person.address)
        async with browser(person.address, enters=False) as victim:
            stolen, _ = await victim.get(back)
            mixed, _ = await victim.get("/login/callback?code=1&state=2&iss=https://evil.example")
        async with person.session.get(person.address + back, allow_redirects=False) as response:
            home = response.headers["Location"]
        again, _ = await person.get(back)

    assert (stolen, mixed, home, again) == (403, 403, "/", 403)


async def test_an_unusable_provider_gives_a_calm_message(own_store: Store) -> None:
    async with at_provider(own_store) as (person, provider):
        provider.issuer = "https://another.example"
        wrong, text = await person.get("/")

    assert wrong == 403
    assert "another.example" not in text


@pytest.mark.parametrize("charset", ["punycode", "zlib", "unheard-of"])
async def test_a_stranger_does_not_choose_how_a_body_is_decoded(
    own_store: Store, charset: str
) -> None:
    variables = web_variables(WEB_PASSWORD="open sesame")
    headers = {"X-Parley": "1", "Content-Type": f"application/json; charset={charset}"}
    async with at_page(own_store, variables) as person:
        url, sent = f"{person.address}/login", b'{"password": "open sesame"}'
        async with person.session.post(url, data=sent, headers=headers) as response:
            assert response.status == 200
