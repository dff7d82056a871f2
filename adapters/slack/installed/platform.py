"""Slack as a platform of several workspaces: each is served with a token of its own."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import aiohttp
from aiohttp import web
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.context import is_shared
from adapters.slack.errors import TokenRefused, translated
from adapters.slack.inbound.app import Body, Dispatcher, installed_in
from adapters.slack.inbound.events import EventHandler
from adapters.slack.inbound.http import Handler, signed_handler
from adapters.slack.inbound.outage import Heartbeat, OutageRecord
from adapters.slack.inbound.socket_mode import SocketMode
from adapters.slack.installed.installations import Installation, Installations, Undecipherable
from adapters.slack.installed.pages import InstallPages
from adapters.slack.installed.token import InstalledClient, InstalledToken, exchange
from adapters.slack.limits import Limits
from adapters.slack.platform import SlackPlatform, socket_addresses
from adapters.slack.reply.surface import SlackSurface
from adapters.slack.settings import INSTALL_PATH, REDIRECT_PATH, SlackSettings
from adapters.slack.workspace import Directory, Workspace, identify
from bot.cache import BoundedCache
from bot.concurrency import BackgroundTasks, running
from bot.domain import ContextMessage, FileRef, Purpose, Turn
from bot.errors import (
    CannotStart,
    PlaceGone,
    StoreUnavailable,
    SurfaceError,
    Unreachable,
    WriteFailed,
)
from bot.intake.intake import Intake
from bot.ports import Downtime, Earlier, ReadEarlier
from bot.proxy import proxy_for
from bot.reply.edit_budget import EditBudgets
from bot.store import Store

log = logging.getLogger(__name__)

_MOST_OPEN = 200  # workspaces in memory, with the names of their people
_UNUSED_SECONDS = 6 * 3600.0
_LOOK_SECONDS = 60.0
_REFUSED_SECONDS = 60.0  # Slack is not asked again about a token that it refused


@asynccontextmanager
async def connect(
    own: SlackSettings,
    *,
    store: Store,
    intake: Intake,
    budgets: EditBudgets,
    rated: bool = True,
    limits: Limits | None = None,
) -> AsyncIterator[SeveralWorkspaces]:
    """Serve the workspaces that have installed the app; none is connected before it is needed.

    Raises CannotStart if the tokens in the store cannot be decrypted.
    """
    installations = Installations(store, own.store_key)
    try:
        if problem := await installations.examine():
            raise CannotStart(problem)
    except StoreUnavailable as error:
        raise Unreachable(str(error)) from error
    limits = limits or Limits(factor=own.limits)
    # The default limit is 100; a further request would wait, and its timeout would run.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        jobs, signs = BackgroundTasks(grace_seconds=limits.job_grace), BackgroundTasks()
        async with jobs, signs:
            make = partial(
                Workspace,
                budgets=budgets,
                jobs=jobs,
                limits=limits,
                rated=rated,
                prompts=own.suggested_prompts,
                signs=signs,
            )
            yield SeveralWorkspaces(
                own,
                installations,
                intake,
                session=session,
                make=make,
                limits=limits,
                jobs=jobs,
                signs=signs,
            )


@dataclass(slots=True)
class _Open:
    """A workspace that is in use; with a `dispatcher` if people are heard."""

    platform: SlackPlatform
    dispatcher: Dispatcher | None = None


class SeveralWorkspaces:
    """Chooses the workspace by the turn's key, or by the payload.

    A workspace is opened when it is first needed, and forgotten if it is not used for long.
    """

    name = "slack"

    def __init__(
        self,
        own: SlackSettings,
        installations: Installations,
        intake: Intake,
        *,
        session: aiohttp.ClientSession,
        make: Callable[..., Workspace],
        limits: Limits,
        jobs: BackgroundTasks,
        signs: BackgroundTasks,
    ) -> None:
        self._own = own
        self._installations = installations
        self._intake = intake
        self._session = session
        self._make = make
        self._limits = limits
        self._jobs = jobs
        self._signs = signs
        self._url = own.api_url or AsyncWebClient.BASE_URL
        self._app = AsyncWebClient(None, self._url, session=session, retry_handlers=[])
        # slack-sdk 3.47 takes any proxy variable, for loopback too, and ignores NO_PROXY.
        self._app.proxy = proxy_for(self._url)
        self._exchange = partial(
            exchange, self._app, client_id=own.client_id, client_secret=own.client_secret
        )
        self._opened: BoundedCache[str, _Open] = BoundedCache(capacity=_MOST_OPEN)
        # What the store has of installations that are of no use, "" if it cannot be decrypted.
        self._refused: BoundedCache[str, str] = BoundedCache()
        self._opening: dict[str, asyncio.Task[_Open | SurfaceError | None]] = {}
        self._dispatcher: Callable[[SlackPlatform], Dispatcher] = self._without_catching_up
        self._beating: dict[str, asyncio.Task[None]] = {}  # by Socket Mode
        self._downtime = Downtime()
        self.downtime = self._downtime.seconds  # without an open connection

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[SlackSurface]:
        """Open the surface of a turn's reply, as `SlackPlatform` does.

        Raises PlaceGone, too, if the app is not installed there, and WriteFailed if its token
        cannot be had now.
        """
        platform = await self._of(turn.key.workspace)
        async with platform.surface(turn, purpose) as surface:
            yield surface

    async def tell(self, person: str, text: str) -> None:
        """Send a person a direct message in the first workspace that takes it.

        Guess: a workspace refuses the ids of people who are not in it. Raises SurfaceError.
        """
        failed: SurfaceError = PlaceGone(f"the app is installed nowhere for {person}")
        try:
            for id_ in await self._installations.ids():
                try:
                    return await (await self._of(id_)).tell(person, text)
                except SurfaceError as error:
                    failed = failed if isinstance(error, PlaceGone) else error
        except StoreUnavailable as error:
            failed = WriteFailed(str(error))
        raise failed

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return the messages of a thread before a question. Raises SurfaceError."""
        platform = await self._of(turn.key.workspace)
        return await platform.read_context(turn, since=since, most=most)

    def earlier(self, turn: Turn) -> ReadEarlier | None:
        """Return what reads the thread or the channel of a question; None in a DM."""

        async def read(before: float, most: int) -> Earlier:
            reads = (await self._of(turn.key.workspace)).earlier(turn)
            return await reads(before, most) if reads else Earlier(())

        return read if is_shared(turn) else None

    async def fetch_file(self, file: FileRef) -> AsyncGenerator[bytes]:
        """Yield the bytes of a file, from Slack's own host only. Raises SurfaceError."""
        # The id of a turn, or of one that a message would ask for, names the workspace.
        platform = await self._of(file.message.split(":")[1])
        async with aclosing(platform.fetch_file(file)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the messages that attempts at a turn may have left behind. Raises SurfaceError."""
        return await (await self._of(turn.key.workspace)).orphaned_messages(turn, but=but)

    async def listen(self, *, store: Store) -> None:
        """Receive events by Socket Mode until cancelled, and catch up on outages.

        Raises CannotStart if Slack refuses the app token or cannot be reached.
        """
        sockets = SocketMode(
            self.dispatch,
            request_url=await socket_addresses(self._app, self._own.app_token),
            downtime=self._downtime,
            proxy=self._app.proxy,
            limits=self._limits,
        )
        async with BackgroundTasks() as beats:

            def with_catching_up(platform: SlackPlatform) -> Dispatcher:
                workspace = platform.workspace
                team = workspace.identity.team
                record = OutageRecord(store, team=team, limits=self._limits)
                handler = EventHandler(workspace, self._intake, on_conversation=record.note)
                heartbeat = Heartbeat(workspace, record=record, handler=handler)
                if earlier := self._beating.get(team):
                    earlier.cancel()
                beat = self._beat(team, heartbeat, lambda: sockets.is_connected)
                self._beating[team] = beats.start(beat)
                return Dispatcher(workspace, self._intake, handler, on_event=heartbeat.on_event)

            self._dispatcher = with_catching_up
            beats.start(self._open_all())
            await sockets.run()

    def handler(self, *, posts: bool) -> Handler:
        """Return the handler of the pages, and of POST /slack/events if Slack `posts` events.

        Raises CannotStart without a signing secret.
        """
        pages = InstallPages(
            self._own,
            self._installations,
            exchange=lambda code: self._exchange(
                code=code, redirect_uri=self._own.public(REDIRECT_PATH)
            ),
            on_installed=self._on_installed,
        )
        if not posts:
            return pages.handle
        events = signed_handler(self.dispatch, signing_secret=self._own.signing_secret)

        async def handle(request: web.Request) -> web.StreamResponse:
            return await (events if request.method == "POST" else pages.handle)(request)

        return handle

    async def dispatch(self, body: dict[str, object]) -> BoltResponse:
        """Answer a payload with the token of the workspace that it is for.

        Those of workspaces that have not installed the app, or whose token is of no use, are
        acknowledged: a retry would not change that.
        """
        if body.get("type") == "url_verification":
            return BoltResponse(status=200, body=json.dumps({"challenge": body.get("challenge")}))
        ids = [*installed_in(body)]
        try:
            if _is_removal(body):
                # That of an organization may name the workspace first.
                installed = await self._installations.ids()
                for id_ in [id_ for id_ in ids if id_ in installed] or ids:
                    await self._uninstall(id_)
                return BoltResponse(status=200, body="")
            for id_ in ids:
                if found := await self._open(id_):
                    found.dispatcher = found.dispatcher or self._dispatcher(found.platform)
                    return await found.dispatcher.dispatch(body)
        except TokenRefused:
            return BoltResponse(status=200, body="")  # it is in the log
        except (SurfaceError, StoreUnavailable) as error:
            log.warning("Cannot handle an event of %.40s, Slack may repeat it: %s", ids[0], error)
            return BoltResponse(status=503, body="")
        if not body.get("ssl_check"):
            where = ", ".join(ids) or "any workspace"
            log.warning("Ignored a Slack payload: the app is not installed in %.80s", where)
        return BoltResponse(status=200, body="")

    async def _on_installed(self, it: Installation) -> None:
        self._opened.drop(it.id)  # its next event makes a new client
        await self._intake.keep_servers(self.name, [it.id])

    async def _uninstall(self, id_: str) -> None:
        """Remove the token at once, and have the data removed within a day.

        Unless it works: the event may be a late one, an old token may have been revoked, or one
        workspace of an organization have left. Raises SurfaceError if Slack does not say.
        """
        try:
            while found := await self._installations.read(id_):
                if await self._still_works(id_):
                    log.info("The app stays installed in %s: its token works", id_)
                    return
                # Else it was installed again meanwhile.
                if await self._installations.replace(found, None):
                    break
        except Undecipherable:
            # It is of no use to anybody.
            await self._installations.remove(id_)
        self._opened.drop(id_)
        if beating := self._beating.pop(id_, None):
            beating.cancel()
        await self._intake.forget_server(self.name, id_)
        log.warning("The app was uninstalled in %s: its data will be removed", id_)

    async def _still_works(self, id_: str) -> bool:
        try:
            async with translated():
                await self._client(id_).auth_test()
        except TokenRefused:
            return False
        except PlaceGone:
            # Another event may have removed it.
            return await self._installations.peek(id_) is not None
        return True

    async def _of(self, id_: str) -> SlackPlatform:
        if found := await self._open(id_):
            return found.platform
        raise PlaceGone(f"the app is not installed in {id_}")

    async def _open(self, id_: str) -> _Open | None:
        """Return a workspace, None if the app is not installed there. Raises SurfaceError."""
        if (found := self._opened.get(id_)) is None:
            if (task := self._opening.get(id_)) is None:
                task = self._opening[id_] = self._jobs.start(self._made(id_))
                task.add_done_callback(lambda _: self._opening.pop(id_))
            made = await asyncio.shield(task)
            if made is None:
                return None
            if isinstance(made, SurfaceError):
                raise made
            found = made
        # What was used last is forgotten last.
        self._opened.put(id_, found, seconds=_UNUSED_SECONDS)
        return found

    async def _made(self, id_: str) -> _Open | SurfaceError | None:
        client = self._client(id_)
        try:
            found = await self._installations.read(id_)
        except StoreUnavailable as error:
            return WriteFailed(str(error))
        except Undecipherable as error:
            return self._useless(id_, "", str(error))
        if found is None:
            return None
        if self._refused.get(id_) == found.sealed:
            return TokenRefused(f"Slack refuses the token of {id_}")
        try:
            identity = await identify(client, whose=f"the token of {id_}")
        except Unreachable as error:
            return WriteFailed(str(error))
        except CannotStart as error:
            return self._useless(id_, found.sealed if found else "", str(error))
        if id_ not in (identity.team, identity.enterprise):
            why = f"the token of {id_} is that of {identity.team}"
            return self._useless(id_, found.sealed, why)
        # An organization is one workspace, with one bot in it.
        identity = replace(identity, team=id_, is_org_wide=id_ == identity.enterprise)
        directory = Directory(client, limits=self._limits, tasks=self._signs)
        workspace = self._make(client=client, identity=identity, directory=directory)
        platform = SlackPlatform(workspace, self._own)
        platform.log_identity("HTTP" if self._own.post_path else "Socket Mode")
        return _Open(platform)

    def _useless(self, id_: str, sealed: str, why: str) -> TokenRefused:
        if self._refused.get(id_) != sealed:
            self._refused.put(id_, sealed, seconds=_REFUSED_SECONDS)
            log.warning("Events of %s are ignored: %s", id_, why)
        return TokenRefused(why)

    def _client(self, id_: str) -> InstalledClient:
        token = InstalledToken(
            id_,
            self._installations,
            refresh=lambda token: self._exchange(grant_type="refresh_token", refresh_token=token),
            tasks=self._jobs,
            cure=f"install the app there again, at {self._own.public(INSTALL_PATH)}",
        )
        client = InstalledClient(token, self._url, self._session)
        client.proxy = self._app.proxy
        return client

    async def _beat(
        self, team: str, heartbeat: Heartbeat, is_connected: Callable[[], bool]
    ) -> None:
        """Catch up on outages until the app is uninstalled, of which another process may hear."""
        async with running(heartbeat.run(is_connected)):
            is_installed = True
            while is_installed:
                await asyncio.sleep(_LOOK_SECONDS)
                with suppress(StoreUnavailable):
                    is_installed = team in await self._installations.ids()
        self._opened.drop(team)

    async def _open_all(self) -> None:
        """Open all workspaces: of which there was an outage only they themselves tell."""
        try:
            for id_ in await self._installations.ids():
                try:
                    if found := await self._open(id_):
                        found.dispatcher = found.dispatcher or self._dispatcher(found.platform)
                except SurfaceError as error:
                    log.warning("Cannot connect to workspace %s: %s", id_, error)
        except StoreUnavailable as error:
            log.warning("No catching up on outages of Slack before the first event: %s", error)

    def _without_catching_up(self, platform: SlackPlatform) -> Dispatcher:
        handler = EventHandler(platform.workspace, self._intake)
        return Dispatcher(platform.workspace, self._intake, handler, on_event=handler.on_event)


def _is_removal(body: Body) -> bool:
    """Whether the app may have been uninstalled, or its bot's token revoked."""
    match body:
        case {
            "event": {"type": "app_uninstalled"}
            | {"type": "tokens_revoked", "tokens": {"bot": [_, *_]}}
        }:
            return True
    return False
