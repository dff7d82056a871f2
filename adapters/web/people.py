"""Signed cookies that identify people."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from adapters.web.talks import PLATFORM
from bot.domain import Person
from bot.store import Store
from bot.text.sanitize import one_line, whole_characters

COOKIE = "parley"
_GUEST = "Guest"  # the name of a person without a login
_RENEW_SECONDS = 24 * 3600.0


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


@dataclass(frozen=True, slots=True)
class SignInAttempt:
    """State of a sign-in at the provider, stored in a signed cookie."""

    state: str
    nonce: str
    verifier: str


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
