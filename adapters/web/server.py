"""The page's HTTP application, with authentication and security headers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from adapters.web.api import MAY_STAY, PERSON, Api, Unacceptable, answer
from adapters.web.assets import Assets
from adapters.web.guard import HEADERS, WRITE_HEADER, refusal
from adapters.web.people import Visitor, new_guest
from adapters.web.sign_in import SignIn
from bot.errors import (
    NothingAsked,
    NotRemembered,
    NotTheAsker,
    ParleyError,
    PersonBusy,
    QueueFull,
    Refused,
    StoreUnavailable,
    ThreadBusy,
)

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# A question of the greatest length, each character as an escape of JSON.
_LARGEST_BODY = 512 * 1024
_ANOTHER = "Somebody else is signed in here now. Reload the page to go on as them."
_ANSWER_SECONDS = 10.0  # for requests other than events
_STATUSES: tuple[tuple[type[ParleyError], int], ...] = (
    (NothingAsked, 400),
    (NotTheAsker, 403),
    (NotRemembered, 410),
    (ThreadBusy, 429),
    (PersonBusy, 429),
    (QueueFull, 429),
    (Refused, 409),
    (StoreUnavailable, 503),
)


def application(
    *, api: Api, assets: Assets, sign_in: SignIn, trust: Callable[[web.Request, str], None]
) -> web.Application:
    """Return the application. `trust` gets each request with its person's id."""
    app = web.Application(
        client_max_size=_LARGEST_BODY, middlewares=[_authentication(sign_in, trust)]
    )
    app.on_response_prepare.append(_add_headers)
    app.add_routes(api.routes())
    app.add_routes(sign_in.routes(assets))
    app.router.add_get("/", assets.page)
    app.router.add_get("/c/{talk}", assets.page)
    app.router.add_get("/static/{path:.+}", assets.static)
    return app


def _authentication(
    sign_in: SignIn, trust: Callable[[web.Request, str], None]
) -> Callable[..., Awaitable[web.StreamResponse]]:
    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if sentence := refusal(request, way=sign_in.way, home=sign_in.home):
            return answer({"error": sentence}, status=403)
        try:
            visitor = await sign_in.visitor(request)
        except StoreUnavailable as error:
            return answer({"error": error.apology}, status=503)
        is_new = visitor is None and not sign_in.way and _makes_guests(request)
        if is_new:
            visitor = Visitor(new_guest(), 0.0)
        if visitor is None and not sign_in.is_public(request.path):
            return sign_in.challenge(request)
        if visitor is not None:
            if request.headers.get(WRITE_HEADER, "1") not in ("1", visitor.person.id):
                return answer({"error": _ANOTHER}, status=403)
            request[PERSON] = visitor.person
            request[MAY_STAY] = lambda: _may_stay(sign_in, request)
            trust(request, visitor.person.id)
        response = await _answered(request, handler)
        if visitor is not None and visitor.is_stale and not response.prepared:
            sign_in.remember(response, visitor.person)
        return response

    return authenticate


async def _may_stay(sign_in: SignIn, request: web.Request) -> bool:
    try:
        return not sign_in.way or await sign_in.visitor(request) is not None
    except StoreUnavailable:
        return True


def _makes_guests(request: web.Request) -> bool:
    """Whether this request creates a guest: pages do, static files do not."""
    return request.path in ("/", "/api/me") or request.path.startswith("/c/")


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Run the handler, and translate errors to responses."""
    try:
        if request.path.endswith("/events"):
            return await handler(request)
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await handler(request)
    except Unacceptable as error:
        return answer({"error": error.sentence}, status=error.status)
    except ParleyError as error:
        if isinstance(error, StoreUnavailable):
            log.info("Request %s failed: %s", request.path, error)
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
        field = str(getattr(error, "field", ""))  # of a form
        more = {"field": field} if field else {}
        return answer({"error": error.apology, **more}, status=status)
    except TimeoutError:
        return answer({"error": "That took too long. Please try again."}, status=408)
    except web.HTTPException as error:
        if error.status < 400 or not request.path.startswith("/api/"):
            raise
        return answer({"error": error.reason}, status=error.status)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
