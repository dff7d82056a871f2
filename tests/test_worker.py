"""The worker: every turn ends, once, whatever happens to its worker."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import pytest

from bot import mender as mender_module
from bot import worker as worker_module
from bot.budget import EditBudgets
from bot.conversation import Conversation
from bot.domain import Delta, LeftOut, Page, Person, Shown, Start, ThreadKey, Turn
from bot.draft import FAILED_ANEW, LEFT_OUT, STOPPED
from bot.errors import (
    AnswerCut,
    GivenUp,
    ModelError,
    ModelUnavailable,
    PlaceGone,
    SurfaceError,
    WriteDelayed,
    WriteFailed,
)
from bot.history import History
from bot.lease import Lease
from bot.mender import Mender
from bot.store import Store, connect
from bot.turns import Limits, Taken, Token, TurnQueue
from bot.worker import Worker
from config.settings import Settings
from tests.fakes import FakeModel, FakePlatform, FakeSurface
from tests.outage import SocketLine, line
from tests.waiting import until

KEY = ThreadKey("console", "local", "ann", "t1")
LEASE = 0.3  # seconds
WORDS = [f"word{number} " for number in range(30)]


@pytest.fixture(autouse=True)
def _short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look up often, so that they end soon."""
    monkeypatch.setattr(worker_module, "BLOCK_SECONDS", 0.1)


def a_turn(number: int = 1, *, thread: str = "t1", text: str = "") -> Turn:
    key = replace(KEY, thread=thread)
    question = text or f"question {number}"
    return Turn(f"console:{number}", key, Person("u1", "Ann"), question, {}, 1000.0)


def a_queue(store: Store, name: str = "w1", *, lease: float = LEASE) -> TurnQueue:
    limits = Limits(
        waiting_per_thread=50, waiting_per_person=50, waiting=100, running_per_person=10
    )
    return TurnQueue(store=store, worker=name, limits=limits, lease_seconds=lease, keep_seconds=60)


def a_conversation(store: Store, model: FakeModel) -> Conversation:
    return Conversation(
        history=History(store=store, keep_seconds=60),
        model=model,
        budgets=EditBudgets(store=store),
        system_prompt="Be brief.",
        patience=2.0,
    )


def a_worker(
    store: Store,
    platform: FakePlatform,
    model: FakeModel,
    *,
    name: str = "w1",
    capacity: int = 8,
    drain: float = 5.0,
    lease: float = LEASE,
) -> Worker:
    return Worker(
        queue=a_queue(store, name, lease=lease),
        platforms={"console": platform, "slack": platform},
        conversation=a_conversation(store, model),
        capacity=capacity,
        lease_seconds=lease,
        drain_seconds=drain,
    )


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Event]:
    stopping = asyncio.Event()
    task = asyncio.create_task(worker.run(stopping))
    try:
        yield stopping
    finally:
        stopping.set()
        async with asyncio.timeout(10):
            await task


async def all_ended(store: Store) -> None:
    queue = a_queue(store, "watcher")
    async with asyncio.timeout(10):
        while await queue.depth():
            await asyncio.sleep(0.02)


async def outcome(store: Store, number: int = 1) -> str:
    ended = await a_queue(store).ended(f"console:{number}")
    assert ended
    return ended.outcome


async def remembered(store: Store) -> list[tuple[str, str]]:
    exchanges = await History(store=store, keep_seconds=60).read(KEY)
    return [(exchange.question, exchange.answer) for exchange in exchanges]


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
    while not (tokens := await dead.ready(["console"], count=1, block_seconds=0.1)):
        pass
    assert await dead.take(tokens[0])
    await expire(store, tokens[0], "dead")
    for number in range(1, 10):
        await dead.admit(a_turn(number, thread=f"t{number}"))

    async with running(a_worker(store, FakePlatform(), model, capacity=1)):
        await all_ended(store)

    assert model.prompts[0][-1].text == "question 0"


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


async def ready(queue: TurnQueue) -> list[Token]:
    while not (tokens := await queue.ready(["console"], count=1, block_seconds=0.1)):
        pass
    return tokens


