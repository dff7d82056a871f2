"""Installations in the store: encrypted, each for its own workspace, and only with our keys."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from adapters.slack.installed.installations import Installation, Undecipherable
from bot.errors import CannotStart
from bot.store import Store
from tests.emulators.slack import SlackEmulator
from tests.support.fakes import EmptyStore, FakeQueue
from tests.support.process import ROOT
from tests.support.slack_installed import KEY, OTHER_KEY, app, dumped, kept, store_of
from tests.support.slack_platform import send_body

ONE = Installation("T1", "One", "xoxb-1", "xoxe-1", 5.0, 10.0)


def test_a_token_is_refreshed_at_half_of_its_life() -> None:
    answer = {"access_token": "xoxb-1", "refresh_token": "xoxe-1", "expires_in": 43200}

    found = ONE.with_token(answer, asked_at=time.time() - 5)

    assert found.expires_at == pytest.approx(time.time() + 43195, abs=4.9)
    assert found.expires_at - found.refresh_at == pytest.approx(21600)
    assert not found.is_due
    for endless in ({"access_token": "xoxb-1"}, {**answer, "expires_in": None}):
        found = ONE.with_token(endless, asked_at=0.0)
        assert (found.is_due, found.has_expired) == (False, False)


async def test_a_dump_of_the_store_has_no_token(store: Store) -> None:
    await store_of(store).add(ONE)

    assert await kept(store, "T1") == ONE
    dump = await dumped(store)
    assert "T1" in dump
    assert not [secret for secret in ("xox", "One") if secret in dump]
    assert not [secret for secret in ("xox", KEY) if secret in repr(ONE)]


async def test_a_workspace_cannot_be_given_the_token_of_another(store: Store) -> None:
    await store_of(store).add(ONE)
    key = store.key("slack_installations")
    await store.command("HSET", key, "T2", await store.command("HGET", key, "T1"))

    with pytest.raises(Undecipherable, match="in T2 is that of another workspace"):
        await store_of(store).read("T2")


async def test_a_token_is_on_the_replicas_before_it_is_used_if_there_are_any(
    own_store: Store,
) -> None:
    prefix = own_store.key().removesuffix(":{0}")
    replicated = Store(client=own_store.redis, url=own_store.url, prefix=prefix, replicas=1)
    installations = store_of(replicated)
    await own_store.command("CONFIG", "RESETSTAT")  # other tests have used the server

    await installations.add(ONE)
    found = await installations.read("T1")
    assert found
    assert await installations.replace(
        found, found.with_token({"access_token": "xoxb-2"}, asked_at=0)
    )

    assert (await own_store.redis.info("commandstats"))["cmdstat_wait"]["calls"] == 2


async def test_a_wrong_key_stops_the_start_and_says_so(store: Store) -> None:
    await store_of(store).add(ONE)

    async with SlackEmulator() as slack:
        with pytest.raises(CannotStart, match="T1 is encrypted with none of the keys of SLACK_S"):
            async with app(slack, store, FakeQueue(), store_key=(OTHER_KEY,)):
                pass


async def test_one_that_is_damaged_does_not_keep_the_others_from_the_start(store: Store) -> None:
    await store_of(store).add(ONE)
    await store.command("HSET", store.key("slack_installations"), "T0", "damaged")

    async with SlackEmulator() as slack, app(slack, store, FakeQueue()):
        pass


async def test_a_new_key_before_the_old_one_replaces_it(store: Store) -> None:
    await store_of(store, KEY).add(ONE)

    assert await store_of(store, OTHER_KEY, KEY).read("T1") == ONE

    assert await store_of(store, OTHER_KEY).read("T1") == ONE
    with pytest.raises(Undecipherable):
        await store_of(store, KEY).read("T1")


async def test_what_was_replaced_meanwhile_is_not_replaced_again(store: Store) -> None:
    installations = store_of(store)
    await installations.add(ONE)
    first = await kept(store, "T1")
    second = replace(ONE, token="xoxb-2")

    assert await installations.replace(first, second)
    assert await installations.replace(first, replace(ONE, token="xoxb-3")) is None
    assert await kept(store, "T1") == second


async def test_an_installation_that_cannot_be_decrypted_is_removed_all_the_same(
    store: Store,
) -> None:
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (_, url):
        await store_of(store, OTHER_KEY).add(ONE)
        event = {"type": "event_callback", "team_id": "T1", "event": {"type": "app_uninstalled"}}

        assert await send_body(slack, f"{url}/slack/events", json.dumps(event).encode()) == 200

    assert await store_of(store).ids() == []


async def test_a_lock_is_one_process_s_and_ends_with_its_owner(store: Store) -> None:
    installations = store_of(store)

    assert await installations.lock("T1", "one")
    assert await installations.lock("T1", "one")
    assert not await installations.lock("T1", "two")
    await installations.unlock("T1", "two")
    assert not await installations.lock("T1", "two")
    await installations.unlock("T1", "one")
    assert await installations.lock("T1", "two")


def test_without_the_package_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)

    with pytest.raises(CannotStart, match=r"needs cryptography: .* requirements-workspaces\.lock"):
        store_of(EmptyStore())


def test_a_bot_of_one_workspace_loads_nothing_of_this() -> None:
    code = (
        "import asyncio, sys\n"
        "import adapters.slack.platform, adapters.slack.setup\n"
        "from bot.app.platforms import all_specs\n"
        "all_specs()\n"
        "print([it for it in sys.modules if it == 'cryptography.fernet' or '.installed' in it])"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert (ended.stdout, ended.stderr) == ("[]\n", "")
