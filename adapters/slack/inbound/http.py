"""Checks Slack's signed HTTP requests and passes them to bolt."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_sdk.signature import SignatureVerifier

from adapters.slack.inbound.app import Dispatch, parse_object
from bot.errors import CannotStart

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SIGNED = ("Request-Timestamp", "Signature")  # headers (docs: "Verifying requests from Slack")


def signed_handler(dispatch: Dispatch, *, signing_secret: str) -> Handler:
    """Return a handler that passes on only bodies that Slack signed recently.

    Raises CannotStart without a secret.
    """
    if not signing_secret.strip():
        raise CannotStart("SLACK_SIGNING_SECRET is required to receive events over HTTP")
    verifier = SignatureVerifier(signing_secret)

    async def handle(request: web.Request) -> web.StreamResponse:
        # The server limits size, time and number of the bodies, and unpacks nothing.
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            # Returned, not raised: the traceback would keep the body in memory.
            return web.Response(status=413)
        if not _is_signed(verifier, request, body):
            return web.Response(status=401)
        if not (parsed := _parse(request, body.decode())):
            log.warning("Slack sent a body that is not an object")
            return web.Response(status=400)
        return await to_aiohttp_response(await dispatch(parsed))

    return handle


def _is_signed(verifier: SignatureVerifier, request: web.Request, body: bytes) -> bool:
    """Whether Slack signed the body in the last five minutes."""
    signed_at, signature = (request.headers.get(f"X-Slack-{it}") for it in _SIGNED)
    try:
        return verifier.is_valid(body, signed_at, signature)
    except (ValueError, TypeError, OverflowError):
        # slack-sdk 3.47: the body is not UTF-8, the signature not ASCII, or the time no number.
        return False


def _parse(request: web.Request, text: str) -> dict[str, object]:
    """Return the object in a body, or the fields of a form; empty if there are none."""
    if request.content_type == "application/json" or text.startswith("{"):
        return parse_object(text)
    # Bolt 1.30 searches the raw body for "payload", which a question may contain.
    form: dict[str, object] = dict(parse_qsl(text, keep_blank_values=True))
    return parse_object(str(form["payload"])) if "payload" in form else form
