"""A worker that dies after the end of an answer: the next one shows that end, and asks nobody."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bot.domain import Page, Shown
from bot.errors import AnswerCut, GivenUp, ModelError, ModelUnavailable, PlaceGone, WriteFailed
from bot.reply.draft import FAILED_ANEW, STOPPED
from bot.store import Store, connect
from tests.support.at_work import (
    POLICY,
    all_ended,
    expire_all,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    press,
    remembered,
    take,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform, FakeSurface
from tests.support.outage import SocketLine, line
from tests.support.waiting import until


@dataclass
class Dying(FakeSurface):
    """Its worker dies over the last page, which it takes before that unless it `fails`.

    Nothing more of the worker reaches the store, then, over its `way` there. What fails takes no
    page that grows, either. As in Discord, a post that is repeated finds its message.
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
        if self.fails and not page.final:
            raise WriteFailed("no way")
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
                # A worker that is dead has nothing to release.
                policy = replace(POLICY, release_grace=0.1)
                platform = FakePlatform(shown=surface)
                worker = make_worker(cut_off, platform, model, name="dead", policy=policy)
                working = asyncio.create_task(worker.run(asyncio.Event()))
                if stop:
                    await until(lambda: surface.states)
                    await make_queue(self.store).changes.stop("console:1")
                await until(lambda: surface.died)
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
        surface.died = False

    async def take(self, tries: int) -> None:
        """Let so many workers more take the turn and die at once."""
        for number in range(tries):
            await expire_all(self.store)
            await take(make_queue(self.store, f"dead{number}"))

    async def next(self, surface: FakeSurface, model: FakeModel) -> None:
        """Let another worker end what is there."""
        platform = FakePlatform(shown=surface)
        await expire_all(self.store)
        async with working(make_worker(self.store, platform, model, name="next")):
            await all_ended(self.store)


@pytest.fixture
def deaths(store: Store, valkey_url: str, tmp_path: Path) -> Deaths:
    return Deaths(store, valkey_url, tmp_path)


CUT = ModelUnavailable("cut")


