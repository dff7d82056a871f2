"""A worker goes on while the store is away, and resumes when it is back."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest

from bot.domain import Exchange, Shown
from bot.errors import PlaceGone, StoreUnavailable
from bot.store import Store, connect
from bot.turns import worker as worker_module
from bot.turns.lease import Lease
from bot.turns.queue import Taken, Token, TurnQueue
from tests.support.at_work import (
    LEASE,
    LIMITS,
    WORDS,
    a_queue,
    a_turn,
    a_worker,
    all_ended,
    expire,
    outcome,
    ready,
    remembered,
    running,
    take,
)
from tests.support.fakes import FakeModel, FakePlatform, FakeSurface
from tests.support.outage import SocketLine, line
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("short_reads")


class Blinking(TurnQueue):
    """The store is away from the moment at which the first turn was taken."""

    way: SocketLine | None

    async def take(self, token: Token) -> Taken | None:
        taken = await super().take(token)
        if self.way:
            way, self.way = self.way, None
            await way.cut()
        return taken


async def test_a_store_that_goes_before_the_model_is_asked_costs_a_turn_nothing(
    store: Store, valkey_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    platform, model, prefix = FakePlatform(), FakeModel(["Hi"]), store.key("").partition(":")[0]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect(url=way.url, data_dir=tmp_path, prefix=prefix) as there,
        ):
            queue = Blinking(
                store=there, worker="w1", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60
            )
            queue.way = way
            async with running(a_worker(there, platform, model, queue=queue)):
                await a_queue(store).admit(a_turn())
                await until(lambda: "A turn is left until the store is back" in caplog.text)
                await way.mend()
                await all_ended(store)

    assert platform.shown.text == "Hi"
    assert "Traceback" not in caplog.text


async def test_a_store_that_somebody_found_away_is_not_asked_to_save(
    valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.store.COMMAND_SECONDS", 1.0)
    monkeypatch.setattr("bot.store.PING_SECONDS", 0.2)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect(url=way.url, data_dir=tmp_path, prefix=f"test-{uuid4().hex}") as there,
        ):
            queue = a_queue(there)
            leases = []
            for number in (1, 2):
                await queue.admit(a_turn(number, thread=f"t{number}"))
                taken = await take(queue)
                leases.append(Lease(queue=queue, taken=taken, seconds=LEASE))
            way.hold()
            begun = asyncio.get_running_loop().time()
            await leases[0].save(Shown(("m1",), "Hi", "Hi"))
            found = asyncio.get_running_loop().time()
            for _ in range(20):
                await leases[1].save(Shown(("m2",), "Hi", "Hi"))
            after = asyncio.get_running_loop().time()
            await way.mend()

    assert found - begun > 0.5
    assert after - found < 0.2


async def test_a_reply_goes_on_while_the_store_is_away(
    valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever took the outage for the loss of the lease would end before the model does.
    monkeypatch.setattr(worker_module, "POST_SECONDS", 0.0)
    platform, model = FakePlatform(), FakeModel(WORDS, pause=0.05)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect(url=way.url, data_dir=tmp_path, prefix=f"test-{uuid4().hex}") as store,
            running(a_worker(store, platform, model)),
        ):
            await a_queue(store).admit(a_turn())
            async with asyncio.timeout(5):
                while not platform.shown.states:
                    await asyncio.sleep(0.01)
            await way.cut()
            async with asyncio.timeout(5):
                while platform.shown.text != "".join(WORDS):
                    await asyncio.sleep(0.02)
            await asyncio.sleep(2 * LEASE)
            await way.mend()
            async with asyncio.timeout(5):
                await all_ended(store)

            assert await remembered(store) == [("question 1", "".join(WORDS))]
    assert list(platform.shown.screen) == ["m1"]
    assert len(model.prompts) == 1


async def test_a_stop_is_heard_at_once_though_the_store_was_away(
    store: Store, valkey_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    platform, model = FakePlatform(), FakeModel(WORDS, pause=600)
    prefix = store.key("").partition(":")[0]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect(url=way.url, data_dir=tmp_path, prefix=prefix) as there,
            # A renewal, which would tell of it too, comes after twenty seconds.
            running(a_worker(there, platform, model, lease=60)),
        ):
            await way.cut()
            await until(lambda: "No turns can be taken" in caplog.text)
            await way.mend()
            await a_queue(store).admit(a_turn())
            await until(lambda: model.at_once)
            async with asyncio.timeout(10):
                while await a_queue(store).depth():
                    await a_queue(store).stop("console:1")
                    await asyncio.sleep(0.1)

    assert await outcome(store) == "stopped"


class Refusing(TurnQueue):
    """Takes no end of a turn before it was told so often."""

    refuses = 12
    asked = 0

    async def finish(self, taken: Taken, shown: Shown, exchange: Exchange | None) -> None:
        self.asked += 1
        if self.asked <= self.refuses:
            raise StoreUnavailable("out of memory")
        await super().finish(taken, shown, exchange)


async def test_an_end_that_is_not_taken_is_told_again_later(store: Store) -> None:
    queue = Refusing(store=store, worker="w1", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60)

    async with running(a_worker(store, FakePlatform(), FakeModel(["Hi"]), queue=queue, drain=0)):
        await a_queue(store).admit(a_turn())
        await until(lambda: queue.asked)
        await asyncio.sleep(1)
        asked = queue.asked

    assert asked < 6


async def test_an_end_is_told_until_it_is_taken_and_never_much_later_than_it_could_be(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.turns.lease._PAUSE", 0.01)
    monkeypatch.setattr("bot.turns.lease._LONGEST_PAUSE", 0.02)
    queue = Refusing(store=store, worker="w1", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60)

    async with running(a_worker(store, FakePlatform(), FakeModel(["Hi"]), queue=queue)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await remembered(store) == [("question 1", "Hi")]


async def test_what_was_shown_while_the_store_was_away_is_remembered_though_its_place_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.store.PING_PAUSE", 60)
    surface = FakeSurface(errors=[None, *[PlaceGone("archived")] * 3])
    model = FakeModel(["Half", " more"], pause=0.1)
    store.note_away(StoreUnavailable("out of memory"))

    async with running(a_worker(store, FakePlatform(shown=surface), model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert surface.text == "Half"
    ((_, answer),) = await remembered(store)
    assert answer.startswith("Half")
    assert await outcome(store) == "failed"


async def test_work_resumes_within_five_seconds_of_the_stores_return(
    store: Store, valkey_url: str, tmp_path: Path
) -> None:
    platform, prefix = FakePlatform(), store.key("").partition(":")[0]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect(url=way.url, data_dir=tmp_path, prefix=prefix) as cut_off,
            running(a_worker(cut_off, platform, FakeModel(["Hi"]))),
        ):
            await way.cut()
            await a_queue(store).admit(a_turn())
            # Long enough for every wait that grows.
            await asyncio.sleep(5)
            assert not platform.shown.states
            await way.mend()

            async with asyncio.timeout(5):
                await all_ended(store)

    assert platform.shown.text == "Hi"


async def test_who_finds_the_store_back_lets_others_renew_their_leases_first(
    store: Store, valkey_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    platform, prefix = FakePlatform(), store.key("").partition(":")[0]
    busy = a_queue(store, "busy", lease=3)
    await busy.admit(a_turn(1))
    (token,) = await ready(busy)
    taken = await busy.take(token)
    assert taken
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect(url=way.url, data_dir=tmp_path, prefix=prefix) as cut_off,
        ):
            await way.cut()
            async with running(a_worker(cut_off, platform, FakeModel(["Hi"]), lease=3)):
                await until(lambda: "No turns can be taken" in caplog.text)
                await expire(store, token, "busy")
                await busy.admit(a_turn(2, thread="t2"))
                await way.mend()
                await until(lambda: platform.shown.states)

                stop = await busy.renew(taken)
                await expire(store, token, "busy")
                await all_ended(store)

    assert not stop
    assert await outcome(store, 1) == await outcome(store, 2) == "done"