async def take(queue: TurnQueue) -> Taken:
    (token,) = await ready(queue)
    taken = await queue.take(token)
    assert taken
    return taken


async def expire(store: Store, token: Token, worker: str) -> None:
    """Let a lease run out without waiting for it."""
    await store.command(
        *("XCLAIM", store.key("ready", token.platform), "workers", worker),
        *(0, token.entry, "IDLE", 600_000, "JUSTID"),
    )


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


async def test_a_turn_that_fails_every_time_ends_with_an_apology(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "LONGEST_BACK", 0.0)
    monkeypatch.setattr(worker_module, "MAX_TRIES", 2)
    # The answer is whole, so it gets as many tries again.
    platform = FakePlatform(shown=FakeSurface(errors=[ValueError("a bug")] * 4))
    model = FakeModel(["Hi"])

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
    tokens: list[Token] = []
    while not tokens:
        tokens = await dead.ready(["console"], count=1, block_seconds=0.1)
    taken = await dead.take(tokens[0])
    assert taken
    half = await platform.shown.post(Page(0, text[:50], final=False))
    await dead.save(taken, Shown((half,), text[:50], text[:50]))

    async with running(a_worker(store, platform, FakeModel(WORDS), name="next")):
        async with asyncio.timeout(2 * LEASE):
            await all_ended(store)

    assert list(platform.shown.screen) == [half]
    assert platform.shown.text == text
    assert await remembered(store) == [("question 1", text)]


@dataclass
class Dying(FakeSurface):
    """Its worker dies over a final page, which it takes before that unless it `fails`.

    Nothing more of the worker reaches the store, then, over its `way` there. As in Discord, a post
    that is repeated finds its message.
    """

    known: dict[int, str] = field(default_factory=dict)  # messages by page number
    way: SocketLine | None = None
    fails: bool = False
    died: bool = False

    async def post(self, page: Page) -> str:
        await self._die(page, landed=False)
        if page.number in self.known:
            await super().edit(self.known[page.number], page)
        else:
            self.known[page.number] = await super().post(page)
        await self._die(page, landed=True)
        return self.known[page.number]

    async def edit(self, message_id: str, page: Page) -> None:
        await self._die(page, landed=False)
        await super().edit(message_id, page)
        await self._die(page, landed=True)

    async def _die(self, page: Page, *, landed: bool) -> None:
        if self.way and page.last and landed is not self.fails:
            way, self.way = self.way, None
            await way.cut()
            self.died = True
            await asyncio.sleep(60)


@dataclass
class Deaths:
    """Workers of one store that die over the end of a reply."""

    store: Store
    url: str
    folder: Path

    async def die(self, surface: Dying, model: FakeModel, *, stop: bool = False) -> None:
        """Let a worker work until it is gone; the turn is stopped meanwhile where that is asked."""
        prefix = self.store.key("").partition(":")[0]
        with tempfile.TemporaryDirectory() as folder:
            async with (
                line(self.url, Path(folder)) as surface.way,
                connect(url=surface.way.url, data_dir=self.folder, prefix=prefix) as cut_off,
            ):
                worker = a_worker(cut_off, FakePlatform(shown=surface), model, name="dead")
                working = asyncio.create_task(worker.run(asyncio.Event()))
                if stop:
                    await until(lambda: surface.states)
                    await a_queue(self.store).stop("console:1")
                await until(lambda: surface.died)
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
        surface.died = False

    async def take(self, tries: int) -> None:
        """Let so many workers more take the turn and die at once."""
        ready = self.store.key("ready", "console")
        for number in range(tries):
            name = f"dead{number}"
            ((entry, _),) = await self.store.command("XRANGE", ready, "-", "+")
            await self.store.command("XCLAIM", ready, "workers", name, 0, entry)
            assert await a_queue(self.store, name).take(Token("console", entry))

    async def next(self, surface: FakeSurface, model: FakeModel) -> None:
        """Let another worker end what is there."""
        platform = FakePlatform(shown=surface)
        async with running(a_worker(self.store, platform, model, name="next")):
            await all_ended(self.store)


