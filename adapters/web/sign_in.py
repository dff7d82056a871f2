"""The ways to sign in: none on this machine, a password, OpenID Connect, or a proxy's header."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
import re
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from aiohttp import web

from adapters.web import assets
from adapters.web.requests import Unacceptable, answer, body
from adapters.web.settings import WebSettings
from adapters.web.talks import PLATFORM
from bot.domain import Person
from bot.languages import say, spoken
from bot.proxy import is_loopback
from bot.store import Store
from bot.text.sanitize import one_line, whole_characters

log = logging.getLogger(__name__)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

COOKIE = "parley"
_GUEST = "Guest"  # the name of a person without a login
_RENEW_SECONDS = 24 * 3600.0
_FORWARDED_FOR = "X-Forwarded-For"
_ATTEMPT = "parley-sign-in"  # the cookie during a sign-in at the provider
_ATTEMPT_SECONDS = 600.0
_FREE_ATTEMPTS = 5  # wrong passwords before an address is blocked
_LONGEST_PAUSE = 900  # seconds
_TOO_MANY = "Too many wrong passwords came from here. Please try again in a few minutes."
_MOST_GUESTS, _GUESTS_SECONDS = 100, 3600  # guests that log in from one address
_CROWDED = "Too many new people came from here. Please try again in an hour."
_FAILED = (
    '<!doctype html><html lang="{language}"><title>Parley</title>'
    '<p>{why} <a href="/">{again}</a></p>'
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person at a browser; `since` is when the cookie was signed, in seconds since the epoch."""

    person: Person
    since: float

    @property
    def is_stale(self) -> bool:
        """Whether the cookie should be renewed."""
        return time.time() - self.since > _RENEW_SECONDS


class SignInFailed(Exception):
    """Sign-in at the provider failed; `str` is for the log and holds no secret."""


class Cookies:
    """Cookies signed with a secret of the store, so that they outlive the process.

    `way` binds cookies to the login method and password.
    """

    def __init__(self, *, secret: bytes, way: str, keep_seconds: float, secure: bool) -> None:
        self._key = hmac.digest(secret, way.encode(), "sha256")
        self.keep_seconds = keep_seconds
        self._secure = secure

    def read(self, request: web.Request) -> Visitor | None:
        """Return the visitor of a request, or None."""
        value = self.read_signed(COOKIE, request)
        if value is None or time.time() - value["since"] > self.keep_seconds:
            return None
        return Visitor(Person(value["id"], value["name"]), value["since"])

    def write(self, response: web.StreamResponse, person: Person) -> None:
        """Set the cookie of a person."""
        value = {"id": person.id, "name": person.name, "since": time.time()}
        self.set_signed(COOKIE, response, value, seconds=self.keep_seconds)

    def drop(self, name: str, response: web.StreamResponse) -> None:
        """Delete a signed cookie."""
        name = self._cookie_name(name)
        response.del_cookie(name, httponly=True, samesite="Lax", secure=self._secure)

    def set_signed(
        self, name: str, response: web.StreamResponse, value: object, *, seconds: float
    ) -> None:
        """Set a signed cookie."""
        body = urlsafe_b64encode(json.dumps(value).encode()).decode()
        text = f"{body}.{self._signature(name, body)}"
        response.set_cookie(
            *(self._cookie_name(name), text),
            max_age=int(seconds),
            httponly=True,
            samesite="Lax",
            secure=self._secure,
        )

    def read_signed(self, name: str, request: web.Request) -> dict[str, Any] | None:
        """Return the value of a signed cookie; None if it is missing or not ours."""
        text = request.cookies.get(self._cookie_name(name), "")
        body, _, signature = text.partition(".")
        own = self._signature(name, body)
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), own.encode()):
            return None
        return dict(json.loads(urlsafe_b64decode(body)))

    def _cookie_name(self, name: str) -> str:
        # Browsers refuse cookies with this prefix from other hosts of the domain.
        return f"__Host-{name}" if self._secure else name

    def _signature(self, name: str, body: str) -> str:
        text = f"{name}={body}".encode("utf-8", "replace")
        digest = hmac.digest(self._key, text, "sha256")
        return urlsafe_b64encode(digest).decode()


def new_guest() -> Person:
    """Return a new guest."""
    return Person(secrets.token_hex(16), _GUEST)


