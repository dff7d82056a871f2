"""The queue, driven at random on a real server, against a plain model of what it promises.

Few examples by default; PARLEY_EXAMPLES=2000 makes it a long run.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from bot.domain import End, Exchange, Outcome, Person, Rating, Shown, ThreadKey, Turn
from bot.errors import (
    HasEnded,
    LeaseLost,
    NotRemembered,
    NotTheAsker,
    NotTheLast,
    PersonBusy,
    QuestionEdited,
    QueueFull,
    Refused,
    ThreadBusy,
)
from bot.store import Store, connect
from bot.turns.queue import Repair, Taken, TurnQueue
from bot.turns.script import Limits

T = TypeVar("T")

EXAMPLES = int(os.environ.get("PARLEY_EXAMPLES", "8"))
PHASES = (Phase.generate, Phase.shrink)  # explaining a failure takes minutes
STEPS = 80
LIMITS = Limits(
    waiting_per_thread=3,
    waiting_per_person=4,
    waiting=7,
    running_per_person=1,
    person_bytes=5000,  # three turns
)
RECORD = 2000  # bytes that each turn counts beside its texts
PEOPLE = {name: Person(name, name) for name in ("ann", "ben", "cleo")}
THREADS = {name: ThreadKey("console", "local", "c", name) for name in ("t1", "t2", "t3")}
WORKERS = ("w1", "w2")
REPAIR_ATTEMPTS = 20
DUE, LANDING = 0, -1
KEEP_SECONDS = 60
AT_ONCE, AFTER_REPAIR = "at once", "after a repair"


@dataclass
class Known:
    """What the model knows of a turn that was admitted, or forgotten before it was."""

    turn: Turn | None = None
    place: tuple[int, int] = (0, 0)  # how many others its person had open, and its number
    state: str = "queued"
    fence: int = 0
    attempts: int = 0
    waits: bool = False  # for the end of its lease, or for its next attempt,
    due: bool = False  # which has come
    saved: bool = False
    progress: int = 0  # most bytes that an attempt has shown
    shown: Shown = field(default_factory=Shown)
    previous_answer: str | None = None
    edited: int = 0  # when its question was written
    anew: bool = False  # its question was edited since it was taken
    after: str | None = None  # the exchange before it, where it left none
    stop: bool = False
    forgotten: bool = False
    drops_answer: str = ""  # when the text goes, too
    late_writes: tuple[str, ...] = ()
    repair_attempts: int = 0
    joined: list[str] = field(default_factory=list)  # those that are answered with it
    lead: str = ""
    continued: list[str] = field(default_factory=list)  # those that go on with its answer
    above: str = ""  # the last message of the reply before it
    refers: bool = False  # others waited in its thread
    posted: set[str] = field(default_factory=set)  # all its messages
    counted: int = 0  # its newest entry among what is kept of its person
    remembered: tuple[str, str] = ("", "")  # its last question and answer in the history
    rating: str = ""  # of that answer
    emptied: bool = False  # without its question, which was deleted
    gone: bool = False  # with its record, to make room for newer ones
    group: str = ""  # the first of its versions
    aside: bool = False  # as another version than the open one, or after it
    tail: list[str] | None = None  # the turns that followed it, when it was put aside
    answered: bool = False  # it is aside with its answer

    @property
    def open(self) -> bool:
        return self.state in ("queued", "running")

    @property
    def may_join(self) -> bool:
        return bool(self.turn and self.turn.joins and self.fence == 0)

    @property
    def asked_for(self) -> bool | type[QuestionEdited]:
        """What its worker is told."""
        return QuestionEdited if self.anew else self.stop

    def exchange(self, answer: str) -> Exchange:
        assert self.turn
        turn = self.turn
        return Exchange(turn.id, turn.person, turn.asked_at, turn.text, answer)

    @property
    def thread(self) -> str:
        assert self.turn
        return self.turn.key.thread

    @property
    def person(self) -> str:
        assert self.turn
        return self.turn.person.id

    @property
    def text(self) -> str:
        assert self.turn
        return self.turn.text


@dataclass
class Thread:
    """The open turns of a thread in their order, and what it remembers."""

    mailbox: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)  # what was put aside, in this order
    newest: str = ""  # the last turn that has ended, or a failed one that can be retried
    ended: set[str] = field(default_factory=set)  # all that have ended since it was reset

    @property
    def last(self) -> str:
        return self.history[-1] if self.history else ""


class Model:
    """What has to hold, without a server."""

    def __init__(self) -> None:
        self.turns: dict[str, Known] = {}
        self.threads = {name: Thread() for name in THREADS}
        self.versions: dict[str, list[str]] = {}  # by the first of them
        self.pressed: set[str] = set()
        self.repairs: dict[str, int] = {}  # to each turn its claim, DUE or LANDING
        # Of each person the turns that ended, each with the number of its entry and its bytes.
        self.kept: dict[str, list[tuple[str, int, int]]] = {name: [] for name in PEOPLE}
        self.clock = 0

    def open(self, person: str = "") -> list[Known]:
        known = [one for one in self.turns.values() if one.open]
        return [one for one in known if not person or one.person == person]

    def running(self, person: str) -> int:
        return sum(one.state == "running" for one in self.open(person))

    def full(self, person: str) -> type[Refused] | None:
        if len(self.open(person)) >= LIMITS.waiting_per_person:
            return PersonBusy
        return QueueFull if len(self.open()) >= LIMITS.waiting else None

    def refusal(self, turn: Turn) -> type[Refused] | None:
        waiting, places = "", 0
        there = [self.turns[one] for one in self.threads[turn.key.thread].mailbox]
        for known in there:
            may_join = known.person if known.may_join else ""
            places += not may_join or may_join != waiting
            waiting = may_join
        is_full = places >= LIMITS.waiting_per_thread
        will_join = turn.joins and waiting == turn.person.id
        if is_full and not will_join and turn.person.id in [known.person for known in there]:
            return ThreadBusy
        return self.full(turn.person.id)

    def enqueue(self, turn_id: str) -> None:
        known = self.turns[turn_id]
        self.clock += 1
        known.state, known.attempts, known.progress, known.stop = "queued", 0, 0, False
        known.shown = Shown(known.shown.message_ids)
        known.place = (len(self.open(known.person)) - 1, self.clock)
        self.threads[known.thread].mailbox.append(turn_id)

    def next(self) -> str | None:
        """Return the turn that has to be next: the oldest that may run now."""
        firsts = [thread.mailbox[0] for thread in self.threads.values() if thread.mailbox]
        return min(
            filter(self.may_run, firsts), key=lambda one: self.turns[one].place, default=None
        )

    def may_run(self, turn_id: str) -> bool:
        known = self.turns[turn_id]
        if known.waits or known.state == "running":
            return not known.waits
        mailbox = self.threads[known.thread].mailbox
        keeps_others_waiting = any(self.turns[one].person != known.person for one in mailbox)
        return keeps_others_waiting or self.running(known.person) < LIMITS.running_per_person

    def press(self, turn_id: str, person: str, press_id: str) -> type[Refused] | None:
        """Return why a turn is not answered anew; else queue it."""
        if press_id in self.pressed:
            return None
        if refused := self.press_refusal(turn_id, person):
            return refused
        self.pressed.add(press_id)
        self.ask_anew(turn_id)
        return None

    def continue_answer(self, turn_id: str, person: str, following: Turn) -> type[Refused] | None:
        """Return why an answer is not continued; else queue the turn that does it."""
        if following.id in self.turns:
            return None
        if refused := self.press_refusal(turn_id, person):
            return refused
        known = self.turns[turn_id]
        if self.threads[known.thread].last != turn_id:
            return NotRemembered
        if known.shown.end != "cut":
            return HasEnded
        self.turns[following.id] = Known(following)
        known.continued.append(following.id)
        self.enqueue(following.id)
        return None

    def branch(self, turn_id: str, person: str, following: Turn) -> type[Refused] | bool:
        """Return why there is no further version; else whether it is a new turn."""
        if following.id in self.turns or following.id in self.pressed:
            return following.id in self.turns
        if refused := self.version_refusal(turn_id, person):
            return refused
        known = self.turns[turn_id]
        if not (old := self.open_version(turn_id)):
            return NotRemembered
        if old == turn_id and not self.is_remembered(turn_id) and known.text == following.text:
            return self.press(turn_id, person, following.id) or False
        if full := self.full(known.person):
            return full
        if turn_id not in self.versions.get(known.group, ()):
            known.group = turn_id
            self.versions.setdefault(turn_id, []).append(turn_id)
        self.put_aside(old)
        self.renew_newest(known.thread)
        self.versions[known.group].append(following.id)
        self.turns[following.id] = Known(following, group=known.group)
        self.enqueue(following.id)
        return True

    def open_branch(self, turn_id: str, person: str) -> type[Refused] | None:
        """Return why a version cannot be opened; else open it."""
        known, refused = self.turns.get(turn_id), self.version_refusal(turn_id, person)
        if known and not known.aside and refused in (None, ThreadBusy):
            return None
        if refused or not known:
            return refused
        old = self.open_version(turn_id)
        if not old or known.tail is None:
            return NotRemembered
        self.put_aside(old)
        thread = self.threads[known.thread]
        for one in (turn_id, *known.tail):
            each = self.turns[one]
            if one in thread.aside:
                thread.aside.remove(one)
                each.aside = False
                thread.history += [one] * each.answered
        known.tail = None
        self.renew_newest(known.thread)
        return None

    def version_refusal(self, turn_id: str, person: str) -> type[Refused] | None:
        known = self.turns.get(turn_id)
        if known is None or known.turn is None or known.forgotten or known.state == "dropped":
            return NotRemembered
        if person != known.person:
            return NotTheAsker
        return ThreadBusy if self.threads[known.thread].mailbox else None

    def open_version(self, turn_id: str) -> str:
        versions = (turn_id, *self.versions.get(self.turns[turn_id].group, ()))
        known = {one: self.turns[one] for one in versions}
        return next(
            (
                one
                for one, it in known.items()
                if not (it.aside or it.forgotten or it.gone) and it.turn
            ),
            "",
        )

    def open_turns(self, name: str, since: float = 0) -> list[str]:
        thread = self.threads[name]
        known = {one: self.turns[one] for one in {*thread.ended, *thread.history}}
        asked = {one: it.turn.asked_at for one, it in known.items() if it.turn}
        shown = [one for one, it in known.items() if not (it.aside or it.forgotten or it.gone)]
        return sorted((one for one in shown if asked[one] > since), key=lambda one: asked[one])

    def put_aside(self, turn_id: str) -> None:
        known = self.turns[turn_id]
        assert known.turn
        thread = self.threads[known.thread]
        known.tail = self.open_turns(known.thread, known.turn.asked_at)
        for one in (turn_id, *known.tail):
            self.turns[one].aside, self.turns[one].answered = True, one in thread.history
            thread.history = [it for it in thread.history if it != one]
            thread.aside.append(one)

    def renew_newest(self, name: str) -> None:
        shown = [one for one in self.open_turns(name) if self.turns[one].shown.message_ids]
        self.threads[name].newest = shown[-1] if shown else ""

    def behind(self, turn_id: str) -> list[str]:
        """Return the turns to which only this one leads."""
        known = self.turns.get(turn_id)
        if not known or known.gone:
            return []
        if known.tail is not None:
            return known.tail
        versions = self.versions.get(known.group, [])
        return [one for one in versions if one != turn_id and self.turns[one].tail is not None]

    def leave_aside(self, turn_id: str) -> None:
        known = self.turns[turn_id]
        aside, known.answered = self.threads[known.thread].aside, False
        if turn_id in aside:
            aside.remove(turn_id)

    def rate(self, turn_id: str, rating: Rating) -> bool | None:
        """Keep a rating; return whether it is the first of its answer, None without an answer."""
        known = self.turns.get(turn_id)
        if not known or not known.turn or not self.is_remembered(turn_id):
            return None
        is_first = not known.rating
        known.rating = rating
        return is_first

    def is_remembered(self, turn_id: str) -> bool:
        known = self.turns[turn_id]
        return known.answered if known.aside else turn_id in self.threads[known.thread].history

    def last_above(self, thread: str) -> str:
        newest = self.turns.get(self.threads[thread].newest)
        ids = newest.shown.message_ids if newest and not newest.gone else ()
        return ids[-1] if ids else ""

    def press_refusal(self, turn_id: str, person: str) -> type[Refused] | None:
        known = self.turns.get(turn_id)
        if known is None or known.turn is None or known.forgotten or known.state == "dropped":
            return NotRemembered
        if person != known.person:
            return NotTheAsker
        thread = self.threads[known.thread]
        if thread.mailbox[:1] == [turn_id]:
            return ThreadBusy
        if thread.last not in (turn_id, known.after):
            return NotTheLast if thread.last else NotRemembered
        if known.aside:
            return NotTheLast
        return ThreadBusy if thread.mailbox else self.full(known.person)

    def join(self, turn_id: str) -> None:
        """Join to a turn, taken for the first time, those that wait behind it."""
        first = self.turns[turn_id]
        if first.turn and first.turn.joins:
            for one in self.threads[first.thread].mailbox[1:]:
                known = self.turns[one]
                if not known.may_join or known.person != first.person:
                    break
                known.lead = turn_id
                first.joined.append(one)
        others = [one for one in self.threads[first.thread].mailbox if one not in first.joined]
        for one in others if len(others) > 1 else ():
            self.turns[one].refers = True

    def lead(self, turn_id: str) -> str:
        known = self.turns.get(turn_id)
        lead = self.turns.get(known.lead) if known else None
        if not known or not lead or turn_id not in lead.joined or known.gone:
            return ""
        return known.lead if lead.open or known.state != "queued" else ""

    def whole(self, turn_id: str) -> str:
        """Return the question of a turn with those that are answered with it."""
        known = [self.turns[one] for one in (turn_id, *self.turns[turn_id].joined)]
        return "\n\n".join(one.text for one in known if not one.gone and not one.emptied)

    def leave_out(self, turn_id: str, lead: str) -> None:
        whole = self.turns[lead]
        whole.joined.remove(turn_id)
        whole.anew = whole.anew or whole.open

    def edit(self, turn_id: str, person: str, text: str, at: int) -> type[Refused] | None:
        """Return why an edit is refused; else answer the question anew, if that is called for."""
        known = self.turns.get(turn_id)
        if known is None or known.turn is None or known.forgotten or known.state == "dropped":
            return None
        thread = self.threads[known.thread]
        lead = self.lead(turn_id) or turn_id
        whole = self.turns[lead]
        is_last = whole.open or (thread.last in (lead, whole.after) and not whole.aside)
        if person != known.person or at < known.edited or not is_last or text == known.text:
            return None
        if whole.open:
            whole.stop, whole.anew = False, True
        elif thread.mailbox:
            return None
        elif full := self.full(known.person):
            return full
        else:
            self.ask_anew(lead)
        known.turn, known.edited = replace(known.turn, text=text), at
        return None

    def begin_anew(self, turn_id: str) -> None:
        known = self.turns[turn_id]
        if known.anew:
            if known.shown.message_ids and known.shown.text and known.previous_answer is None:
                known.previous_answer = known.shown.text
            known.shown = Shown(known.shown.message_ids)
            known.attempts, known.progress, known.anew = 0, 0, False

    def ask_anew(self, turn_id: str) -> None:
        known = self.turns[turn_id]
        if self.threads[known.thread].last == turn_id and known.previous_answer is None:
            known.previous_answer = known.shown.text
        self.enqueue(turn_id)

    def finish(
        self,
        turn_id: str,
        outcome: Outcome,
        shown: Shown,
        exchange: Exchange | None,
        *,
        sizes: dict[str, int],
    ) -> str:
        """End a turn and return the one whose reply is older than another one now."""
        known = self.turns[turn_id]
        thread = self.threads[known.thread]
        if known.drops_answer == AT_ONCE:
            shown = replace(shown, text="", said="")
        for one in known.joined:
            if self.turns[one].state == "queued" and self.lead(one):
                self.turns[one].state, self.turns[one].shown = outcome, Shown(outcome=outcome)
                self.turns[one].anew = False
                thread.mailbox.remove(one)
                thread.ended.add(one)
                self.count(one, sizes[one])
        counts = exchange is not None or thread.last != turn_id
        if not exchange:
            known.after = thread.last
        elif not known.forgotten:
            if thread.last == turn_id:
                thread.history.pop()
            thread.history.append(turn_id)
            known.remembered, known.rating = (exchange.question, exchange.answer), ""
            known.previous_answer = known.after = None
        if outcome == "dead":
            known.late_writes += shown.message_ids if shown.text else ()
        known.state, known.shown = outcome, shown
        older = self.note_newest(turn_id, thread)
        if known.drops_answer == AFTER_REPAIR:
            self.repair_buttons(turn_id)
        thread.mailbox.remove(turn_id)
        thread.ended.add(turn_id)
        if known.fence > 1 or outcome == "dead":
            self.repairs[turn_id], known.repair_attempts = LANDING, 0
        if counts:
            self.count(turn_id, sizes[turn_id])
        return older

    def note_newest(self, turn_id: str, thread: Thread) -> str:
        newest = self.turns.get(thread.newest)
        is_there = newest and not newest.forgotten and not newest.gone
        may_be_retried = is_there and newest and newest.after == thread.last
        if may_be_retried and self.turns[turn_id].counted and thread.newest != turn_id:
            return turn_id
        if self.turns[turn_id].forgotten and thread.newest not in ("", turn_id):
            return turn_id
        before, thread.newest = thread.newest, turn_id
        return "" if before == turn_id else before

    def count(self, turn_id: str, size: int) -> None:
        known, self.clock = self.turns[turn_id], self.clock + 1
        kept, known.counted = self.kept[known.person], self.clock
        kept.append((turn_id, self.clock, size))
        while sum(size for _, _, size in kept[1:]) >= LIMITS.person_bytes:
            oldest, entry, _ = kept.pop(0)
            if self.turns[oldest].counted == entry:
                self.discard(oldest)

    def discard(self, turn_id: str) -> None:
        known = self.turns[turn_id]
        thread = self.threads[known.thread]
        thread.history = [one for one in thread.history if one != turn_id]
        self.leave_aside(turn_id)
        if not known.open and turn_id not in self.repairs:
            for one in self.behind(turn_id):
                if not self.turns[one].gone:
                    self.discard(one)
            if turn_id in self.versions.get(known.group, ()):
                self.versions[known.group].remove(turn_id)
            known.state, known.gone = "dropped", True
            thread.ended.discard(turn_id)

    def may_be_repaired(self, turn_id: str) -> bool:
        known = self.turns[turn_id]
        return (
            not known.open
            and self.repairs[turn_id] == DUE
            and known.repair_attempts < REPAIR_ATTEMPTS
        )

    def forget(self, *turn_ids: str) -> list[str]:
        """Forget turns with those that continue their answers; return all of them."""
        ids, forgotten = list(turn_ids), set[str]()
        for one in ids:
            answered = self.turns.get(self.lead(one) or one)
            if answered and not answered.gone:
                more = [*answered.continued, *self.behind(self.lead(one) or one)]
                ids += [each for each in more if each not in ids]
        for one in ids:
            known = self.turns.setdefault(one, Known(state="dropped"))
            if known.turn:
                lead = self.lead(one)
                self.forget_known(one, known, lead)
                forgotten |= set() if known.gone else {one, lead or one}
        for thread in self.threads.values():
            last = self.turns.get(thread.last)
            if thread.newest in forgotten:
                self.repair_buttons(thread.newest)
                if last and last.shown.message_ids and not last.gone:
                    self.repair_buttons(thread.last)
                    thread.newest = thread.last
        return ids

    def repair_buttons(self, turn_id: str) -> None:
        known = self.turns[turn_id]
        known.late_writes += known.shown.message_ids
        self.repairs[turn_id], known.repair_attempts = DUE, 0

    def end_repair(self, turn_id: str) -> None:
        del self.repairs[turn_id]
        known = self.turns[turn_id]
        if known.drops_answer == AFTER_REPAIR:
            known.shown = replace(known.shown, text="", said="")

    def reset(self, name: str, event: str) -> None:
        """Forget what was said in a thread, but for the questions that wait."""
        if event in self.pressed:
            return
        self.pressed |= {event} - {""}
        thread, ids = self.threads[name], list[str]()
        for one in thread.mailbox:
            known = self.turns[one]
            if known.state == "running" or known.saved:
                ids += [*known.joined, one]
        ids += [*thread.ended, *thread.history, *thread.aside]
        for one in self.forget(*ids):
            known = self.turns[one]
            if known.forgotten:
                known.drops_answer = AFTER_REPAIR if event else AT_ONCE
                known.previous_answer = None
                if not known.open and not (event and one in self.repairs):
                    known.shown = replace(known.shown, text="", said="")
        thread.history.clear()
        thread.ended.clear()

    def forget_known(self, turn_id: str, known: Known, lead: str) -> None:
        if lead:
            self.leave_out(turn_id, lead)
        thread = self.threads[known.thread]
        if known.state == "queued" and not known.saved:
            known.state, known.waits, known.joined = "dropped", False, []
            thread.mailbox.remove(turn_id)
            return
        known.forgotten, known.anew = True, False
        if not known.gone:
            self.leave_aside(lead or turn_id)
        thread.history = [one for one in thread.history if one not in (turn_id, lead)]
        if lead:
            known.emptied = True
        elif known.open:
            known.stop, known.joined = True, []
            return
        first = self.turns[lead or turn_id]
        if not first.open:
            first.forgotten = True
            for one in (first, *(self.turns[one] for one in first.joined)):
                one.emptied = True


class Queue(RuleBasedStateMachine):
    """Two workers and three people at one queue; a lease ends when the rule `expire` says so."""

    store: Store
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        client, url = self.store.redis, self.store.url
        self.here = Store(client=client, url=url, prefix=f"test-{uuid4().hex}")
        self.queues = {name: self._queue(name) for name in WORKERS}
        self.model = Model()
        self.number = 0
        self.asked: list[tuple[tuple[str | int, ...], object]] = []
        self.held: list[tuple[str, Taken]] = []  # every turn that was ever taken, with its worker
        self.claims: list[Repair] = []  # all that were ever claimed

    def _queue(self, worker: str) -> TurnQueue:
        return TurnQueue(
            store=self.here,
            worker=worker,
            limits=LIMITS,
            lease_seconds=3600,
            keep_seconds=KEEP_SECONDS,
        )

    def run(self, work: Awaitable[T]) -> T:
        async def waited() -> T:
            return await work

        return self.runner.run(waited())

    def command(self, *words: str | int) -> object:
        return self.run(self.here.command(*words))

    def teardown(self) -> None:
        """Whatever has happened: all that was admitted is answered, and nothing is left behind."""
        try:
            self.ends()
        finally:
            names = self.command("KEYS", self.here.key("*"))
            assert isinstance(names, list)
            if names:
                self.command("DEL", *names)

    # What happens

    @rule(
        thread=st.sampled_from(sorted(THREADS)),
        person=st.sampled_from(sorted(PEOPLE)),
        joins=st.booleans(),
    )
    def admit(self, thread: str, person: str, joins: bool) -> None:
        self.number += 1
        turn_id, name, asked = f"console:{self.number}", f"q{self.number}", self.moment()
        turn = Turn(turn_id, THREADS[thread], PEOPLE[person], name, {}, asked, joins=joins)
        refusal, known = self.model.refusal(turn), self.model.turns.get(turn_id)

        got = self.refused(self.queues["w1"].admit(turn))

        if known:  # forgotten before it came
            assert got is False
        elif refusal:
            assert got is refusal
        else:
            assert got is True
            self.model.turns[turn_id] = Known(turn)
            self.model.enqueue(turn_id)

    @rule(person=st.sampled_from(sorted(PEOPLE)))
    def ask_everywhere(self, person: str) -> None:
        for thread in THREADS:
            self.admit(thread, person, joins=True)

    @rule(back=st.integers(0, 4), other=st.booleans())
    def admit_again(self, back: int, other: bool) -> None:
        known = self.model.turns.get(f"console:{self.number - back}")
        if known is None or known.turn is None:
            return
        turn = known.turn
        if other:
            turn = Turn(turn.id, THREADS["t1"], PEOPLE["ann"], "another", {}, 2.0)

        got = self.refused(self.queues["w2"].admit(turn))

        assert got is (not other and known.state != "dropped")

    @rule(worker=st.sampled_from(WORKERS), holds_due=st.booleans())
    def take(self, worker: str, holds_due: bool) -> None:
        self.work(worker, holds_due=holds_due)

    @rule(
        worker=st.sampled_from(WORKERS),
        answer=st.sampled_from(["", "said"]),
        end=st.sampled_from(["", "cut"]),
    )
    def work_through(self, worker: str, answer: str, end: End = "") -> None:
        """Take and finish, as most turns go."""
        if taken := self.work(worker):
            self.end(worker, taken, answer, "done", end)

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        if not self.held:
            return
        worker, taken = self.one_held(data)
        known, holds = self.model.turns[taken.turn.id], self.holds(taken)

        got = self.lost(self.queues[worker].leases.renew(taken))

        assert got is (known.asked_for if holds else LeaseLost)
        if holds:
            known.waits, known.due = True, False

    @rule(
        data=st.data(),
        pages=st.integers(0, 2),
        text=st.sampled_from(["", "half", "whole"]),
        notice=st.sampled_from(["", "", "\n\n(Note: ü.)"]),
        below=st.sampled_from(["", "", "(Left out.)"]),
        outcome=st.sampled_from(["", "", "done", "stopped", "failed", "dead"]),
    )
    def save(
        self,
        data: st.DataObject,
        pages: int,
        text: str,
        notice: str,
        below: str,
        outcome: Outcome | Literal[""],
    ) -> None:
        if not self.held:
            return
        worker, taken = self.one_held(data)
        known, holds = self.model.turns[taken.turn.id], self.holds(taken)
        ids = tuple(f"{taken.turn.id}-{taken.fence}-{number}" for number in range(pages))

        shown = Shown(ids, text + notice, text, below, outcome)
        if known.anew:
            # Of what a stopped attempt still saves, the queue takes the messages alone.
            shown = replace(known.shown, message_ids=ids)

        got = self.lost(self.queues[worker].leases.save(taken, shown))

        assert got is (known.asked_for if holds else LeaseLost)
        if holds:
            size = len(shown.text.encode())
            if pages and size > known.progress:
                known.attempts, known.progress = 1, size
            known.shown, known.saved = shown, True
            known.posted |= {*ids}
        for one in ids:
            found = self.run(self.queues[worker].lookup.thread_of("console", one))
            assert not holds or found == taken.turn.key

    @rule(
        data=st.data(),
        answer=st.sampled_from(["", "short", "longer"]),
        outcome=st.sampled_from(["done", "stopped", "failed", "dead"]),
        end=st.sampled_from(["", "cut", "failed"]),
    )
    def finish(self, data: st.DataObject, answer: str, outcome: Outcome, end: End) -> None:
        if self.held:
            self.end(*self.one_held(data), answer, outcome, end)

    def end(self, worker: str, taken: Taken, answer: str, outcome: Outcome, end: End = "") -> None:
        known, turn = self.model.turns[taken.turn.id], taken.turn
        answer = answer and f"{answer} {taken.fence}"
        holds = self.holds(taken)
        repeated = known.fence == taken.fence and known.state == outcome
        shown = Shown((f"{turn.id}-end",), answer, answer, outcome=outcome, end=end)
        exchange = replace(known.exchange(answer), question=turn.text) if answer else None

        got = self.lost(self.queues[worker].leases.finish(taken, shown, exchange))

        if holds and known.anew:
            assert got is QuestionEdited
        elif not holds:
            assert got == ("" if repeated else LeaseLost)
        if holds:
            known.posted |= {*shown.message_ids}
        if holds and known.anew:
            known.shown, known.saved = Shown(shown.message_ids, answer, answer), True
        elif holds:
            text = "" if known.forgotten else known.text
            assert self.question(turn.id) == text
            texts = [text, "" if known.drops_answer == AT_ONCE else answer]
            if exchange and not known.forgotten:
                texts += [exchange.answer, "" if turn.text == text else turn.text]
            sizes = {turn.id: RECORD + len("".join(texts))}
            for one in known.joined:
                sizes[one] = RECORD + len(self.question(one))
            older = self.model.finish(turn.id, outcome, shown, exchange, sizes=sizes)
            assert got == older
            known.saved = True
            known.waits = known.due = False
        if known.state == outcome:
            self.ended(turn.id)

    @rule(data=st.data(), delay=st.sampled_from([0, 0, 600]), counts=st.booleans())
    def release_turn(self, data: st.DataObject, delay: int, counts: bool) -> None:
        if not self.held:
            return
        worker, taken = self.one_held(data)
        known, holds = self.model.turns[taken.turn.id], self.holds(taken)
        repeated = known.fence == taken.fence and known.state == "queued"

        got = self.lost(
            self.queues[worker].leases.release(taken, delay_seconds=delay, counts=counts)
        )

        assert got is (None if holds or repeated else LeaseLost)
        if holds:
            known.state, known.waits, known.due = "queued", delay > 0, False
            known.attempts -= not counts

    @rule(data=st.data(), message_ids=st.sampled_from([(), ("one",), ("two", "three")]))
    def report_late_writes(self, data: st.DataObject, message_ids: tuple[str, ...]) -> None:
        """Somebody who had a turn may have written since he lost it."""
        if self.held:
            _, taken = self.one_held(data)
            known = self.model.turns[taken.turn.id]
            self.run(self.queues["w1"].repairs.report_late_writes(taken.turn, message_ids))
            if known.gone:
                return
            known.late_writes, known.repair_attempts = known.late_writes + message_ids, 0
            self.model.repairs[taken.turn.id] = DUE

    @rule()
    def land(self) -> None:
        """Every late write has arrived, and every claim has expired."""
        for turn_id in self.model.repairs:
            self.command("ZADD", self.here.key("repairs", "console"), "XX", 0, turn_id)
        self.model.repairs = dict.fromkeys(self.model.repairs, DUE)

    @rule()
    def claim_repair(self) -> None:
        self.claimed_repair()

    def claimed_repair(self) -> Repair | None:
        model = self.model
        due = {one for one, at in model.repairs.items() if at == DUE}
        wanted = {one for one in due if model.may_be_repaired(one)}

        repair = self.run(self.queues["w1"].repairs.claim("console", seconds=3600))

        left = self.command("ZRANGE", self.here.key("repairs", "console"), 0, -1)
        assert isinstance(left, list)
        gone = model.repairs.keys() - {*left}
        assert gone <= due - wanted
        for one in gone:
            model.end_repair(one)
        if repair is None:
            assert (wanted, gone) == (set(), due)
            return None
        known = model.turns[repair.turn.id]
        assert repair.turn.id in wanted
        assert repair.late_writes == known.late_writes
        known.repair_attempts += 1
        model.repairs[repair.turn.id] = repair.claim
        self.claims.append(repair)
        return repair

    @rule(data=st.data())
    def complete_repair(self, data: st.DataObject) -> None:
        if self.claims:
            self.completes(data.draw(st.sampled_from(self.claims[-4:])))

    def completes(self, repair: Repair) -> None:
        self.run(self.queues["w2"].repairs.complete(repair))
        turn_id = repair.turn.id
        if self.model.repairs.get(turn_id) == repair.claim:
            self.model.end_repair(turn_id)
            known = self.model.turns[turn_id]
            known.late_writes, known.repair_attempts = (), 0

    @rule(number=st.integers(0, 5))
    def stop(self, number: int) -> None:
        known = self.model.turns.get(f"console:{self.number - number}")

        got = self.run(self.queues["w1"].changes.stop(f"console:{self.number - number}"))

        if lead := self.model.lead(f"console:{self.number - number}"):
            known = self.model.turns[lead]
        assert got is bool(known and known.open)
        if known and known.open:
            known.stop = True

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """Delete a question: an open one, one that is remembered, or one that comes next."""
        known = [one for one, each in self.model.turns.items() if each.open]
        last = [thread.last for thread in self.model.threads.values() if thread.last]
        recent = [f"console:{self.number + ahead}" for ahead in (1, 0)]
        turn_id = data.draw(st.sampled_from([*known, *last, *recent]))
        self.run(self.queues["w2"].changes.forget(turn_id))
        self.model.forget(turn_id)

    @rule(data=st.data())
    def forget_answer(self, data: st.DataObject) -> None:
        """Delete a message that a turn has posted."""
        posted = {page: one for one, known in self.model.turns.items() for page in known.posted}
        if not posted:
            return
        message = data.draw(st.sampled_from(sorted(posted)))
        known = self.model.turns[posted[message]]
        thread = self.model.threads[known.thread]
        listed = {*thread.mailbox, *thread.history}
        listed |= {one for one in thread.aside if self.model.is_remembered(one)}

        self.run(self.queues["w1"].changes.forget(platform="console", messages=[message]))

        if posted[message] in listed and message in known.shown.message_ids:
            self.model.forget(*known.joined, posted[message])

    @rule(
        data=st.data(),
        person=st.sampled_from([*sorted(PEOPLE), *[""] * 5]),
        press=st.integers(0, 1),
        answer=st.sampled_from([None, "", "said"]),
    )
    def regenerate(self, data: st.DataObject, person: str, press: int, answer: str | None) -> None:
        """Press the button of an answer, mostly the last of its thread, mostly as its asker."""
        threads = [thread for thread in self.model.threads.values() if thread.last]
        idle = [thread.last for thread in threads if not thread.mailbox]
        recent = [f"console:{max(self.number - back, 0)}" for back in range(2)]
        last = [thread.last for thread in threads]
        turn_id = data.draw(st.sampled_from([*idle, *idle, *last, *recent]))
        press_id = f"{turn_id}-{press}"
        known = self.model.turns.get(turn_id)
        if known and known.turn:
            person = person or known.person
        expected = self.model.press(turn_id, person, press_id)

        pressing = self.queues["w1"].changes.regenerate(
            turn_id, person_id=person, press_id=press_id
        )

        assert self.refused(pressing) is expected
        if answer is not None:
            self.work_through("w1", answer)

    @rule(
        data=st.data(),
        person=st.sampled_from([*sorted(PEOPLE), *[""] * 5]),
        press=st.integers(0, 1),
        thread=st.sampled_from([*THREADS, None]),
    )
    def continue_answer(
        self, data: st.DataObject, person: str, press: int, thread: str | None
    ) -> None:
        """Press Continue below an answer, mostly one that was cut, mostly as its asker."""
        self.ask_and_answer(thread)
        last = [thread.last for thread in self.model.threads.values() if thread.last]
        cut = [one for one in last if self.model.turns[one].shown.end == "cut"]
        turn_id = data.draw(st.sampled_from([*cut, *cut, *last, f"console:{self.number}"]))
        known = self.model.turns.get(turn_id)
        turn = (known and known.turn) or Turn("", THREADS["t1"], PEOPLE["ann"], "", {}, 1.0)
        following = f"{turn_id}-more-{press}"
        text, asked = f"more of {turn_id}", self.moment()
        turn = replace(turn, id=following, text=text, asked_at=asked, joins=False)
        person = person or turn.person.id
        expected = self.model.continue_answer(turn_id, person, turn)

        got = self.refused(
            self.queues["w2"].changes.continue_answer(turn_id, turn, person_id=person)
        )

        assert got is expected

    @rule(
        data=st.data(),
        person=st.sampled_from([*sorted(PEOPLE), *[""] * 5]),
        press=st.integers(0, 1),
        is_other=st.booleans(),
        answer=st.sampled_from([None, "", "said", "said"]),
    )
    def branch(
        self, data: st.DataObject, person: str, press: int, is_other: bool, answer: str | None
    ) -> None:
        """Ask another question in the place of one, or the same again, and keep what was there."""
        turn_id = self.one_ended(data)
        known = self.model.turns.get(turn_id)
        turn = (known and known.turn) or Turn("", THREADS["t1"], PEOPLE["ann"], "q", {}, 1.0)
        following = f"{turn_id}-{press}v"
        text = f"{following} {is_other}" if is_other else turn.text
        turn = replace(turn, id=following, text=text, asked_at=self.moment(), joins=False)
        person = person or turn.person.id
        expected = self.model.branch(turn_id, person, turn)

        got = self.refused(self.queues["w1"].changes.branch(turn_id, turn, person_id=person))

        assert got is expected
        if answer is not None:
            self.work_through("w1", answer)

    @rule(data=st.data(), person=st.sampled_from([*sorted(PEOPLE), *[""] * 5]))
    def open_branch(self, data: st.DataObject, person: str) -> None:
        """Open a version that is aside, mostly, with what followed it."""
        closed = [one for one, known in self.model.turns.items() if known.tail is not None]
        turn_id = data.draw(st.sampled_from(closed)) if closed else self.one_ended(data)
        known = self.model.turns.get(turn_id)
        person = person or (known.person if known and known.turn else "ann")
        expected = self.model.open_branch(turn_id, person)

        got = self.refused(self.queues["w2"].changes.open(turn_id, person_id=person))

        assert got is expected

    @rule(
        data=st.data(),
        rating=st.sampled_from(["good", "bad"]),
        thread=st.sampled_from([*THREADS, None]),
    )
    def rate(self, data: st.DataObject, rating: Rating, thread: str | None) -> None:
        """Press 👍 or 👎, which stays in the exchange until there is another one."""
        self.ask_and_answer(thread)
        turns = [one for thread in self.model.threads.values() for one in thread.history]
        turn_id = data.draw(st.sampled_from([*turns, *turns, f"console:{self.number}"]))
        is_first = self.model.rate(turn_id, rating)
        known = self.model.turns.get(turn_id)
        refused = ThreadBusy if known and known.open else NotRemembered

        got = self.refused(self.queues["w1"].changes.rate(turn_id, person_id="eve", rating=rating))

        assert got == (refused if is_first is None else ("", is_first))

    @rule(
        data=st.data(),
        person=st.sampled_from([*sorted(PEOPLE), *[""] * 5]),
        text=st.sampled_from(["same", "a", "b", "c"]),
        late=st.sampled_from([False, False, True]),
        answer=st.sampled_from([None, None, "", "said"]),
    )
    def edit(
        self, data: st.DataObject, person: str, text: str, late: bool, answer: str | None
    ) -> None:
        """Edit a question, mostly an open one or the last of its thread, mostly as its asker."""
        known = [one for one, each in self.model.turns.items() if each.open]
        last = [thread.last for thread in self.model.threads.values() if thread.last]
        recent = [f"console:{max(self.number + ahead, 0)}" for ahead in (1, 0, -1)]
        turn_id = data.draw(st.sampled_from([*known, *last, *last, *recent]))
        old = self.model.turns.get(turn_id)
        turn = (old and old.turn) or Turn(turn_id, THREADS["t1"], PEOPLE["ann"], "q", {}, 1.0)
        text = turn.text if text == "same" else f"{turn_id}{text}"
        self.model.clock += 1
        at = 1 if late else self.model.clock
        turn = replace(turn, text=text, person=PEOPLE[person] if person else turn.person)
        expected = self.model.edit(turn_id, turn.person.id, text, at)

        got = self.refused(self.queues["w2"].edit(turn, edited_at=at))

        assert got is expected
        if answer is not None:
            self.work_through("w1", answer)

    @rule(
        thread=st.sampled_from(sorted(THREADS)),
        event=st.sampled_from(["", "", *map(str, range(4))]),
    )
    def reset(self, thread: str, event: str) -> None:
        self.run(self.queues["w1"].changes.reset(THREADS[thread], event))
        self.model.reset(thread, event)

    @rule(data=st.data())
    def expire(self, data: st.DataObject) -> None:
        """A worker is silent for longer than its lease."""
        if waiting := self.waiting("running"):
            self.make_due(data.draw(st.sampled_from(waiting)))

    @rule(worker=st.sampled_from(WORKERS))
    def take_all(self, worker: str) -> None:
        while self.work(worker):
            pass

    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def change_hands(self, data: st.DataObject, worker: str) -> None:
        """A lease ends and a worker takes what is next."""
        self.expire(data)
        self.work(worker)

    @rule()
    def time_goes_on(self) -> None:
        """Every retry is due."""
        self.make_due(*self.waiting("queued"))

    @invariant()
    def holds_at_every_moment(self) -> None:
        model, people = self.model, [f"console:::{person}" for person in PEOPLE]
        keys = [str(key) for key in THREADS.values()]
        self.ask("ZCARD", "open", expect=len(model.open()))
        for person, name in zip(PEOPLE, people, strict=True):
            self.ask("SCARD", "open", name, expect=len(model.open(person)))
            self.ask("SCARD", "running", name, expect=model.running(person))
            self.ask("LLEN", "kept", name, expect=len(model.kept[person]))
        for key, thread in zip(keys, model.threads.values(), strict=True):
            self.ask("LRANGE", "mailbox", key, 0, -1, expect=thread.mailbox)
            self.ask("LRANGE", "history", key, 0, -1, expect=thread.history)
            self.ask("LRANGE", "aside", key, 0, -1, expect=thread.aside)
        for group, versions in model.versions.items():
            self.ask("LRANGE", "versions", group, 0, -1, expect=versions)
        for turn_id, known in model.turns.items():
            is_remembered = known.turn is not None and model.is_remembered(turn_id)
            answer = known.remembered[1] if is_remembered else None
            self.ask("HMGET", "turn", turn_id, "state", "answer", expect=[known.state, answer])
            ratings = {"eve": known.rating} if is_remembered and known.rating else {}
            self.ask("HGETALL", "ratings", turn_id, expect=ratings)
        self.ask("ZCARD", "repairs", "console", expect=len(model.repairs))
        self.answers_are_as_expected()
        self.every_thread_is_in_its_place()
        remembered = [turn_id for thread in model.threads.values() for turn_id in thread.history]
        assert len(remembered) == len(set(remembered))

    def every_thread_is_in_its_place(self) -> None:
        """A thread with work stands in one place, and a worker is woken for those in line."""
        places = self.places()
        for name, thread in self.model.threads.items():
            assert sum(str(THREADS[name]) in place for place in places) == bool(thread.mailbox)
        assert self.size("LLEN", "wake", "console") or not places[0]

    def ends(self) -> None:
        """Let every lease end and every retry be due, and answer what is there."""
        admitted = {turn_id for turn_id, known in self.model.turns.items() if known.open}
        self.make_due(*self.waiting("queued"), *self.waiting("running"))
        while taken := self.work("w1"):
            self.end("w1", taken, "short", "done")
        assert self.model.open() == []
        self.holds_at_every_moment()
        for turn_id in admitted:
            assert self.model.turns[turn_id].gone or self.ended(turn_id) == "done"
        assert self.size("LLEN", "wake", "console") == 0
        assert not any(self.places())
        self.land()
        while repair := self.claimed_repair():
            self.completes(repair)
        assert self.size("ZCARD", "repairs", "console") == 0

    # How it is done

    def moment(self) -> float:
        """Return a time (s) after all before it."""
        self.model.clock += 1
        return float(self.model.clock)

    def ask_and_answer(self, thread: str | None) -> None:
        """Ask in a thread, if it is named, and cut the answer to what is next."""
        if thread:
            self.admit(thread, "cleo", joins=False)
            self.work_through("w1", "said", "cut")

    def one_ended(self, data: st.DataObject) -> str:
        """Draw a turn of an idle thread, mostly, or a recent one."""
        threads = [it for it in self.model.threads.values() if not it.mailbox]
        ended = sorted(one for thread in threads for one in thread.ended)
        return data.draw(st.sampled_from([*ended, *ended, f"console:{self.number}"]))

    def one_held(self, data: st.DataObject) -> tuple[str, Taken]:
        """Draw a turn that was taken: mostly one at work, with this lease or a later one."""
        running = [one for one in self.held if self.model.turns[one[1].turn.id].state == "running"]
        return data.draw(st.sampled_from([*running, *running, *self.held[-2:]]))

    def work(self, worker: str, *, holds_due: bool = False) -> Taken | None:
        """Take a turn, which must be the right one, with all that is known of it."""
        for known in self.model.turns.values() if not holds_due else ():
            known.waits, known.due = known.waits and not known.due, False
        expected = self.model.next()

        taken = self.run(self.queues[worker].leases.take(["console"], holds_due=holds_due))

        assert (taken.turn.id if isinstance(taken, Taken) else None) == expected
        if expected is None or not isinstance(taken, Taken):
            return None
        known = self.model.turns[expected]
        self.model.begin_anew(expected)
        known.state, known.waits = "running", True
        if known.fence == 0:
            known.above = self.model.last_above(known.thread)
            self.model.join(expected)
        known.fence, known.attempts = known.fence + 1, known.attempts + 1
        assert known.turn
        place = {"refers": True} if known.refers else {}
        assert taken == Taken(
            turn=replace(known.turn, text=self.model.whole(expected), place=place),
            fence=known.fence,
            attempts=known.attempts,
            shown=known.shown,
            stop=known.stop,
            previous_answer=known.previous_answer or "",
            above=known.above,
        )
        self.held.append((worker, taken))
        return taken

    def holds(self, taken: Taken) -> bool:
        known = self.model.turns[taken.turn.id]
        return known.state == "running" and known.fence == taken.fence

    def question(self, turn_id: str) -> str:
        """Return the question in a record."""
        return str(self.command("HGET", self.here.key("turn", turn_id), "text"))

    def waiting(self, state: str) -> list[str]:
        """Return the turns whose lease has not ended, or that are not tried again yet."""
        known = self.model.turns.items()
        return [one for one, it in known if it.waits and it.state == state]

    def make_due(self, *turn_ids: str) -> None:
        for one in turn_ids:
            known = self.model.turns[one]
            thread = str(THREADS[known.thread])
            assert self.command("ZSCORE", self.here.key("due", "console"), thread) is not None
            self.command("ZADD", self.here.key("due", "console"), "XX", 0, thread)
            known.due = True

    def places(self) -> list[list[str]]:
        """Return the threads in each of the places where one with work may stand."""
        waiting = [("throttled", f"console:::{person}") for person in PEOPLE]
        for kind, name in (("ready", "console"), ("due", "console"), *waiting):
            self.ask("ZRANGE", kind, name, 0, -1)
        return self.answers_are_as_expected()

    def ended(self, turn_id: str) -> str:
        """Return the outcome that is told of a turn, with what stands on the screen."""
        told, known = self.run(self.queues["w1"].lookup.result(turn_id)), self.model.turns[turn_id]
        is_newest = self.model.threads[known.thread].newest == turn_id
        is_older = known.forgotten or not is_newest
        assert told == (replace(known.shown, end="older") if is_older else known.shown)
        assert told.outcome == known.state
        return known.state

    def ask(self, verb: str, kind: str, *rest: str | int, expect: object = None) -> None:
        """Ask with others, for one round trip; the last parts of a list's command are no key."""
        names = rest[:-2] if verb in ("LRANGE", "ZRANGE") else rest[:1]
        key = self.here.key(kind, *(str(name) for name in names))
        self.asked.append(((verb, key, *rest[len(names) :]), expect))

    def answers_are_as_expected(self) -> list[list[str]]:
        async def answers() -> list[list[str]]:
            async with self.here.redis.pipeline(transaction=False) as pipe:
                for words, _ in asked:
                    pipe.execute_command(*words)
                return list(await pipe.execute())

        asked, self.asked = self.asked, []
        found = self.run(answers())
        for (words, expected), answer in zip(asked, found, strict=True):
            assert expected is None or answer == expected, words
        return found

    def size(self, verb: str, *name: str) -> int:
        found = self.command(verb, self.here.key(*name))
        assert isinstance(found, int)
        return found

    def refused(self, work: Awaitable[T]) -> T | type[Refused]:
        try:
            return self.run(work)
        except Refused as refused:
            return type(refused)

    def lost(self, work: Awaitable[T]) -> T | type[LeaseLost | QuestionEdited]:
        try:
            return self.run(work)
        except (LeaseLost, QuestionEdited) as error:
            return type(error)


@pytest.fixture
def machine(valkey_url: str, tmp_path: Path) -> Iterator[type[Queue]]:
    with asyncio.Runner() as runner:
        connection = connect(url=valkey_url, data_dir=tmp_path)
        store = runner.run(connection.__aenter__())
        try:
            yield type("ThisQueue", (Queue,), {"store": store, "runner": runner})
        finally:
            runner.run(connection.__aexit__(None, None, None))


def test_the_queue_keeps_its_promises_whatever_happens(machine: type[Queue]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=PHASES,
            database=None,
        ),
    )