@pytest.fixture
def deaths(
    store: Store, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Deaths:
    # A worker that is dead has nothing to hand over.
    monkeypatch.setattr(worker_module, "_HAND_OVER_SECONDS", 0.1)
    return Deaths(store, valkey_url, tmp_path)


CUT = ModelUnavailable("cut")


class TestDeathBeforeTheEndIsStored:
    """A worker dies after its last write and before the turn's end."""

    @pytest.mark.parametrize(
        ("tries", "pause"), [(0, 0), (0, 0.05), (10, 0.05), (worker_module.MAX_TRIES + 5, 0)]
    )
    @pytest.mark.parametrize(
        ("error", "how", "text"),
        [
            (None, "done", "Hi Ann"),
            (CUT, "failed", f"Hi Ann\n\n{CUT.apology}"),
            (AnswerCut("long"), "done", f"Hi Ann\n\n{AnswerCut.apology}"),
        ],
    )
    async def test_the_next_shows_the_same_end_and_asks_nobody(
        self,
        deaths: Deaths,
        store: Store,
        error: ModelError | None,
        how: str,
        text: str,
        tries: int,
        pause: float,
    ) -> None:
        surface, after = Dying(), FakeModel(["Another answer."])
        await a_queue(store).admit(a_turn())

        await deaths.die(surface, FakeModel(["Hi", " Ann"], error=error, pause=pause))
        await deaths.take(tries)
        await deaths.next(surface, after)

        assert after.prompts == []
        assert {name: page.text for name, page in surface.screen.items()} == {"m1": text}
        assert surface.screen["m1"].last
        assert await remembered(store) == [("question 1", "Hi Ann")]
        assert await outcome(store) == how

    async def test_what_was_stopped_ends_as_stopped(self, deaths: Deaths, store: Store) -> None:
        surface, after = Dying(), FakeModel(["Another answer."])
        await a_queue(store).admit(a_turn())

        await deaths.die(surface, FakeModel(["Hi", *[" Ann"] * 200], pause=0.05), stop=True)
        before = surface.text
        await deaths.next(surface, after)

        assert after.prompts == []
        assert before == surface.text
        ((_, said),) = await remembered(store)
        assert surface.text == f"{said}\n\n{STOPPED}"
        assert await outcome(store) == "stopped"

    @pytest.mark.parametrize("tries", [0, 10])
    async def test_an_answer_that_was_not_posted_is_posted(
        self, deaths: Deaths, store: Store, tries: int
    ) -> None:
        surface, after = Dying(fails=True), FakeModel(["Another answer."])
        await a_queue(store).admit(a_turn())

        await deaths.die(surface, FakeModel(["Hi"]))
        nothing = dict(surface.screen)
        await deaths.take(tries)
        await deaths.next(surface, after)

        assert nothing == {}
        assert after.prompts == []
        assert {name: page.text for name, page in surface.screen.items()} == {"m1": "Hi"}
        assert await remembered(store) == [("question 1", "Hi")]
        assert await outcome(store) == "done"

    async def test_all_pages_come(self, deaths: Deaths, store: Store) -> None:
        surface, text = Dying(limit=100, fails=True), "".join(WORDS)
        await a_queue(store).admit(a_turn())

        await deaths.die(surface, FakeModel(WORDS))
        before = list(surface.screen)
        await deaths.next(surface, FakeModel(["Another answer."]))

        assert list(surface.screen)[: len(before)] == before
        assert len(before) > 1
        assert surface.text.split() == text.split()
        assert await remembered(store) == [("question 1", text)]

    async def test_a_stop_after_the_end_changes_nothing(self, deaths: Deaths, store: Store) -> None:
        surface, after = Dying(), FakeModel(["Another answer."])
        await a_queue(store).admit(a_turn())

        await deaths.die(surface, FakeModel(["Hi"]))
        await a_queue(store).stop("console:1")
        await deaths.next(surface, after)

        assert (after.prompts, surface.text) == ([], "Hi")
        assert await remembered(store) == [("question 1", "Hi")]
        assert await outcome(store) == "done"

    async def test_a_question_deleted_after_the_end_is_forgotten(
        self, deaths: Deaths, store: Store
    ) -> None:
        surface, after = Dying(), FakeModel(["Another answer."])
        await a_queue(store).admit(a_turn())

        await deaths.die(surface, FakeModel(["Hi"]))
        await a_queue(store).forget("console:1")
        await deaths.next(surface, after)

        assert (after.prompts, surface.text) == ([], "Hi")
        assert await remembered(store) == []

    async def test_a_reply_deleted_after_the_end_is_not_remembered(
        self, deaths: Deaths, store: Store
    ) -> None:
        surface, after = Dying(), FakeModel(["Another answer."])
        await a_queue(store).admit(a_turn())

        await deaths.die(surface, FakeModel(["Hi"]))
        surface.screen.clear()
        await deaths.next(surface, after)

        assert (after.prompts, surface.screen) == ([], {})
        assert await remembered(store) == []
        assert await outcome(store) == "stopped"

    async def test_a_place_that_went_after_the_end_leaves_it_remembered(
        self, deaths: Deaths, store: Store
    ) -> None:
        surface, after = Dying(), FakeModel(["Another answer."])
        await a_queue(store).admit(a_turn())

        await deaths.die(surface, FakeModel(["H", "i"], pause=0.05))
        surface.errors = [PlaceGone("archived")] * 9
        await deaths.next(surface, after)

        assert (after.prompts, surface.text) == ([], "Hi")
        assert await remembered(store) == [("question 1", "Hi")]

    async def test_what_is_written_anew_begins_anew(self, deaths: Deaths, store: Store) -> None:
        surface, after = Dying(), FakeModel(["Better."])
        await a_queue(store).admit(a_turn())
        await deaths.die(surface, FakeModel(["Hi"]))
        await deaths.next(surface, after)

        await press(store)
        await deaths.next(surface, after)

        assert len(after.prompts) == 1
        assert surface.text == "Better."
        assert await remembered(store) == [("question 1", "Better.")]

    @pytest.mark.parametrize(
        ("error", "said", "text"),
        [
            (None, "Better.", "Better."),
            (CUT, "Hi", f"Hi\n\n{FAILED_ANEW.format(apology=CUT.apology)}"),
        ],
    )
    async def test_an_end_that_was_written_anew_is_that_one(
        self, deaths: Deaths, store: Store, error: ModelError | None, said: str, text: str
    ) -> None:
        surface, after = Dying(), FakeModel(["Another answer."])
        await a_queue(store).admit(a_turn())
        await deaths.next(surface, FakeModel(["Hi"]))
        await press(store)

        await deaths.die(surface, FakeModel(["Better."], error=error))
        await deaths.next(surface, after)

        assert after.prompts == []
        assert list(surface.screen) == ["m1"]
        assert surface.text == text
        assert await remembered(store) == [("question 1", said)]

    @pytest.mark.parametrize(
        ("fails", "screen", "history"),
        [(False, "Hi", [("question 1", "Hi")]), (True, "", [])],
    )
    async def test_what_gets_through_nowhere_is_left_as_it_stands(
        self,
        deaths: Deaths,
        store: Store,
        fails: bool,
        screen: str,
        history: list[tuple[str, str]],
    ) -> None:
        surface, after = Dying(fails=fails), FakeModel(["Another answer."])
        await a_queue(store).admit(a_turn())

        deltas, pause = (["Hi"], 0.0) if fails else (["H", "i"], 0.05)
        await deaths.die(surface, FakeModel(deltas, pause=pause))
        await deaths.take(3 * worker_module.MAX_TRIES)
        await deaths.next(surface, after)

        assert (after.prompts, surface.text) == ([], screen)
        assert await remembered(store) == history
        assert await outcome(store) == "dead"

    async def test_a_turn_that_was_given_up_stays_so(self, deaths: Deaths, store: Store) -> None:
        surface, after = Dying(), FakeModel(["Another answer."])
        await a_queue(store).admit(a_turn())
        while not await a_queue(store, "dead").ready(["console"], count=1, block_seconds=0.1):
            pass
        await deaths.take(worker_module.MAX_TRIES)

        await deaths.die(surface, FakeModel(["Hi"]))
        await deaths.next(surface, after)

        assert (after.prompts, surface.text) == ([], GivenUp.apology)
        assert await outcome(store) == "dead"
        assert await store.command("XLEN", store.key("dead")) == 1


async def taken_by_another(store: Store) -> tuple[TurnQueue, Taken]:
    """Let another worker claim the token, as after a pause of the first."""
    ready = store.key("ready", "console")
    (entry,) = await store.command("XRANGE", ready, "-", "+", "COUNT", 1)
    other = a_queue(store, "other")
    await store.command("XCLAIM", ready, "workers", "other", 0, entry[0])
    taken = await other.take(Token("console", entry[0]))
    assert taken
    return other, taken


async def lose_the_turn(store: Store, *pages: str) -> None:
    """Let another worker take the turn and end it."""
    other, taken = await taken_by_another(store)
    await other.finish(taken, Shown(pages, "The end.", outcome="done"), None)


async def shows(platform: FakePlatform, screen: dict[str, str]) -> None:
    async with asyncio.timeout(8):
        while {name: page.text for name, page in platform.shown.screen.items()} != screen:
            await asyncio.sleep(0.02)


async def test_a_worker_that_lost_its_lease_restores_the_final_text(store: Store) -> None:
    platform = FakePlatform()
    slow = FakeModel(WORDS * 20, pause=0.02)

    async with running(a_worker(store, platform, slow, name="late")):
        await a_queue(store).admit(a_turn())
        async with asyncio.timeout(5):
            while not platform.shown.screen:
                await asyncio.sleep(0.01)
        await lose_the_turn(store, "m1")
        await shows(platform, {"m1": "The end."})

    assert slow.hung_up == 1


async def test_the_final_text_is_restored_however_the_store_was_away_meanwhile(
    store: Store,
    valkey_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(mender_module, "AWAY_SECONDS", 0.05)
    platform, prefix = FakePlatform(), store.key("").partition(":")[0]
    slow = FakeModel(WORDS * 20, pause=0.02)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as way,
            connect(url=way.url, data_dir=tmp_path, prefix=prefix) as cut_off,
            running(a_worker(cut_off, platform, slow, name="late")),
        ):
            await a_queue(store).admit(a_turn())
            await until(lambda: platform.shown.screen)
            other, taken = await taken_by_another(store)
            await until(lambda: slow.hung_up)
            await way.cut()
            await until(lambda: "No turns can be taken" in caplog.text)
            await asyncio.sleep(1)
            await other.finish(taken, Shown(("m1",), "The end.", outcome="done"), None)
            await way.mend()

            await shows(platform, {"m1": "The end."})


def test_a_worker_mends_for_longer_than_an_answer_may_take() -> None:
    settings = Settings.load({}, Path("no file"))
    looks = mender_module.LANDED + mender_module.SAVED

    assert settings.reply_timeout + looks * settings.lease_seconds < mender_module.MEND_SECONDS


async def test_a_message_that_only_the_loser_of_a_lease_knows_goes(store: Store) -> None:
    platform = FakePlatform()
    slow = FakeModel(WORDS * 20, pause=0.02)

    async with running(a_worker(store, platform, slow, name="late")):
        await a_queue(store).admit(a_turn())
        async with asyncio.timeout(5):
            while not platform.shown.screen:
                await asyncio.sleep(0.01)
        theirs = await platform.shown.post(Page(0, "The end.", final=True))
        await lose_the_turn(store, theirs)

        await shows(platform, {theirs: "The end."})


@dataclass
class Reluctant(FakeSurface):
    """Fails when a message is to be taken away for the first time."""

    failed: bool = False

    async def edit(self, message_id: str, page: Page) -> None:
        if not page.text and not self.failed:
            self.failed = True
            raise WriteFailed("away")
        await super().edit(message_id, page)


async def test_a_message_that_only_the_loser_of_a_lease_knows_goes_though_that_fails_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mender_module, "AWAY_SECONDS", 0.05)
    platform = FakePlatform(shown=Reluctant())
    slow = FakeModel(WORDS * 20, pause=0.02)

    async with running(a_worker(store, platform, slow, name="late")):
        await a_queue(store).admit(a_turn())
        await until(lambda: platform.shown.screen)
        theirs = await platform.shown.post(Page(0, "Half", final=False))
        await lose_the_turn(store, theirs)

        await shows(platform, {theirs: "The end."})


