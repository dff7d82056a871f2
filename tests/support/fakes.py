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
from copy import copy
from dataclasses import dataclass, field
from typing import Any, cast

import redis.asyncio

from bot.access.preferences import ModelChoice, PreferenceStore, Scope
from bot.access.quotas import Quota, Usage
from bot.access.rules import AccessRules
from bot.concurrency import empty_stream
from bot.domain import (
    Consent,
    ContextMessage,
    Delta,
    EditBudget,
    End,
    Exchange,
    FileRef,
    FilesRead,
    Follow,
    Message,
    Page,
    Person,
    Place,
    Preferences,
    Purpose,
    Shown,
    StepNotes,
    ThreadKey,
    Tool,
    Turn,
)
from bot.errors import (
    MessageGone,
    ModelError,
    NotTheAsker,
    Refused,
    StoreUnavailable,
    SurfaceError,
    WriteFailed,
)
from bot.intake.access import AccessControl
from bot.intake.addressed import Facts
from bot.intake.intake import Admitted, Decision, Ignored, Intake, Received, Stopped
from bot.ports import OnThought, ReadEarlier, Surface
from bot.reply.edit_budget import EditBudgets
from bot.store import Command, Script, Store
from bot.turns.queue import TurnQueue
from bot.turns.records import History
from bot.turns.script import Limits
from tests.support.replies import make_reply
from tests.support.waiting import until


