"""The web page, as a process sees it: its settings, and how it is served."""

from __future__ import annotations

import ipaddress
import logging
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bot.domain import Finding
from bot.errors import CannotStart, StoreUnavailable
from bot.platform_spec import Connected, PlatformSpec, Process
from bot.proxy import is_loopback
from config.settings import PlatformSettings, Settings, two_ways
from config.variables import (
    IdForm,
    checked_address,
    host_name,
    like,
    port_number,
    setting,
    word,
    words,
)
from config.variables import (
    url as address,
)

if TYPE_CHECKING:
    from aiohttp import web

    from adapters.web.follower import Follower
    from adapters.web.sign_in import SignInMethods

log = logging.getLogger(__name__)

_password = like(".{8,}", "is too easy to guess: take at least 8 characters")
_header = like("[A-Za-z0-9-]{1,100}", "is not the name of a header")


def _issuer(text: str) -> str:
    parts = checked_address(text, ("http", "https"))
    is_here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not is_here:
        raise ValueError("does not begin with https://: anybody on the way could sign in")
    return text


def _addresses(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_address(one)) for one in words(text))
    except ValueError:
        raise ValueError("is not an IP address, or several with commas between") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSettings(PlatformSettings):
    """The variables WEB_*; without a way to sign in, only this machine may use the page."""

    name: ClassVar[str] = "web"
    needs: ClassVar[tuple[tuple[str, str], ...]] = (
        ("oidc_issuer", "oidc_client_id"),
        ("oidc_issuer", "url"),
        ("oidc_client_id", "oidc_issuer"),
    )

    host: str = setting(
        "127.0.0.1",
        host_name,
        "address for the web page; another than this machine's own needs a way to sign in",
    )
    port: int = setting(5006, port_number, "port of the web page; 0 means any")
    url: str = setting(
        "",
        address("http", "https"),
        "address of the page as people see it, if a proxy serves it",
    )
    password: str = setting(
        "", _password, "a password for the web page, the same for all people", secret=True
    )
    oidc_issuer: str = setting(
        "",
        _issuer,
        "OpenID Connect: the provider at which people of the web page sign in; needs WEB_URL",
    )
    oidc_client_id: str = setting("", word, "the page's name at that provider")
    oidc_client_secret: str = setting(
        "", word, "the page's secret at that provider, if it has one", secret=True
    )
    proxy_header: str = setting(
        "", _header, "header in which a proxy before the web page names the person"
    )
    proxy_address: tuple[str, ...] = setting(
        (),
        _addresses,
        "addresses of proxies before the web page, with commas between; empty: only this machine"
        " may name people",
    )

    @property
    def is_configured(self) -> bool:
        """Whether people have a way to sign in."""
        return bool(self.password or self.proxy_header or self.oidc_issuer)

    @property
    def is_closed(self) -> bool:
        """Whether other machines could reach the page, and nobody there could sign in."""
        return not self.is_configured and not is_loopback(self.host)

    def ports(self) -> Mapping[str, tuple[str, int]]:
        """Return the address of the page."""
        return {"WEB_PORT": (self.host, self.port)}

    def lacks(self) -> Iterator[str]:
        """Yield that there is no way to sign in."""
        if self.is_closed:
            yield (
                f"WEB_HOST={self.host} is open to other machines: set WEB_PASSWORD, "
                "WEB_OIDC_ISSUER or WEB_PROXY_HEADER, so that the page knows who may use it"
            )

    def mistakes(self, settings: Settings) -> Iterator[str]:
        """Yield two ways to sign in, and a proxy without any."""
        ways = {
            "WEB_PASSWORD": self.password,
            "WEB_OIDC_ISSUER": self.oidc_issuer,
            "WEB_PROXY_HEADER": self.proxy_header,
        }
        yield from two_ways([name for name, value in ways.items() if value], "to sign in")
        if self.proxy_address and not self.is_configured:
            yield "WEB_PROXY_ADDRESS needs WEB_PROXY_HEADER, or another way to sign in, beside it"


@asynccontextmanager
async def _connect(process: Process) -> AsyncIterator[Connected]:
    from adapters.live import LivePlatform

    settings, own = process.settings, WebSettings.of(process.settings)
    platform = LivePlatform(
        "web", store=process.store, announces=True, remembers=settings.remembers
    )
    if "web" not in process.roles:
        yield Connected(platform)
        return
    app, follower = await _open_pages(process)
    async with AsyncExitStack() as stack:
        try:
            serving = process.serve_pages(app, host=own.host, port=own.port)
            found = await stack.enter_async_context(serving)
        except OSError as error:
            where = f"WEB_PORT={own.port} on WEB_HOST={own.host}"
            if process.need_all:
                raise CannotStart(f"{where} cannot be used: {error}") from error
            log.warning("The web page is not served: %s cannot be used: %s", where, error)
            process.notices.append(
                f"There is no page for your browser: port {own.port} is taken."
                " Set WEB_PORT to another number, or to 0 for any."
            )
            yield Connected(platform, follower.run)
        else:
            log.info("The page is at %s", found)
            process.notices.append(f"The same in your browser: {found}")
            yield Connected(platform, follower.run, lambda: 0.0)


async def _open_pages(process: Process) -> tuple[web.Application, Follower]:
    from adapters.web.server import open_pages

    settings, own = process.settings, WebSettings.of(process.settings)
    try:
        return await open_pages(
            store=process.store,
            intake=process.intake,
            access=_methods(own),
            keep_seconds=settings.keep_seconds,
            remembers=settings.remembers,
            about={
                "model": process.model,
                "feedback": settings.rates(usual=True),
                "kept_days": settings.history_days,
                "demo": process.is_demo,
            },
            home=own.url,
            trust=process.trust,
        )
    except StoreUnavailable as error:
        raise CannotStart(str(error)) from error


def _methods(own: WebSettings) -> SignInMethods:
    from adapters.web.sign_in import SignInMethods

    provider = None
    if own.oidc_issuer:
        try:
            from adapters.web.oidc import OpenIdConnect
        except ImportError as error:
            raise CannotStart(
                "WEB_OIDC_ISSUER needs joserfc: pip install -r requirements-web.txt"
            ) from error
        provider = OpenIdConnect(
            issuer=own.oidc_issuer,
            client_id=own.oidc_client_id,
            client_secret=own.oidc_client_secret,
            home=own.url,
        )
    return SignInMethods(
        password=own.password,
        oidc=provider,
        proxy_header=own.proxy_header,
        proxy_addresses=own.proxy_address,
    )


def _findings(settings: Settings) -> Iterator[Finding]:
    own = WebSettings.of(settings)
    if own.is_closed:
        text = f"There is no web page on WEB_HOST={own.host}: nobody could sign in"
        cure = "if you want the page, set WEB_PASSWORD, WEB_OIDC_ISSUER or WEB_PROXY_HEADER"
        yield Finding("Settings", text, cure)
    if own.password and settings.questions_per_day is settings.tokens_per_day is None:
        text = "Anybody with WEB_PASSWORD can use the model without limit"
        yield Finding("Settings", text, "set QUESTIONS_PER_DAY, which counts for each browser")


PLATFORM = PlatformSpec(
    title="The web page",
    where="a web page",
    settings=WebSettings,
    connect=_connect,
    ids={"person": IdForm("[0-9a-f]{32}", "")},
    ids_help="those of the page have 32",
    local=True,
    credential="WEB_PASSWORD",
    # The page is for the person at the terminal, not for a script behind a pipe.
    served_alone=lambda: sys.stdin.isatty(),
    findings=_findings,
)
