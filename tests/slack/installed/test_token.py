"""Tokens that rotate: refreshed once by all processes together, saved before use, never lost.

EVENTS and LIFE in the environment say how many requests are made, and how long tokens last.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient

from adapters.slack.errors import TokenRefused
from adapters.slack.installed.token import InstalledClient, InstalledToken, exchange
from bot.concurrency import BackgroundTasks
from bot.errors import PlaceGone, StoreUnavailable, WriteFailed
from bot.store import Store
from tests.emulators.slack import SlackEmulator
from tests.support.slack_installed import installed, kept, store_of
from tests.support.slack_platform import TEAM, UNLIMITED
from tests.support.waiting import until

EVENTS, LIFE = int(os.environ.get("EVENTS", "60")), float(os.environ.get("LIFE", "6"))
PACE = 0.25  # seconds between two events of a process
CURE = "install the app there again, at https://bot.example.com/slack/install"


@asynccontextmanager
async def processes(
    slack: SlackEmulator, store: Store, *, count: int = 1
) -> AsyncIterator[Sequence[InstalledToken]]:
    """As many processes, each with its own view of the token."""
    app_id, secret = slack.oauth.client_id, slack.oauth.client_secret
    async with aiohttp.ClientSession() as session, BackgroundTasks() as tasks:
        app = AsyncWebClient(None, slack.api_url, session=session, retry_handlers=[])

        async def refresh(token: str) -> object:
            more = {"grant_type": "refresh_token", "refresh_token": token}
            return await exchange(app, client_id=app_id, client_secret=secret, **more)

        yield [
            InstalledToken(TEAM, store_of(store), refresh=refresh, tasks=tasks, cure=CURE)  # type: ignore[arg-type]
            for _ in range(count)
        ]


async def test_two_processes_use_each_refresh_token_once_and_slack_refuses_nothing(
    store: Store,
) -> None:
    async with (
        SlackEmulator(rates={"auth.test": UNLIMITED}) as slack,
        aiohttp.ClientSession() as session,
    ):
        await installed(slack, store, life=LIFE, left=LIFE)
        async with processes(slack, store, count=2) as tokens:

            async def events(token: InstalledToken) -> None:
                client = InstalledClient(token, slack.api_url, session)
                for _ in range(EVENTS // 2):
                    await client.auth_test()
                    await asyncio.sleep(PACE)

            await asyncio.gather(*map(events, tokens))

        assert [call for call in slack.requests if call.error] == []
        assert {*slack.oauth.refreshed.values()} == {1}
        assert len(slack.oauth.refreshed) >= EVENTS // 2 * PACE // LIFE


async def test_processes_that_need_a_token_at_once_refresh_it_once(store: Store) -> None:
    async with SlackEmulator(latency=0.1) as slack:
        old = await installed(slack, store, left=-1)
        async with processes(slack, store, count=5) as tokens:
            found = await asyncio.gather(*(one.current() for one in tokens))

        assert slack.oauth.refreshed == {old.refresh_token: 1}
        assert {*found} == {(await kept(store, TEAM)).token}
        assert old.token not in found


async def test_nobody_waits_for_a_refresh_while_the_old_token_is_good(store: Store) -> None:
    async with SlackEmulator() as slack:
        old = await installed(slack, store, left=400)
        slow = slack.fail("oauth.v2.access", "late", seconds=0.3)
        async with processes(slack, store) as [token]:
            assert await token.current() == old.token
            new = old
            async with asyncio.timeout(60):
                while new.token == old.token:
                    new = await kept(store, TEAM)
                    await asyncio.sleep(0.01)
            while await token.current() != new.token:
                await asyncio.sleep(0.01)

        assert slow is not None
        assert sum(slack.oauth.refreshed.values()) == 1


async def test_a_token_is_read_once_until_half_of_its_life(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, command = [], Store.command

    async def note(self: Store, *words: str | int | float) -> object:
        read.append(words[0])
        return await command(self, *words)

    async with SlackEmulator() as slack:
        old = await installed(slack, store)
        async with processes(slack, store) as [token]:
            monkeypatch.setattr(type(store), "command", note)
            assert [await token.current() for _ in range(100)] == [old.token] * 100

    assert read == ["HGET"]


@pytest.mark.parametrize("status", [503, 429])
async def test_a_failed_refresh_is_tried_again_and_the_old_token_serves_meanwhile(
    store: Store, status: int
) -> None:
    async with SlackEmulator() as slack:
        old = await installed(slack, store, life=20.0, left=9.0)
        slack.fail("oauth.v2.access", status=status, retry_after=1 if status == 429 else None)
        async with processes(slack, store) as [token]:
            assert await token.current() == old.token

            found = old.token
            async with asyncio.timeout(60):
                while found == old.token:
                    await asyncio.sleep(0.02)
                    try:
                        found = await token.current()
                    except WriteFailed:
                        assert time.time() > old.expires_at

        assert found == (await kept(store, TEAM)).token


async def test_a_refresh_token_that_slack_refuses_leads_to_the_install_link(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SlackEmulator() as slack:
        old = await installed(slack, store, left=400)
        await store_of(store).add(replace(old, refresh_token="xoxe-1-used"))
        async with processes(slack, store) as [token]:
            await token.current()
            await until(lambda: "refuses to refresh" in caplog.text)
            # The old token is good until its end, and is not refreshed in vain.
            assert [await token.current() for _ in range(9)] == [old.token] * 9
            assert slack.oauth.refreshed == {"xoxe-1-used": 1}
            now = time.time
            monkeypatch.setattr(time, "time", lambda: now() + 500)
            for _ in range(3):
                with pytest.raises(TokenRefused, match=CURE):
                    await token.current()

            # Another process has installed it.
            new = await installed(slack, store)
            assert await token.current() == new.token

    [line] = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert CURE in line.getMessage()
    assert "xoxe" not in caplog.text


async def test_a_refresh_that_is_killed_before_it_is_saved_ends_in_the_install_link(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SlackEmulator() as slack:
        old = await installed(slack, store, left=400)
        async with processes(slack, store) as [killed]:

            async def hang(*_: object, **__: object) -> None:
                await asyncio.Event().wait()

            monkeypatch.setattr(killed._installations, "replace", hang)
            await killed.current()
            await until(lambda: slack.oauth.refreshed)
        # The lock of a killed process ends by itself.
        await store.command("DEL", store.key("slack_refreshing", TEAM))
        async with processes(slack, store) as [next_one]:
            assert await next_one.current() == old.token
            await until(lambda: "refuses to refresh" in caplog.text)
            assert await next_one.current() == old.token

    assert "invalid_refresh_token), which ends in 39" in caplog.text
    assert CURE in caplog.text


async def test_a_new_token_is_saved_however_long_the_store_is_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SlackEmulator() as slack:
        old = await installed(slack, store, left=400)
        async with processes(slack, store) as [token]:
            replace_, away = token._installations.replace, 2

            async def refuse(*args: object, **named: object) -> object:
                nonlocal away
                away -= 1
                if away >= 0:
                    raise StoreUnavailable("it is away")
                return await replace_(*args, **named)  # type: ignore[arg-type]

            monkeypatch.setattr(token._installations, "replace", refuse)
            assert await token.current() == old.token
            async with asyncio.timeout(60):
                while (await kept(store, TEAM)).token == old.token:
                    # It is not used before it is saved.
                    assert await token.current() == old.token
                    await asyncio.sleep(0.02)

    assert slack.oauth.refreshed == {old.refresh_token: 1}


@pytest.mark.parametrize("again", [False, True])
async def test_a_refresh_brings_back_no_workspace_that_has_left(store: Store, again: bool) -> None:
    async with SlackEmulator() as slack:
        old = await installed(slack, store, left=-1)
        answered = asyncio.Event()
        held = slack.fail("oauth.v2.access", "late", gate=answered)
        async with processes(slack, store) as [token]:
            asked = asyncio.ensure_future(token.current())
            await until(lambda: held.struck)
            await store.command("DEL", store.key("slack_installations"))
            if again:
                new = await installed(slack, store)
                answered.set()
                assert await asked == new.token
            else:
                answered.set()
                with pytest.raises(PlaceGone, match=f"not installed in {TEAM}"):
                    await asked

    assert slack.oauth.refreshed == {old.refresh_token: 1}
    assert old.token not in str(await store_of(store).read(TEAM))


async def test_a_refused_token_is_read_anew_once(store: Store) -> None:
    async with SlackEmulator() as slack, aiohttp.ClientSession() as session:
        await installed(slack, store)
        async with processes(slack, store) as [token]:
            client = InstalledClient(token, slack.api_url, session)
            await client.auth_test()
            slack.oauth.uninstall(TEAM)
            new = await installed(slack, store)  # by another process
            await client.auth_test()

            assert client.token == new.token
            assert [call.error for call in slack.requests] == [None, "token_revoked", None]
            await store.command("DEL", store.key("slack_installations"))
            slack.oauth.uninstall(TEAM)
            with pytest.raises(PlaceGone):
                await client.auth_test()
