"""An identity provider on loopback: OpenID Connect's code flow, strict in what it accepts."""

from __future__ import annotations

import base64
import functools
import hashlib
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from tests.emulators.serving import served

CLIENT_ID, CLIENT_SECRET = "parley", "a-secret-of-two:parts+more"


@functools.cache
def _key(kid: str) -> RSAKey:
    # Generating a key takes part of a second.
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})


@dataclass
class IdentityProvider:
    """Signs in whoever comes as `claims` say; a context manager.

    `signs_with` is the key of its tokens, if it is none of those that it publishes; `issuer` and
    `claims` may be changed between two requests.
    """

    redirect_uri: str = ""
    issuer: str = ""
    listed: tuple[str, ...] = ()  # claims that come as a list, with another value beside theirs
    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "7", "name": "Ann"})
    key: RSAKey = field(default_factory=lambda: _key("one"))
    signs_with: Any = None
    algorithm: str = "RS256"
    methods: list[str] = field(default_factory=lambda: ["client_secret_basic"])
    violations: list[str] = field(default_factory=list)
    key_requests: int = 0
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    url: str = ""
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> IdentityProvider:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._configuration)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_get("/keys", self._keys)
        self.url = await self._stack.enter_async_context(served(app))
        self.issuer = self.url
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def variables(self, home: str) -> dict[str, str]:
        """Return the variables of a page at this address, which is registered here."""
        self.redirect_uri = f"{home}/login/callback"
        return {
            "WEB_OIDC_ISSUER": self.url,
            "WEB_OIDC_CLIENT_ID": CLIENT_ID,
            "WEB_OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "WEB_URL": home,
        }

    async def _configuration(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "token_endpoint_auth_methods_supported": self.methods,
            }
        )

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        self._check(asked.get("response_type") == "code", "response_type")
        self._check(asked.get("client_id") == CLIENT_ID, "client_id")
        self._check(asked.get("redirect_uri") == self.redirect_uri, "redirect_uri")
        self._check(asked.get("code_challenge_method") == "S256", "PKCE")
        self._check("openid" in asked.get("scope", "").split(), "scope")
        self._check(len(asked.get("state", "")) > 20 and len(asked.get("nonce", "")) > 20, "state")
        code = secrets.token_urlsafe()
        self._codes[code] = asked
        query = urlencode({"code": code, "state": asked["state"], "iss": self.issuer})
        return web.Response(status=302, headers={"Location": f"{self.redirect_uri}?{query}"})

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self._check(self._is_client(request, form), "client")
        self._check(form.get("grant_type") == "authorization_code", "grant_type")
        self._check(form.get("redirect_uri") == self.redirect_uri, "redirect_uri at /token")
        asked = self._codes.pop(form.get("code", ""), None)
        if asked is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        self._check(challenge == asked["code_challenge"], "code_verifier")
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300}
        claims |= {"nonce": asked["nonce"], **self.claims}
        for name in self.listed:
            claims[name] = [claims[name], "another"]
        header = {"alg": self.algorithm, "kid": (self.signs_with or self.key).kid}
        token = jwt.encode(header, claims, self.signs_with or self.key, algorithms=[self.algorithm])
        return web.json_response(
            {"id_token": token, "access_token": "none", "token_type": "Bearer"}
        )

    async def _keys(self, _: web.Request) -> web.Response:
        self.key_requests += 1
        return web.json_response(KeySet([self.key]).as_dict(private=False))

    def rotate(self) -> None:
        """Publish another key, and sign with it."""
        self.key = _key("two")

    def _is_client(self, request: web.Request, form: dict[str, str]) -> bool:
        if "client_secret_basic" not in self.methods:
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)
        kind, _, pair = request.headers.get("Authorization", "").partition(" ")
        # RFC 6749, section 2.3.1: the parts are form-encoded.
        expected = f"{CLIENT_ID}:a-secret-of-two%3Aparts%2Bmore"
        return kind == "Basic" and base64.b64decode(pair).decode() == expected

    def _check(self, holds: bool, what: str) -> None:
        if not holds:
            self.violations.append(what)
