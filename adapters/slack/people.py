"""What people and channels in a workspace are called."""

from __future__ import annotations

import asyncio
import time

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import scopes_missing, translated
from adapters.slack.markup import channels_in, mentioned, readable
from adapters.slack.refusals import APP, Refusals
from bot.errors import SurfaceError

# An event waits for names, and Slack waits 3 s for the event's acknowledgement.
_PATIENCE = 0.7  # seconds
_KEPT, _KEPT_UNKNOWN = 3600.0, 60.0  # seconds
_CAPACITY = 1000
_MOST_NAMES = 20  # of people, and of channels, mentioned in one message
_SCOPE = "channels:read"  # docs: conversations.info, of public channels; the manifest leaves it out


class People:
    """Display names, remembered for an hour; a person without one is called by the id.

    So is a channel, unless it is public and the app has the scope channels:read.
    """

    def __init__(self, client: AsyncWebClient, *, refusals: Refusals) -> None:
        self._client = client
        self._refusals = refusals  # of channels' names
        self._names: dict[str, tuple[str, float]] = {}

    def known(self, user: str) -> str:
        """Return a name as it is remembered; empty when Slack has to be asked."""
        name, until = self._names.get(user, ("", 0.0))
        return name if time.monotonic() < until else ""

    async def name(self, user: str) -> str:
        """Return a person's display name; the id when Slack does not tell it in time."""
        if name := self.known(user):
            return name
        try:
            async with translated(_PATIENCE):
                answer = await self._client.users_info(user=user)
                name = _display_name(answer["user"])
        except SurfaceError:
            return self._remember(user, user, seconds=_KEPT_UNKNOWN)
        return self._remember(user, name or user, seconds=_KEPT)

    async def readable(self, text: str, *, bot: str) -> str:
        """Return a message as its author typed it, without mentions of the user `bot`."""
        users = [user for user in mentioned(text) if user != bot][:_MOST_NAMES]
        channels = channels_in(text)[:_MOST_NAMES]
        names = await asyncio.gather(*map(self.name, users), *map(self._channel, channels))
        return readable(text, bot=bot, names=dict(zip([*users, *channels], names, strict=True)))

    async def _channel(self, channel: str) -> str:
        name = self.known(channel)
        if name or self._refusals.concern(APP):
            return name or channel
        try:
            async with translated(_PATIENCE):
                answer = await self._client.conversations_info(channel=channel)
                name = _public_name(answer["channel"])
        except SurfaceError as error:
            if _SCOPE in scopes_missing(error):
                self._refusals.note(APP)
            return self._remember(channel, channel, seconds=_KEPT_UNKNOWN)
        return self._remember(channel, name or channel, seconds=_KEPT)

    def _remember(self, user: str, name: str, *, seconds: float) -> str:
        self._names.pop(user, None)
        while len(self._names) >= _CAPACITY:
            del self._names[next(iter(self._names))]
        self._names[user] = (name, time.monotonic() + seconds)
        return name


def _public_name(channel: dict[str, object]) -> str:
    """Return a channel's name; empty unless everybody in the workspace may know it."""
    name = channel.get("name")
    return name if channel.get("is_private") is False and isinstance(name, str) else ""


def _display_name(user: dict[str, object]) -> str:
    profile = user.get("profile")
    told = profile if isinstance(profile, dict) else {}
    names = (told.get("display_name"), told.get("real_name"), user.get("name"))
    return next((name for name in names if isinstance(name, str) and name), "")
