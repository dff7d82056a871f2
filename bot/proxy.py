"""The way between this machine and an address."""

from __future__ import annotations

import ipaddress
import logging
import urllib.request
from urllib.parse import urlsplit

from bot.errors import CannotStart
from config.settings import checked_address

log = logging.getLogger(__name__)


def proxy_for(url: str) -> str | None:
    """Return the address of a URL's proxy by HTTPS_PROXY, HTTP_PROXY and NO_PROXY.

    None stands between two programs of one machine. CannotStart if there is one and no client
    could use it.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy:
        return None
    # curl and others take an address without a scheme.
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        checked_address(proxy, ("http", "https"))
    except ValueError as error:
        # It is not shown: it may hold a password.
        raise CannotStart(f"{parts.scheme.upper()}_PROXY {error}") from None
    return proxy


def warn_if_readable(secret: str, *, by: str, url: str) -> None:
    """Warn if the variable `by` has the variable `secret` sent to another machine unencrypted."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "ws") and not _is_loopback(parts.hostname or ""):
        log.warning(
            "%s is sent to %s unencrypted, where others can read it: let %s begin with %ss://",
            *(secret, parts.hostname, by, parts.scheme),
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
