"""The workspace and the bot in it, and the names of its people and channels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.cache import ExpiringCache, Refusals
from adapters.slack.errors import TokenRefused, code_of, missing_scopes, translated
from adapters.slack.limits import Limits
from adapters.slack.markup import mentioned, readable
from bot.domain import Json
from bot.errors import CannotStart, SurfaceError, Unreachable, WriteDelayed, WriteFailed

_KNOWN_SECONDS, _UNKNOWN_SECONDS = 3600.0, 60.0
_MOST_NAMES = 20  # of people, and of channels, mentioned in one message
_CHANNEL_SCOPE = "channels:read"  # docs: conversations.info; the manifest leaves it out


@dataclass(frozen=True, slots=True)
class Identity:
    """The workspace and the bot in it: people mention `user`, messages are sent by `bot`.

    `enterprise` is the workspace's organization, empty if there is none. If the app `is_org_wide`,
    its token is valid in each workspace of the organization.
    """

    team: str
    user: str
    bot: str
    name: str
    enterprise: str = ""
    is_org_wide: bool = False

    def place_of(self, team: str) -> dict[str, Json]:
        """Return what a turn's place records of its person's workspace: nothing if it is ours."""
        return {"team": team} if team not in ("", self.team) else {}


async def identify(client: AsyncWebClient) -> Identity:
    """Ask Slack whose token this is.

    Raises CannotStart if Slack refuses it, Unreachable if Slack cannot be reached.
    """
    try:
        async with translated():
            answer = await client.auth_test()
    except SurfaceError as error:
        raise cannot_start("SLACK_BOT_TOKEN", client, error) from error
    if not answer.get("bot_id"):
        raise CannotStart("SLACK_BOT_TOKEN is not a bot token: those begin with xoxb-")
    return Identity(
        team=str(answer["team_id"]),
        user=str(answer["user_id"]),
        bot=str(answer["bot_id"]),
        name=str(answer["user"]),
        enterprise=str(answer.get("enterprise_id") or ""),
        is_org_wide=answer.get("is_enterprise_install") is True,
    )


def cannot_start(variable: str, client: AsyncWebClient, error: SurfaceError) -> CannotStart:
    """Return an error that names the variable that Slack refuses, or says that Slack is away."""
    if isinstance(error, TokenRefused) or not isinstance(error, WriteDelayed | WriteFailed):
        return CannotStart(f"Slack refuses {variable}: {code_of(error)}")
    return Unreachable(f"Slack cannot be reached at {client.base_url}: {error}")


class Directory:
    """Display names of people and public channels, cached for an hour.

    A person without a name is called by the id. So is a channel that is private, or if the app
    lacks the scope channels:read.
    """

    def __init__(self, client: AsyncWebClient, *, limits: Limits) -> None:
        self._client = client
        self._timeout = limits.name_timeout
        self._names: ExpiringCache[str] = ExpiringCache()
        self._channels_refused = Refusals(seconds=limits.refusals_remembered)

    def cached(self, id_: str) -> str:
        """Return a name from the cache; empty if Slack has to be asked."""
        return self._names.get(id_) or ""

    async def name(self, user: str) -> str:
        """Return a person's display name; the id if Slack does not answer in time."""
        return await self._resolve(user, self._person_name)

    async def names(self, users: Collection[str]) -> dict[str, str]:
        """Return the display names of people; the ids of those beyond the most that are asked."""
        unknown = [user for user in dict.fromkeys(users) if not self.cached(user)]
        await asyncio.gather(*map(self.name, unknown[:_MOST_NAMES]))
        return {user: self.cached(user) or user for user in users}

    async def readable(self, text: str, *, bot: str) -> str:
        """Return a message as its author typed it, without mentions of the user `bot`."""
        users = [user for user in mentioned(text, "@") if user != bot][:_MOST_NAMES]
        channels = mentioned(text, "#")[:_MOST_NAMES]
        names = await asyncio.gather(*map(self.name, users), *map(self._channel, channels))
        return readable(text, bot=bot, names=dict(zip([*users, *channels], names, strict=True)))

    async def _channel(self, channel: str) -> str:
        if self._channels_refused.cover():
            return self.cached(channel) or channel
        return await self._resolve(channel, self._channel_name)

    async def _resolve(self, id_: str, request: Callable[[str], Awaitable[str]]) -> str:
        if name := self.cached(id_):
            return name
        seconds = _KNOWN_SECONDS
        try:
            async with translated(self._timeout):
                name = await request(id_)
        except SurfaceError as error:
            seconds = _UNKNOWN_SECONDS
            if _CHANNEL_SCOPE in missing_scopes(error):
                self._channels_refused.add()
        self._names.put(id_, name or id_, seconds=seconds)
        return name or id_

    async def _person_name(self, user: str) -> str:
        person = (await self._client.users_info(user=user))["user"]
        profile = person.get("profile") or {}
        names = (profile.get("display_name"), profile.get("real_name"), person.get("name"))
        return next((name for name in names if isinstance(name, str) and name), "")

    async def _channel_name(self, id_: str) -> str:
        channel = (await self._client.conversations_info(channel=id_))["channel"]
        # Only a public channel's name is for everybody in the workspace.
        name = channel.get("name") if channel.get("is_private") is False else None
        return name if isinstance(name, str) else ""
