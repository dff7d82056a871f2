"""The pages by which a workspace installs the app: to Slack, and back with a code."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from html import escape
from typing import Any

from aiohttp import web
from slack_sdk.oauth import AuthorizeUrlGenerator, OAuthStateUtils

from adapters.slack.installed.installations import Installation, Installations
from adapters.slack.manifest import SCOPES
from adapters.slack.settings import INSTALL_PATH, REDIRECT_PATH, SlackSettings
from bot.errors import StoreUnavailable, SurfaceError

log = logging.getLogger(__name__)

_LONGEST = 2000  # characters of a code or a state; Slack's and ours have a few hundred
_AT_ONCE = 8  # codes that are exchanged: strangers can make them up, with a good state
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:20vh auto;padding:0 1rem;
color-scheme:light dark}}</style>
<h1>{title}</h1><p>{text}</p>
"""
_AGAIN = f'<a href="{INSTALL_PATH}">Begin again</a>, in the same browser and within ten minutes.'
_HEADERS = {
    # The address has a code in it.
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class InstallPages:
    """Sends people to Slack with a state, and takes the code with which they come back.

    A state is good once, for ten minutes, and in the browser that got it. `exchange` exchanges a
    code (docs: oauth.v2.access) and raises SurfaceError. `on_installed` is called with what was
    stored, and may raise StoreUnavailable.
    """

    def __init__(
        self,
        own: SlackSettings,
        installations: Installations,
        *,
        exchange: Callable[[str], Awaitable[Mapping[str, Any]]],
        on_installed: Callable[[Installation], Awaitable[None]],
    ) -> None:
        self._installations = installations
        self._exchange = exchange
        self._on_installed = on_installed
        self._exchanges = asyncio.Semaphore(_AT_ONCE)
        self._states = OAuthStateUtils()
        self._address = AuthorizeUrlGenerator(
            client_id=own.client_id, redirect_uri=own.public(REDIRECT_PATH), scopes=[*SCOPES]
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for one of the pages."""
        if request.path == INSTALL_PATH:
            state = self._installations.issue_state()
            # Set by hand, as bolt does: a person comes back from another site.
            cookie = self._states.build_set_cookie_for_new_state(state)
            there = {"Location": self._address.generate(state), "Set-Cookie": cookie}
            return web.Response(status=302, headers={**_HEADERS, **there})
        try:
            return await self._come_back(request.query, request.headers.get("Cookie", ""))
        except StoreUnavailable as error:
            log.warning("Cannot store an installation: %s", error)
            text = "The installation could not be stored. Please try again in a minute: "
            return _page(503, "Not installed", text + _AGAIN)

    async def _come_back(self, query: Mapping[str, str], cookies: str) -> web.Response:
        state, code = query.get("state", "")[:_LONGEST], query.get("code", "")[:_LONGEST]
        if not state or not self._states.is_valid_browser(state, {"cookie": cookies}):
            return _page(400, "This link is not valid any more", _AGAIN)
        # Nothing is stored before there is a code.
        if not code:
            log.info("An installation was refused at Slack")
            return _page(200, "Not installed", f"Slack was told not to. {_AGAIN}")
        if self._exchanges.locked():
            text = "Too many are being installed. Please load this page again in a minute."
            return _page(503, "Not installed", text)
        async with self._exchanges:
            return await self._install(state, code)

    async def _install(self, state: str, code: str) -> web.Response:
        seconds = self._states.expiration_seconds
        if not await self._installations.use_state(state, seconds=seconds):
            return _page(400, "This link is not valid any more", _AGAIN)
        asked_at = time.time()
        try:
            installation = Installation.of(await self._exchange(code), asked_at=asked_at)
        except (SurfaceError, KeyError) as error:
            log.warning("Slack gives no token for an installation: %s", error)
            return _page(502, "Not installed", f"Slack did not accept it. {_AGAIN}")
        await self._installations.add(installation)
        await self._on_installed(installation)
        log.info("The app was installed in %s", installation.id)
        where = escape(installation.name or installation.id)
        text = f"The bot is in {where} now. In Slack, write to it, or invite it into a channel."
        return _page(200, "Installed", text)


def _page(status: int, title: str, text: str) -> web.Response:
    body = _PAGE.format(title=title, text=text)
    return web.Response(status=status, text=body, content_type="text/html", headers=_HEADERS)
