"""Security headers of all responses, and the checks that reject forged requests."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from aiohttp import web

from bot.proxy import is_loopback

# Forms of other sites cannot send this header, and scripts need a CORS preflight.
WRITE_HEADER = "X-Parley"
SAFE = ("GET", "HEAD")
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


def refusal(request: web.Request, *, way: str, home: str = "") -> str:
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
    if request.method in SAFE:
        return ""
    if WRITE_HEADER not in request.headers:
        return f"A change needs the header {WRITE_HEADER}."
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
