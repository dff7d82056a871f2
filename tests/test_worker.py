"""The worker: every turn ends, once, whatever happens to its worker."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import pytest

from bot import worker as worker_module
from bot.domain import Delta, Exchange, LeftOut, Page, Shown, Start, Turn
from bot.draft import FAILED_ANEW, LEFT_OUT, STOPPED
from bot.errors import (
    GivenUp,
    ModelUnavailable,
    PlaceGone,
    StoreUnavailable,
    WriteDelayed,
    WriteFailed,
    WriteRefused,
)
from bot.lease import Lease
from bot.store import Store, connect
from bot.turns import GROUP, Taken, Token, TurnQueue
from tests.at_work import (
    KEY,
    LEASE,
    LIMITS,
    WORDS,
    a_queue,
    a_turn,
    a_worker,
    all_ended,
    expire,
    outcome,
    press,
    read_shortly,
    ready,
    remembered,
    running,
    take,
)
from tests.fakes import FakeModel, FakePlatform, FakeSurface
from tests.outage import SocketLine, line
from tests.waiting import until


@pytest.fixture(autouse=True)
def _short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    read_shortly(monkeypatch)


async def test_an_admitted_turn_is_answered_and_remembered(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(["Hi", " Ann"])

    async with running(a_worker(store, platform, model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert platform.shown.text == "Hi Ann"
    assert await remembered(store) == [("question 1", "Hi Ann")]
    assert await outcome(store) == "done"


async def test_the_second_turn_sees_the_first_exchange(store: Store) -> None:
    model = FakeModel(["Hi"])

    async with running(a_worker(store, FakePlatform(), model)):
        await a_queue(store).admit(a_turn(1))
        await a_queue(store).admit(a_turn(2))
        await all_ended(store)

    assert [(message.role, message.text) for message in model.prompts[1]] == [
        ("system", "Be brief."),
        ("user", "question 1"),
        ("assistant", "Hi"),
        ("user", "question 2"),
    ]


async def test_a_failed_turn_is_remembered_by_what_was_shown(store: Store) -> None:
    model = FakeModel(["Half"], error=ModelUnavailable("cut"))

    async with running(a_worker(store, FakePlatform(), model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await outcome(store) == "failed"
    assert await remembered(store) == [("question 1", "Half")]


async def test_a_turn_without_a_word_leaves_nothing_in_the_history(store: Store) -> None:
    model = FakeModel([], error=ModelUnavailable("refused"))

    async with running(a_worker(store, FakePlatform(), model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await remembered(store) == []


async def test_stop_reaches_a_running_reply(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(WORDS * 20, pause=0.02)

    async with running(a_worker(store, platform, model)):
        await a_queue(store).admit(a_turn())
        async with asyncio.timeout(5):
            while not platform.shown.states:
                await asyncio.sleep(0.01)
        await a_queue(store).stop("console:1")
        async with asyncio.timeout(1):
            await all_ended(store)

    assert await outcome(store) == "stopped"
    assert platform.shown.text.endswith("(Stopped.)")


@pytest.mark.parametrize(
    ("said", "characters"),
    [
        (["Yes", "."], 5),
        ([LeftOut(7), "Yes", "."], 12),
        (["No", Start(""), "Yes", "."], 5),
        ([LeftOut(7), "No", Start(""), "Yes", "."], 5),
    ],
)
async def test_who_says_more_than_is_kept_is_told(
    said: list[Delta], characters: int, store: Store
) -> None:
    platform = FakePlatform()

    async with running(a_worker(store, platform, FakeModel(said))):
        await a_queue(store).admit(replace(a_turn(), left_out=5))
        await all_ended(store)

    assert platform.shown.text == f"Yes.\n\n{LEFT_OUT.format(characters=characters)}"


async def test_threads_are_answered_side_by_side(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)

    async with running(a_worker(store, FakePlatform(), model)):
        for number in range(6):
            await a_queue(store).admit(a_turn(number, thread=f"t{number}"))
        async with asyncio.timeout(1.5):
            await all_ended(store)

    assert len(model.prompts) == 6


async def test_a_place_that_is_gone_ends_the_turn(store: Store) -> None:
    platform = FakePlatform(error=PlaceGone("no permission"))

    async with running(a_worker(store, platform, FakeModel())):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await outcome(store) == "failed"
    assert await remembered(store) == []


async def test_what_a_place_has_not_taken_is_not_remembered(store: Store) -> None:
    surface = FakeSurface(errors=[PlaceGone("no permission")])

    async with running(a_worker(store, FakePlatform(shown=surface), FakeModel(["Hi"]))):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await outcome(store) == "failed"
    assert await remembered(store) == []


async def test_a_place_that_goes_in_mid_reply_is_remembered_by_what_was_shown(
    store: Store,
) -> None:
    surface = FakeSurface(errors=[None, PlaceGone("archived")])

    async with running(
        a_worker(store, FakePlatform(shown=surface), FakeModel(["Half", " more"], pause=0.1))
    ):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await outcome(store) == "failed"
    assert surface.text == f"Half\n\n{PlaceGone.apology}"
    assert await remembered(store) == [("question 1", "Half")]


async def test_a_worker_takes_no_more_than_its_capacity(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)

    async with running(a_worker(store, FakePlatform(), model, capacity=3)):
        for number in range(12):
            await a_queue(store).admit(a_turn(number, thread=f"t{number}"))
        await all_ended(store)

    assert model.most_at_once == 3
    assert len(model.prompts) == 12


async def test_two_platforms_at_once_do_not_exceed_the_capacity(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)
    elsewhere = replace(a_turn(2), key=replace(KEY, platform="slack"))

    async with running(a_worker(store, FakePlatform(), model, capacity=1)):
        await asyncio.gather(a_queue(store).admit(a_turn(1)), a_queue(store).admit(elsewhere))
        await all_ended(store)

    assert model.most_at_once == 1
    assert len(model.prompts) == 2


async def test_what_was_read_beyond_the_capacity_waits_for_room_only(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.01)
    elsewhere = replace(a_turn(2), key=replace(KEY, platform="slack"))
    await asyncio.gather(a_queue(store).admit(a_turn(1)), a_queue(store).admit(elsewhere))

    async with running(a_worker(store, FakePlatform(), model, capacity=1, lease=60)):
        async with asyncio.timeout(5):
            await all_ended(store)

    assert len(model.prompts) == 2


async def test_what_a_dead_worker_left_comes_before_what_is_new(store: Store) -> None:
    model, dead = FakeModel(WORDS[:5], pause=0.01), a_queue(store, "dead")
    await dead.admit(a_turn(0, thread="left"))
    (token,) = await ready(dead)
    assert await dead.take(token)
    await expire(store, token, "dead")
    for number in range(1, 10):
        await dead.admit(a_turn(number, thread=f"t{number}"))

    async with running(a_worker(store, FakePlatform(), model, capacity=1)):
        await all_ended(store)

    assert model.prompts[0][-1].text == "question 0"


class Timed(TurnQueue):
    """Remembers of all reads how long they may last, and until when after the last look."""

    looked_at = 0.0
    latest = 0.0
    shortest = 60.0

    async def reclaim(self, platforms: Sequence[str], *, count: int) -> list[Token]:
        self.looked_at = time.monotonic()
        return await super().reclaim(platforms, count=count)

    async def ready(
        self, platforms: Sequence[str], *, count: int, block_seconds: float
    ) -> list[Token]:
        self.latest = max(self.latest, time.monotonic() + block_seconds - self.looked_at)
        self.shortest = min(self.shortest, block_seconds)
        return await super().ready(platforms, count=count, block_seconds=block_seconds)


async def test_no_read_of_new_turns_holds_up_the_look_for_what_others_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BLOCK_SECONDS", 1.0)
    lease = 1.5
    queue = Timed(store=store, worker="w1", limits=LIMITS, lease_seconds=lease, keep_seconds=60)

    async with running(
        a_worker(store, FakePlatform(), FakeModel(["Hi"]), lease=lease, queue=queue)
    ):
        for number in range(4):
            await asyncio.sleep(lease / 7)
            await a_queue(store).admit(a_turn(number, thread=f"t{number}"))
        await all_ended(store)

    assert 0 < queue.latest < lease / 3 + 0.1


async def test_no_read_of_new_turns_is_one_without_an_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BLOCK_SECONDS", 0.0)
    queue = Timed(store=store, worker="w1", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60)

    async with running(a_worker(store, FakePlatform(), FakeModel(["Hi"]), queue=queue)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    # Redis takes no milliseconds for ever.
    assert int(queue.shortest * 1000) > 0


async def test_a_retry_comes_when_it_is_due_however_many_turns_are_new(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "LONGEST_BACK", LEASE / 3)
    model = FakeModel(WORDS[:10], pause=0.01)
    platform = FakePlatform(shown=FakeSurface(errors=[ValueError("a bug")]))
    for number in range(1, 20):
        await a_queue(store).admit(a_turn(number, thread=f"t{number}"))

    async with running(a_worker(store, platform, model, capacity=1)):
        await all_ended(store)

    asked = [prompt[-1].text for prompt in model.prompts]
    assert "question 1" in asked[1:10]


async def test_a_worker_that_reclaims_its_own_turn_goes_on_with_it(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.03)

    async with running(a_worker(store, FakePlatform(), model)):
        await a_queue(store).admit(a_turn())
        async with asyncio.timeout(5):
            while not model.prompts:
                await asyncio.sleep(0.01)
        # As after an outage in which the lease ran out.
        stream = store.key("ready", "console")
        ((entry, _),) = await store.command("XRANGE", stream, "-", "+")
        for _ in range(4):
            await store.command(
                *("XCLAIM", stream, "workers", "w1", 0, entry, "IDLE", 10_000, "JUSTID")
            )
            await asyncio.sleep(LEASE / 3)
        await all_ended(store)

    assert len(model.prompts) == 1
    assert await remembered(store) == [("question 1", "".join(WORDS))]


async def test_a_worker_that_ends_takes_nothing_more(store: Store) -> None:
    model = FakeModel(WORDS, pause=0.05)

    async with running(a_worker(store, FakePlatform(), model)) as stopping:
        await a_queue(store).admit(a_turn(1))
        async with asyncio.timeout(5):
            while not model.prompts:
                await asyncio.sleep(0.01)
        stopping.set()
        await asyncio.sleep(0.2)
        other = a_queue(store, "other")
        await other.admit(a_turn(2, thread="t2"))
        await ready(other)

    assert len(model.prompts) == 1


async def test_a_platform_that_is_away_gets_the_turn_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "LONGEST_BACK", 0.1)
    platform = FakePlatform(error=WriteFailed("connection refused"))

    async with running(a_worker(store, platform, FakeModel(["Hi"]))):
        await a_queue(store).admit(a_turn())
        await asyncio.sleep(0.2)
        platform.error = None
        await all_ended(store)

    assert platform.shown.text == "Hi"
    assert await outcome(store) == "done"


async def test_a_platform_that_asks_to_wait_is_given_the_time(store: Store) -> None:
    platform = FakePlatform(error=WriteDelayed("wait", retry_after=30.0))
    later = store.key("later", "console")

    async with running(a_worker(store, platform, FakeModel(["Hi"]))):
        await a_queue(store).admit(a_turn())
        async with asyncio.timeout(10):
            while not (due := await store.command("ZSCORE", later, str(KEY))):
                await asyncio.sleep(0.01)

    assert due / 1000 > time.time() + 15


async def test_a_place_that_takes_not_even_an_apology_is_not_tried_again(store: Store) -> None:
    surface, model = FakeSurface(errors=[WriteRefused("moderated")] * 2), FakeModel(["Hi"])

    async with running(a_worker(store, FakePlatform(shown=surface), model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert (surface.screen, len(model.prompts)) == ({}, 1)
    assert await outcome(store) == "failed"


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


@dataclass
class Buggy(FakeSurface):
    """Takes nothing but the end of an answer, and that not at the first four times."""

    bugs: int = 4

    async def post(self, page: Page) -> str:
        if not page.last:
            raise WriteFailed("away")
        self.bugs -= 1
        if self.bugs >= 0:
            raise ValueError("a bug")
        return await super().post(page)


async def test_a_turn_that_fails_every_time_ends_with_an_apology(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "LONGEST_BACK", 0.0)
    monkeypatch.setattr(worker_module, "MAX_TRIES", 2)
    # The answer is whole, so it gets as many tries again.
    platform, model = FakePlatform(shown=Buggy()), FakeModel(["Hi"], pause=0.05)

    async with running(a_worker(store, platform, model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert await outcome(store) == "dead"
    assert platform.shown.text == GivenUp.apology
    assert await remembered(store) == []
    assert len(model.prompts) == 1


async def test_a_dead_workers_reply_is_finished_in_the_same_message(store: Store) -> None:
    platform, text = FakePlatform(), "".join(WORDS)
    dead = a_queue(store, "dead")
    await dead.admit(a_turn())
    taken = await take(dead)
    half = await platform.shown.post(Page(0, text[:50], final=False))
    await dead.save(taken, Shown((half,), text[:50], text[:50]))

    async with running(a_worker(store, platform, FakeModel(WORDS), name="next")):
        async with asyncio.timeout(2 * LEASE):
            await all_ended(store)

    assert list(platform.shown.screen) == [half]
    assert platform.shown.text == text
    assert await remembered(store) == [("question 1", text)]


@dataclass
class Waiting(FakePlatform):
    """Opens no surface before the model is asked."""

    model: FakeModel = field(default_factory=lambda: FakeModel(["Hi"]))

    @asynccontextmanager
    async def surface(
        self, turn: Turn, *, again: bool = False, ended: bool = False
    ) -> AsyncIterator[FakeSurface]:
        await until(lambda: self.model.prompts, within=5)
        async with super().surface(turn, again=again) as surface:
            yield surface


async def test_the_model_thinks_while_the_platform_opens_the_surface(store: Store) -> None:
    platform = Waiting()

    async with running(a_worker(store, platform, platform.model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert platform.shown.text == "Hi"


async def test_a_model_that_thinks_when_the_place_is_gone_is_hung_up_on(store: Store) -> None:
    model = FakeModel(pause=600)
    platform = Waiting(model=model, error=PlaceGone("no permission"))

    async with running(a_worker(store, platform, model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)

    assert (model.at_once, len(model.prompts)) == (0, 1)
    assert await outcome(store) == "failed"


@dataclass
class Told(FakePlatform):
    """Remembers which turns were said to be begun already, and of which strays were looked for."""

    begun: dict[str, bool] = field(default_factory=dict)
    looked: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def surface(
        self, turn: Turn, *, again: bool = False, ended: bool = False
    ) -> AsyncIterator[FakeSurface]:
        if not ended:
            self.begun[turn.id] = again
        async with super().surface(turn, again=again) as surface:
            yield surface

    async def strays(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        self.looked.append(turn.id)
        return await super().strays(turn, but=but)


async def test_a_platform_is_told_of_a_second_try_and_of_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.turns.LANDED", 0.1)
    platform, dead = Told(), a_queue(store, "dead")
    await dead.admit(a_turn(1))
    await take(dead)
    await dead.admit(a_turn(2, thread="t2"))

    async with running(a_worker(store, platform, FakeModel(["Hi"]))):
        await until(lambda: platform.looked)
        await all_ended(store)

    assert platform.begun == {"console:1": True, "console:2": False}
    assert platform.looked == ["console:1"]


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


async def test_an_answer_written_anew_takes_the_place_of_the_former(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(["Hi"])

    async with running(a_worker(store, platform, model)):
        await a_queue(store).admit(a_turn(1))
        await a_queue(store).admit(a_turn(2))
        await all_ended(store)
        model.deltas = ["Hello"]
        await press(store, 2)
        await all_ended(store)
        await a_queue(store).admit(a_turn(3))
        await all_ended(store)

    assert model.prompts[2] == model.prompts[1]
    assert [message.text for message in model.prompts[3]] == [
        "Be brief.", "question 1", "Hi", "question 2", "Hello", "question 3",
    ]  # fmt: skip
    assert [page.text for page in platform.shown.screen.values()] == ["Hi", "Hello", "Hello"]
    assert (await remembered(store))[1] == ("question 2", "Hello")


async def test_an_answer_that_cannot_be_written_anew_stays(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel(["Hi"])

    async with running(a_worker(store, platform, model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)
        model.deltas, model.error = [], ModelUnavailable("cut")
        for number in range(2):
            await press(store, press_id=f"p{number}")
            await all_ended(store)

    notice = FAILED_ANEW.format(apology=ModelUnavailable.apology)
    assert platform.shown.text == f"Hi\n\n{notice}"
    assert await remembered(store) == [("question 1", "Hi")]


async def test_a_place_that_goes_while_an_answer_is_written_anew_leaves_it_remembered(
    store: Store,
) -> None:
    platform, model = FakePlatform(), FakeModel(["Hi"])

    async with running(a_worker(store, platform, model)):
        await a_queue(store).admit(a_turn())
        await all_ended(store)
        model.deltas, model.pause = ["Hello", " Ann"], 0.1
        platform.shown.errors = [None, PlaceGone("archived")]
        await press(store)
        await all_ended(store)

    assert await outcome(store) == "failed"
    assert await remembered(store) == [("question 1", "Hi")]


async def test_a_place_that_went_over_half_a_new_answer_leaves_the_former_remembered(
    store: Store,
) -> None:
    platform = FakePlatform()
    async with running(a_worker(store, platform, FakeModel(["Hi"]))):
        await a_queue(store).admit(a_turn())
        await all_ended(store)
    dead = a_queue(store, "dead")
    await press(store)
    taken = await take(dead)
    await dead.save(taken, Shown(("m1",), "Half", "Half"))
    platform.error = PlaceGone("archived")

    async with running(a_worker(store, platform, FakeModel(["Hello"]), name="next")):
        await all_ended(store)

    assert await remembered(store) == [("question 1", "Hi")]


@pytest.mark.parametrize(
    ("saved", "text", "said"),
    [
        (Shown(("m1",), "Better.", "Better.", outcome="done"), "Better.", "Better."),
        (None, "Hi", "Hi"),
    ],
)
async def test_a_place_that_went_leaves_a_whole_new_answer_or_the_former(
    saved: Shown | None, text: str, said: str, store: Store
) -> None:
    platform = FakePlatform()
    async with running(a_worker(store, platform, FakeModel(["Hi"]))):
        await a_queue(store).admit(a_turn())
        await all_ended(store)
    dead = a_queue(store, "dead")
    await press(store)
    taken = await take(dead)
    if saved:
        await dead.save(taken, saved)
    platform.error = PlaceGone("archived")

    async with running(a_worker(store, platform, FakeModel(["Hello"]), name="next")):
        await all_ended(store)

    ended = await a_queue(store).ended("console:1")
    assert ended
    assert ended.text == text
    assert await remembered(store) == [("question 1", said)]


async def test_a_dead_workers_new_answer_is_finished_in_the_same_message(store: Store) -> None:
    platform, text = FakePlatform(), "".join(WORDS)
    async with running(a_worker(store, platform, FakeModel(["Hi " * 200]))):
        await a_queue(store).admit(a_turn())
        await all_ended(store)
    dead = a_queue(store, "dead")
    await press(store)
    taken = await take(dead)
    await dead.save(taken, Shown(("m1",), text[:50], text[:50]))
    await platform.shown.edit("m1", Page(0, text[:50], final=False))
    platform.shown.states.clear()

    async with running(a_worker(store, platform, FakeModel(WORDS), name="next")):
        assert await remembered(store) == [("question 1", "Hi " * 200)]
        await all_ended(store)

    assert list(platform.shown.screen) == ["m1"]
    assert all(text.startswith(state) for state in platform.shown.states)
    assert platform.shown.text == text
    assert await remembered(store) == [("question 1", text)]


async def test_shutdown_lets_a_reply_end(store: Store) -> None:
    platform = FakePlatform()

    async with running(a_worker(store, platform, FakeModel(WORDS, pause=0.02))) as stopping:
        await a_queue(store).admit(a_turn())
        while not platform.shown.states:
            await asyncio.sleep(0.01)
        stopping.set()

    assert await outcome(store) == "done"
    assert platform.shown.text == "".join(WORDS)


async def test_shutdown_hands_over_what_does_not_end_in_time(store: Store) -> None:
    platform = FakePlatform()
    slow = FakeModel(WORDS * 100, pause=0.02)

    async with running(a_worker(store, platform, slow, name="old", drain=0.2)) as stopping:
        await a_queue(store).admit(a_turn())
        while not platform.shown.states:
            await asyncio.sleep(0.01)
        stopping.set()
    # A lease so long that only what was handed over can be answered in time.
    new = a_worker(store, platform, FakeModel(["All of it."]), name="new", lease=60)
    async with running(new), asyncio.timeout(3):
        await all_ended(store)

    assert platform.shown.text == "All of it."
    assert await outcome(store) == "done"
    assert slow.hung_up == 1


async def test_shutdown_spends_no_try(store: Store) -> None:
    thinking = FakeModel(WORDS, pause=60)

    async with running(a_worker(store, FakePlatform(), thinking, drain=0.1)) as stopping:
        await a_queue(store).admit(a_turn())
        while not await store.command("HGET", store.key("turn", "console:1"), "worker"):
            await asyncio.sleep(0.01)
        stopping.set()

    assert await store.command("HGET", store.key("turn", "console:1"), "tries") == "0"


class LateTokens(TurnQueue):
    """Tells of tokens a while after they were read."""

    has_read = False

    async def ready(
        self, platforms: Sequence[str], *, count: int, block_seconds: float
    ) -> list[Token]:
        tokens = await super().ready(platforms, count=count, block_seconds=block_seconds)
        if tokens:
            self.has_read = True
            await asyncio.sleep(0.2)
        return tokens


async def test_shutdown_loses_no_token_that_was_just_read(store: Store) -> None:
    queue = LateTokens(store=store, worker="w1", limits=LIMITS, lease_seconds=60, keep_seconds=60)

    async with running(
        a_worker(store, FakePlatform(), FakeModel(["Hi"]), queue=queue, lease=60)
    ) as stopping:
        await a_queue(store).admit(a_turn())
        await until(lambda: queue.has_read)
        stopping.set()

    assert await outcome(store) == "done"


async def test_a_worker_that_ends_takes_nothing_more_however_late_it_is_read(
    store: Store, valkey_url: str, tmp_path: Path
) -> None:
    model, prefix = FakeModel(WORDS, pause=0.1), store.key("").partition(":")[0]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect(url=way.url, data_dir=tmp_path, prefix=prefix) as there,
            running(a_worker(there, FakePlatform(), model, lease=60)) as stopping,
        ):
            await a_queue(store).admit(a_turn(1))
            await until(lambda: model.at_once)
            way.hold()
            await a_queue(store).admit(a_turn(2, thread="t2"))
            stopping.set()
            await asyncio.sleep(1)
            await way.mend()

    assert len(model.prompts) == 1


class Handing(TurnQueue):
    """Remembers how many answers a model was writing whenever a turn went back."""

    model: FakeModel
    at_work: tuple[int, ...] = ()

    async def back(self, taken: Taken, *, delay_seconds: float, counts: bool) -> None:
        self.at_work += (self.model.at_once,)
        await super().back(taken, delay_seconds=delay_seconds, counts=counts)


async def test_a_reply_has_ended_before_its_turn_is_handed_over(store: Store) -> None:
    queue = Handing(store=store, worker="w1", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60)
    queue.model = FakeModel(WORDS, pause=60)

    async with running(
        a_worker(store, FakePlatform(), queue.model, drain=0.1, queue=queue)
    ) as stopping:
        await a_queue(store).admit(a_turn())
        await until(lambda: queue.model.at_once)
        stopping.set()

    assert queue.at_work == (0,)


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


async def test_a_store_that_hangs_holds_up_no_shutdown(
    store: Store, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_HAND_OVER_SECONDS", 0.2)
    model, prefix = FakeModel(WORDS, pause=60), store.key("").partition(":")[0]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect(url=way.url, data_dir=tmp_path, prefix=prefix) as there,
        ):
            async with running(
                a_worker(there, FakePlatform(), model, drain=0.1, lease=60)
            ) as stopping:
                await a_queue(store).admit(a_turn())
                await until(lambda: model.at_once)
                way.hold()
                began = time.monotonic()
                stopping.set()
            lasted = time.monotonic() - began
            await way.mend()

    # A command that is not answered takes three seconds.
    assert lasted < 2.5


async def test_a_worker_that_has_ended_leaves_neither_a_task_nor_its_name(store: Store) -> None:
    before = asyncio.all_tasks()
    dead, platform = a_queue(store, "dead"), FakePlatform()
    await dead.admit(a_turn())
    await take(dead)

    async with running(a_worker(store, platform, FakeModel(["Hi"]))):
        # What it mends lasts for longer than it does.
        await all_ended(store)

    assert asyncio.all_tasks() <= before
    stream = store.key("ready", "console")
    names = [each["name"] for each in await store.command("XINFO", "CONSUMERS", stream, GROUP)]
    assert "w1" not in names


class Unreadable(TurnQueue):
    """Cannot take the first turn."""

    first = True

    async def take(self, token: Token) -> Taken | None:
        if self.first:
            self.first = False
            raise ValueError("a bug")
        return await super().take(token)


async def test_a_turn_that_cannot_be_taken_is_told_of_and_stops_no_other(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Unreadable(
        store=store, worker="w1", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60
    )

    async with running(a_worker(store, FakePlatform(), FakeModel(["Hi"]), queue=queue)):
        for number in (1, 2):
            await a_queue(store).admit(a_turn(number, thread=f"t{number}"))
        await all_ended(store)

    assert await outcome(store, 1) == await outcome(store, 2) == "done"
    assert "A turn could not be given back" in caplog.text


class Broken(TurnQueue):
    """Has a bug in its reading."""

    async def ready(
        self, platforms: Sequence[str], *, count: int, block_seconds: float
    ) -> list[Token]:
        raise ValueError("a bug")


async def test_a_worker_that_cannot_go_on_says_so(store: Store) -> None:
    queue = Broken(store=store, worker="w1", limits=LIMITS, lease_seconds=LEASE, keep_seconds=60)

    async with asyncio.timeout(10):
        with pytest.raises(ValueError, match="a bug"):
            await a_worker(store, FakePlatform(), FakeModel(), queue=queue).run(asyncio.Event())


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


async def test_a_turn_that_was_stopped_before_it_is_taken_again_asks_for_nothing_more(
    store: Store,
) -> None:
    platform, dead = FakePlatform(), a_queue(store, "dead")
    await dead.admit(a_turn())
    (token,) = await ready(dead)
    taken = await dead.take(token)
    assert taken
    half = await platform.shown.post(Page(0, "Half", final=False))
    await dead.save(taken, Shown((half,), "Half", "Half"))
    await dead.stop("console:1")
    await expire(store, token, "dead")

    # Neither a renewal nor a save tells of it in time.
    async with running(a_worker(store, platform, FakeModel(WORDS, pause=600), lease=60)):
        await all_ended(store)

    assert platform.shown.text == f"Half\n\n{STOPPED}"
    assert await remembered(store) == [("question 1", "Half")]


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
    monkeypatch.setattr("bot.lease._PAUSE", 0.01)
    monkeypatch.setattr("bot.lease._LONGEST_PAUSE", 0.02)
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


async def test_two_workers_answer_each_turn_once(store: Store) -> None:
    platform = FakePlatform()
    models = [FakeModel(["Hi"]), FakeModel(["Hi"])]

    async with (
        running(a_worker(store, platform, models[0], name="a")),
        running(a_worker(store, platform, models[1], name="b")),
    ):
        for number in range(20):
            await a_queue(store).admit(a_turn(number, thread=f"t{number % 4}"))
        await all_ended(store)

    assert len(models[0].prompts) + len(models[1].prompts) == 20
    assert len(platform.shown.screen) == 20
