"""One workspace: the bot in it, the names of its people and channels, and its messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import REQUEST_TIMEOUT, TokenRefused, code_of, missing_scopes, translated
from adapters.slack.limits import Limits
from adapters.slack.manifest import SCOPES
from adapters.slack.markup import mentioned, readable
from bot.access.rules import AccessRules
from bot.cache import BoundedCache
from bot.concurrency import BackgroundTasks
from bot.domain import Asker, Attachment, EditBudget, Json, Shape, ThreadKey
from bot.errors import CannotStart, SurfaceError, Unreachable, WriteDelayed, WriteFailed
from bot.proxy import proxy_for
from bot.reply.edit_budget import EditBudgets

log = logging.getLogger(__name__)

Messages = tuple[list[dict[str, object]], str]  # and the cursor of the next page

_KNOWN_SECONDS, _UNKNOWN_SECONDS = 3600.0, 60.0  # cache lifetime of a name, and of its absence
_UNKNOWN_TEAM = "unknown"  # for a person whose workspace Slack does not report
# For messages without a mention, in public channels, private channels and group DMs.
_READ_SCOPES = ("channels:history", "groups:history", "mpim:history")
_APPS = "at https://api.slack.com/apps"
TOKEN_CURES = {
    "SLACK_BOT_TOKEN": f"copy the Bot User OAuth Token (xoxb-…) under OAuth & Permissions {_APPS}",
    "SLACK_APP_TOKEN": "make an app-level token under Basic Information and switch Socket Mode on "
    f"{_APPS}",
}
_MOST_NAMES = 20  # look-ups of people, and of channels, for one message
_PAGE_SIZE = 200  # messages, as Slack recommends (docs: conversations.history, "Pagination")
# A channel with more than a thousand messages since a question, or in five minutes, is not read
# further.
MOST_PAGES = 5
_READS = 50  # requests a minute (docs: Tier 3)
_UPLOADS = 100  # requests a minute (docs: both methods of an upload, Tier 4)


@dataclass(frozen=True, slots=True)
class Workspace:
    """The client of one workspace, and the state that its events and replies share.

    `jobs` are background tasks that handle their own errors and get a grace period at shutdown.
    `signs` are cancelled at once. If answers are `rated`, they have rating buttons. `prompts` are
    titles and messages that Slack suggests in a DM.
    """

    client: AsyncWebClient = field(repr=False)
    identity: Identity
    directory: Directory
    budgets: EditBudgets
    jobs: BackgroundTasks
    limits: Limits
    rated: bool
    prompts: Sequence[tuple[str, str]]
    signs: BackgroundTasks
    # DMs in which the receipt notice was sent recently.
    acknowledged_dms: BoundedCache[str, bool] = field(default_factory=BoundedCache)
    _refused: BoundedCache[str, bool] = field(default_factory=BoundedCache)

    def refuse(self, what: str) -> None:
        """Remember for a while that Slack refuses the app something."""
        self._refused.put(what, True, seconds=self.limits.refusals_remembered)

    def is_refused(self, what: str) -> bool:
        """Whether Slack has refused this lately."""
        return self._refused.get(what) is True

    def budget(
        self,
        kind: str,
        per_minute: int,
        *,
        owes: tuple[EditBudget, ...] = (),
        shape: Shape = "refills",
    ) -> EditBudget:
        """Return the budget of what Slack documents so many a minute of, for a workspace."""
        writes = round(per_minute * self.limits.factor)
        bucket = f"slack:{kind}:{self.identity.team}"
        return EditBudget(bucket, writes, 60.0, shape=shape, owes=owes)

    async def asker(self, access: AccessRules, channel: str, user: str, *, team: str) -> Asker:
        """Return the access facts of a person; `team` is empty if unknown.

        If `access` depends on the workspace, it is requested from Slack. A person whose workspace
        stays unknown matches no allowed workspace.
        """
        if not team and access.servers:
            team = await self.directory.team(user) or _UNKNOWN_TEAM
        return self.identity.asker(channel, team=team)

    async def is_admin(self, user: str) -> bool:
        """Return whether a person is an admin or owner of the workspace. Raises SurfaceError."""
        try:
            async with translated(self.limits.lookup_timeout):
                person = (await self.client.users_info(user=user))["user"]
        except SurfaceError as error:
            if "users:read" in missing_scopes(error):
                return False
            raise
        # In a channel that workspaces share, a person may be an admin of another workspace.
        around = person.get("enterprise_user") or {}
        places = [person.get("team_id"), *around.get("teams", ()), around.get("enterprise_id")]
        # Of an organization, its own admins (docs: User object, "enterprise_user").
        rights = around if self.identity.team == self.identity.enterprise else person
        is_ours = self.identity.team in places
        return is_ours and any(rights.get(role) is True for role in ("is_admin", "is_owner"))

    async def read(
        self,
        *,
        channel: str,
        thread: str,
        limit: int = _PAGE_SIZE,
        within: float = REQUEST_TIMEOUT,
        requests: int = _READS,
        bucket: str = "",
        **more: Any,
    ) -> Messages:
        """Return messages and a cursor, empty if there are no more. Raises SurfaceError.

        `thread` is empty for the top level. A slot and the answer are waited for `within` seconds
        each; so many `requests` a minute are used of the method's `bucket`, or another one. Do not
        rely on an order: Slack's documentation has the newest first, but with `oldest` Slack begins
        with the messages closest to it (slackhq/slack-api-docs issue 4).
        """
        method, read = "history", self.client.conversations_history
        if thread:
            method, read = "replies", partial(self.client.conversations_replies, ts=thread)
        async with self._limited(bucket or method, requests, within=within):
            answer = await read(channel=channel, limit=limit, include_all_metadata=True, **more)
        metadata = answer.get("response_metadata") or {}
        return list(answer.get("messages") or ()), str(metadata.get("next_cursor") or "")

    async def upload(self, file: Attachment) -> str:
        """Upload a file that nobody sees until a message has it; return its id.

        Raises SurfaceError.
        """
        async with self._limited("uploads", _UPLOADS, within=REQUEST_TIMEOUT):
            place = await self.client.files_getUploadURLExternal(
                filename=file.name, length=len(file.data)
            )
            address, id_ = str(place["upload_url"]), str(place["file_id"])
            # The address is the permission, and needs no token.
            async with aiohttp.ClientSession(raise_for_status=True) as session:
                await session.post(address, data=file.data, proxy=proxy_for(address))
            await self.client.files_completeUploadExternal(files=[{"id": id_, "title": file.name}])
        return id_

    @asynccontextmanager
    async def _limited(self, kind: str, requests: int, *, within: float) -> AsyncIterator[None]:
        """Wait for one of so many requests a minute, and make it."""
        budget = self.budget(kind, requests, shape="fixed")
        deadline = asyncio.get_running_loop().time() + within
        await self.budgets.final(budget, deadline=deadline)
        try:
            async with translated(within):
                yield
        except WriteDelayed as error:
            await self.budgets.pause(budget, error.retry_after)
            raise

    async def file(self, id_: str, *, within: float = REQUEST_TIMEOUT) -> Mapping[str, object]:
        """Return what Slack reports of a file. Raises SurfaceError."""
        async with translated(within):
            found = (await self.client.files_info(file=id_)).get("file")
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Identity:
    """The workspace and the bot in it: people mention `user`, messages are sent by `bot`.

    `enterprise` is the workspace's organization, empty if there is none. If the app `is_org_wide`,
    its token is valid in each workspace of the organization. `missing` are the scopes of the
    manifest that the app lacks.
    """

    team: str
    user: str
    bot: str
    name: str
    enterprise: str = ""
    is_org_wide: bool = False
    team_name: str = ""
    missing: tuple[str, ...] = ()

    @property
    def missing_read_scopes(self) -> list[str]:
        """The missing scopes for messages that do not mention the bot."""
        return [scope for scope in _READ_SCOPES if scope in self.missing]

    def key(self, channel: str, thread: str = "") -> ThreadKey:
        """Return the key of a conversation."""
        return ThreadKey("slack", self.team, channel, thread or channel)

    def turn_id(self, channel: str, ts: str) -> str:
        """Return the id of the turn of a message."""
        return f"slack:{self.team}:{channel}:{ts}"

    def place(self, channel: str, thread: str, *, question: str, team: str) -> dict[str, Json]:
        """Return a turn's place, with the person's workspace `team` unless it is ours.

        Streams do not take an organization for it (slack-bolt 1.30, `extract_actor_team_id`).
        """
        place: dict[str, Json] = {"channel": channel, "thread": thread or None}
        is_theirs = team.startswith("T") and team != self.team
        return {**place, "question": question, **({"team": team} if is_theirs else {})}

    def asker(self, channel: str, *, team: str) -> Asker:
        """Return the access facts of a person. Slack has no roles.

        `team` is their workspace, if known, or their organization: Slack does not name the
        workspace of a person from another organization.
        """
        is_ours = team in ("", self.team, self.enterprise)
        return Asker(direct=channel.startswith("D"), home="" if is_ours else team)


async def identify(client: AsyncWebClient, *, whose: str = "SLACK_BOT_TOKEN") -> Identity:
    """Request the identity of a token; errors call it `whose`.

    Raises CannotStart if Slack refuses it, Unreachable if Slack cannot be reached.
    """
    try:
        async with translated():
            answer = await client.auth_test()
    except SurfaceError as error:
        raise cannot_start(whose, client, error) from error
    if not answer.get("bot_id"):
        raise CannotStart(f"{whose} is not a bot token: those begin with xoxb-")
    identity = Identity(
        team=str(answer["team_id"]),
        user=str(answer["user_id"]),
        bot=str(answer["bot_id"]),
        name=str(answer["user"]),
        enterprise=str(answer.get("enterprise_id") or ""),
        is_org_wide=answer.get("is_enterprise_install") is True,
        team_name=str(answer.get("team") or ""),
        missing=_missing(answer.headers),
    )
    if identity.missing_read_scopes:
        log.warning(
            "Only messages that mention the bot arrive: the Slack app lacks the scopes %s",
            ", ".join(identity.missing_read_scopes),
        )
    return identity


def _missing(headers: Mapping[str, str]) -> tuple[str, ...]:
    # Each response names the scopes of its token (slack-ruby-client, issue 378).
    named = headers.get("x-oauth-scopes")
    granted = SCOPES if named is None else {scope.strip() for scope in named.split(",")}
    return tuple(scope for scope in SCOPES if scope not in granted)


def cannot_start(whose: str, client: AsyncWebClient, error: SurfaceError) -> CannotStart:
    """Return an error that names the refused token, or reports that Slack is unreachable."""
    if isinstance(error, TokenRefused) or not isinstance(error, WriteDelayed | WriteFailed):
        cure = TOKEN_CURES.get(whose, "install the app there again")
        return CannotStart(f"Slack refuses {whose}: {code_of(error)}: {cure}")
    return Unreachable(f"Slack cannot be reached at {client.base_url}: {error}")


@dataclass(frozen=True, slots=True)
class _Profile:
    """What Slack reports of a person or a channel."""

    name: str
    zone: str = ""
    team: str = ""
    locale: str = ""


_UNKNOWN = _Profile("")
_Request = Callable[[str], Awaitable[_Profile]]


class Directory:
    """Display names of people and public channels, cached for an hour.

    Without a name, the id is used; also for private channels, and if the app lacks the scope. There
    is one look-up for each name at a time. It goes on after a caller has waited long enough, in
    `tasks`.
    """

    def __init__(self, client: AsyncWebClient, *, limits: Limits, tasks: BackgroundTasks) -> None:
        self._client = client
        self._timeout = limits.name_timeout
        self._language_timeout = limits.language_timeout
        self._refused_seconds = limits.refusals_remembered
        self._tasks = tasks
        self._running: dict[str, asyncio.Task[None]] = {}
        self._paused: BoundedCache[_Request, bool] = BoundedCache()
        self._profiles: BoundedCache[str, _Profile] = BoundedCache()

    def cached(self, id_: str) -> str:
        """Return a cached name; empty if it has to be requested."""
        return (self._profiles.get(id_) or _UNKNOWN).name

    def zone(self, user: str) -> str:
        """Return the time zone of a person whose name was looked up; empty if unknown."""
        return (self._profiles.get(user) or _UNKNOWN).zone

    async def language(self, user: str, *, asks: bool = True) -> str:
        """Return a person's locale; empty if Slack does not report it in time.

        Unless it `asks` Slack, it is that of a person whose name was looked up.
        """
        if asks and user:
            await self._resolve(user, self._person, self._language_timeout)
        return (self._profiles.get(user) or _UNKNOWN).locale

    async def where(self, channel: str, *, workspace: str) -> str:
        """Return the known names of a channel and the workspace."""
        name = channel if channel.startswith("D") else await self._channel(channel)
        names = [workspace] if name == channel else [f"#{name}", workspace]
        return " of ".join(filter(None, names))

    async def name(self, user: str, *, within: float | None = None) -> str:
        """Return a person's display name; the id if Slack does not answer in so many seconds."""
        return await self._resolve(user, self._person, within)

    async def team(self, user: str) -> str:
        """Return a person's workspace; empty if Slack does not report it in time."""
        await self._resolve(user, self._person)
        return (self._profiles.get(user) or _UNKNOWN).team

    async def learn(self, users: Collection[str]) -> None:
        """Look up the first of these people whose names are not cached, at the same time."""
        unknown = [user for user in dict.fromkeys(users) if not self.cached(user)][:_MOST_NAMES]
        await asyncio.gather(*map(self.name, unknown))

    async def readable(self, text: str, *, bot: str) -> str:
        """Return a message as its author typed it, without mentions of the user `bot`."""
        people = [user for user in mentioned(text, "@") if user != bot]
        channels = mentioned(text, "#")[:_MOST_NAMES]
        await asyncio.gather(self.learn(people), *map(self._channel, channels))
        names = {one: self.cached(one) for one in (*people, *channels)}
        return readable(text, bot=bot, names=names)

    async def _channel(self, channel: str) -> str:
        return await self._resolve(channel, self._public_channel)

    async def _resolve(self, id_: str, request: _Request, within: float | None = None) -> str:
        if not self.cached(id_) and not self._paused.get(request):
            if (task := self._running.get(id_)) is None:
                task = self._running[id_] = self._tasks.start(self._look_up(id_, request))
            await asyncio.wait({task}, timeout=within or self._timeout)
        return self.cached(id_) or id_

    async def _look_up(self, id_: str, request: _Request) -> None:
        try:
            async with translated():
                profile = await request(id_)
            profile = replace(profile, name=profile.name or id_)
            self._profiles.put(id_, profile, seconds=_KNOWN_SECONDS)
        except WriteDelayed as error:
            self._paused.put(request, True, seconds=error.retry_after)
        except SurfaceError as error:
            self._profiles.put(id_, _Profile(id_), seconds=_UNKNOWN_SECONDS)
            if any(missing_scopes(error)):
                self._paused.put(request, True, seconds=self._refused_seconds)
        finally:
            del self._running[id_]

    async def _person(self, user: str) -> _Profile:
        person = (await self._client.users_info(user=user, include_locale=True))["user"]
        profile = person.get("profile") or {}
        names = (profile.get("display_name"), profile.get("real_name"), person.get("name"))
        name = next(filter(None, names), "")
        fields = (name, person.get("tz"), person.get("team_id"), person.get("locale"))
        return _Profile(*(str(one or "") for one in fields))

    async def _public_channel(self, id_: str) -> _Profile:
        channel = (await self._client.conversations_info(channel=id_))["channel"]
        # The name of a private channel is not for everybody in the workspace.
        is_public = channel.get("is_private") is False
        return _Profile(str(channel.get("name") or "") if is_public else "")
