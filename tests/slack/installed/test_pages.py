"""The pages to install the app: a state is good once, for a while, and in one browser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from adapters.slack.settings import INSTALL_PATH, REDIRECT_PATH
from bot.errors import StoreUnavailable, WriteFailed
from bot.store import Store
from tests.emulators.slack import SlackEmulator
from tests.support.fakes import FakeQueue
from tests.support.slack_installed import (
    OTHER_KEY,
    PUBLIC,
    app,
    begin,
    come_back,
    install,
    kept,
    store_of,
)
from tests.support.slack_platform import TEAM
from tests.support.waiting import until


async def test_a_workspace_installs_the_app_and_its_token_is_kept(store: Store) -> None:
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (_, url):
        page = await install(slack, url, TEAM)

        assert "The bot is in Parley now" in page
        assert (await kept(store, TEAM)).token.startswith("xoxb-")
        assert await store_of(store).ids() == [TEAM]


async def test_an_organisation_installs_the_app_for_all_its_workspaces(store: Store) -> None:
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (_, url):
        page = await install(slack, url, TEAM, organization="E0ORG")

        assert "The bot is in Org now" in page
        assert await store_of(store).ids() == ["E0ORG"]


async def test_a_state_is_good_once(store: Store) -> None:
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (_, url):
        there, cookie = await begin(url)
        back = slack.oauth.agree(there, TEAM)
        assert (await come_back(url, back, cookie))[0] == 200
        again = slack.oauth.agree(there, TEAM)

        status, page = await come_back(url, again, cookie)
        # Bytes that decoding leaves out make it no other state.
        state = cookie.partition("=")[2]
        longer = again.replace(state, f"{state}!"), f"{cookie}!"
        status_of_longer, _ = await come_back(url, *longer)

        assert (status, status_of_longer) == (400, 400)
        assert "not valid any more" in page
        assert INSTALL_PATH in page


async def test_a_state_of_another_browser_is_refused(store: Store) -> None:
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (_, url):
        there, _ = await begin(url)
        _, cookie_of_another = await begin(url)
        back = slack.oauth.agree(there, TEAM)

        for cookie in ("", cookie_of_another):
            status, page = await come_back(url, back, cookie)
            assert (status, "not valid any more" in page) == (400, True)

        assert await store_of(store).ids() == []
        assert [call.method for call in slack.requests] == []


async def test_a_state_expires_after_ten_minutes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (_, url):
        there, cookie = await begin(url)
        back, now = slack.oauth.agree(there, TEAM), time.time
        monkeypatch.setattr(time, "time", lambda: now() + 601)

        assert (await come_back(url, back, cookie))[0] == 400
        assert await store_of(store).ids() == []


async def test_a_made_up_state_and_that_of_another_key_are_refused(store: Store) -> None:
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (_, url):
        for state in ("made-up", "é", store_of(store, OTHER_KEY).issue_state(), "a" * 3000):
            back = f"{PUBLIC}{REDIRECT_PATH}?code=1&state={state}"
            status, _ = await come_back(url, back, f"slack-app-oauth-state={state}")
            assert status == 400


async def test_who_refuses_at_slack_reads_so(store: Store) -> None:
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (_, url):
        there, cookie = await begin(url)

        status, page = await come_back(url, slack.oauth.refuse(there), cookie)

        assert (status, "Slack was told not to" in page) == (200, True)
        assert await store.command("KEYS", store.key("slack_state", "*")) == []


async def test_of_many_made_up_codes_few_reach_slack_and_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (platform, url):
        held, asked = asyncio.Event(), []

        async def exchange(**given: str) -> Mapping[str, Any]:
            asked.append(given)
            await held.wait()
            raise WriteFailed("invalid_code")

        async def made_up() -> int:
            _, cookie = await begin(url)
            state = cookie.partition("=")[2]
            back = f"{PUBLIC}{REDIRECT_PATH}?code=1&state={state}"
            return (await come_back(url, back, cookie))[0]

        with monkeypatch.context() as patch:
            patch.setattr(platform, "_exchange", exchange)
            waiting = [asyncio.create_task(made_up()) for _ in range(20)]
            await until(lambda: (sum(one.done() for one in waiting), len(asked)) == (12, 8))
            assert len(await store.command("KEYS", store.key("slack_state", "*"))) == 8
            held.set()
            assert sorted(await asyncio.gather(*waiting)) == [502] * 8 + [503] * 12

        assert await install(slack, url, TEAM)


async def test_a_code_that_slack_does_not_take_is_no_installation(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (_, url):
        _, cookie = await begin(url)
        state = cookie.partition("=")[2]
        back = f"{PUBLIC}{REDIRECT_PATH}?code=secret-code&state={state}"

        status, page = await come_back(url, back, cookie)

        assert (status, "did not accept it" in page) == (502, True)
    assert "invalid_code" in caplog.text
    assert "secret-code" not in caplog.text


async def test_a_store_that_is_away_is_told_and_nothing_is_lost_but_the_attempt(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise StoreUnavailable("it is away")

    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (_, url):
        there, cookie = await begin(url)
        back = slack.oauth.agree(there, TEAM)
        with monkeypatch.context() as patch:
            patch.setattr(type(store), "command", refuse)
            status, page = await come_back(url, back, cookie)
        assert (status, "could not be stored" in page) == (503, True)

        assert await install(slack, url, TEAM)


async def test_a_page_hides_its_address_and_loads_nothing(store: Store) -> None:
    async with (
        SlackEmulator() as slack,
        app(slack, store, FakeQueue()) as (_, url),
        aiohttp.ClientSession() as browser,
        browser.get(f"{url}{REDIRECT_PATH}?state=<script>&code=1") as answer,
    ):
        page = await answer.text()

    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "script" not in page