@dataclass
class FakeModel:
    """Reads all files, says `deltas`, then raises `error` if there is one.

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

    async def sees(self) -> bool:
        return False

    async def takes_tools(self) -> bool | None:
        return True

    async def stream(
        self,
        prompt: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        on_thought: OnThought | None = None,
    ) -> AsyncGenerator[Delta]:
        self.prompts.append(list(prompt))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if prompt and prompt[-1].files:
                yield FilesRead(prompt[-1].files)
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
    widest_table: int = 2000
    shows_work: bool = True
    shows_steps: bool = False
    shows_thoughts: bool = False
    has_buttons: bool = True
    edits: EditBudget = field(default_factory=lambda: EditBudget("edit", 1000, 1.0))
    posts: EditBudget = field(default_factory=lambda: EditBudget("post", 1000, 1.0))
    latency: float = 0.0
    errors: Sequence[Exception | None] = ()
    screen: dict[str, Page] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    posted: int = 0
    at_once: int = 0
    most_at_once: int = 0

    def note_step(self, steps: StepNotes) -> bool:
        self.steps.append(steps.doing)
        return self.shows_steps

    def measure(self, text: str) -> int:
        return len(text)

    def shows_whole(self, table: str) -> bool:
        return len(table.partition("\n")[0]) <= self.widest_table

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
    closed: int = 0
    name: str = "console"
    context: Sequence[ContextMessage] = ()
    unreadable: Exception | None = None
    read_since: list[str] = field(default_factory=list)
    reads: ReadEarlier | None = None
    files: dict[str, bytes | Exception] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    wait: Callable[[], Awaitable[object]] | None = None  # before each file

    @asynccontextmanager
    async def surface(
        self, turn: Turn, purpose: Purpose = Purpose.ANSWER
    ) -> AsyncIterator[FakeSurface]:
        self.opened += 1
        if self.error:
            raise self.error
        yield self.shown
        self.closed += 1

    async def read_context(self, turn: Turn, *, since: str, most: int) -> Sequence[ContextMessage]:
        self.read_since.append(since)
        if self.unreadable:
            raise self.unreadable
        return self.context

    def earlier(self, turn: Turn) -> ReadEarlier | None:
        return self.reads

    async def fetch_file(self, file: FileRef) -> AsyncGenerator[bytes]:
        self.fetched.append(file.id)
        if self.wait:
            await self.wait()
        found = self.files[file.id]
        if isinstance(found, Exception):
            raise found
        for start in range(0, len(found), 1000):
            yield found[start : start + 1000]

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
        return {"HMGET": [None, None], "ZRANGE": [], "HKEYS": [], "SMEMBERS": set()}.get(
            str(words[0]), 1
        )

    def script(self, source: str, *, if_full: bool = False, lasting: bool = False) -> Script:
        async def run(*, keys: Sequence[str], args: Sequence[str | bytes | float]) -> Any:
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

    async def commands(self, commands: Sequence[Command]) -> list[Any]:
        for words in commands:
            self._refuse(words)
        return await super().commands(commands)

    def script(self, source: str, *, if_full: bool = False, lasting: bool = False) -> Script:
        run = super().script(source, if_full=if_full, lasting=lasting)

        async def unless_refused(
            *, keys: Sequence[str], args: Sequence[str | bytes | float]
        ) -> Any:
            self._refuse([*keys, *args])
            return await run(keys=keys, args=args)

        return unless_refused

    def _refuse(self, words: Sequence[object]) -> None:
        if self.refused.intersection(words):
            self.refusals += 1
            raise StoreUnavailable("refused")


class FakePreferences:
    """Nothing is chosen anywhere, and there is one model."""

    models: Sequence[ModelChoice] = ()
    offered: Sequence[ModelChoice] = ()
    store: Any = None

    async def read(self, thread: ThreadKey) -> Mapping[Scope, Preferences]:
        return {}

    def label_of(self, model: str) -> str:
        return model


class FakeQueue:
    """Remembers in memory what it was asked; `refuses` is raised instead, as long as it stands.

    An admission lasts while `open` is not set. If somebody's answer `runs`, it can be stopped.
    `knows_all` is as if every turn had been admitted, or forgotten, before; `is_waiting` as if no
    worker took one, and `has_ended` as if every one had its outcome. `intake` is a real one over
    this queue.
    """

    def __init__(
        self, *, preferences: PreferenceStore | None = None, access: AccessRules | None = None
    ) -> None:
        self.exchanges: list[Exchange] = []
        self.named: list[tuple[ThreadKey, Person]] = []
        self.kept: dict[str, ContextMessage] = {}
        self.people: list[str] = []  # who was forgotten; at once, or never if not `is_quick`
        self.is_quick = True
        self.refuses: Exception | None = None
        self.refusals = 0
        self.is_full: Exception | None = None
        self.knows_all = self.has_ended = self.is_waiting = self.runs = False
        self.is_away, self.first_there = False, ""
        self.end: End | None = ""
        self.open = asyncio.Event()
        self.open.set()
        self.asked: list[str] = []
        self.turns: list[Turn] = []
        self.edits: list[tuple[Turn, float]] = []
        self.asked_for_waits: list[str] = []
        self.stopped: list[str] = []
        self.stopped_by: list[str] = []
        self.stopped_threads: list[ThreadKey] = []
        self.stopped_own: list[tuple[str, str]] = []
        self.decided: list[tuple[str, str, str, str, bool]] = []
        self.words: list[str] = []  # that were written into a form, one text for each of them
        self.asks = ""  # the question of a tool's server, as it is stored
        self.pressed: list[tuple[str, str, str]] = []
        self.pressed_at: list[Place | None] = []
        self.forgotten: list[str] = []
        self.forgets = 0
        self.resets: list[ThreadKey] = []
        self.handled: set[str] = set()
        self.threads: dict[str, ThreadKey] = {}
        self.speakers: dict[ThreadKey, set[str]] = {}
        # What the intake asks of the queue, the history and the preferences is all here.
        self.intake = Intake(
            queue=cast("TurnQueue", self),
            history=cast("History", self),
            preferences=preferences or cast("PreferenceStore", FakePreferences()),
            access=access or AccessRules(),
        )

    @property
    def leases(self) -> FakeQueue:
        return self

    changes = lookup = history = forgetting = store = leases

    @property
    def access(self) -> AccessControl:
        return self.intake.access

    @property
    def texts(self) -> list[str]:
        return [turn.text for turn in self.turns]

    @property
    def last(self) -> Turn:
        return self.turns[-1]

    def known(self, turn_id: str) -> Turn | None:
        return next((turn for turn in self.turns if turn.id == turn_id), None)

    async def restored_at(self) -> float:
        return 0.0

    async def admit(self, turn: Turn, **_: object) -> bool:
        self._refuse()
        self.asked.append(turn.id)
        if self.knows_all or self.known(turn.id):
            return False
        self.turns.append(turn)
        await self.open.wait()
        return True

    async def edit(self, turn: Turn, *, edited_at: float, **_: object) -> None:
        self._refuse()
        self.edits.append((turn, edited_at))
        if not self.known(turn.id):
            self.turns.append(turn)

    async def check_room(self, turn: Turn, **_: object) -> None:
        if self.is_full:
            raise self.is_full

    async def waits(self, turn_id: str, *, first_in: ThreadKey | None = None) -> bool:
        self.asked_for_waits += [turn.text for turn in self.turns if turn.id == turn_id]
        return self.is_waiting

    async def note_speakers(self, thread: ThreadKey, *people: str, ours: bool = False) -> int:
        askers = {turn.person.id for turn in self.turns if turn.key == thread}
        if not (ours or askers or thread in self.speakers):
            return 0
        known = self.speakers.setdefault(thread, set())
        known.update(people, askers)
        return len(known)

    def note_away(self, error: StoreUnavailable) -> None:
        """Go on."""

    async def usage(self, thread: ThreadKey, person: Person, quota: Quota) -> Usage:
        return Usage(2, 1234, 1234, quota, 3600.0)

    async def stop(self, turn_id: str, *, person_id: str = "") -> bool:
        self._refuse()
        self.stopped.append(turn_id)
        self.stopped_by.append(person_id)
        return not self.has_ended

    async def decide(
        self,
        turn_id: str,
        call_id: str,
        consent: Consent,
        *,
        person_id: str,
        is_admin: bool,
        words: str = "",
    ) -> bool:
        self._refuse()
        turn = self.known(turn_id)
        if not (is_admin or turn is None or turn.person.id == person_id):
            raise NotTheAsker
        self.decided.append((turn_id, call_id, consent, person_id, is_admin))
        self.words.append(words)
        return not self.has_ended

    async def question(self, turn_id: str, call_id: str) -> str:
        self._refuse()
        return "" if self.has_ended else self.asks

    async def stop_thread(self, thread: ThreadKey) -> bool:
        self.fail()
        self.stopped_threads.append(thread)
        return True

    async def stop_own(
        self, turn_id: str, thread: ThreadKey, person: Person, *, channel: str = ""
    ) -> bool:
        self.fail()
        self.stopped_own.append((person.id, channel))
        return self.runs

    async def first_open(self, thread: ThreadKey) -> str:
        return self.first_there

    async def turn(self, turn_id: str) -> Turn | None:
        self.fail()
        return self.known(turn_id)

    async def thread_of_turn(self, turn_id: str) -> ThreadKey | None:
        self.fail()
        turn = self.known(turn_id)
        return turn.key if turn else None

    async def thread_of(self, platform: str, message_id: str) -> ThreadKey | None:
        return self.threads.get(message_id) if platform == "discord" else None

    async def result(self, turn_id: str) -> Shown | None:
        return None if self.end is None else Shown(outcome="done", end=self.end)

    async def regenerate(
        self, turn_id: str, *, person_id: str, press_id: str, place: Place | None, **_: object
    ) -> None:
        self._refuse()
        self.pressed.append((turn_id, person_id, press_id))
        self.pressed_at.append(place)

    async def continue_answer(self, turn_id: str, following: Turn, **_: object) -> None:
        self._refuse()
        self.turns.append(following)

    async def reset(self, thread: ThreadKey, event_id: str = "", *, by: str = "") -> None:
        self.fail()
        await self.open.wait()
        self.resets.append(thread)

    async def forget(self, *turn_ids: str, **_: object) -> None:
        self.fail()
        self.forgets += 1
        self.forgotten += turn_ids

    async def read(self, thread: ThreadKey) -> list[Exchange]:
        return self.exchanges

    async def ratings(self, thread: ThreadKey, person_id: str) -> dict[str, str]:
        return {}

    async def save_name(self, thread: ThreadKey, person: Person) -> None:
        self.fail()
        self.named.append((thread, person))

    async def keep_message(self, name: str, message: ContextMessage) -> None:
        self.fail()
        self.kept[name] = message

    async def kept_message(self, name: str) -> ContextMessage | None:
        self.fail()
        return self.kept.get(name)

    async def cancel(self, *jobs: str) -> None:
        """No server is being forgotten."""

    async def begin(self, name: str, **_: object) -> None:
        self.fail()
        self.people.append(name.rpartition(":")[2])

    async def is_done(self, name: str) -> bool:
        self.fail()
        return self.is_quick

    async def note_handled(self, event_id: str) -> None:
        self.handled.add(event_id)

    async def is_handled(self, event_id: str) -> bool:
        return event_id in self.handled

    def fail(self) -> None:
        """Raise only what a store raises: what asks here is never refused."""
        if not isinstance(self.refuses, Refused):
            self._refuse()

    def _refuse(self) -> None:
        if self.refuses:
            self.refusals += 1
            raise copy(self.refuses)


class NotedIntake(Intake):
    """A real intake that notes the turns that were new, and the messages that it received.

    `stopped` has the ids of the messages that were a stop.
    """

    def __init__(
        self,
        store: Store,
        *,
        follow: Follow = "auto",
        models: Sequence[ModelChoice] = (),
        access: AccessRules | None = None,
        calls_per_day: int | None = None,
    ) -> None:
        self.queue = TurnQueue(
            store=store,
            worker="w1",
            limits=Limits(100, 100, 100, 100, calls_per_day=calls_per_day),
            lease_seconds=60,
            keep_seconds=60,
        )
        super().__init__(
            queue=self.queue,
            history=History(store=store, keep_seconds=60),
            follow=follow,
            preferences=PreferenceStore(store=store, models=models, max_tokens=1024),
            access=access or AccessRules(),
        )
        self.turns: list[Turn] = []
        self.stopped: list[str] = []
        self.judged: list[Facts] = []

    @property
    def texts(self) -> list[str]:
        return [turn.text for turn in self.turns]

    async def receive(self, received: Received) -> Decision:
        outcome = await super().receive(received)
        if isinstance(outcome, Stopped):
            self.stopped.append(received.turn.id)
        elif received.facts:
            self.judged.append(received.facts)
        known = {turn.id for turn in self.turns}
        if isinstance(outcome, Admitted) and outcome.turn.id not in known:
            self.turns.append(outcome.turn)
        return outcome


async def is_for_bot(intake: Intake, facts: Facts, thread: ThreadKey, person: Person) -> bool:
    """Return whether a message in a thread is for the bot. It is empty, so nothing is admitted."""
    turn = Turn(f"{thread.platform}:heard", thread, person, "", {}, 0.0)
    outcome = await intake.receive(Received(turn=turn, facts=facts, people=[person.id]))
    return isinstance(outcome, Refused) or outcome == Ignored("it says nothing")


def door(of: Intake | FakeQueue) -> Intake:
    """Return what a platform listens for."""
    return of if isinstance(of, Intake) else of.intake


async def write_the_end(shown: Shown, *, surface: Surface, store: Store) -> None:
    """Write an end that was stored, as the next try does."""

    async def save(shown: Shown) -> None:
        """Keep nothing."""

    reply = make_reply(store, surface, earlier=shown, saved=save, patience=30.0)
    await reply.stream(empty_stream())