class TestDeathBeforeTheEndIsStored:
    """A worker dies after its last write and before the turn's end."""

    @pytest.mark.parametrize(
        ("tries", "pause"), [(0, 0), (0, 0.05), (10, 0.05), (POLICY.max_attempts + 5, 0)]
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
        await make_queue(store).admit(make_turn())

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
        await make_queue(store).admit(make_turn())

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
        await make_queue(store).admit(make_turn())

        await deaths.die(surface, FakeModel(["Hi"]))
        nothing = dict(surface.screen)
        await deaths.take(tries)
        await deaths.next(surface, after)

        assert nothing == {}
        assert after.prompts == []
        assert {name: page.text for name, page in surface.screen.items()} == {"m1": "Hi"}
        assert await remembered(store) == [("question 1", "Hi")]
        assert await outcome(store) == "done"

    @pytest.mark.parametrize(
        ("happens", "shown", "history"),
        [
            ("stop", "Hi", [("question 1", "Hi")]),
            ("question deleted", "Hi", []),
            ("reply deleted", "", []),
            ("place gone", "Hi", [("question 1", "Hi")]),
        ],
    )
    async def test_what_happens_after_the_end_asks_no_model(
        self, deaths: Deaths, store: Store, happens: str, shown: str, history: list[tuple[str, str]]
    ) -> None:
        surface, after = Dying(), FakeModel(["Another answer."])
        await make_queue(store).admit(make_turn())

        await deaths.die(surface, FakeModel(["H", "i"], pause=0.05))
        match happens:
            case "stop":
                await make_queue(store).changes.stop("console:1")
            case "question deleted":
                await make_queue(store).changes.forget("console:1")
            case "reply deleted":
                surface.screen.clear()
            case "place gone":
                surface.errors = [PlaceGone("archived")] * 9
        await deaths.next(surface, after)

        assert (after.prompts, surface.text) == ([], shown)
        assert await remembered(store) == history

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
        await make_queue(store).admit(make_turn())
        await deaths.next(surface, FakeModel(["Hi"]))
        await press(store)

        await deaths.die(surface, FakeModel(["Better."], error=error))
        await deaths.next(surface, after)

        assert after.prompts == []
        assert list(surface.screen) == ["m1"]
        assert surface.text == text
        assert await remembered(store) == [("question 1", said)]

    @pytest.mark.parametrize(
        ("fails", "screen", "history"), [(False, "Hi", [("question 1", "Hi")]), (True, "", [])]
    )
    async def test_what_gets_through_nowhere_is_left_as_it_stands(
        self, deaths: Deaths, store: Store, fails: bool, screen: str, history: list[tuple[str, str]]
    ) -> None:
        surface, after = Dying(fails=fails), FakeModel(["Another answer."])
        await make_queue(store).admit(make_turn())

        deltas, pause = (["Hi"], 0.0) if fails else (["H", "i"], 0.05)
        await deaths.die(surface, FakeModel(deltas, pause=pause))
        await deaths.take(3 * POLICY.max_attempts)
        await deaths.next(surface, after)

        assert (after.prompts, surface.text) == ([], screen)
        assert await remembered(store) == history
        assert await outcome(store) == "dead"

    @pytest.mark.parametrize(
        ("former", "text", "history"),
        [
            ([], f"Half of it\n\n{GivenUp.apology}", [("question 1", "Half of it")]),
            (
                ["Hi"],
                f"Hi\n\n{FAILED_ANEW.format(apology=GivenUp.apology)}",
                [("question 1", "Hi")],
            ),
        ],
    )
    async def test_an_apology_that_gets_through_nowhere_comes_later(
        self,
        deaths: Deaths,
        store: Store,
        former: list[str],
        text: str,
        history: list[tuple[str, str]],
    ) -> None:
        surface, after = Dying(), FakeModel(["Another answer."])
        await make_queue(store).admit(make_turn())
        if former:
            await deaths.next(surface, FakeModel(former))
            await press(store)
        dead = make_queue(store, "dead")
        message = next(iter(surface.screen), "") or await surface.post(Page(0, "", final=False))
        await surface.edit(message, Page(0, "Half of it", final=False))
        await dead.leases.save(await take(dead), Shown((message,), "Half of it", "Half of it"))
        await deaths.take(2 * POLICY.max_attempts)

        async with working(make_worker(store, FakePlatform(shown=surface), after, name="next")):
            await until(lambda: surface.text == text)

        assert after.prompts == []
        assert surface.screen[message].last
        assert await remembered(store) == history
        assert await outcome(store) == "dead"

    async def test_what_no_message_can_show_is_not_remembered(
        self, deaths: Deaths, store: Store
    ) -> None:
        surface, words = Dying(limit=200), "word " * 50
        await make_queue(store).admit(make_turn())
        dead = make_queue(store, "dead")
        # Its worker dies before it posts the second page.
        message = await surface.post(Page(0, words[:190], final=False))
        await dead.leases.save(await take(dead), Shown((message,), words, words))
        await deaths.take(2 * POLICY.max_attempts)

        platform, after = FakePlatform(shown=surface), FakeModel(["Another answer."])
        async with working(make_worker(store, platform, after, name="next")):
            await until(lambda: surface.text.endswith(GivenUp.apology))

        ((_, said),) = await remembered(store)
        assert surface.text == f"{said}\n\n{GivenUp.apology}"

    async def test_a_turn_that_was_given_up_stays_so(self, deaths: Deaths, store: Store) -> None:
        surface, after = Dying(), FakeModel(["Another answer."])
        await make_queue(store).admit(make_turn())
        await deaths.take(POLICY.max_attempts)

        await deaths.die(surface, FakeModel(["Hi"]))
        await deaths.next(surface, after)

        assert (after.prompts, surface.text) == ([], GivenUp.apology)
        assert await outcome(store) == "dead"
