"""The role `web`: the page's HTTP application, with authentication and security headers."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import SplitResult, urlsplit

from aiohttp import HttpVersion11, web

from adapters.uploads import Uploads
from adapters.web import assets
from adapters.web.api import Api
from adapters.web.follower import Follower
from adapters.web.readers import Readers
from adapters.web.requests import MAY_STAY, PERSON, Unacceptable, answer
from adapters.web.settings import WebSettings
from adapters.web.shares import Shares
from adapters.web.sign_in import Cookies, Provider, SignIn, Visitor, new_guest, read_secret
from adapters.web.talks import Talks
from bot.domain import Json
from bot.errors import (
    CannotStart,
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
from bot.languages import say, speak
from bot.platform_spec import Process
from bot.proxy import is_loopback
from bot.text.attachments import ENDINGS

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Forms of other sites cannot send this header, and scripts need a CORS preflight.
_WRITE_HEADER = "X-Parley"
_SAFE = ("GET", "HEAD")
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
# Scripts and styles obey none of these, and 25 of them come with the first visit.
_OF_PAGES = (
    "Content-Security-Policy",
    "X-Frame-Options",
    "Cross-Origin-Opener-Policy",
    "Permissions-Policy",
)
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
_CONDITIONS = ("If-None-Match", "If-Modified-Since", "Range")
_PROVIDER_SECONDS = 12 * 3600.0  # until the next redirect to the provider
# A question of the greatest length, each character as an escape of JSON.
_LARGEST_BODY = 512 * 1024
_ANOTHER = "Somebody else is signed in here now. Reload the page to go on as them."
_ANSWER_SECONDS = 10.0  # for requests other than events and uploads
_UPLOAD_SECONDS = 300.0  # 10 MB over a slow line
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


async def open_pages(process: Process, talks: Talks) -> tuple[web.Application, Follower]:
    """Return the application, and the follower that updates its pages. Raises CannotStart."""
    settings, own, store = process.settings, WebSettings.of(process.settings), process.store
    follower = Follower(store=store, talks=talks, intake=process.intake)
    # There is nothing to share where nothing is remembered.
    who = own.shares if settings.remembers else "off"
    about: dict[str, Json] = {
        "model": process.model,
        "feedback": settings.rates(usual=True),
        "versions": settings.remembers,
        "demo": process.is_demo,
        "login": own.way,
        "days": settings.history_days,
        "files": settings.files_per_question,
        "file_mb": settings.file_max_mb,
        "endings": {**ENDINGS},  # of files, by the language of their code
        "shares": who,
    }
    # A changed password invalidates all cookies.
    way = f"{own.way}:{hashlib.sha256(own.password.encode()).hexdigest()}"
    # A person removed at the provider must lose access soon.
    longest = _PROVIDER_SECONDS if own.way == "oidc" else math.inf
    try:
        secret = await read_secret(store)
        cookies = Cookies(
            secret=secret,
            way=way,
            keep_seconds=min(settings.keep_seconds, longest),
            secure=own.url.startswith("https://"),
        )
    except StoreUnavailable as error:
        raise CannotStart(str(error)) from error
    oidc = _open_id_connect(own) if own.oidc_issuer else None
    sign_in = SignIn(settings=own, cookies=cookies, store=store, oidc=oidc)
    lookup, keep_seconds = process.intake.lookup, settings.keep_seconds
    shares = Shares(store=store, lookup=lookup, secret=secret, keep_seconds=keep_seconds)
    readers = Readers(store=store, shares=shares, sign_in=sign_in, who=who, endings=ENDINGS)
    app = web.Application(
        client_max_size=_LARGEST_BODY,
        middlewares=[_authentication(sign_in, readers, process.trust)],
    )
    app.on_response_prepare.append(_add_headers)
    # Otherwise shutdown would wait for the open pages.
    app.on_shutdown.append(follower.end_pages)
    uploads = Uploads(store, most_files=settings.files_per_question, most_mb=settings.file_max_mb)
    app.add_routes(Api(store, process.intake, talks, follower, uploads, shares, about).routes())
    app.add_routes([*sign_in.routes(), *readers.routes()])
    for path in ("/", "/c/{talk}"):
        app.router.add_get(path, assets.serve("index.html"))
    app.router.add_static("/static/", assets.FOLDER)
    return app, follower


def _open_id_connect(settings: WebSettings) -> Provider:
    try:
        from adapters.web.oidc import OpenIdConnect
    except ImportError as error:
        raise CannotStart(
            "WEB_OIDC_ISSUER needs joserfc: pip install -r requirements-web.txt"
        ) from error
    return OpenIdConnect(settings)


def _authentication(
    sign_in: SignIn, readers: Readers, trust: Callable[[web.Request, str], None]
) -> Callable[..., Awaitable[web.StreamResponse]]:
    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        speak(assets.language_of(request))
        if sentence := _refusal(request, way=sign_in.way, home=sign_in.home):
            return answer({"error": sentence}, status=403)
        try:
            visitor = await sign_in.visitor(request)
        except StoreUnavailable as error:
            return answer({"error": error.apology}, status=503)
        # Pages make a guest, static files do not.
        is_page = request.path in ("/", "/api/me") or request.path.startswith("/c/")
        if visitor is None and not sign_in.way and is_page:
            visitor = Visitor(new_guest(), 0.0)
        is_open = sign_in.is_public(request.path) or readers.lets_in(request.path)
        if visitor is None and not is_open:
            return sign_in.challenge(request)
        if visitor is not None:
            if request.headers.get(_WRITE_HEADER, "1") not in ("1", visitor.person.id):
                return answer({"error": say(_ANOTHER)}, status=403)
            request[PERSON] = visitor.person
            request[MAY_STAY] = lambda: _may_stay(sign_in, request)
            trust(request, visitor.person.id)
        response = await _answered(request, handler)
        is_packed = request.path.endswith((".png", ".woff2"))
        if isinstance(response, web.FileResponse) and not is_packed:
            response.headers["Vary"] = "Accept-Encoding"
            # aiohttp 3.14 would end one without a body, and one of HTTP/1.0, in the wrong place.
            wants_all = not any(it in request.headers for it in _CONDITIONS)
            if wants_all and request.method == "GET" and request.version >= HttpVersion11:
                response.enable_compression()
        if visitor is not None and visitor.is_stale and not response.prepared:
            sign_in.remember(response, visitor.person)
        return response

    return authenticate


async def _may_stay(sign_in: SignIn, request: web.Request) -> bool:
    try:
        return not sign_in.way or await sign_in.visitor(request) is not None
    except StoreUnavailable:
        return True


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Run the handler, and translate errors to responses."""
    try:
        seconds = _UPLOAD_SECONDS if request.method == "PUT" else _ANSWER_SECONDS
        async with asyncio.timeout(None if request.path.endswith("/events") else seconds):
            return await handler(request)
    except Unacceptable as error:
        return answer({"error": error.sentence}, status=error.status)
    except ParleyError as error:
        if isinstance(error, StoreUnavailable):
            # Not the path itself: that of a link opens it.
            resource = request.match_info.route.resource
            log.info("Request %s failed: %s", resource and resource.canonical, error)
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
        field = str(getattr(error, "field", ""))  # of a form
        more = {"field": field} if field else {}
        return answer({"error": error.apology, **more}, status=status)
    except TimeoutError:
        return answer({"error": say("That took too long. Please try again.")}, status=408)
    except web.HTTPException as error:
        if error.status < 400 or not request.path.startswith("/api/"):
            raise
        return answer({"error": error.reason}, status=error.status)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    is_file = isinstance(response, web.FileResponse)
    is_part = is_file and response.status < 400 and request.path.endswith((".js", ".css"))
    caching = "no-cache" if is_file else "no-store"
    for name, value in {**_HEADERS, "Cache-Control": caching}.items():
        if not (is_part and name in _OF_PAGES):
            response.headers.setdefault(name, value)


