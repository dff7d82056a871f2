"""One small fake for each port."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import redis.asyncio

from bot.access.preferences import ModelChoice, PreferenceStore, Scope
from bot.access.rules import AccessRules
from bot.concurrency import empty_stream
from bot.domain import (
    ANYBODY,
    Asker,
    ContextMessage,
    Delta,
    EditBudget,
    End,
    Follow,
    Message,
    Page,
    Person,
    Place,
    Preferences,
    Purpose,
    Shown,
    ThreadKey,
    Turn,
)
from bot.errors import (
    MessageGone,
    ModelError,
    NothingAsked,
    Refused,
    StoreUnavailable,
    SurfaceError,
    WriteFailed,
)
from bot.intake.addressed import Facts, ignore_reason
from bot.intake.intake import Intake
from bot.ports import Surface
from bot.reply.edit_budget import EditBudgets
from bot.store import Script, Store
from bot.turns.queue import Limits, TurnQueue
from bot.turns.records import History
from tests.support.replies import make_reply
from tests.support.waiting import until


@dataclass
class FakeModel:
    """Says `deltas`, then raises `error` if there is one.

    A condition among the deltas is waited for.
    """

    deltas: Sequence[Delta | Callable[[], object]] = ("Hello", " world")
    error: ModelError | None = None
    pause: float = 0.0  # seconds before each delta
    name: str = "fake"
    prompts: list[list[Message]] = field(default_factory=list)
    preferences: list[Preferences] = field(default_factory=list)
    hung_up: int = 0
    at_once: int = 0
    most_at_once: int = 0

    def chosen(self, preferences: Preferences) -> FakeModel:
        self.preferences.append(preferences)
        return self

    async def stream(self, prompt: Sequence[Message]) -> AsyncGenerator[Delta]:
        self.prompts.append(list(prompt))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            for delta in self.deltas:
                await asyncio.sleep(self.pause)
                if callable(delta):
                    await until(delta)
                else:
                    yield delta
        except (GeneratorExit, asyncio.CancelledError):
            self.hung_up += 1
            raise
        finally:
            self.at_once -= 1
        if self.error:
            raise self.error


def bucket_of(surface: Surface, page: Page, *, new: bool = False) -> str:
    """Return the bucket whose slot a write waits for."""
    budget = surface.budget(page, new=new)
    assert budget
    return budget.bucket


class NoLimits(EditBudgets):
    """Edit budgets that count nothing and wait for nothing."""

    def __init__(self) -> None:
        """Use no store."""

    def learn(self, bucket: str, *, writes: int, seconds: float) -> None:
        """Forget it."""

    async def final(self, budget: EditBudget | None, *, deadline: float) -> None:
        """Let it go out."""

    async def call(self, budget: EditBudget, *, deadline: float) -> None:
        """Let it go out."""

    async def spare(self, budget: EditBudget) -> bool:
        return True

    def use_booked_slot(self, budget: EditBudget) -> bool:
        return True

    async def pause(self, budget: EditBudget, seconds: float) -> None:
        """Go on."""


@dataclass
class FakeSurface:
    """Shows pages in memory; each write takes `latency` seconds and the next of `errors`.

    `states` are the texts that a message came to show, one after the other.
    """

    limit: int = 2000
    shows_work: bool = True
    edits: EditBudget = field(default_factory=lambda: EditBudget("edit", 1000, 1.0, refills=False))
    posts: EditBudget = field(default_factory=lambda: EditBudget("post", 1000, 1.0, refills=False))
    latency: float = 0.0
    errors: Sequence[Exception | None] = ()
    screen: dict[str, Page] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    posted: int = 0
    at_once: int = 0
    most_at_once: int = 0

    def measure(self, text: str) -> int:
        return len(text)

    def budget(self, page: Page, *, new: bool) -> EditBudget:
        return self.posts if new else self.edits

    async def post(self, page: Page) -> str:
        await self._write()
        self.posted += 1
        message_id = f"m{self.posted}"
        self._show(message_id, page)
        return message_id

    async def edit(self, message_id: str, page: Page) -> None:
        await self._write()
        if message_id not in self.screen:
            raise MessageGone(message_id)
        if page.text:
            self._show(message_id, page)
        else:
            del self.screen[message_id]

    @property
    def text(self) -> str:
        """All that stands there, oldest message first."""
        return "\n".join(page.text for page in self.screen.values())

    def _show(self, message_id: str, page: Page) -> None:
        assert self.measure(page.text) <= self.limit
        before = self.screen.get(message_id)
        self.screen[message_id] = page
        # People see no write that changes only the buttons.
        if before is None or before.text != page.text:
            self.states.append(page.text)

    async def _write(self) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.latency)
        self.at_once -= 1
        error, self.errors = next(iter(self.errors), None), self.errors[1:]
        if error:
            raise error


@dataclass
class FakePlatform:
    """Gives the same surface to every turn, or raises `error` instead; `left` may be strays.

    The first looks for those, `unseen` of them, fail. `context` is what others said, or reading it
    raises `unreadable`.
    """

    shown: FakeSurface = field(default_factory=FakeSurface)
    left: Sequence[str] = ()
    error: SurfaceError | None = None
    unseen: int = 0
    unfinished: Sequence[str] = ()
    opened: int = 0
    name: str = "console"
    context: Sequence[ContextMessage] = ()
    unreadable: Exception | None = None
    read_since: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[FakeSurface]:
        self.opened += 1
        if self.error:
            raise self.error
        yield self.shown

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        self.read_since.append(since)
        if self.unreadable:
            raise self.unreadable
        return self.context

    async def orphaned_messages(self, turn: Turn, *, but: Collection[str]) -> Sequence[str]:
        self.unseen -= 1
        if self.unseen >= 0:
            raise WriteFailed("away")
        return [one for one in self.left if one not in but or one in self.unfinished]


class EmptyStore(Store):
    """Holds nothing and keeps nothing; scripts return 0."""

    def __init__(self) -> None:
        super().__init__(client=_unconnected(), url="", prefix="empty")

    async def command(self, *words: str | int | float) -> Any:
        return {"HMGET": [None, None], "ZRANGE": []}.get(str(words[0]), 1)

    def script(self, source: str, *, if_full: bool = False) -> Script:
        async def run(*, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
            return 0

        return run


@functools.cache
def _unconnected() -> redis.asyncio.Redis:
    # redis-py 8.1 reads its package's metadata for each client, in milliseconds.
    return redis.asyncio.Redis()


class RefusingStore(Store):
    """A store that is away for whoever uses one of the keys in `refused`.

    `refusals` counts how often it was.
    """

    def __init__(self, *, client: redis.asyncio.Redis, url: str, prefix: str) -> None:
        super().__init__(client=client, url=url, prefix=prefix)
        self.refused: set[str] = set()
        self.refusals = 0

    async def command(self, *words: str | int | float) -> Any:
        self._refuse(words)
        return await super().command(*words)

    def script(self, source: str, *, if_full: bool = False) -> Script:
        run = super().script(source, if_full=if_full)

        async def unless_refused(*, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
            self._refuse(keys)
            return await run(keys=keys, args=args)

        return unless_refused

    def _refuse(self, words: Sequence[object]) -> None:
        if self.refused.intersection(words):
            self.refusals += 1
            raise StoreUnavailable("refused")


class NothingChosen(PreferenceStore):
    """Preferences of places in which nothing is chosen."""

    async def read(self, thread: ThreadKey) -> Mapping[Scope, Preferences]:
        return {}


class FakeIntake(Intake):
    """Remembers what it was asked; `refuses` is raised instead, as long as it stands.

    An admission takes `slow` seconds, and lasts while `open` is not set. If somebody's answer
    `runs`, it can be stopped. `knows_all` is as if every turn had been admitted, or forgotten,
    before; `waits` as if no worker took one, and `has_ended` as if every one had its outcome.
    """

    def __init__(self) -> None:
        self.preferences = NothingChosen(store=EmptyStore())
        self.follow = "auto"
        self.access = AccessRules()
        self.refuses: Exception | None = None
        self.knows_all = False
        self.has_ended = False
        self.waits = False
        self.asked_for_waits: list[str] = []  # the texts of turns that may wait
        self.end: End | None = ""
        self.slow = 0.0
        self.open = asyncio.Event()
        self.open.set()
        self.refusals = 0
        self.access = AccessRules()
        self.not_allowed: Exception | None = None
        self.checked: list[tuple[ThreadKey, Asker]] = []
        self.asked: list[str] = []
        self.turns: list[Turn] = []
        self.edits: list[tuple[Turn, float]] = []
        self.stopped: list[str] = []
        self.stopped_by: list[str] = []
        self.stopped_threads: list[ThreadKey] = []
        self.resets: list[ThreadKey] = []
        self.handled: set[str] = set()
        self.continued: list[Place | None] = []
        self.runs = False
        self.manages = False  # who said stop last
        self.stopped_own: list[tuple[str, str]] = []
        self.kept: dict[str, ContextMessage] = {}
        self.pressed: list[tuple[str, str, str]] = []
        self.pressed_at: list[Place | None] = []
        self.forgotten: list[str] = []
        self.forgotten_answers: list[str] = []
        self.forgotten_people: list[str] = []
        self.forgets_at_once = True
        self.forgets = 0
        self.named: list[tuple[ThreadKey, Person]] = []
        self.threads: dict[str, ThreadKey] = {}
        self.helped: set[tuple[str, str]] = set()
        self.is_full: Exception | None = None
        self.speakers: dict[ThreadKey, set[str]] = {}

    @property
    def texts(self) -> list[str]:
        return [turn.text for turn in self.turns]

    @property
    def last(self) -> Turn:
        return self.turns[-1]

    async def admit(self, turn: Turn) -> bool:
        if not turn.text:
            refused = NothingAsked()
            refused.repeated = (turn.key.channel, turn.person.id) in self.helped
            self.helped.add((turn.key.channel, turn.person.id))
            raise refused
        self._refuse()
        await asyncio.sleep(self.slow)
        self.asked.append(turn.id)
        if self.knows_all or turn.id in [known.id for known in self.turns]:
            return False
        self.turns.append(turn)
        await self.open.wait()
        return True

    async def still_waits(self, turn: Turn, *, after: float, first: bool = False) -> bool:
        self.asked_for_waits.append(turn.text)
        return self.waits

    async def note_message(
        self, facts: Facts, thread: ThreadKey | None, *people: str, ours: bool = False
    ) -> bool:
        askers = {turn.person.id for turn in self.turns if turn.key == thread}
        if thread and (ours or facts.calls_bot or askers or thread in self.speakers):
            known = self.speakers.setdefault(thread, set())
            known.update(people, askers)
            facts = replace(facts, speakers=len(known))
        return not ignore_reason(facts, "auto")

    async def stop_own(
        self,
        turn_id: str,
        thread: ThreadKey,
        person: Person,
        *,
        channel: str = "",
        manages: Callable[[], Awaitable[bool]] | bool = False,
    ) -> bool:
        self._fail()
        self.manages = manages if isinstance(manages, bool) else await manages()
        self.stopped_own.append((person.id, channel))
        return self.runs

    async def edit(self, turn: Turn, *, edited_at: float) -> None:
        self._refuse()
        self.edits.append((turn, edited_at))
        if turn.text and turn.id not in [known.id for known in self.turns]:
            self.turns.append(turn)

    async def check_access(
        self, thread: ThreadKey, person: Person, asker: Asker, *, called: bool = True
    ) -> None:
        if self.not_allowed:
            self.checked.append((thread, asker))
            raise self.not_allowed

    async def depends_on_roles(self, thread: ThreadKey) -> bool:
        return False

    async def check_room(self, turn: Turn) -> None:
        if self.is_full:
            raise self.is_full

    async def stop(self, turn_id: str, *, person_id: str = "") -> bool:
        self._refuse()
        self.stopped.append(turn_id)
        self.stopped_by.append(person_id)
        return not self.has_ended

    async def asker(self, turn_id: str) -> str:
        self._fail()
        return next((turn.person.id for turn in self.turns if turn.id == turn_id), "")

    async def keep_message(self, name: str, message: ContextMessage) -> None:
        self._fail()
        self.kept[name] = message

    async def kept_message(self, name: str) -> ContextMessage | None:
        self._fail()
        return self.kept.get(name)

    async def reset(self, thread: ThreadKey, *, event_id: str = "") -> None:
        self._fail()
        await self.open.wait()
        self.resets.append(thread)

    async def continue_answer(
        self,
        turn_id: str,
        *,
        person_id: str,
        press_id: str,
        place: Place | None = None,
        asker: Asker = ANYBODY,
    ) -> Turn:
        self._refuse()
        self.continued.append(place)
        return _pressed(turn_id)

    async def note_handled(self, event_id: str) -> None:
        self.handled.add(event_id)

    async def is_handled(self, event_id: str) -> bool:
        return event_id in self.handled

    async def how_ended(self, turn_id: str) -> End | None:
        return self.end

    async def stop_thread(self, thread: ThreadKey) -> bool:
        self._fail()
        self.stopped_threads.append(thread)
        return True

    async def regenerate(
        self,
        turn_id: str,
        *,
        person_id: str,
        press_id: str,
        place: Place | None = None,
        asker: Asker = ANYBODY,
        reread: Callable[[Turn], Awaitable[str]] | None = None,
    ) -> Turn:
        self._refuse()
        self.pressed.append((turn_id, person_id, press_id))
        self.pressed_at.append(place)
        return _pressed(turn_id)

    async def forget(
        self,
        *turn_ids: str,
        asked_at: float | None = None,
        platform: str = "",
        messages: Sequence[str] = (),
    ) -> None:
        self._fail()
        self.forgets += 1
        self.forgotten += turn_ids
        self.forgotten_answers += messages

    async def forget_person(self, platform: str, person: Person) -> None:
        self._fail()
        self.forgotten_people.append(person.id)

    async def has_forgotten(self, platform: str, person: Person) -> bool:
        self._fail()
        return self.forgets_at_once

    async def save_name(self, thread: ThreadKey, person: Person) -> None:
        self._fail()
        self.named.append((thread, person))

    async def thread_of_turn(self, turn_id: str) -> ThreadKey | None:
        self._fail()
        return next((turn.key for turn in self.turns if turn.id == turn_id), None)

    async def thread_of(self, platform: str, message_id: str) -> ThreadKey | None:
        return self.threads.get(message_id) if platform == "discord" else None

    def _fail(self) -> None:
        """Raise only what a store raises: what asks here is never refused."""
        if not isinstance(self.refuses, Refused):
            self._refuse()

    def _refuse(self) -> None:
        if self.refuses:
            self.refusals += 1
            raise self.refuses


class NotedIntake(Intake):
    """A real intake that notes the turns that were new, and the messages that it was asked about.

    `stopped` has the ids of the messages that were a stop.
    """

    def __init__(
        self, store: Store, *, follow: Follow = "auto", models: Sequence[ModelChoice] = ()
    ) -> None:
        limits = Limits(100, 100, 100, 100)
        queue = TurnQueue(
            store=store, worker="w1", limits=limits, lease_seconds=60, keep_seconds=60
        )
        self.queue = queue
        super().__init__(
            queue=queue,
            history=History(store=store, keep_seconds=60),
            follow=follow,
            preferences=PreferenceStore(store=store, models=models, max_tokens=1024),
        )
        self.turns: list[Turn] = []
        self.stopped: list[str] = []
        self.judged: list[Facts] = []

    @property
    def texts(self) -> list[str]:
        return [turn.text for turn in self.turns]

    async def note_message(
        self, facts: Facts, thread: ThreadKey | None, *people: str, ours: bool = False
    ) -> bool:
        answer = await super().note_message(facts, thread, *people, ours=ours)
        self.judged.append(facts)
        return answer

    async def admit(self, turn: Turn) -> bool:
        is_new = await super().admit(turn)
        if turn.id not in [known.id for known in self.turns]:
            self.turns.append(turn)
        return is_new

    async def stop_own(
        self,
        turn_id: str,
        thread: ThreadKey,
        person: Person,
        *,
        channel: str = "",
        manages: Callable[[], Awaitable[bool]] | bool = False,
    ) -> bool:
        is_stop = await super().stop_own(turn_id, thread, person, channel=channel, manages=manages)
        if is_stop:
            self.stopped.append(turn_id)
        return is_stop


async def write_the_end(shown: Shown, *, surface: Surface, store: Store) -> None:
    """Write an end that was stored, as the next try does."""

    async def save(shown: Shown) -> None:
        """Keep nothing."""

    reply = make_reply(store, surface, earlier=shown, saved=save, patience=30.0)
    await reply.stream(empty_stream())


def _pressed(turn_id: str) -> Turn:
    return Turn(turn_id, ThreadKey("fake", "", "", ""), Person("9", "Ada"), "", {}, 0.0)