async def test_a_message_that_nobody_knows_of_goes(store: Store) -> None:
    platform = FakePlatform()
    slow = FakeModel(WORDS * 20, pause=0.02)

    async with running(a_worker(store, platform, slow, name="late")):
        await a_queue(store).admit(a_turn())
        async with asyncio.timeout(5):
            while not platform.shown.screen:
                await asyncio.sleep(0.01)
        stray = await platform.shown.post(Page(0, "Half", final=False))
        another = await platform.shown.post(Page(0, "Of the next turn.", final=False))
        platform.left = ["m1", stray, another]
        await lose_the_turn(store, "m1")
        await knows(store, another)

        await shows(platform, {"m1": "The end.", another: "Of the next turn."})


@pytest.mark.parametrize("saves", [True, False])
async def test_a_message_that_a_turn_under_way_has_not_saved_yet_stays(
    saves: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mender_module, "LANDED", 0.1)
    monkeypatch.setattr(mender_module, "SAVED", 0.1)
    platform, queue = FakePlatform(left=["m1"]), a_queue(store, lease=60)
    mender = Mender(
        queue=queue,
        platforms={"console": platform},
        conversation=a_conversation(store, FakeModel()),
        lease_seconds=LEASE,
    )
    for number in (1, 2):
        await queue.admit(a_turn(number))
    first = await take(queue)
    await queue.finish(first, Shown((), outcome="done"), None)
    second = await take(queue)
    # Posted while the worker of the second turn does not reach the store.
    await platform.shown.post(Page(0, "Half", final=False))

    mender.ended(first.turn)
    await asyncio.sleep(LEASE)
    shown = list(platform.shown.screen)
    await queue.finish(second, Shown(("m1",) if saves else (), outcome="done"), None)
    await until(lambda: not mender.tasks)

    assert shown == ["m1"]
    assert list(platform.shown.screen) == (["m1"] if saves else [])


