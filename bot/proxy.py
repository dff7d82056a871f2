"""Proxies, and warnings about unencrypted secrets."""

from __future__ import annotations

import ipaddress
import logging
import re
import urllib.request
from urllib.parse import urlsplit

from bot.errors import CannotStart

log = logging.getLogger(__name__)

# Addresses that stand for all of this machine, and its own that answers there.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


def proxy_for(url: str) -> str | None:
    """Return the proxy for a URL by HTTPS_PROXY, HTTP_PROXY and NO_PROXY, or None.

    Loopback addresses have none. Raises CannotStart if the proxy's address is unusable.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy:
        return None
    # curl and others accept an address without a scheme.
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if not _is_http_address(proxy):
        # The address is not shown: it may contain a password.
        raise CannotStart(f"{parts.scheme.upper()}_PROXY is not the address of an HTTP proxy")
    return proxy


def warn_if_readable(secret: str, *, by: str, url: str) -> None:
    """Warn if `secret` is sent unencrypted to another machine because of the variable `by`."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "ws") and not is_loopback(parts.hostname or ""):
        log.warning(
            "%s is sent to %s unencrypted, so others can read it: let %s begin with %ss://",
            *(secret, parts.hostname, by, parts.scheme),
        )


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_http_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
        # The resolver raises UnicodeError for a host that cannot exist.
        (parts.hostname or "").encode("idna")
    except ValueError:
        return False
    is_printable = re.fullmatch(r"[!-~]+", text)
    return bool(is_printable and parts.hostname and parts.scheme in ("http", "https"))
