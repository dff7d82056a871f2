"""The way between this machine and an address."""

from __future__ import annotations

import ipaddress
import logging
import urllib.request
from urllib.parse import urlsplit

log = logging.getLogger(__name__)


def proxy_for(url: str) -> str | None:
    """Return the address of a URL's proxy by HTTPS_PROXY, HTTP_PROXY and NO_PROXY.

    None stands between two programs of one machine.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(parts.scheme)


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
