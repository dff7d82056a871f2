"""Slack as a platform: one workspace, one bot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, nullcontext

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.context import earlier, read_context
from adapters.slack.errors import translated
from adapters.slack.files import fetch_file
from adapters.slack.inbound.app import Dispatcher
from adapters.slack.inbound.events import EventHandler
from adapters.slack.inbound.http import Handler, signed_handler
from adapters.slack.inbound.outage import Heartbeat, OutageRecord
from adapters.slack.inbound.socket_mode import SocketMode
from adapters.slack.limits import Limits
from adapters.slack.reply.messages import Messages
from adapters.slack.reply.streams import Streams
from adapters.slack.reply.surface import SlackSurface
from adapters.slack.settings import SlackSettings
from adapters.slack.workspace import Directory, Workspace, cannot_start, identify
from bot.concurrency import BackgroundTasks, together
from bot.domain import ContextMessage, FileRef, Purpose, Turn
from bot.errors import SurfaceError
from bot.intake.intake import Intake
from bot.ports import Downtime, ReadEarlier
from bot.proxy import proxy_for
from bot.reply.edit_budget import EditBudgets
from bot.store import Store

log = logging.getLogger(__name__)


@asynccontextmanager
async def connect(
    own: SlackSettings, *, budgets: EditBudgets, rated: bool = True, limits: Limits | None = None
) -> AsyncIterator[SlackPlatform]:
    """Connect to the workspace of the bot token.

    `budgets` limit what is written and read. If answers are `rated`, they have rating buttons.
    Raises CannotStart if Slack refuses the token or cannot be reached.
    """
    limits, url = limits or Limits(factor=own.limits), own.api_url or AsyncWebClient.BASE_URL
    # The default limit is 100; a further request would wait, and its timeout would run.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        # The default handler would resend a message that may have arrived.
        client = AsyncWebClient(own.bot_token, url, session=session, retry_handlers=[])
        # slack-sdk 3.47 takes any proxy variable, for loopback too, and ignores NO_PROXY.
        client.proxy = proxy_for(url)
        identity = await identify(client)
        jobs, signs = BackgroundTasks(grace_seconds=limits.job_grace), BackgroundTasks()
        async with jobs, signs:
            workspace = Workspace(
                client=client,
                identity=identity,
                directory=Directory(client, limits=limits, tasks=signs),
                budgets=budgets,
                jobs=jobs,
                limits=limits,
                rated=rated,
                prompts=own.suggested_prompts,
                signs=signs,
            )
            yield SlackPlatform(workspace, own)


class SlackPlatform:
    """Shows replies through the Web API, and receives events by Socket Mode or HTTP."""

    name = "slack"

    def __init__(self, workspace: Workspace, own: SlackSettings) -> None:
        self.workspace = workspace
        self._own = own
        self._downtime = Downtime()
        self.downtime = self._downtime.seconds  # without an open connection
        self._streams = Streams(workspace)

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[SlackSurface]:
        """Open the surface of a turn's reply; in a thread it shows that the bot is working.

        Raises PlaceGone if the turn has no Slack address.
        """
        surface = SlackSurface(self.workspace, turn, purpose, streams=self._streams)
        async with nullcontext() if purpose.has_ended else surface.status.displayed(turn):
            yield surface

    async def tell(self, person: str, text: str) -> None:
        """Send a person a direct message. Raises SurfaceError.

        Guess: a person's id as the channel stands for the bot's DM with them.
        """
        async with translated():
            await self.workspace.client.chat_postMessage(
                channel=person, text=text, unfurl_links=False, unfurl_media=False
            )

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        """Return the messages of a thread before a question. Raises SurfaceError."""
        return await read_context(self.workspace, turn, since=since, most=most)

    def earlier(self, turn: Turn) -> ReadEarlier | None:
        """Return what reads the thread or the channel of a question; None in a DM."""
        return earlier(self.workspace, turn)

    def fetch_file(self, file: FileRef) -> AsyncGenerator[bytes]:
        """Yield the bytes of a file, from Slack's own host only. Raises SurfaceError."""
        return fetch_file(self.workspace, file, api_url=self._own.api_url)

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the messages, except these, that attempts at a turn may have left behind.

        One of these is returned, too, if it has a button to stop. Raises SurfaceError.
        """
        return await Messages(self.workspace, turn).orphaned(but=but)

    async def listen(self, intake: Intake, *, store: Store) -> None:
        """Receive events by Socket Mode until cancelled, and catch up on outages.

        Raises CannotStart if Slack refuses the app token or cannot be reached.
        """
        workspace = self.workspace
        request_url = await socket_addresses(workspace.client, self._own.app_token)
        record = OutageRecord(store, team=workspace.identity.team, limits=workspace.limits)
        handler = EventHandler(workspace, intake, on_conversation=record.note)
        heartbeat = Heartbeat(workspace, record=record, handler=handler)
        self.log_identity("Socket Mode")
        sockets = SocketMode(
            Dispatcher(workspace, intake, handler, on_event=heartbeat.on_event).dispatch,
            request_url=request_url,
            downtime=self._downtime,
            proxy=workspace.client.proxy,
            limits=workspace.limits,
        )
        jobs = sockets.run(), heartbeat.run(lambda: sockets.is_connected)
        await together(*map(asyncio.create_task, jobs))

    def handler(self, intake: Intake) -> Handler:
        """Return the handler of POST /slack/events, for events, commands and buttons.

        Raises CannotStart without a signing secret.
        """
        handler = EventHandler(self.workspace, intake)
        dispatcher = Dispatcher(self.workspace, intake, handler, on_event=handler.on_event)
        signed = signed_handler(dispatcher.dispatch, signing_secret=self._own.signing_secret)
        self.log_identity("HTTP")
        return signed

    def log_identity(self, transport: str) -> None:
        """Log who the bot is, and where."""
        identity = self.workspace.identity
        missing = ", ".join(identity.missing) or "none"
        log.info(
            "Slack: connected as @%s (%s) to workspace %s (%s) over %s; missing scopes: %s",
            *(identity.name, identity.user, identity.team_name, identity.team, transport, missing),
        )


async def socket_addresses(client: AsyncWebClient, app_token: str) -> Callable[[], Awaitable[str]]:
    """Return what asks for the address of one more connection; the first one is asked for now.

    Raises CannotStart if Slack refuses the app token or cannot be reached.
    """

    async def ask() -> str:
        async with translated():
            return str((await client.apps_connections_open(app_token=app_token))["url"])

    try:
        urls = [await ask()]
    except SurfaceError as error:
        raise cannot_start("SLACK_APP_TOKEN", client, error) from error

    async def address() -> str:
        return urls.pop() if urls else await ask()

    return address
