"""The platforms of a process: their replies and their events."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

from aiohttp import web

from bot.app import http
from bot.app.assistant import DEMO, IDLE_SECONDS, Assistant, model_choices
from bot.domain import Finding
from bot.errors import CannotStart, StoreUnavailable, Unreachable
from bot.intake.intake import Intake
from bot.ports import Platform
from bot.proxy import EVERYWHERE, is_loopback, warn_if_readable
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from config.settings import Settings

if TYPE_CHECKING:
    from adapters.console import ConsolePlatform
    from adapters.web.oidc import OpenIdConnect
    from adapters.web.sign_in import SignInMethods

log = logging.getLogger(__name__)

Service = Coroutine[Any, Any, None]
RETRY_SECONDS = 10.0  # between two attempts to reach a platform while another one runs
_TOKENS_AND_ADDRESSES = (
    ("DISCORD_TOKEN", "DISCORD_API_URL"),
    ("DISCORD_TOKEN", "DISCORD_GATEWAY_URL"),
    ("SLACK_BOT_TOKEN", "SLACK_API_URL"),
)


@dataclass(slots=True)
class Platforms:
    """The platforms of this process; `off` are those that should run but do not, with the reasons.

    The listener of an unreachable platform retries it and adds it to `platforms` when it is up.
    """

    platforms: dict[str, Platform] = field(default_factory=dict)
    listeners: dict[str, Callable[[Intake], Service]] = field(default_factory=dict)
    posts: dict[str, Callable[[Intake], http.Handler]] = field(default_factory=dict)
    # The seconds without an open connection, by platform.
    downtimes: dict[str, Callable[[], float]] = field(default_factory=dict)
    off: dict[str, CannotStart] = field(default_factory=dict)
    pages: Callable[[Intake], web.Application] | None = None
    console: ConsolePlatform | None = None


async def open_platforms(
    settings: Settings,
    roles: frozenset[str],
    store: Store,
    budgets: EditBudgets,
    assistant: Assistant | None,
    stack: AsyncExitStack,
    *,
    need_all: bool,
    retry_seconds: float = RETRY_SECONDS,
) -> Platforms:
    """Connect the platforms that the roles need, and import no others.

    Raises CannotStart with a line for each platform that failed, if all failed or if one did and
    `need_all` is set; so do the listeners.
    """
    found = Platforms()
    wanted = roles | (set(settings.chat_platforms) if "worker" in roles else set())
    connectors: dict[str, _Connector] = {
        "discord": partial(_connect_discord, settings, store, budgets, stack),
        "slack": partial(_connect_slack, settings, store, budgets, stack),
    }
    names = [name for name in connectors if name in wanted]
    fatal = 1 if need_all else max(len(names), 1)
    for name in names:
        adapter = _Adapter(name, connectors[name], found, fatal, retry_seconds)
        await adapter.open()
        if name in roles:
            found.listeners[name] = adapter.listen
            found.downtimes[name] = adapter.downtime
        if name == "slack" and name in roles and not settings.slack_app_token:
            found.posts["/slack/events"] = adapter.handler
    if len(found.off) >= fatal:
        raise _failure(found)
    for name, error in found.off.items():
        _log_off(name, error)
    if assistant:
        from adapters.console import ConsolePlatform

        console = ConsolePlatform(
            store=store,
            banner=f"Parley. Answers come from {assistant.label}.",
            patience=settings.reply_timeout + IDLE_SECONDS,
            data_dir=settings.data_dir,
            stdin=sys.stdin,
            stdout=sys.stdout,
            remembers=settings.remembers,
        )
        found.console = found.platforms["console"] = console
        if "console" in roles:
            found.listeners["console"] = console.listen
    if assistant:
        from adapters.web import WebPlatform

        found.platforms["web"] = WebPlatform(store=store, remembers=settings.remembers)
    if "web" in roles:
        await _open_pages(settings, store, assistant, found)
    return found


async def _open_pages(
    settings: Settings, store: Store, assistant: Assistant | None, found: Platforms
) -> None:
    from adapters.web.pages import open_pages

    try:
        pages = await open_pages(
            store=store,
            access=_access(settings),
            keep_seconds=settings.keep_seconds,
            remembers=settings.remembers,
            about={
                "model": next((one.label for one in model_choices(settings, assistant)), ""),
                "feedback": _rated(settings, usual=True),
                "kept_days": settings.history_days,
                "demo": bool(assistant) and (settings.model_id == DEMO or not settings.names_model),
            },
            home=settings.web_url,
        )
    except StoreUnavailable as error:
        raise CannotStart(str(error)) from error
    found.listeners["web"] = pages.listen
    found.pages = partial(pages.application, trust=http.trust)


def _rated(settings: Settings, *, usual: bool) -> bool:
    """Return whether answers can be rated: a rating is kept in the history."""
    wanted = usual if settings.feedback is None else settings.feedback
    return wanted and settings.remembers


def _access(settings: Settings) -> SignInMethods:
    from adapters.web.sign_in import SignInMethods

    return SignInMethods(
        password=settings.web_password,
        oidc=_provider(settings) if settings.web_oidc_issuer else None,
        proxy_header=settings.web_proxy_header,
        proxy_addresses=settings.web_proxy_address,
    )


def _provider(settings: Settings) -> OpenIdConnect:
    try:
        from adapters.web.oidc import Client, OpenIdConnect
    except ImportError as error:
        raise CannotStart(
            "WEB_OIDC_ISSUER needs joserfc: pip install -r requirements-web.txt"
        ) from error
    client = Client(
        issuer=settings.web_oidc_issuer,
        client_id=settings.web_oidc_client_id,
        client_secret=settings.web_oidc_client_secret,
        home=settings.web_url,
    )
    return OpenIdConnect(client)


def servers(settings: Settings, roles: frozenset[str]) -> dict[str, tuple[str, int]]:
    """Return where a process listens, by the variable of the port; a terminal alone has no PORT."""
    found = {"WEB_PORT": (settings.web_host, settings.web_port)} if "web" in roles else {}
    if not {"console"} <= roles <= {"console", "web", "worker"}:
        found["PORT"] = (settings.host, settings.port)
        if settings.metrics_port is not None:
            found["METRICS_PORT"] = (settings.metrics_host, settings.metrics_port)
    return found


def check_settings(settings: Settings, roles: frozenset[str]) -> None:
    """Raise CannotStart if the settings lack what a role needs; warn of unencrypted tokens."""
    mistakes = []
    if "discord" in roles and not settings.discord_token:
        mistakes.append("the role discord needs DISCORD_TOKEN")
    if "slack" in roles and not settings.slack_bot_token:
        mistakes.append("the role slack needs SLACK_BOT_TOKEN")
    if "slack" in roles and not (settings.slack_app_token or settings.slack_signing_secret):
        mistakes.append("the role slack needs SLACK_APP_TOKEN or SLACK_SIGNING_SECRET")
    if "web" in roles and not settings.signs_in and not is_loopback(settings.web_host):
        mistakes.append(
            f"WEB_HOST={settings.web_host} is open to other machines: set WEB_PASSWORD, "
            "WEB_OIDC_ISSUER or WEB_PROXY_HEADER, so that the page knows who may use it"
        )
    if "worker" in roles and settings.chat_platforms and not settings.names_model:
        mistakes.append(
            "there is no model: set HF_TOKEN, MODEL_URL, LOCAL_MODEL_PATH or TRANSFORMERS_MODEL, "
            "or MODEL_ID=demo for the small embedded one"
        )
    for (one, (here, port)), (other, (there, number)) in combinations(
        servers(settings, roles).items(), 2
    ):
        if port and port == number and (here == there or {here, there} & set(EVERYWHERE)):
            mistakes.append(f"{one} and {other} are both {port}: set one to another number")
    if mistakes:
        raise CannotStart("\n".join(mistakes))
    for finding in closed_or_open(settings):
        log.warning("%s: %s", finding.text, finding.cure)
    for token, address in _TOKENS_AND_ADDRESSES:
        if getattr(settings, token.lower()):
            warn_if_readable(token, by=address, url=getattr(settings, address.lower()))


def closed_or_open(settings: Settings) -> Iterator[Finding]:
    """Yield each list and page that admits nobody, and a page that sets no limit."""
    if settings.chat_platforms and not (settings.signs_in or is_loopback(settings.web_host)):
        text = f"There is no web page on WEB_HOST={settings.web_host}: nobody could sign in"
        cure = "if you want the page, set WEB_PASSWORD, WEB_OIDC_ISSUER or WEB_PROXY_HEADER"
        yield Finding("Settings", text, cure)
    if settings.web_password and settings.questions_per_day is settings.tokens_per_day is None:
        text = "Anybody with WEB_PASSWORD can use the model without limit"
        yield Finding("Settings", text, "set QUESTIONS_PER_DAY, which counts for each browser")
    for platform, token, is_its in (
        ("Discord", settings.discord_token, str.isdecimal),
        ("Slack", settings.slack_bot_token, _is_slack),
    ):
        if token:
            yield from _closed_to_people(settings, platform, is_its)
            yield from _closed_in_places(settings, platform, is_its)


def _closed_to_people(
    settings: Settings, platform: str, is_its: Callable[[str], bool]
) -> Iterator[Finding]:
    lists = settings.allowed_people or settings.allowed_roles
    has_roles = platform == "Discord" and settings.allowed_roles
    named = (*settings.allowed_people, *settings.admins)
    if lists and not has_roles and not any(map(is_its, named)):
        if platform == "Slack" and settings.allowed_roles:
            text = "ALLOWED_ROLES lets nobody in on Slack, which has no roles"
        else:
            text = f"ALLOWED_PEOPLE names nobody of {platform}: nobody is answered there"
        cure = " or ALLOWED_ROLES" if platform == "Discord" else ""
        cure = f"add people of {platform} to ALLOWED_PEOPLE{cure}"
        yield Finding("Settings", text, cure, wrong=True)


def _closed_in_places(
    settings: Settings, platform: str, is_its: Callable[[str], bool]
) -> Iterator[Finding]:
    what = "server" if platform == "Discord" else "workspace"
    for name, ids, one in (
        ("ALLOWED_SERVERS", settings.allowed_servers, what),
        ("ALLOWED_CHANNELS", settings.allowed_channels, "channel"),
    ):
        if ids and not any(map(is_its, ids)):
            text = f"{name} names no {one} of {platform}: nobody is answered in channels there"
            yield Finding("Settings", text, f"add the id of a {one} of {platform} to {name}")


def _is_slack(written: str) -> bool:
    # An organisation (E...) counts only beside a workspace.
    return written.startswith(("T", "C", "G", "U", "W"))


@dataclass(frozen=True, slots=True)
class _Connected:
    """A connected platform and how it receives events; `handler` receives them over HTTP."""

    platform: Platform
    listen: Callable[[Intake], Service]
    downtime: Callable[[], float]
    handler: Callable[[Intake], http.Handler] | None = None


_Connector = Callable[[], Awaitable[_Connected]]


@dataclass(slots=True)
class _Adapter:
    """Connects one platform; retries if it cannot be reached while others run."""

    _name: str
    _connector: _Connector
    _platforms: Platforms
    _fatal: int  # this many failed platforms end the process
    _retry_seconds: float
    _connected: _Connected | None = None

    async def open(self) -> None:
        try:
            await self._connect()
        except CannotStart as error:
            self._platforms.off[self._name] = error

    async def listen(self, intake: Intake) -> None:
        """Listen until cancelled; raises CannotStart if too many platforms are off."""
        while True:
            error = self._platforms.off.get(self._name)
            if error:
                if not isinstance(error, Unreachable):
                    await asyncio.Event().wait()
                await asyncio.sleep(self._retry_seconds)
            try:
                connected, error = await self._connect(), None
                await connected.listen(intake)
            except CannotStart as failure:
                self._platforms.off[self._name] = failure
                if len(self._platforms.off) >= self._fatal:
                    raise _failure(self._platforms) from failure
                if str(failure) != str(error):
                    _log_off(self._name, failure)

    def handler(self, intake: Intake) -> http.Handler:
        """Return an HTTP handler; while the platform is off it answers 503, and Slack retries."""
        handle: http.Handler | None = None

        async def handle_if_connected(request: web.Request) -> web.StreamResponse:
            nonlocal handle
            if self._connected is None or self._connected.handler is None:
                return web.Response(status=503)
            handle = handle or self._connected.handler(intake)
            return await handle(request)

        return handle_if_connected

    def downtime(self) -> float:
        """Return the seconds for which no events could arrive: infinity if the platform is off."""
        if self._connected is None or self._name in self._platforms.off:
            return math.inf
        return self._connected.downtime()

    async def _connect(self) -> _Connected:
        self._connected = self._connected or await self._connector()
        self._platforms.platforms[self._name] = self._connected.platform
        if self._platforms.off.pop(self._name, None):
            log.info("%s can be reached again", self._name.capitalize())
        return self._connected


def _log_off(name: str, error: CannotStart) -> None:
    retried = " (it is retried)" if isinstance(error, Unreachable) else ""
    log.error("%s is off%s: %s", name.capitalize(), retried, error)


def _failure(platforms: Platforms) -> CannotStart:
    return CannotStart("\n".join(map(str, platforms.off.values())))


async def _connect_discord(
    settings: Settings, store: Store, budgets: EditBudgets, stack: AsyncExitStack
) -> _Connected:
    from adapters import discord

    platform = await stack.enter_async_context(
        discord.connect(
            token=settings.discord_token,
            api_url=settings.discord_api_url,
            gateway_url=settings.discord_gateway_url,
            threads=settings.discord_threads,
            budgets=budgets,
            rated=_rated(settings, usual=False),
            command_server=settings.discord_command_server,
            leaves_other_servers=settings.leave_other_servers,
        )
    )
    listen = partial(platform.listen, store=store, shards=settings.discord_shards)
    return _Connected(platform, listen, platform.downtime)


async def _connect_slack(
    settings: Settings, store: Store, budgets: EditBudgets, stack: AsyncExitStack
) -> _Connected:
    from adapters import slack

    platform = await stack.enter_async_context(
        slack.connect(
            bot_token=settings.slack_bot_token,
            app_token=settings.slack_app_token,
            signing_secret=settings.slack_signing_secret,
            api_url=settings.slack_api_url,
            budgets=budgets,
            rated=_rated(settings, usual=True),
            prompts=settings.slack_suggested_prompts,
            limits=slack.Limits(factor=settings.slack_limits),
        )
    )
    if settings.slack_app_token:
        return _Connected(platform, partial(platform.listen, store=store), platform.downtime)
    # Over HTTP, Slack connects for each event, so no connection can be missing.
    return _Connected(platform, _wait_for_posts, lambda: 0.0, platform.handler)


async def _wait_for_posts(_: Intake) -> None:
    # The HTTP handler receives the events.
    await asyncio.Event().wait()