async def late(store: Store, platform: FakePlatform) -> None:
    """Begin a reply that another worker is to end, and leave a message that nobody knows of."""
    await a_queue(store).admit(a_turn())
    await until(lambda: platform.shown.screen)
    platform.left = ["m1", await platform.shown.post(Page(0, "Half", final=False))]


@pytest.mark.parametrize("error", [WriteFailed("away"), WriteDelayed("wait", retry_after=0.1)])
async def test_a_platform_that_is_away_is_mended_later(
    error: SurfaceError, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mender_module, "AWAY_SECONDS", 0.05)
    platform, slow = FakePlatform(), FakeModel(WORDS * 20, pause=0.02)

    async with running(a_worker(store, platform, slow, name="late")):
        await late(store, platform)
        platform.error = error
        await lose_the_turn(store, "m1")
        await until(lambda: platform.opened > 2)
        platform.error = None

        await shows(platform, {"m1": "The end."})


async def test_a_text_that_cannot_be_restored_keeps_no_stray(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mender_module, "LANDED", 1)
    monkeypatch.setattr(mender_module, "SAVED", 1)
    platform, slow = FakePlatform(), FakeModel(WORDS * 20, pause=0.02)

    async with running(a_worker(store, platform, slow, name="late")):
        await late(store, platform)
        platform.error = PlaceGone("locked")
        await lose_the_turn(store, "m1")
        await until(lambda: platform.opened > 1)
        platform.error = None

        await until(lambda: list(platform.shown.screen) == ["m1"], within=8)


