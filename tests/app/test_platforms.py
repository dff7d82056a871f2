"""The platforms of a process: those that work run, and each that does not is told."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.app import http
from bot.app.platforms import WORKER, Platforms, check_settings, closed_or_open, open_platforms
from bot.app.service import needs_all
from bot.concurrency import cancelled
from bot.errors import CannotStart
from bot.platform_spec import Process
from bot.reply.edit_budget import EditBudgets
from bot.store import Store
from config.settings import Settings
from tests.emulators.discord import DiscordEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.fakes import FakeQueue
from tests.support.settings import settings_of
from tests.support.slack_platform import serving
from tests.support.waiting import until

BOTH = frozenset({"discord", "slack"})


@asynccontextmanager
async def opened(
    store: Store,
    discord: DiscordEmulator,
    slack: SlackEmulator,
    *,
    need_all: bool = False,
    roles: frozenset[str] = BOTH,
    over_http: bool = False,
) -> AsyncIterator[Platforms]:
    settings = settings_of(
        discord_token=discord.token,
        discord_api_url=discord.api_url,
        discord_gateway_url=discord.gateway_url,
        slack_bot_token=slack.bot_token,
        slack_app_token="" if over_http else slack.app_token,
        slack_signing_secret=slack.signing_secret,
        slack_api_url=slack.api_url,
        data_dir=Path("unused"),
    )
    async with AsyncExitStack() as stack:
        process = Process(
            settings=settings,
            roles=roles,
            store=store,
            budgets=EditBudgets(store=store),
            intake=FakeQueue().intake,
            serve_pages=http.serve_pages,
            trust=http.trust,
            need_all=need_all,
        )
        yield await open_platforms(process, stack, answers=False, retry_seconds=0.05)


@asynccontextmanager
async def listening(platforms: Platforms) -> AsyncIterator[list[asyncio.Task[object]]]:
    tasks = [asyncio.create_task(listen()) for listen in platforms.listeners.values()]
    try:
        yield tasks
    finally:
        await cancelled(*tasks)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [it.getMessage() for it in caplog.records if it.levelno >= logging.ERROR]


async def test_a_wrong_token_leaves_the_other_platform_running_and_is_never_heard(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        discord.fail("GET /users/@me", status=401)
        async with opened(store, discord, slack) as platforms, listening(platforms) as tasks:
            await until(lambda: platforms.downtimes["slack"]() == 0.0)

            assert platforms.downtimes["discord"]() == math.inf
            assert platforms.platforms.keys() == {"slack"}
            assert platforms.off.keys() == {"discord"}
            assert not any(task.done() for task in tasks)
    (line,) = errors(caplog)
    assert "DISCORD_TOKEN" in line


async def test_a_worker_reaches_a_platform_that_was_away_at_its_start_and_hears_nothing(
    store: Store,
) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        slack.fail("auth.test", status=503, times=2)
        roles = frozenset({WORKER})
        async with opened(store, discord, slack, roles=roles) as platforms:
            assert platforms.platforms.keys() == {"discord"}
            async with listening(platforms) as tasks:
                await until(lambda: platforms.platforms.keys() == {"discord", "slack"})
                assert not any(task.done() for task in tasks)

    assert not discord.handshakes
    assert not [it for it in slack.requests if it.method == "apps.connections.open"]


async def test_wrong_tokens_are_all_reported_at_once(store: Store) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        discord.fail("GET /users/@me", status=401, times=2)
        # One that is needed has to start.
        with pytest.raises(CannotStart, match="DISCORD_TOKEN"):
            async with opened(store, discord, slack, need_all=True):
                pass
        slack.fail("auth.test", error="invalid_auth")
        with pytest.raises(CannotStart) as caught:
            async with opened(store, discord, slack):
                pass

    first, second = str(caught.value).splitlines()
    assert discord.token not in first
    assert slack.bot_token not in second
    assert "DISCORD_TOKEN" in first
    assert "SLACK_BOT_TOKEN" in second


@pytest.mark.parametrize(
    ("named", "required", "needs"),
    [
        ((), None, False),
        (("slack",), None, True),
        ((), True, True),
        (("slack", "discord"), False, False),
    ],
)
def test_platforms_are_required_if_they_are_named_or_if_settings_say_so(
    named: tuple[str, ...], required: bool | None, needs: bool
) -> None:
    assert needs_all(named, settings_of(platforms_required=required)) is needs


@pytest.mark.parametrize(
    ("settings", "roles", "both"),
    [
        (settings_of(web_port=8080), {"web", "worker"}, ("WEB_PORT", "PORT")),
        (settings_of(web_port=8080, host="0.0.0.0"), {"web", "discord"}, ("WEB_PORT", "PORT")),
        (settings_of(metrics_port=8080), {"worker"}, ("PORT", "METRICS_PORT")),
        (settings_of(metrics_port=5006), {"web"}, ("WEB_PORT", "METRICS_PORT")),
        (settings_of(web_port=8080), {"console", "web", "worker"}, None),
        (
            settings_of(web_port=8080, web_host="192.0.2.1", web_password="long enough"),
            {"web"},
            None,
        ),
        (settings_of(port=0, web_port=0, metrics_port=0), {"web"}, None),
        (settings_of(web_port=8080), {"worker"}, None),
    ],
)
def test_two_servers_on_one_port_are_refused_before_the_start(
    settings: Settings, roles: set[str], both: tuple[str, str] | None
) -> None:
    discord = settings_of(discord_token="x").platforms["discord"]
    platforms = {**settings.platforms, "discord": discord}
    settings = replace(settings, platforms=platforms, model_url="http://here")

    with pytest.raises(CannotStart) if both else nullcontext() as refused:
        check_settings(settings, frozenset(roles))

    if both and refused:
        assert str(refused.value).startswith(f"{both[0]} and {both[1]} are both ")


@pytest.mark.parametrize(
    ("chosen", "cure"),
    [
        ({"discord_token": "x", "web_host": "0.0.0.0", "questions_per_day": 9}, "WEB_PASSWORD"),
        ({"web_password": "long enough"}, "QUESTIONS_PER_DAY"),
        ({"web_password": "long enough", "questions_per_day": 9, "web_host": "0.0.0.0"}, ""),
        ({"web_password": "long enough", "tokens_per_day": 9}, ""),
    ],
)
def test_a_page_for_nobody_and_one_without_a_quota_are_reported(
    chosen: dict[str, Any], cure: str
) -> None:
    found = [finding.cure for finding in closed_or_open(settings_of(**chosen))]

    assert [cure in one for one in found] == [True] * bool(cure)


async def test_a_platform_that_was_away_comes_up_later(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        discord.fail("GET /users/@me", status=503, times=3)
        async with opened(store, discord, slack) as platforms, listening(platforms):
            before = set(platforms.platforms)
            await until(discord.connected.is_set)

            assert before == {"slack"}
            assert platforms.platforms.keys() == BOTH
            assert not platforms.off
    assert len(errors(caplog)) == 1


async def test_slack_over_http_has_its_events_sent_again_until_it_is_up(store: Store) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        slack.fail("auth.test", status=503)
        async with opened(store, discord, slack, over_http=True) as platforms:
            handler = platforms.posts["/slack/events"]
            async with serving(handler) as url, aiohttp.ClientSession() as session:
                async with session.post(url) as answer:
                    before = answer.status
                async with listening(platforms):
                    await until(lambda: "slack" in platforms.platforms)
                async with session.post(url) as answer:
                    after = answer.status

    assert (before, after) == (503, 401)


async def test_a_refused_app_token_turns_slack_alone_off(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        slack.fail("apps.connections.open", error="invalid_auth", times=10)
        async with opened(store, discord, slack) as platforms, listening(platforms) as tasks:
            await until(lambda: "slack" in platforms.off)
            await until(discord.connected.is_set)

            assert not any(task.done() for task in tasks)
    (line,) = errors(caplog)
    assert "SLACK_APP_TOKEN" in line


async def test_the_last_platform_that_fails_ends_the_listening_with_all_reasons(
    store: Store,
) -> None:
    async with DiscordEmulator() as discord, SlackEmulator() as slack:
        discord.fail("GET /users/@me", status=401)
        slack.fail("apps.connections.open", error="invalid_auth", times=10)
        async with opened(store, discord, slack) as platforms, listening(platforms) as tasks:
            await until(lambda: any(task.done() for task in tasks))
            (failed,) = [task for task in tasks if task.done()]

            with pytest.raises(CannotStart, match=r"(?s)DISCORD_TOKEN.*SLACK_APP_TOKEN"):
                failed.result()


async def test_an_admin_who_cannot_be_told_for_long_has_nobody_told_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = "123456789012345678", "223456789012345678"
    told: list[str] = []

    async def tell(person: str, _: str) -> None:
        if person == second:
            await asyncio.Event().wait()
        told.append(person)

    monkeypatch.setattr("bot.app.platforms.TELL_SECONDS", 1.0)
    async with (
        DiscordEmulator() as discord,
        SlackEmulator() as slack,
        opened(store, discord, slack) as platforms,
    ):
        connected = replace(platforms._connected["discord"], tell=tell)
        monkeypatch.setitem(platforms._connected, "discord", connected)
        async with asyncio.timeout(30):
            assert await platforms.tell([first, second], "80 %")
            assert not await platforms.tell([second], "80 %")

    assert told == [first]
