"""A worker goes on while the store is away, and resumes when it is back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bot.errors import PlaceGone, StoreUnavailable
from bot.store import Store
from bot.turns.queue import Taken, TurnLeases
from tests.support.at_work import (
    LEASE,
    POLICY,
    WORDS,
    all_ended,
    answer,
    cuttable,
    make_leases,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    remembered,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform, FakeSurface
from tests.support.outage import SocketLine
from tests.support.waiting import until


class Blinking(TurnLeases):
    """The store is away from the moment at which the first turn was taken."""

    way: SocketLine | None

    async def take(self, *of: Any, **how: Any) -> Taken | float:
        taken = await super().take(*of, **how)
        if self.way and isinstance(taken, Taken):
            way, self.way = self.way, None
            await way.cut()
        return taken


async def test_a_store_that_goes_before_the_model_is_asked_costs_a_turn_nothing(
    store: Store, valkey_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    platform, model = FakePlatform(), FakeModel(["Hi"])
    async with cuttable(store, valkey_url) as (way, there):
        leases = make_leases(Blinking, there)
        leases.way = way
        async with working(make_worker(there, platform, model, leases=leases)):
            await make_queue(store).admit(make_turn())
            await until(lambda: "Turn console:1" in caplog.text)
            await way.mend()
            await all_ended(store)

    assert platform.shown.text == "Hi"
    assert "Traceback" not in caplog.text


async def test_a_reply_goes_on_while_the_store_is_away(store: Store, valkey_url: str) -> None:
    # Whoever took the outage for the loss of the lease would end before the model does.
    policy = replace(POLICY, post_grace=0.0)
    platform, model = FakePlatform(), FakeModel(WORDS, pause=0.05)
    async with (
        cuttable(store, valkey_url) as (way, there),
        working(make_worker(there, platform, model, policy=policy)),
    ):
        await make_queue(store).admit(make_turn())
        await until(lambda: platform.shown.states)
        await way.cut()
        await until(lambda: platform.shown.text == "".join(WORDS))
        await asyncio.sleep(2 * LEASE)
        await way.mend()
        await all_ended(store)

        assert await remembered(store) == [("question 1", "".join(WORDS))]
    assert list(platform.shown.screen) == ["m1"]
    assert len(model.prompts) == 1


async def test_a_stop_is_heard_at_once_though_the_store_was_away(
    store: Store, valkey_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    platform, model = FakePlatform(), FakeModel(WORDS, pause=600)
    async with (
        cuttable(store, valkey_url) as (way, there),
        # A renewal, which would tell of it too, comes after twenty seconds.
        working(make_worker(there, platform, model, lease=60)),
    ):
        await way.cut()
        await until(lambda: "Cannot take turns" in caplog.text)
        await way.mend()
        await make_queue(store).admit(make_turn())
        await until(lambda: model.at_once)
        async with asyncio.timeout(60):
            while (await make_queue(store).load([])).open:
                await make_queue(store).changes.stop("console:1")
                await asyncio.sleep(0.1)

    assert await outcome(store) == "stopped"


async def test_what_was_shown_while_the_store_was_away_is_remembered_though_its_place_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.store.PING_PAUSE", 60)
    surface = FakeSurface(errors=[None, *[PlaceGone("archived")] * 3])
    model = FakeModel(["Half", lambda: surface.text, " more"])
    store.note_away(StoreUnavailable("out of memory"))

    await answer(store, FakePlatform(shown=surface), model, make_turn())

    assert surface.text == "Half"
    ((_, said),) = await remembered(store)
    assert said.startswith("Half")
    assert await outcome(store) == "failed"


class Away(TurnLeases):
    """The store does not answer the first calls."""

    outages = 12
    holds: tuple[bool, ...] = ()

    async def take(self, *of: Any, **how: Any) -> Taken | float:
        self.holds += (how["holds_due"],)
        self._fail()
        return await super().take(*of, **how)

    def _fail(self) -> None:
        self.outages -= 1
        if self.outages >= 0:
            raise StoreUnavailable("connection refused")


async def test_the_store_is_asked_again_after_pauses_that_do_not_grow(store: Store) -> None:
    leases = make_leases(Away, store)

    # If they doubled, the last pause would last for a minute and a half.
    await answer(store, FakePlatform(), FakeModel(), make_turn(), leases=leases)

    assert await outcome(store) == "done"


async def test_after_an_outage_others_may_renew_their_leases_first(store: Store) -> None:
    leases = make_leases(Away, store, lease=60)

    await answer(store, FakePlatform(), FakeModel(), make_turn(), leases=leases, lease=60)

    # Before the outage, and not again for the length of a lease.
    assert leases.holds.index(True) == 1
    assert all(leases.holds[1:])