async def test_a_look_for_strays_that_fails_is_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mender_module, "LANDED", 1)
    monkeypatch.setattr(mender_module, "SAVED", 1)
    platform, slow = FakePlatform(unseen=2), FakeModel(WORDS * 20, pause=0.02)

    async with running(a_worker(store, platform, slow, name="late")):
        await late(store, platform)
        # One that a person has deleted meanwhile.
        platform.left = ["m1", "gone", "m2"]
        await lose_the_turn(store, "m1")

        await shows(platform, {"m1": "The end."})


async def test_a_message_of_an_earlier_try_that_its_answer_does_not_need_goes(
    store: Store,
) -> None:
    platform, dead = FakePlatform(), a_queue(store, "dead")
    await dead.admit(a_turn())
    tokens: list[Token] = []
    while not tokens:
        tokens = await dead.ready(["console"], count=1, block_seconds=0.1)
    await dead.take(tokens[0])
    stray = await platform.shown.post(Page(1, "Half", final=False))
    platform.left = [stray]

    async with running(a_worker(store, platform, FakeModel(WORDS))):
        await shows(platform, {"m2": "".join(WORDS)})


@dataclass
class Blinking(FakePlatform):
    """The store is away from the moment at which strays are found, for `seconds`."""

    way: SocketLine | None = None
    seconds: float = 1.0
    mending: asyncio.Task[None] | None = None

    async def strays(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        assert self.way
        await self.way.cut()
        self.mending = asyncio.create_task(self._mend(self.way))
        return await super().strays(turn, but=but)

    async def _mend(self, way: SocketLine) -> None:
        await asyncio.sleep(self.seconds)
        await way.mend()


async def test_a_message_that_nobody_knows_of_goes_however_the_store_blinks(
    store: Store, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mender_module, "AWAY_SECONDS", 0.05)
    monkeypatch.setattr(mender_module, "LANDED", 1)
    monkeypatch.setattr(mender_module, "SAVED", 1)
    platform, prefix = Blinking(), store.key("").partition(":")[0]
    slow = FakeModel(WORDS * 20, pause=0.02)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            line(valkey_url, Path(folder)) as platform.way,
            connect(url=platform.way.url, data_dir=tmp_path, prefix=prefix) as cut_off,
            running(a_worker(cut_off, platform, slow, name="late")),
        ):
            await a_queue(store).admit(a_turn())
            await until(lambda: platform.shown.screen)
            stray = await platform.shown.post(Page(0, "Half", final=False))
            platform.left = ["m1", stray]
            await lose_the_turn(store, "m1")

            await shows(platform, {"m1": "The end."})
            assert platform.mending
            await platform.mending


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
                (token,) = await ready(queue)
                taken = await queue.take(token)
                assert taken
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


