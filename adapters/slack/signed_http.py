"""Slack's signed HTTP requests, as bolt's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_sdk.signature import SignatureVerifier

from adapters.slack.listeners import UNREADABLE

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_TIMESTAMP, _SIGNATURE = "X-Slack-Request-Timestamp", "X-Slack-Signature"
_FRESH = 300.0  # seconds (docs: "Verifying requests from Slack")
_BODY_WITHIN = 3.0  # seconds; Slack itself waits no longer for the answer


def signed_handler(app: AsyncApp, *, signing_secret: str) -> Handler:
    """Return a handler that lets only what Slack signed, lately and readably, reach the app."""
    verifier = SignatureVerifier(signing_secret)

    async def handle(request: web.Request) -> web.StreamResponse:
        # Before anything is read: a stranger's body may be long, or never end.
        if not _is_fresh(request):
            return web.Response(status=401)
        try:
            async with asyncio.timeout(_BODY_WITHIN):
                body = await request.read()
        except TimeoutError:
            return web.Response(status=408)
        if not _is_signed(verifier, request, body):
            return web.Response(status=401)
        try:
            answer = await app.async_dispatch(_bolt_request(request, body))
        except UNREADABLE as error:
            log.warning("Slack sent a body that cannot be read: %s", type(error).__name__)
            return web.Response(status=400)
        return await to_aiohttp_response(answer)

    return handle


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
    asked = AsyncBoltRequest(
        body=body.decode(), query=request.query_string, headers=dict(request.headers)
    )
    if not isinstance(asked.body, dict) or not asked.body:
        raise ValueError("the body is no object, or an empty one")
    return asked
