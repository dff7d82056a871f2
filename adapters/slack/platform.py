"""Slack as a platform: one workspace, one bot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial

from adapters.slack.cache import Refusals
from adapters.slack.directory import cannot_start
from adapters.slack.errors import translated
from adapters.slack.inbound.app import Dispatch, build_app, dispatch
from adapters.slack.inbound.ask_command import AskCommand
from adapters.slack.inbound.events import EventHandler
from adapters.slack.inbound.heartbeat import Heartbeat
from adapters.slack.inbound.http import Handler, signed_handler
from adapters.slack.inbound.outage import OutageRecord
from adapters.slack.inbound.socket_mode import SocketMode
from adapters.slack.limits import Limits
from adapters.slack.reply.messages import Messages
from adapters.slack.reply.status import Status
from adapters.slack.reply.streams import Streams
from adapters.slack.reply.surface import SlackSurface
from adapters.slack.workspace import Budgets, Workspace, open_workspace
from bot.concurrency import together
from bot.domain import Purpose, Turn
from bot.errors import CannotStart, SurfaceError
from bot.hearing import Hearing
from bot.store import Store
from bot.turns.intake import Intake


@asynccontextmanager
async def connect(
    *,
    bot_token: str,
    app_token: str,
    signing_secret: str,
    api_url: str,
    budgets: Budgets,
    limits: Limits | None = None,
) -> AsyncIterator[SlackPlatform]:
    """Join the workspace of a bot token; an empty `api_url` is Slack's own.

    `budgets` limit the start of streams, and the requests after an outage. Raises CannotStart if
    Slack refuses the token or cannot be reached.
    """
    async with open_workspace(
        bot_token=bot_token, api_url=api_url, budgets=budgets, limits=limits or Limits()
    ) as workspace:
        yield SlackPlatform(workspace, app_token=app_token, signing_secret=signing_secret)


class SlackPlatform:
    """Shows replies through the Web API, and receives events by Socket Mode or HTTP."""

    name = "slack"

    def __init__(self, workspace: Workspace, *, app_token: str, signing_secret: str) -> None:
        self._workspace = workspace
        self._app_token = app_token
        self._signing_secret = signing_secret
        self._hearing = Hearing()
        self._no_status = Refusals(seconds=workspace.limits.refusals_remembered)
        self._streams = Streams(workspace)

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[SlackSurface]:
        """Open the surface of a turn's reply; in a thread it shows that the bot is working.

        Raises PlaceGone if the turn has no place in Slack.
        """
        workspace, messages = self._workspace, Messages(self._workspace, turn)
        status = Status(
            workspace, self._no_status, channel=messages.channel, thread=messages.thread
        )
        async with nullcontext() if purpose.has_ended else status.shown():
            yield SlackSurface(
                messages,
                turn,
                purpose,
                team=workspace.identity.team,
                status=status,
                streams=self._streams,
            )

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the messages, except these, that attempts at a turn may have left behind.

        Raises SurfaceError.
        """
        return await Messages(self._workspace, turn).orphaned(but=but)

    async def listen(self, intake: Intake, *, store: Store | None = None) -> None:
        """Receive events by Socket Mode until cancelled.

        With a store, it catches up on outages. Raises CannotStart if Slack refuses the app token or
        cannot be reached.
        """
        workspace = self._workspace
        try:
            urls = [await self._socket_url()]
        except SurfaceError as error:
            raise cannot_start("SLACK_APP_TOKEN", workspace.client, error) from error

        async def request_url() -> str:
            return urls.pop() if urls else await self._socket_url()

        heartbeat, handler = None, EventHandler(workspace, intake)
        if store:
            record = OutageRecord(store, team=workspace.identity.team, limits=workspace.limits)
            handler = EventHandler(workspace, intake, on_conversation=record.note)
            heartbeat = Heartbeat(workspace, record=record, handler=handler)
        sockets = SocketMode(
            self._dispatch(intake, handler, heartbeat),
            request_url=request_url,
            hearing=self._hearing,
            proxy=workspace.client.proxy,
            limits=workspace.limits,
        )
        tasks = [asyncio.create_task(sockets.run())]
        if heartbeat:
            tasks.append(asyncio.create_task(heartbeat.run(lambda: sockets.is_connected)))
        await together(*tasks)

    def silence(self) -> float:
        """Return for how many seconds no connection has been open; 0 while one is."""
        return self._hearing.silence()

    def handler(self, intake: Intake) -> Handler:
        """Return the handler of POST /slack/events, for events, commands and buttons.

        Raises CannotStart without a signing secret.
        """
        if not self._signing_secret.strip():
            raise CannotStart("SLACK_SIGNING_SECRET is required to receive events over HTTP")
        return signed_handler(
            self._dispatch(intake, EventHandler(self._workspace, intake)),
            signing_secret=self._signing_secret,
            limits=self._workspace.limits,
        )

    def _dispatch(
        self, intake: Intake, handler: EventHandler, heartbeat: Heartbeat | None = None
    ) -> Dispatch:
        app = build_app(
            self._workspace,
            on_event=(heartbeat or handler).on_event,
            on_press=handler.on_press,
            on_command=AskCommand(self._workspace, intake).on_command,
        )
        return partial(dispatch, app, self._workspace.identity)

    async def _socket_url(self) -> str:
        async with translated():
            answer = await self._workspace.client.apps_connections_open(app_token=self._app_token)
        return str(answer["url"])