async def knows(store: Store, message: str) -> None:
    """Let the queue know of a message, as after its post."""
    await store.command("SET", store.key("posted", "console", message), str(KEY))


async def press(store: Store, number: int = 1, *, press_id: str = "p1") -> None:
    await a_queue(store).regenerate(f"console:{number}", person_id="u1", press_id=press_id)


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
    while not (tokens := await dead.ready(["console"], count=1, block_seconds=0.1)):
        pass
    taken = await dead.take(tokens[0])
    assert taken
    await dead.save(taken, Shown(("m1",), "Half", "Half"))
    platform.error = PlaceGone("archived")

    async with running(a_worker(store, platform, FakeModel(["Hello"]), name="next")):
        await all_ended(store)

    assert await remembered(store) == [("question 1", "Hi")]


async def test_a_dead_workers_new_answer_is_finished_in_the_same_message(store: Store) -> None:
    platform, text = FakePlatform(), "".join(WORDS)
    async with running(a_worker(store, platform, FakeModel(["Hi " * 200]))):
        await a_queue(store).admit(a_turn())
        await all_ended(store)
    dead = a_queue(store, "dead")
    await press(store)
    tokens: list[Token] = []
    while not tokens:
        tokens = await dead.ready(["console"], count=1, block_seconds=0.1)
    taken = await dead.take(tokens[0])
    assert taken
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