def person_of(*identity: str, name: str) -> Person:
    """Return the person of an external identity; the id is stable."""
    # Bytes of a header that are not UTF-8 arrive as surrogates; they distinguish people, too.
    digest = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogatepass")).hexdigest()
    return Person(digest[:32], one_line(whole_characters(name)).strip()[:80] or _GUEST)


async def read_secret(store: Store) -> bytes:
    """Return the secret that all processes share; create it if there is none."""
    key = store.key(PLATFORM, "secret")
    await store.command("SET", key, secrets.token_hex(32), "NX")
    return bytes.fromhex(await store.command("GET", key))


class Provider(Protocol):
    """An identity provider. Every method raises SignInFailed."""

    async def begin(self) -> tuple[str, dict[str, str]]:
        """Return the authorization URL, and what `person` needs, for the browser to keep."""

    async def person(self, attempt: Mapping[str, str], query: Mapping[str, str]) -> Person:
        """Return the person after the redirect from the provider."""


class SignIn:
    """Authenticates requests, and handles login and logout; `way` is empty without a login.

    `home` is the page's public address, if it is configured. The header of a proxy is trusted only
    in requests from `proxy_address`, or from this machine if that is empty.
    """

    def __init__(
        self, *, settings: WebSettings, cookies: Cookies, store: Store, oidc: Provider | None
    ) -> None:
        self.home = settings.url
        self.way = settings.way
        self._settings = settings
        self._cookies = cookies
        self._store = store
        self._oidc = oidc

    def routes(self) -> list[web.RouteDef]:
        """Return the paths of signing in and out."""
        form = assets.serve("login.html")
        return [
            web.get("/login", form if self.way == "password" else self._start_oidc),
            web.get("/login/callback", self._finish_oidc),
            web.post("/login", self._log_in),
            web.post("/logout", self._log_out),
        ]

    def is_public(self, path: str) -> bool:
        """Whether a path needs no login."""
        return path in ("/login", "/login/callback") or path.startswith("/static/")

    async def visitor(self, request: web.Request) -> Visitor | None:
        """Return the authenticated person, or None. Raises StoreUnavailable."""
        if self.way != "proxy":
            visitor = self._cookies.read(request)
            if visitor and self.way:
                logged_out = await self._store.command("GET", self._logout_key(visitor))
                return None if visitor.since <= float(logged_out or 0) else visitor
            return visitor
        # A second one is what the person sent, beside the proxy's.
        names = request.headers.getall(self._settings.proxy_header, ())
        if len(names) != 1 or not (name := names[0].strip()) or not self._is_proxy(request):
            return None
        # The proxy authenticates each request, so no cookie is set.
        return Visitor(person_of("proxy", name, name=name), since=float("inf"))

    def remember(self, response: web.StreamResponse, person: Person) -> None:
        """Set the person's cookie."""
        # With a provider, an expired cookie leads there again.
        if self.way not in ("proxy", "oidc"):
            self._cookies.write(response, person)

    def challenge(self, request: web.Request) -> web.Response:
        """Return the response to an unauthenticated request: 401, or a redirect to the login."""
        if request.path.startswith("/api/") or request.method != "GET":
            return answer({"error": say("Please log in."), "login": self.way}, status=401)
        if self.way == "proxy":
            return web.Response(status=401, text="Please log in at the proxy of this page.\n")
        return _led_to(f"/login?next={quote(request.path)}")

    def network(self, request: web.Request) -> str:
        """Return the client address used for rate limits; the /64 network for IPv6."""
        address = origin_of(
            request.remote or "",
            ",".join(request.headers.getall(_FORWARDED_FOR, ())),
            proxies=self._settings.proxy_address,
        )
        if isinstance(address, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((address, 64), strict=False).network_address)
        return str(address or "unknown")

    async def _start_oidc(self, request: web.Request) -> web.Response:
        if self._oidc is None:
            return _led_to("/")
        try:
            address, attempt = await self._oidc.begin()
        except SignInFailed as error:
            return _failed(error)
        response = _led_to(address)
        fields = attempt | {"next": request.query.get("next", "")}
        self._cookies.set_signed(_ATTEMPT, response, fields, seconds=_ATTEMPT_SECONDS)
        return response

    async def _finish_oidc(self, request: web.Request) -> web.Response:
        fields = self._cookies.read_signed(_ATTEMPT, request)
        if self._oidc is None or fields is None:
            return _failed(SignInFailed("this browser did not begin it"))
        path = fields["next"]
        try:
            person = await self._oidc.person(fields, request.query)
        except SignInFailed as error:
            return _failed(error)
        # Only a path of the page, to prevent open redirects.
        response = _led_to(path if re.fullmatch(r"/[cs]/[A-Za-z0-9-]+", path) else "/")
        self._cookies.write(response, person)
        self._cookies.drop(_ATTEMPT, response)
        return response

    async def _log_in(self, request: web.Request) -> web.Response:
        """Check the password. Wrong ones block the address for a growing time."""
        if self.way != "password":
            raise Unacceptable(404, "There is no password here.")
        given = (await body(request)).get("password")
        key = self._store.key(PLATFORM, "wrong", self.network(request))
        # Counted before the check, so that concurrent attempts cannot exceed the limit.
        attempts = int(await self._store.command("INCR", key))
        await self._store.command("EXPIRE", key, _LONGEST_PAUSE, "NX")
        is_known = request.remote in self._settings.proxy_address
        if attempts == _FREE_ATTEMPTS + 1 and _FORWARDED_FOR in request.headers and not is_known:
            log.warning(
                "Logins through the proxy %s are blocked after wrong passwords: set"
                " WEB_PROXY_ADDRESS so that each client's address is counted",
                request.remote,
            )
        if attempts > _FREE_ATTEMPTS:
            raise Unacceptable(429, say(_TOO_MANY))
        password = self._settings.password.encode()
        # A lone surrogate of JSON has no bytes.
        if not hmac.compare_digest(str(given).encode("utf-8", "replace"), password):
            await self._store.command("EXPIRE", key, min(60 * 2**attempts, _LONGEST_PAUSE))
            raise Unacceptable(403, say("That is not the password."))
        await self._store.command("DEL", key)
        response = answer({})
        known = await self.visitor(request)
        self._cookies.write(response, known.person if known else await self._new_guest(request))
        return response

    async def _new_guest(self, request: web.Request) -> Person:
        """Create a guest; limited for each address, because each guest has quotas of their own."""
        key = self._store.key(PLATFORM, "guests", self.network(request))
        many = int(await self._store.command("INCR", key))
        await self._store.command("EXPIRE", key, _GUESTS_SECONDS, "NX")
        if many > _MOST_GUESTS:
            raise Unacceptable(429, say(_CROWDED))
        return new_guest()

    async def _log_out(self, request: web.Request) -> web.Response:
        """Log out; this cookie and older copies become invalid."""
        if visitor := self._cookies.read(request):
            seconds = int(self._cookies.keep_seconds) + 1
            await self._store.command("SET", self._logout_key(visitor), time.time(), "EX", seconds)
        response = answer({})
        self._cookies.drop(COOKIE, response)
        return response

    def _logout_key(self, visitor: Visitor) -> str:
        digest = hashlib.sha256(visitor.person.id.encode()).hexdigest()
        return self._store.key(PLATFORM, "left", digest)

    def _is_proxy(self, request: web.Request) -> bool:
        remote, addresses = request.remote or "", self._settings.proxy_address
        return remote in addresses if addresses else is_loopback(remote)


def origin_of(remote: str, forwarded: str, *, proxies: Collection[str]) -> IPAddress | None:
    """Return the address from which a request came, as reported by `proxies`; None if unknown.

    Each proxy appends where it got the request from to X-Forwarded-For, so entries to the left of
    the last untrusted address can be forged.
    """
    trusted = {_ip(one) for one in proxies}
    address = _ip(remote)
    for entry in reversed(forwarded.split(",")):
        if address not in trusted or (next_hop := _ip(entry)) is None:
            break
        address = next_hop
    return address


def _ip(text: str) -> IPAddress | None:
    """Return the address in a text, with or without a port or a zone; None if there is none."""
    host = text.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _led_to(address: str) -> web.Response:
    return web.Response(status=302, headers={"Location": address})


def _failed(error: SignInFailed) -> web.Response:
    log.warning("Sign-in failed: %s", one_line(str(error)))
    said = {"why": say("The sign-in did not work."), "again": say("Try again")}
    text = _FAILED.format(language=spoken(), **said)
    return web.Response(status=403, text=text, content_type="text/html")