def _refusal(request: web.Request, *, way: str, home: str = "") -> str:
    """Return why a request is refused, in a sentence; empty if it is not.

    `way` is how people sign in; without one, the page is for this machine only. `home` is its
    public address, if a proxy may change the host.
    """
    # Prevents DNS rebinding, where no cookie is asked for: browsers bind cookies to the host.
    host = _split(f"//{request.host}").hostname or ""
    if not way and not is_loopback(host):
        return "This page only works under this machine's own address, such as http://localhost."
    if way == "proxy" and not is_loopback(host) and host != _split(home).hostname:
        return "This page does not know this address: set WEB_URL to the one that people use."
    if not way and any(name in request.headers for name in _FORWARDED):
        return "This page was reached through a proxy: set WEB_PASSWORD, or another way to sign in."
    if request.method in _SAFE:
        return ""
    if _WRITE_HEADER not in request.headers:
        return f"A change needs the header {_WRITE_HEADER}."
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    origin = _split(request.headers.get("Origin", f"//{request.host}")).netloc.lower()
    is_own = origin and origin in (request.host.lower(), _split(home).netloc.lower())
    if not is_own or site not in ("same-origin", "none"):
        return "Another site may not change anything here."
    return ""


def _split(address: str) -> SplitResult:
    """Return the parts of an address; a broken one, and `null`, have no host."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")
