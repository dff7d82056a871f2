"""Pages for those who follow a link to a conversation: nothing but what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from aiohttp import web

from adapters.web import assets
from adapters.web.requests import PERSON, Unacceptable, answer
from adapters.web.shares import Share, Shares, name_of
from adapters.web.sign_in import SignIn
from adapters.web.talks import PLATFORM
from bot.domain import Json
from bot.errors import StoreUnavailable
from bot.languages import later, say, spoken
from bot.store import Store

_PATHS = ("/s/", "/api/shared/")
# Links that are none, of one address: a dead one that many follow counts once.
_MOST_WRONG, _WRONG_SECONDS = 20, 900
_GONE = later("The link has ended or was revoked, or a part of it is missing.")
_TOO_MANY = later("Too many wrong links came from here. Please try again in a few minutes.")


class Readers:
    """Serves links to those who may read: `who` are people who are signed in, or anyone."""

    def __init__(
        self,
        *,
        store: Store,
        shares: Shares,
        sign_in: SignIn,
        who: Literal["off", "people", "anyone"],
        endings: Mapping[str, Json],
    ) -> None:
        self._store = store
        self._shares = shares
        self._sign_in = sign_in
        self._who = who
        self._endings = endings

    def routes(self) -> list[web.RouteDef]:
        """Return the paths of links."""
        return [web.get("/s/{token}", self._open), web.get("/api/shared/{token}", self._read)]

    def lets_in(self, path: str) -> bool:
        """Whether a path needs no login: without a login, everybody at this machine may read."""
        return path.startswith(_PATHS) and (self._who == "anyone" or not self._sign_in.way)

    async def _open(self, request: web.Request) -> web.Response:
        """Return the page, which asks for the words, and says why it gets none."""
        status = 200
        try:
            if self._is_closed(await self._found(request), request):
                return self._sign_in.challenge(request)
        except Unacceptable as error:
            status = error.status
        except StoreUnavailable:
            status = 503
        text, _ = assets.translated("shared.html", spoken())
        return web.Response(text=text, status=status, content_type="text/html")

    async def _read(self, request: web.Request) -> web.Response:
        share = await self._found(request)
        if self._is_closed(share, request):
            return self._sign_in.challenge(request)
        turns: list[Json] = [{"id": str(at), **one} for at, one in enumerate(share.turns)]
        return answer(
            {
                "by": share.by if PERSON in request else "",
                "made": share.made,
                "ends": share.ends,
                "turns": turns,
                "endings": {**self._endings},
            }
        )

    def _is_closed(self, share: Share, request: web.Request) -> bool:
        """Whether a person has to sign in: the operator allowed less when the link was made."""
        return bool(self._sign_in.way) and PERSON not in request and not share.anyone

    async def _found(self, request: web.Request) -> Share:
        """Return what a link shows. Raises Unacceptable."""
        token = request.match_info["token"]
        # A stranger behind the same proxy must not close the links of others.
        share = None if self._who == "off" else await self._shares.find(token)
        if share:
            return share
        key = self._store.key(PLATFORM, "wrong", "links", self._sign_in.network(request))
        if await self._store.command("SCARD", key) >= _MOST_WRONG:
            raise Unacceptable(429, say(_TOO_MANY))
        await self._store.command("SADD", key, name_of(token))
        await self._store.command("EXPIRE", key, _WRONG_SECONDS)
        raise Unacceptable(404, say(_GONE))
