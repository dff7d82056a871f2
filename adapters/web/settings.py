"""The settings of the web page."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from bot.domain import Finding
from bot.proxy import is_loopback
from config.settings import PlatformSettings, Settings, two_ways
from config.variables import (
    checked_address,
    host_name,
    like,
    one_of,
    port_number,
    setting,
    switch,
    url,
    word,
    words,
)

_password = like(".{8,}", "is too easy to guess: take at least 8 characters")
_url = url("http", "https")
_header = like("[A-Za-z0-9-]{1,100}", "is not the name of a header")


def _issuer(text: str) -> str:
    parts = checked_address(text, ("http", "https"))
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
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
    url: str = setting("", _url, "address of the page as people see it, if a proxy serves it")
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
    titles: bool = setting(
        True,
        switch,
        "whether the model writes a title for each conversation of the web page, which costs a"
        " further short request",
    )
    shares: Literal["off", "people", "anyone"] = setting(
        "people",
        one_of(("off", "people", "anyone")),
        "who can read a conversation by a link that its person has made: off, people (those who"
        " are signed in) or anyone",
    )

    @property
    def way(self) -> Literal["", "proxy", "oidc", "password"]:
        """How people sign in; empty if everybody at this machine may use the page."""
        if self.proxy_header:
            return "proxy"
        if self.oidc_issuer:
            return "oidc"
        return "password" if self.password else ""

    @property
    def is_configured(self) -> bool:
        """Whether people have a way to sign in."""
        return bool(self.way)

    @property
    def is_closed(self) -> bool:
        """Whether other machines could reach the page, and nobody there could sign in."""
        return not self.way and not is_loopback(self.host)

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
        if self.proxy_address and not self.way:
            yield "WEB_PROXY_ADDRESS needs WEB_PROXY_HEADER, or another way to sign in, beside it"


def findings(settings: Settings) -> Iterator[Finding]:
    """Yield that nobody can use the page, or everybody without limit."""
    own = WebSettings.of(settings)
    if own.is_closed:
        text = f"There is no web page on WEB_HOST={own.host}: nobody could sign in"
        cure = "if you want the page, set WEB_PASSWORD, WEB_OIDC_ISSUER or WEB_PROXY_HEADER"
        yield Finding("Settings", text, cure)
    if own.password and settings.questions_per_day is settings.tokens_per_day is None:
        text = "Anybody with WEB_PASSWORD can use the model without limit"
        yield Finding("Settings", text, "set QUESTIONS_PER_DAY, which counts for each browser")
