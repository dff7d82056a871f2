"""Signing in with OpenID Connect: the code flow with PKCE, at one provider."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import aiohttp
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from adapters.web.people import SignInAttempt, SignInFailed, person_of
from bot.domain import Person
from bot.proxy import is_loopback

# Signatures by the provider's private key only: no HMAC with the client's secret, and no "none".
_ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
_SCOPE = "openid profile email"
_SECONDS = 10.0  # for one response of the provider
_CACHE_SECONDS = 600.0  # for the provider's addresses and keys
_LEEWAY = 60  # seconds between the two clocks
_NAMES = ("name", "preferred_username", "email")


@dataclass(frozen=True, slots=True)
class Client:
    """The client registered at the provider; `home` is the page's public address."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    home: str

    @property
    def redirect_uri(self) -> str:
        """The address to which the provider redirects."""
        return f"{self.home.rstrip('/')}/login/callback"


class OpenIdConnect:
    """Authenticates people at one provider. Every method raises SignInFailed."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, str] = {}
        self._keys: KeySet | None = None
        self._known_until = 0.0

    async def address(self, attempt: SignInAttempt) -> str:
        """Return the authorization URL."""
        async with _session() as session:
            provider = await self._provider(session)
        digest = hashlib.sha256(attempt.verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": self._client.redirect_uri,
            "scope": _SCOPE,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint = provider["authorization_endpoint"]
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    async def person(self, attempt: SignInAttempt, query: Mapping[str, str]) -> Person:
        """Return the person after the redirect from the provider."""
        if not secrets.compare_digest(query.get("state", "").encode(), attempt.state.encode()):
            raise SignInFailed("the state does not match")
        if query.get("iss", self._client.issuer) != self._client.issuer:
            raise SignInFailed("the response is from another issuer (RFC 9207)")
        if "code" not in query:
            raise SignInFailed(f"the provider refuses: {query.get('error', 'no code')[:100]}")
        async with _session() as session:
            provider = await self._provider(session)
            token = await self._redeem(session, provider, query["code"], attempt.verifier)
            claims = await self._claims(session, token, attempt.nonce)
        names = (claims.get(each) for each in _NAMES)
        name = next((one for one in names if isinstance(one, str) and one), "")
        return person_of("oidc", self._client.issuer, str(claims["sub"]), name=name)

    async def _provider(self, session: aiohttp.ClientSession) -> Mapping[str, str]:
        if time.monotonic() < self._known_until:
            return self._known
        issuer = self._client.issuer
        found = await _json(session, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise SignInFailed(f"the provider's issuer is {found.get('issuer')!r}")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            self._known[name] = _checked(found.get(name))
        methods = found.get("token_endpoint_auth_methods_supported")
        self._known["method"] = "post" if _wants_post(methods) else "basic"
        self._keys = None
        self._known_until = time.monotonic() + _CACHE_SECONDS
        return self._known

    async def _redeem(
        self,
        session: aiohttp.ClientSession,
        provider: Mapping[str, str],
        code: str,
        verifier: str,
    ) -> str:
        """Exchange the code for an ID token."""
        client = self._client
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        if provider["method"] == "basic" and client.client_secret:
            # RFC 6749, section 2.3.1: both are encoded before they are joined.
            pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = client.client_id
            if client.client_secret:
                form["client_secret"] = client.client_secret
        found = await _json(session, provider["token_endpoint"], form=form, headers=headers)
        token = found.get("id_token")
        if not isinstance(token, str):
            raise SignInFailed("the provider's answer has no id_token")
        return token

    async def _claims(
        self, session: aiohttp.ClientSession, token: str, nonce: str
    ) -> Mapping[str, Any]:
        """Verify a token and return its claims."""
        try:
            decoded = jwt.decode(token, await self._key_set(session), algorithms=_ALGORITHMS)
        except (JoseError, ValueError):
            # The provider may have new keys.
            self._keys = None
            try:
                decoded = jwt.decode(token, await self._key_set(session), algorithms=_ALGORITHMS)
            except (JoseError, ValueError) as error:
                raise SignInFailed(f"the token is not the provider's: {error}") from error
        client_id, claims = self._client.client_id, decoded.claims
        registry = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY,
            iss={"essential": True, "value": self._client.issuer},
            aud={"essential": True, "value": client_id},
            sub={"essential": True},
            exp={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            registry.validate(claims)
        except JoseError as error:
            raise SignInFailed(f"the token is not for this sign-in: {error}") from error
        # OpenID Connect Core, section 3.1.3.7. The library also takes a list that has the value.
        alone = claims["aud"] in (client_id, [client_id])
        if claims.get("azp", client_id if alone else "") != client_id:
            raise SignInFailed("the token was made for another client")
        if (claims["iss"], claims["nonce"]) != (self._client.issuer, nonce):
            raise SignInFailed("the token is not for this sign-in alone")
        return claims

    async def _key_set(self, session: aiohttp.ClientSession) -> KeySet:
        if self._keys is None:
            found = await _json(session, self._known["jwks_uri"])
            try:
                self._keys = KeySet.import_key_set(found)  # type: ignore[arg-type]
            except (JoseError, ValueError, KeyError, TypeError) as error:
                raise SignInFailed(f"the provider's keys cannot be read: {error}") from error
        return self._keys


def is_private(address: str) -> bool:
    """Whether the connection to an address is protected (https or loopback)."""
    parts = urlsplit(address)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def _wants_post(methods: object) -> bool:
    return isinstance(methods, list) and "client_secret_basic" not in methods


def _checked(address: object) -> str:
    if not isinstance(address, str) or not is_private(address):
        raise SignInFailed(f"an address of the provider is missing or not https: {address!r}")
    return address


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    return aiohttp.ClientSession(timeout=timeout, trust_env=True)


async def _json(
    session: aiohttp.ClientSession,
    url: str,
    *,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    asking = session.request(
        "POST" if form else "GET",
        url,
        data=form,
        headers={"Accept": "application/json", **(headers or {})},
        allow_redirects=False,
    )
    host = urlsplit(url).hostname
    try:
        async with asking as response:
            if response.status != 200:
                raise SignInFailed(f"{host} answers {response.status}")
            value = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise SignInFailed(f"{host} cannot be reached: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise SignInFailed(f"{host} answers no JSON object")
    return value
