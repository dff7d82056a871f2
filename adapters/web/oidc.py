"""Signing in with OpenID Connect: the code flow with PKCE, at one provider."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

import aiohttp
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from adapters.web.settings import WebSettings
from adapters.web.sign_in import SignInFailed, person_of
from bot.domain import Person
from bot.proxy import is_loopback

# Signatures by the provider's private key only: no HMAC with the client's secret, and no "none".
_ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
_SCOPE = "openid profile email"
_SECONDS = 10.0  # for one response of the provider
_LEEWAY = 60  # seconds between the two clocks
_NAMES = ("name", "preferred_username", "email")


class OpenIdConnect:
    """Authenticates people at one provider. Every method raises SignInFailed."""

    def __init__(self, settings: WebSettings) -> None:
        self._issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        self._client_secret = settings.oidc_client_secret
        self._redirect_uri = f"{settings.url.rstrip('/')}/login/callback"

    async def begin(self) -> tuple[str, dict[str, str]]:
        """Return the authorization URL, and what `person` needs, for the browser to keep."""
        attempt = {name: secrets.token_urlsafe(32) for name in ("state", "nonce", "verifier")}
        async with _session() as session:
            provider = await self._provider(session)
        digest = hashlib.sha256(attempt["verifier"].encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": _SCOPE,
            "state": attempt["state"],
            "nonce": attempt["nonce"],
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        endpoint = provider["authorization_endpoint"]
        mark = "&" if urlsplit(endpoint).query else "?"
        return f"{endpoint}{mark}{urlencode(query)}", attempt

    async def person(self, attempt: Mapping[str, str], query: Mapping[str, str]) -> Person:
        """Return the person after the redirect from the provider."""
        if not secrets.compare_digest(query.get("state", "").encode(), attempt["state"].encode()):
            raise SignInFailed("the state does not match")
        if query.get("iss", self._issuer) != self._issuer:
            raise SignInFailed("the response is from another issuer (RFC 9207)")
        if "code" not in query:
            raise SignInFailed(f"the provider refuses: {query.get('error', 'no code')[:100]}")
        async with _session() as session:
            provider = await self._provider(session)
            token = await self._redeem(session, provider, query["code"], attempt["verifier"])
            keys = await _json(session, provider["jwks_uri"])
        claims = self._claims(token, keys, attempt["nonce"])
        names = (claims.get(each) for each in _NAMES)
        name = next((one for one in names if isinstance(one, str) and one), "")
        return person_of("oidc", self._issuer, str(claims["sub"]), name=name)

    async def _provider(self, session: aiohttp.ClientSession) -> Mapping[str, Any]:
        url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        found = await _json(session, url)
        if found.get("issuer") != self._issuer:
            raise SignInFailed(f"the provider's issuer is {found.get('issuer')!r}")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            address = found.get(name)
            if not isinstance(address, str) or not _is_private(address):
                raise SignInFailed(f"the provider's {name} is missing or not https: {address!r}")
        return found

    async def _redeem(
        self, session: aiohttp.ClientSession, provider: Mapping[str, Any], code: str, verifier: str
    ) -> str:
        """Exchange the code for an ID token."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        methods = provider.get("token_endpoint_auth_methods_supported")
        wants_post = isinstance(methods, list) and "client_secret_basic" not in methods
        if self._client_secret and not wants_post:
            # RFC 6749, section 2.3.1: both are encoded before they are joined.
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._client_secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form["client_id"] = self._client_id
            if self._client_secret:
                form["client_secret"] = self._client_secret
        found = await _json(session, provider["token_endpoint"], form=form, headers=headers)
        token = found.get("id_token")
        if not isinstance(token, str):
            raise SignInFailed("the provider's answer has no id_token")
        return token

    def _claims(self, token: str, keys: dict[str, Any], nonce: str) -> Mapping[str, Any]:
        """Verify a token and return its claims."""
        try:
            key_set = KeySet.import_key_set(keys)  # type: ignore[arg-type]
            claims = jwt.decode(token, key_set, algorithms=_ALGORITHMS).claims
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise SignInFailed(f"the token is not the provider's: {error}") from error
        registry = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._client_id},
            sub={"essential": True},
            exp={"essential": True},
            nonce={"essential": True, "value": nonce},
        )
        try:
            registry.validate(claims)
        except JoseError as error:
            raise SignInFailed(f"the token is not for this sign-in: {error}") from error
        # OpenID Connect Core, section 3.1.3.7. The library also takes a list that has the value.
        alone = claims["aud"] in (self._client_id, [self._client_id])
        if claims.get("azp", self._client_id if alone else "") != self._client_id:
            raise SignInFailed("the token was made for another client")
        if (claims["iss"], claims["nonce"]) != (self._issuer, nonce):
            raise SignInFailed("the token is not for this sign-in alone")
        return claims


def _is_private(address: str) -> bool:
    """Whether the connection to an address is protected (https or loopback)."""
    parts = urlsplit(address)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


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
    host = urlsplit(url).hostname
    try:
        async with session.request(
            "POST" if form else "GET",
            url,
            data=form,
            headers={"Accept": "application/json", **(headers or {})},
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise SignInFailed(f"{host} answers {response.status}")
            value = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise SignInFailed(f"{host} cannot be reached: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise SignInFailed(f"{host} answers no JSON object")
    return value
