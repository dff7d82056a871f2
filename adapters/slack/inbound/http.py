"""Slack's signed HTTP requests, as bolt's."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_sdk.signature import SignatureVerifier

from adapters.slack.inbound.app import UNREADABLE

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_TIMESTAMP, _SIGNATURE = "X-Slack-Request-Timestamp", "X-Slack-Signature"
_FRESH = 300.0  # seconds (docs: "Verifying requests from Slack")
_PLAIN = ("", "identity")  # Slack compresses nothing
BODY_SECONDS = 3.0  # Slack itself waits no longer for the answer
MOST_BODIES = 32  # Slack's arrive with their headers: what is read for long is a stranger's
_RETRY_SECONDS = "1"
_TOLD_SECONDS = 60.0  # between two lines that tell of too many


def signed_handler(
    app: AsyncApp,
    *,
    signing_secret: str,
    most_bodies: int = MOST_BODIES,
    body_seconds: float = BODY_SECONDS,
) -> Handler:
    """Return a handler that lets only what Slack signed, lately and readably, reach the app."""
    verifier = SignatureVerifier(signing_secret)
    bodies = _Bodies(most=most_bodies, seconds=body_seconds)

    async def handle(request: web.Request) -> web.StreamResponse:
        # Before anything is read: a stranger's body may be long, or never end.
        if request.headers.get("Content-Encoding", "").strip().lower() not in _PLAIN:
            return web.Response(status=415)
        if not _is_fresh(request):
            return web.Response(status=401)
        body = await bodies.read(request)
        if isinstance(body, web.Response):
            return body
        if not _is_signed(verifier, request, body):
            return web.Response(status=401)
        try:
            answer = await app.async_dispatch(_bolt_request(request, body))
        except UNREADABLE as error:
            log.warning("Slack sent a body that cannot be read: %s", type(error).__name__)
            return web.Response(status=400)
        return await to_aiohttp_response(answer)

    return handle


class _Bodies:
    """Reads bodies before it is known who sent them: a bounded number, each for a bounded time.

    Of too many, the one that has been read for longest is given up.
    """

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._reading: dict[asyncio.Timeout, None] = {}  # the oldest first
        self._tell_at = 0.0  # by the loop's clock

    async def read(self, request: web.Request) -> bytes | web.Response:
        """Return the body, or the refusal if it takes too long or there are too many."""
        self._make_room(asyncio.get_running_loop().time())
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                self._reading[limit] = None
                return await request.read()
        except TimeoutError:
            if limit in self._reading:
                return web.Response(status=408)
            # Slack sends it again.
            return web.Response(status=503, headers={"Retry-After": _RETRY_SECONDS})
        except web.HTTPRequestEntityTooLarge:
            # Returned and not raised: with its traceback the body would stay in memory for long.
            return web.Response(status=413)
        finally:
            self._reading.pop(limit, None)

    def _make_room(self, now: float) -> None:
        if len(self._reading) < self._most:
            return
        oldest = next(iter(self._reading))
        del self._reading[oldest]
        if not oldest.expired():
            oldest.reschedule(now)
        if now >= self._tell_at:
            self._tell_at = now + _TOLD_SECONDS
            log.warning(
                "Slack's address gets more than %d bodies at once: the oldest ones are given up",
                self._most,
            )


def _is_fresh(request: web.Request) -> bool:
    try:
        sent_at = int(request.headers[_TIMESTAMP])
    except (KeyError, ValueError):
        return False
    # Whole numbers alone: a float cannot hold what 310 digits say.
    return _SIGNATURE in request.headers and abs(int(time.time()) - sent_at) <= _FRESH


def _is_signed(verifier: SignatureVerifier, request: web.Request, body: bytes) -> bool:
    try:
        return verifier.is_valid(body, request.headers[_TIMESTAMP], request.headers[_SIGNATURE])
    except (ValueError, TypeError):
        # slack-sdk 3.47: a body that is no UTF-8, a signature that is no ASCII.
        return False


def _bolt_request(request: web.Request, body: bytes) -> AsyncBoltRequest:
    told = _read(request, body.decode())
    if not isinstance(told, dict) or not told:
        raise ValueError("the body is no object, or an empty one")
    # Bolt 1.30 takes a body that has been read from sockets only.
    return AsyncBoltRequest(body=told, mode="socket_mode")


def _read(request: web.Request, text: str) -> object:
    # Bolt 1.30 finds nothing in a form where anybody says "payload", but no field has this name.
    if request.content_type == "application/json" or text.startswith("{"):
        return json.loads(text)
    form = dict(parse_qsl(text, keep_blank_values=True))
    return json.loads(form["payload"]) if "payload" in form else form
