"""An app that several workspaces of the emulated Slack install."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
from aiohttp import web

from adapters.slack.installed.installations import Installation, Installations
from adapters.slack.installed.platform import SeveralWorkspaces, connect
from adapters.slack.settings import INSTALL_PATH, REDIRECT_PATH, SlackSettings
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.emulators.serving import served
from tests.emulators.slack import SlackEmulator
from tests.support.fakes import FakeQueue, NoLimits, NotedIntake, door
from tests.support.process import model_variables
from tests.support.slack_platform import LIMITS

KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I="
OTHER_KEY = "b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXItb3Q="
PUBLIC = "https://bot.example.com"


def app_variables(
    slack: SlackEmulator, model: ModelEmulator | None = None, *, socket: bool = False
) -> dict[str, str]:
    """The variables of a process; its events come over HTTP, or by sockets."""
    slack.oauth.redirect_urls = (PUBLIC + REDIRECT_PATH,)
    return {
        "SLACK_CLIENT_ID": slack.oauth.client_id,
        "SLACK_CLIENT_SECRET": slack.oauth.client_secret,
        "SLACK_STORE_KEY": KEY,
        "SLACK_PUBLIC_URL": PUBLIC,
        "SLACK_API_URL": slack.api_url,
        **(
            {"SLACK_APP_TOKEN": slack.app_token}
            if socket
            else {"SLACK_SIGNING_SECRET": slack.signing_secret}
        ),
        **model_variables(model),
    }


def app_settings(slack: SlackEmulator, **chosen: Any) -> SlackSettings:
    slack.oauth.redirect_urls = (PUBLIC + REDIRECT_PATH,)
    usual = {
        "client_id": slack.oauth.client_id,
        "client_secret": slack.oauth.client_secret,
        "signing_secret": slack.signing_secret,
        "store_key": (KEY,),
        "public_url": PUBLIC,
        "api_url": slack.api_url,
    }
    return SlackSettings(**{**usual, **chosen})


@asynccontextmanager
async def app(
    slack: SlackEmulator,
    store: Store,
    intake: NotedIntake | FakeQueue,
    *,
    budgets: EditBudgets | None = None,
    **chosen: Any,
) -> AsyncIterator[tuple[SeveralWorkspaces, str]]:
    """A process that hears over HTTP, and the address of its pages."""
    own = app_settings(slack, **chosen)
    budgets = budgets or NoLimits()
    async with (
        connect(own, store=store, intake=door(intake), budgets=budgets, limits=LIMITS) as platform,
        pages(platform) as url,
    ):
        await slack.verify(f"{url}/slack/events")
        yield platform, url


@asynccontextmanager
async def pages(platform: SeveralWorkspaces) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", platform.handler(posts=True))
    async with served(application) as url:
        yield url


async def begin(url: str) -> tuple[str, str]:
    """Open the page to install; return the address at Slack, and the cookie."""
    async with (
        aiohttp.ClientSession() as browser,
        browser.get(url + INSTALL_PATH, allow_redirects=False) as answer,
    ):
        assert answer.status == 302, await answer.text()
        cookie = answer.headers["Set-Cookie"]
        assert "Secure; HttpOnly" in cookie
        return answer.headers["Location"], cookie.partition(";")[0]


async def come_back(url: str, address: str, cookie: str) -> tuple[int, str]:
    """Go where Slack sends the browser; return the status and the page."""
    there = url + address.removeprefix(PUBLIC)
    async with (
        aiohttp.ClientSession() as browser,
        browser.get(there, headers={"Cookie": cookie}) as answer,
    ):
        return answer.status, await answer.text()


async def install(slack: SlackEmulator, url: str, team_id: str, *, organization: str = "") -> str:
    """Install the app in a workspace, as a person does in a browser; return the page."""
    there, cookie = await begin(url)
    back = slack.oauth.agree(there, team_id, organization=organization)
    status, page = await come_back(url, back, cookie)
    assert status == 200, page
    return page


def store_of(store: Store, *keys: str) -> Installations:
    return Installations(store, keys or (KEY,))


async def installed(
    slack: SlackEmulator, store: Store, *, life: float = 1000.0, left: float = 1000.0
) -> Installation:
    """Install the app, with a token of which so many seconds are `left`."""
    slack.oauth.life = life
    new = Installation.of(slack.grant(slack.team_id), asked_at=time.time())
    ends = time.time() + left
    old = replace(new, refresh_at=ends - life / 2, expires_at=ends)
    await store_of(store).add(old)
    return old


async def kept(store: Store, team_id: str) -> Installation:
    found = await store_of(store).read(team_id)
    assert found is not None
    return found


async def dumped(store: Store) -> str:
    """Return the names and values of all keys."""
    names = await store.command("KEYS", store.key("*"))
    kinds = {
        "hash": ("HGETALL",),
        "list": ("LRANGE", 0, -1),
        "set": ("SMEMBERS",),
        "string": ("GET",),
        "zset": ("ZRANGE", 0, -1),
        "stream": ("XRANGE", "-", "+"),
    }
    found = []
    for name in names:
        command, *more = kinds[await store.command("TYPE", name)]
        found.append(f"{name} {await store.command(command, name, *more)}")
    return "\n".join(found)
