"""Slack as a platform: one workspace, one bot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errands import Errands
from adapters.slack.errors import REQUEST_TIMEOUT, translated
from adapters.slack.identity import Identity, cannot_start, identify
from adapters.slack.inbound.app import build_app
from adapters.slack.inbound.ask_command import AskCommand
from adapters.slack.inbound.catch_up import Event
from adapters.slack.inbound.events import Inbound
from adapters.slack.inbound.heartbeat import Watch
from adapters.slack.inbound.http import BODY_SECONDS, MOST_BODIES, Handler, signed_handler
from adapters.slack.inbound.outage import Listening
from adapters.slack.inbound.sockets import Sockets
from adapters.slack.people import People
from adapters.slack.refusals import REFUSED_SECONDS, Refusals
from adapters.slack.reply.messages import Messages
from adapters.slack.reply.status import Statuses
from adapters.slack.reply.streams import Budgets, Streams
from adapters.slack.reply.surface import open_surface
from bot.concurrency import together
from bot.domain import Purpose, Turn
from bot.errors import CannotStart, SurfaceError
from bot.hearing import Hearing
from bot.ports import Surface
from bot.proxy import proxy_for
from bot.store import Store
from bot.turns.intake import Intake


@asynccontextmanager
async def connect(
    *, bot_token: str, app_token: str, signing_secret: str, api_url: str, budgets: Budgets
) -> AsyncIterator[SlackPlatform]:
    """Join the workspace of a bot token; an empty `api_url` is Slack's own.

    `budgets` count the streams that are begun, and what is read after an outage. Raises CannotStart
    when Slack refuses the token or cannot be reached.
    """
    url = api_url or AsyncWebClient.BASE_URL
    # slack-sdk 3.47 heeds its own timeout only without a session of ours.
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
    # aiohttp's own limit is 100; a call beyond it would wait, and the time-out counts that.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        # Its default retry would send a message again that may have arrived.
        client = AsyncWebClient(bot_token, url, session=session, retry_handlers=[])
        # slack-sdk 3.47 takes any proxy variable, for loopback too, and never heeds NO_PROXY.
        client.proxy = proxy_for(url)
        identity = await identify(client)
        async with Errands().open() as errands:
            yield SlackPlatform(
                client,
                identity=identity,
                errands=errands,
                app_token=app_token,
                signing_secret=signing_secret,
                budgets=budgets,
            )


class SlackPlatform:
    """Shows replies through the Web API, and hears people by Socket Mode or HTTP."""

    name = "slack"

    def __init__(
        self,
        client: AsyncWebClient,
        *,
        identity: Identity,
        errands: Errands,
        app_token: str,
        signing_secret: str,
        budgets: Budgets,
    ) -> None:
        self._client = client
        self._identity = identity
        self._errands = errands
        self._app_token = app_token
        self._signing_secret = signing_secret
        self._people = People(client, refusals=Refusals(seconds=REFUSED_SECONDS))
        self._statuses = Statuses(client, refusals=Refusals(seconds=REFUSED_SECONDS))
        self._budgets = budgets
        self._hearing = Hearing()
        self._streams = Streams(
            client,
            identity=identity,
            budgets=budgets,
            refusals=Refusals(seconds=REFUSED_SECONDS),
        )

    def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AbstractAsyncContextManager[Surface]:
        """Open the surface of a turn's reply; entering asks nothing of Slack and always works."""
        return open_surface(
            self._client,
            turn,
            purpose,
            identity=self._identity,
            statuses=self._statuses,
            streams=self._streams,
        )

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        """Return the messages that tries at a turn may have left besides these; SurfaceError."""
        return await Messages(self._client, turn, identity=self._identity).strays(but=but)

    async def listen(self, intake: Intake, *, store: Store | None = None) -> None:
        """Hear by Socket Mode until cancelled, through reconnects.

        With a store it asks for what was said while no process heard Slack. Raises CannotStart when
        Slack refuses the app token or cannot be reached.
        """
        fetched = [await self._first_address()]

        async def address() -> str:
            return fetched.pop() if fetched else await self._address()

        listening = Listening(store, team=self._identity.team) if store else None
        inbound = self._inbound(intake, note=listening.note if listening else _nothing)
        watch = self._watch(listening, inbound) if listening else None
        app = self._app(intake, inbound, on_event=(watch or inbound).on_event)
        sockets = Sockets(app, address=address, hearing=self._hearing, proxy=self._client.proxy)
        jobs = [asyncio.create_task(sockets.keep())]
        if watch:
            jobs.append(asyncio.create_task(watch.keep(lambda: sockets.are_open)))
        await together(*jobs)

    def silence(self) -> float:
        """Return for how many seconds no socket has been open; 0 while one is."""
        return self._hearing.silence()

    def handler(
        self,
        intake: Intake,
        *,
        most_bodies: int = MOST_BODIES,
        body_seconds: float = BODY_SECONDS,
    ) -> Handler:
        """Return the handler of POST /slack/events, for events, commands and buttons alike.

        It reads `most_bodies` at once, whose signatures are not known yet, each for `body_seconds`.
        Raises CannotStart without a signing secret.
        """
        if not self._signing_secret.strip():
            raise CannotStart("SLACK_SIGNING_SECRET is needed to hear Slack over HTTP")
        inbound = self._inbound(intake, note=_nothing)
        app = self._app(intake, inbound, on_event=inbound.on_event)
        return signed_handler(
            app,
            signing_secret=self._signing_secret,
            most_bodies=most_bodies,
            body_seconds=body_seconds,
        )

    def _inbound(self, intake: Intake, *, note: Callable[[str, str], None]) -> Inbound:
        return Inbound(
            self._client,
            identity=self._identity,
            people=self._people,
            intake=intake,
            errands=self._errands,
            note=note,
        )

    def _watch(self, listening: Listening, inbound: Inbound) -> Watch:
        return Watch(
            self._client,
            identity=self._identity,
            budgets=self._budgets,
            listening=listening,
            inbound=inbound,
        )

    def _app(
        self, intake: Intake, inbound: Inbound, *, on_event: Callable[[Event], Awaitable[None]]
    ) -> AsyncApp:
        ask = AskCommand(
            self._client,
            identity=self._identity,
            people=self._people,
            intake=intake,
            errands=self._errands,
        )
        return build_app(
            self._client, identity=self._identity, on_event=on_event, inbound=inbound, ask=ask
        )

    async def _first_address(self) -> str:
        try:
            return await self._address()
        except SurfaceError as error:
            raise cannot_start("SLACK_APP_TOKEN", self._client, error) from error

    async def _address(self) -> str:
        async with translated():
            answer = await self._client.apps_connections_open(app_token=self._app_token)
        return str(answer["url"])


def _nothing(_channel: str, _thread: str) -> None:
    """Remember no place."""
