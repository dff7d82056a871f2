"""The token of one installation, refreshed in time by one process at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from adapters.slack.errors import BAD_TOKEN, TokenRefused, code_of, translated
from adapters.slack.installed.installations import Installation, Installations, Undecipherable
from bot.concurrency import BackgroundTasks, Backoff
from bot.errors import ParleyError, PlaceGone, StoreUnavailable, SurfaceError, WriteFailed

log = logging.getLogger(__name__)

Refresh = Callable[[str], Awaitable[Mapping[str, Any]]]

# A refresh token that Slack refuses for good (docs: oauth.v2.access, "Errors").
_FINAL = {"account_inactive", "invalid_refresh_token", "token_revoked"}
_FINAL_PAUSE = 600.0  # seconds: another process may still save what it got for it
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 60.0  # between two attempts
_PARTS = 10  # attempts in what is left of a token's life
_LOCKED_PAUSE = 0.1
_SAVE = Backoff(first=0.2, longest=5.0)


class InstalledToken:
    """Hands out the token of an installation, and asks the store only when it is due.

    It is refreshed at half of its life, while the old one is used; `refresh` exchanges a refresh
    token (docs: oauth.v2.access) and raises SurfaceError. Slack takes each refresh token once: so
    one process at a time does it, under a lock, and a new token is saved before it is used. `cure`
    tells the operator how to install the app again.
    """

    def __init__(
        self,
        id_: str,
        installations: Installations,
        *,
        refresh: Refresh,
        tasks: BackgroundTasks,
        cure: str,
    ) -> None:
        self._id = id_
        self._installations = installations
        self._refresh = refresh
        self._tasks = tasks
        self._cure = cure
        self._found: Installation | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._refused = ""  # the token that Slack calls expired before its time
        # Why the last refresh failed, of which installation, and when it is tried again.
        self._error: SurfaceError | None = None
        self._failed, self._retry_at = "", 0.0

    async def current(self) -> str:
        """Return the token.

        Raises PlaceGone if the app is not installed any more, TokenRefused if the token has expired
        and Slack gives no other, and WriteFailed if it cannot be read or refreshed now.
        """
        if self._found is None or self._found.has_expired:
            await self._read()
        if self._found and self._is_due(self._found):
            renewing = self._renew()
            if self._found.has_expired:
                await asyncio.shield(renewing)
        if self._found is None:
            raise self._gone()
        if self._found.has_expired:
            raise self._error or WriteFailed(f"the token of {self._id} has expired")
        return self._found.token

    async def another(self, refused: str, code: str) -> str:
        """Return the token that the store has in place of one that Slack refused; "" if none.

        Raises as `current`.
        """
        if self._found and self._found.token == refused:
            await self._read()
            if code == "token_expired":
                self._refused = refused
                await asyncio.shield(self._renew())
        token = await self.current()
        return token if token != refused else ""

    async def _read(self) -> None:
        try:
            self._found = await self._installations.read(self._id)
        except (StoreUnavailable, Undecipherable) as error:
            raise WriteFailed(str(error)) from error

    def _is_due(self, found: Installation) -> bool:
        is_refused = bool(found.refresh_token) and found.token == self._refused
        waits = found.sealed == self._failed and time.time() < self._retry_at
        return (found.is_due or is_refused) and not waits

    def _renew(self) -> asyncio.Task[None]:
        if self._renewing is None:
            self._renewing = self._tasks.start(self._renew_until_done())
        return self._renewing

    async def _renew_until_done(self) -> None:
        try:
            while self._found and self._is_due(self._found):
                self._found = await self._renewed(self._found)
            self._error = None
        except (SurfaceError, StoreUnavailable, Undecipherable) as error:
            self._error = error if isinstance(error, TokenRefused) else WriteFailed(str(error))
            self._failed = self._found.sealed if self._found else ""
            self._retry_at = time.time() + self._pause(error)
        finally:
            self._renewing = None

    async def _renewed(self, old: Installation) -> Installation | None:
        """Refresh a token, or return what the store has by now. Raises SurfaceError."""
        owner = uuid4().hex
        if not await self._installations.lock(self._id, owner):
            # Another process does it. The old token is good meanwhile, unless it has expired.
            await asyncio.sleep(_LOCKED_PAUSE)
            return await self._installations.read(self._id)
        try:
            found = await self._installations.read(self._id)
            if found is None or not self._is_due(found):
                return found
            asked_at = time.time()
            try:
                answer = await self._refresh(found.refresh_token)
            except SurfaceError as error:
                return await self._not_refreshed(found, error)
            return await self._saved(found, found.with_token(answer, asked_at=asked_at), owner)
        finally:
            with suppress(StoreUnavailable):
                await self._installations.unlock(self._id, owner)

    async def _saved(self, old: Installation, new: Installation, owner: str) -> Installation | None:
        """Save a new token, however long the store is away: there is no other way to get it."""
        pauses = _SAVE.pauses()
        while True:
            try:
                # If the app was installed anew or uninstalled meanwhile, that is what counts.
                saved = await self._installations.replace(old, new, lock=owner)
                return saved or await self._installations.read(self._id)
            except StoreUnavailable as error:
                log.warning("Cannot save the new token of %s, will retry: %s", self._id, error)
                await asyncio.sleep(next(pauses))

    async def _not_refreshed(self, old: Installation, error: SurfaceError) -> Installation | None:
        """Return what another process has saved meanwhile; else raise the error."""
        now = await self._installations.read(self._id)
        if now is None or now.sealed != old.sealed:
            return now
        if code_of(error) not in _FINAL:
            log.warning("Cannot refresh the token of %s, will retry: %s", self._id, error)
            raise error
        log.error(
            "Slack refuses to refresh the token of %s (%s), which ends in %d s: %s",
            *(self._id, code_of(error), max(0, old.expires_at - time.time()), self._cure),
        )
        raise TokenRefused(f"{error}: {self._cure}") from error

    def _pause(self, error: ParleyError) -> float:
        if isinstance(error, TokenRefused):
            return _FINAL_PAUSE
        left = self._found.expires_at - time.time() if self._found else 0.0
        asked = error.retry_after if isinstance(error, SurfaceError) else 0.0
        return max(min(left / _PARTS, _LONGEST_PAUSE), asked, _SHORTEST_PAUSE)

    def _gone(self) -> PlaceGone:
        return PlaceGone(f"the app is not installed in {self._id}")


class InstalledClient(AsyncWebClient):
    """Slack's client, with the current token of an installation in each request.

    Beside what Slack's own raises, requests raise what `InstalledToken.current` does.
    """

    def __init__(self, installed: InstalledToken, url: str, session: aiohttp.ClientSession) -> None:
        # The default handler would resend a message that may have arrived.
        super().__init__(None, url, session=session, retry_handlers=[])
        self._installed = installed

    async def api_call(self, api_method: str, **given: Any) -> AsyncSlackResponse:
        """Call a method; again, if Slack refuses the token and the store has another one."""
        # It is used before anything else can run.
        self.token = used = await self._installed.current()
        try:
            return await super().api_call(api_method, **given)
        except SlackApiError as error:
            if (code := code_of(error)) not in BAD_TOKEN:
                raise
            if not (other := await self._installed.another(used, code)):
                raise
            self.token = other
            return await super().api_call(api_method, **given)


async def exchange(
    client: AsyncWebClient, *, client_id: str, client_secret: str, **given: str
) -> Mapping[str, Any]:
    """Exchange a code or a refresh token for a token (docs: oauth.v2.access).

    Raises SurfaceError.
    """
    async with translated():
        # The method of slack-sdk 3.47 for this uses a class that aiohttp removes.
        headers = {"Authorization": aiohttp.encode_basic_auth(client_id, client_secret)}
        answer = await client.api_call("oauth.v2.access", data=given, headers=headers)
        fields = answer.data
        if not isinstance(fields, dict) or not (
            fields.get("token_type") == "bot" and fields.get("access_token")
        ):
            raise ValueError("it has no bot token")
        return fields
