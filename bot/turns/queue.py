"""The durable queue of turns: three classes over the verbs of Lua scripts."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from bot.access.quotas import Estimate, Quota, Usage
from bot.domain import (
    NO_THOUGHT,
    Consent,
    ContextMessage,
    Exchange,
    FileText,
    Json,
    Person,
    Purpose,
    Shown,
    Thought,
    ThreadKey,
    Turn,
)
from bot.errors import LeaseLost, StoreUnavailable, TooFewReplicas
from bot.store import Store, store_errors
from bot.tokens.counters import Bill
from bot.turns.changes import TurnChanges
from bot.turns.forgetting import REMOVED_SECONDS, Forgetting
from bot.turns.keeping import EVERYWHERE
from bot.turns.lookup import TurnLookup
from bot.turns.records import (
    Unreadable,
    read_bill,
    read_files,
    read_ids,
    read_number,
    read_shown,
    read_turn,
    write_context,
    write_exchange,
    write_file_text,
    write_ids,
    write_progress,
    write_turn,
)
from bot.turns.script import Limits, QueueScript, person_key, record_of, write_quota

log = logging.getLogger(__name__)

_DAY_SECONDS = 24 * 3600
_SHORTEST_BLOCK = 0.001  # seconds: Redis reads 0 as no timeout
# Number of lease periods after which no late write of an earlier attempt can arrive.
LATE_WRITE_LEASES = 3

_ANYTHING = Quota()
_NO_NAMES: Mapping[str, Sequence[str]] = {}


@dataclass(frozen=True, slots=True)
class Taken:
    """A turn that a worker has taken, with the results of earlier attempts.

    The text and the files of `turn` are those of all turns that are answered together. `fence` is
    the number of the lease: the next worker to take the turn gets a higher one, and writes with a
    lower one are refused. `attempts` counts this attempt and those before it that got no further
    than the best one. `shown` is what was saved last. `stop`: a person has asked for the end.
    `previous_answer` is that of a regenerated or edited turn: its messages are those of `shown`
    until something else is shown. `above` is the last message of the thread's reply before this
    one, or empty. `waited` is the time in seconds since the turn was admitted or asked for again.
    `bill` has the tokens that earlier attempts used. `steps` is the journal of the calls
    of tools, texts by name, and `effects` are digests of those that may have had an effect.
    `thought` is that of earlier attempts with which this one goes on.
    """

    turn: Turn
    fence: int
    attempts: int
    shown: Shown
    stop: bool
    previous_answer: str
    above: str = ""
    waited: float = field(default=0.0, compare=False)
    bill: Bill = field(default_factory=Bill)
    steps: Mapping[str, str] = field(default_factory=dict)
    effects: tuple[str, ...] = ()
    thought: Thought = NO_THOUGHT

    @property
    def used(self) -> int:
        """How many tokens earlier attempts used."""
        return self.bill.tokens

    @property
    def placed(self) -> Turn:
        """The turn for its surface.

        Its place names the message `above` the reply, if any, and `continues` if it has messages.
        """
        added: dict[str, Json] = {"above": self.above, "continues": bool(self.shown.message_ids)}
        known = {name: value for name, value in added.items() if value}
        return replace(self.turn, place={**self.turn.place, **known}) if known else self.turn

    @property
    def purpose(self) -> Purpose:
        """What the surface is opened for: an earlier attempt may have posted messages."""
        return Purpose.RESUME if self.fence > 1 else Purpose.ANSWER


@dataclass(frozen=True, slots=True)
class Load:
    """The open turns, and by platform the running ones and the longest wait.

    `oldest` is the time in seconds since the next turn of a platform was admitted.
    """

    open: int
    running: Mapping[str, int]
    oldest: Mapping[str, float]

    @property
    def waiting(self) -> int:
        """The turns that wait."""
        return max(self.open - sum(self.running.values()), 0)


@dataclass(frozen=True, slots=True)
class Repair:
    """An ended turn of which earlier attempts may have left messages.

    `late_writes` are the messages that attempts reported after they had lost the turn. `claim` is
    the time, in ms of Redis's clock, at which the claim expires.
    """

    turn: Turn
    late_writes: tuple[str, ...]
    claim: int


class TurnQueue:
    """Every admitted turn, until it has an outcome.

    `changes` are made to admitted turns, and `lookup` reads them; `leases` and `repairs` are for
    workers, `forgetting` removes all data of a person or server. Every method, of all these
    classes, raises StoreUnavailable.
    """

    def __init__(
        self,
        *,
        store: Store,
        worker: str,
        limits: Limits,
        lease_seconds: float,
        keep_seconds: float,
        remembers: bool = True,
        server_days: Mapping[str, int] = EVERYWHERE,
        late_write_leases: float = LATE_WRITE_LEASES,
        own_names: Mapping[str, Sequence[str]] = _NO_NAMES,
        removes_on: Collection[str] = (),
    ) -> None:
        self._store = store
        self._script = QueueScript(
            store, keep_seconds=keep_seconds, remembers=remembers, server_days=server_days
        )
        self._limits = limits
        self.leases = TurnLeases(
            self._script,
            worker=worker,
            limits=limits,
            lease_seconds=lease_seconds,
            late_write_seconds=late_write_leases * lease_seconds,
        )
        self.changes = TurnChanges(self._script, limits)
        self.lookup = TurnLookup(store)
        self.repairs = Repairs(self._script)
        self.forgetting = Forgetting(self._script, own_names=own_names, removes_on=removes_on)
        self.script = self._script

    async def admit(
        self, turn: Turn, *, quota: Quota = _ANYTHING, estimate: Estimate | int = 0
    ) -> bool:
        """Store the turn and return True; False if its id is known. Raises Refused.

        Admitting the same turn again returns True again and stores nothing. The turn reserves one
        question and the estimated tokens of its person's `quota` until it ends.
        """
        limits = self._limits
        answer = await self._script.run(
            "admit",
            turn.id,
            str(turn.key),
            person_key(turn.key.platform, turn.person),
            write_turn(turn),
            limits.waiting_per_thread,
            limits.waiting_per_person,
            limits.waiting,
            write_context(turn.quote, turn.context),
            write_quota(quota, estimate),
        )
        return answer == "admitted"

    async def check_room(
        self, turn: Turn, *, quota: Quota = _ANYTHING, estimate: Estimate | int = 0
    ) -> None:
        """Raise Refused if a turn like this one in a new thread would be refused now."""
        person, limits = person_key(turn.key.platform, turn.person), self._limits
        most, written = (limits.waiting_per_person, limits.waiting), write_quota(quota, estimate)
        await self._script.run("check_room", str(turn.key), person, *most, written)

    async def usage(self, thread: ThreadKey, person: Person, quota: Quota) -> Usage:
        """Return what a person, and the server of a thread, have used today and this month."""
        answer = await self._script.run("usage", person_key(thread.platform, person), str(thread))
        used = map(int, answer if isinstance(answer, list) else (0,) * 8)
        questions, tokens, server_tokens, left, calls, money, server_money, month_left = used
        return Usage(
            questions=questions,
            tokens=tokens,
            server_tokens=server_tokens,
            quota=quota,
            renews_in=left / 1000,
            calls=calls,
            calls_per_day=self._limits.calls_per_day,
            money=money,
            server_money=server_money,
            month_renews_in=month_left / 1000,
        )

    async def claim_refusal_notice(self, platform: str, person: Person) -> bool:
        """Claim a person's refusal notice; False if they had one in the last 24 hours."""
        key = self._store.key("warned", person_key(platform, person))
        return bool(await self._store.command("SET", key, "1", "NX", "EX", _DAY_SECONDS))

    async def edit(
        self,
        turn: Turn,
        *,
        edited_at: float,
        quota: Quota = _ANYTHING,
        estimate: Estimate | int = 0,
    ) -> None:
        """Replace the text of an open turn or of a thread's last one, and answer it again.

        A turn that is not known and at most a day old is admitted. An edit by another person, of an
        older turn, without a change of the text, or from before `edited_at` (seconds since the
        epoch) of an earlier call changes nothing. It reserves as an admission does, or only for the
        added text if no worker has begun to answer. Raises Refused.
        """
        limits = self._limits
        await self._script.run(
            "edit",
            turn.id,
            str(turn.key),
            person_key(turn.key.platform, turn.person),
            write_turn(turn),
            int(turn.asked_at * 1000),
            int(edited_at * 1000),
            limits.waiting_per_thread,
            limits.waiting_per_person,
            limits.waiting,
            write_context(turn.quote, None),
            write_quota(quota, estimate),
        )

    async def restored_at(self) -> float:
        """Return up to when (s) nothing is received, because a lost store may have; else 0."""
        written = await self._store.command("GET", self._store.key("restored")) or ""
        return int(written) / 1000 if written.isdecimal() else 0.0

    async def note_speakers(self, thread: ThreadKey, *people: str, ours: bool = False) -> int:
        """Note that people, by their ids, have spoken in a thread; return how many have.

        0 if the bot was never asked there, unless the thread is `ours` for another reason. The
        count has an upper limit.
        """
        ids = (quote(one, safe="", errors="replace") for one in people)
        answer = await self._script.run("note_speakers", str(thread), "1" if ours else "", *ids)
        return answer if isinstance(answer, int) else 0

    async def load(self, platforms: Sequence[str]) -> Load:
        """Return how many turns wait and run; they go on while they are counted."""
        key, commands = self._store.key, self._store.commands
        ready = [("ZRANGE", key("ready", it), 0, 0) for it in platforms]
        due = [("ZRANGE", key("due", it), 0, -1) for it in platforms]
        found = await commands([("ZCARD", key("open")), ("TIME",), *ready, *due])
        (total, (seconds, microseconds)), lists = found[:2], found[2:]
        now = float(seconds) + float(microseconds) / 1e6
        threads = [thread for one in lists for thread in one]
        first = await commands([("LINDEX", key("mailbox", it), 0) for it in threads])
        states = await commands([("HGET", key("turn", it or ""), "state") for it in first])
        since = await commands([("ZSCORE", key("open"), it or "") for it in first])
        # Other threads that are due wait for a retry.
        runs = {thread for thread, it in zip(threads, states, strict=True) if it == "running"}
        asked = dict(zip(threads, since, strict=True))
        running, oldest = {}, {}
        for name, waiting, leased in zip(platforms, lists, lists[len(platforms) :], strict=False):
            running[name] = len(runs.intersection(leased))
            at = next((asked[it] for it in waiting), None)
            oldest[name] = max(now - float(at) / 1000, 0.0) if at else 0.0
        return Load(int(total), running=running, oldest=oldest)


class TurnLeases:
    """The turns that one worker takes, and what it reports about them.

    Methods that take a `Taken` raise LeaseLost if a higher fence exists or the turn has ended.
    `renew`, `save` and `finish` raise QuestionEdited if the turn must be released and taken again,
    after they have stored their arguments.
    """

    def __init__(
        self,
        script: QueueScript,
        *,
        worker: str,
        limits: Limits,
        lease_seconds: float,
        late_write_seconds: float,
    ) -> None:
        self.store = script.store
        self._script = script
        self._worker = worker
        self._running_per_person = limits.running_per_person
        self._calls_per_day = "" if limits.calls_per_day is None else limits.calls_per_day
        self._lease_ms = int(lease_seconds * 1000)
        at_end = {
            "late_write_ms": int(late_write_seconds * 1000),
            "history": limits.history,
            "history_bytes": limits.history_bytes,
            "file_bytes": limits.file_bytes,
            "person_bytes": limits.person_bytes,
        }
        keeping, nothing = script.keeping, {**at_end, "history": 0}
        servers = {quote(it, safe=""): days for it, days in keeping.server_days.items()}
        # No quoted server is "?": that stands for a damaged thread.
        remembers = {"": keeping.remembers, "?": False, **servers}
        limits_of = {it: at_end if on else nothing for it, on in remembers.items()}
        self._end_limits = json.dumps(limits_of)

    async def take(
        self, platforms: Sequence[str], *, own: Iterable[str] = (), holds_due: bool = False
    ) -> Taken | float:
        """Lease the turn that is next on the first of the platforms that has one.

        If there is none, return the seconds until a lease ends or a retry is due, at most a day.
        The leases of `own` turns, which the worker answers, are renewed if they have ended.
        With `holds_due`, turns of which the lease has ended, or that are tried again, are left out.
        """
        how = self._lease_ms, self._running_per_person, "1" if holds_due else ""
        answered = write_ids(own)
        while True:
            try:
                answer = await self._script.run("take", self._worker, answered, *how, *platforms)
            except TooFewReplicas as error:
                if isinstance(error.answer, list):
                    _, turn_id, fields, *_ = error.answer
                    fence = record_of(fields)["fence"]
                    with suppress(LeaseLost, StoreUnavailable):
                        await self._script.run("release", turn_id, fence, 0, "", "", "")
                raise
            if not isinstance(answer, list):
                return int(answer or 0) / 1000
            thread, turn_id, fields, context, joined, waited_ms, steps, effects, kept = answer
            record = record_of(fields)
            try:
                taken = _read_taken(turn_id, record, context, joined, waited_ms / 1000)
                thought = Thought(kept[0] or "", int(kept[1] or 0))
                taken = replace(taken, steps=record_of(steps), effects=tuple(effects))
                return replace(taken, thought=thought)
            except Unreadable as error:
                log.warning(
                    "Turn %s: given up, because its record cannot be read: %s", turn_id, error
                )
                which = thread, record["fence"], record.get("position", "")
                with suppress(LeaseLost):
                    await self._script.run("give_up", *which, self._end_limits)

    async def end_all(self, platforms: Sequence[str], *, until: float, is_live: bool) -> int:
        """End all open turns of a restored store without a word, and return how many.

        What was said `until` then (seconds since the epoch) is not received any more. If the store
        `is_live` and workers answer turns, nothing is done, and the number of these turns is
        returned as a negative one.
        """
        how = int(until * 1000) + 1, "1" if is_live else "", REMOVED_SECONDS * 1000
        answer = await self._script.run("end_all", *how, self._end_limits, *platforms)
        return answer if isinstance(answer, int) else 0

    async def wait(self, platforms: Sequence[str], seconds: float) -> None:
        """Wait until a turn may be taken, or for some seconds, which are at most one."""
        lists = (self.store.key("wake", name) for name in platforms)
        await self.store.command("BLPOP", *lists, max(seconds, _SHORTEST_BLOCK))

    async def renew(self, taken: Taken, *, used: int | None = None, bill: str = "") -> bool:
        """Extend the lease; True if a person asked for a stop."""
        how = self._lease_ms, "" if used is None else used, bill
        return bool(await self._script.run("renew", taken.turn.id, taken.fence, *how))

    async def save(self, taken: Taken, shown: Shown, *, used: int = 0, bill: str = "") -> bool:
        """Save what is shown, and the tokens used so far; True if a person asked for a stop.

        The `bill` has them by model, as `write_bill` returns them; so it is in other methods.
        """
        progress = write_progress(shown, used, bill)
        return bool(await self._script.run("save", taken.turn.id, taken.fence, progress))

    async def save_used(self, taken: Taken, *, used: int, bill: str) -> None:
        """Save the tokens used so far."""
        await self._script.run("save_used", taken.turn.id, taken.fence, used, bill)

    async def save_context(
        self, taken: Taken, quote: ContextMessage | None, context: Sequence[ContextMessage]
    ) -> None:
        """Save what the prompt shows beside the history, for later attempts."""
        written = write_context(quote, context)
        await self._script.run("save_context", taken.turn.id, taken.fence, written)

    async def save_file(self, taken: Taken, message: str, file: str, text: FileText) -> None:
        """Save what was read of a file of a message, by ids, for later attempts and questions."""
        written = await asyncio.to_thread(write_file_text, text)
        await self._script.run("save_file", taken.turn.id, taken.fence, message, file, written)

    async def finish(
        self,
        taken: Taken,
        shown: Shown,
        exchange: Exchange | None,
        *,
        used: int | None = None,
        bill: str = "",
        model: str = "",
    ) -> str:
        """End the turn with its outcome, and make the thread's next turn ready.

        The exchange is added to the history, or replaces the one that the turn had; without one
        the history stays. Return the id of the turn whose reply is no longer the thread's newest
        one; empty if there is none, or if the call is repeated. `used` is the number of tokens of
        all attempts; None, if it is not known, keeps the estimate. `model` has answered.
        """
        answer = await self._script.run(
            *("finish", taken.turn.id, taken.fence, shown.outcome, write_progress(shown)),
            write_exchange(exchange) if exchange else "",
            json.dumps({"tokens": used, "bill": bill, "model": model}, ensure_ascii=False),
            self._end_limits,
        )
        return answer[0] if isinstance(answer, list) else ""

    async def release(
        self,
        taken: Taken,
        *,
        delay_seconds: float,
        counts: bool,
        used: int | None = None,
        bill: str = "",
    ) -> None:
        """Return the turn to the queue; the attempt `counts`, or the turn is only handed over."""
        how = int(delay_seconds * 1000), "1" if counts else ""
        so_far = "" if used is None else used, bill
        await self._script.run("release", taken.turn.id, taken.fence, *how, *so_far)

    async def save_step(
        self,
        taken: Taken,
        name: str,
        text: str,
        *,
        effect: str,
        counts: bool,
        used: int | None = None,
        bill: str = "",
    ) -> bool:
        """Save a text of the journal, and an effect that begins with it.

        If it `counts`, it uses one of the person's calls of the day. Raises QuotaUsed. True if a
        person asked for a stop; then nothing is saved.
        """
        limit = self._calls_per_day if counts else ""
        step = name, text, effect, limit, "" if used is None else used, bill
        return bool(await self._script.run("save_step", taken.turn.id, taken.fence, *step))

    async def suspend(
        self,
        taken: Taken,
        call_id: str,
        *,
        seconds: float,
        used: int | None = None,
        bill: str = "",
    ) -> None:
        """Give the turn back until a person has answered for a call, or for some seconds."""
        how = call_id, int(seconds * 1000), "" if used is None else used, bill
        await self._script.run("suspend", taken.turn.id, taken.fence, *how)

    async def close_consent(self, taken: Taken, call_id: str, consent: Consent) -> str:
        """Store an answer for a call unless there is one, and return what is stored."""
        which = taken.turn.id, taken.fence, call_id, consent
        return str(await self._script.run("close_consent", *which))

    async def others_wait(self, taken: Taken) -> bool:
        """Return whether a turn waits in the thread that is not answered together with this one."""
        turn = taken.turn
        return bool(await self._script.run("others_wait", turn.id, str(turn.key)))

    async def requests(self) -> AsyncGenerator[str]:
        """Yield the ids of turns that were stopped or edited."""
        async with self.store.redis.pubsub() as channel:
            with store_errors():
                await channel.subscribe(self.store.key("requests"))
                async for message in channel.listen():
                    if message["type"] == "message":
                        yield message["data"]


class Repairs:
    """Ended turns of which an earlier attempt may have left messages."""

    def __init__(self, script: QueueScript) -> None:
        self._script = script

    async def report_late_writes(self, turn: Turn, message_ids: Sequence[str]) -> None:
        """Queue the repair of a turn whose lease was lost; the messages are all that it posted."""
        await self._script.run("report_late_writes", turn.id, write_ids(message_ids))

    async def claim(self, platform: str, *, seconds: float) -> Repair | None:
        """Claim a turn to repair, for some seconds; None if there is none."""
        answer = await self._script.run("claim_repair", platform, int(seconds * 1000))
        if not isinstance(answer, list):
            return None
        turn_id, claim, fields = answer
        record = record_of(fields)
        try:
            turn = read_turn(turn_id, record)
            return Repair(turn, read_ids(record.get("late_writes")), int(claim))
        except Unreadable as error:
            log.warning(
                "Turn %s: cannot be repaired, because its record cannot be read: %s", turn_id, error
            )
            await self._script.run("complete_repair", platform, turn_id, claim)
            return None

    async def complete(self, repair: Repair) -> None:
        """Remove a completed repair, unless the turn was scheduled again meanwhile."""
        turn = repair.turn
        await self._script.run("complete_repair", turn.key.platform, turn.id, repair.claim)

    async def lacks_apology(self, turn_id: str) -> bool:
        """Return whether a turn was given up with nothing shown, and was not forgotten."""
        store = self._script.store
        state, message_ids, forgotten = await store.command(
            "HMGET", store.key("turn", turn_id), "state", "message_ids", "forget"
        )
        return state == "dead" and not message_ids and not forgotten


def _read_taken(
    turn_id: str,
    record: Mapping[str, str],
    context: Sequence[str],
    joined: Sequence[tuple[str, str, str | None]],
    waited: float,
) -> Taken:
    """Read the record of a turn that was taken. Raises Unreadable."""
    turn = read_turn(turn_id, record, context)
    # In the order in which they were asked, which for some platforms is not that of admission.
    asked = [(turn.asked_at, turn.text, turn.files)]
    asked += [(read_number(at), text, read_files(files)) for at, text, files in joined]
    asked.sort(key=lambda one: one[0])
    return Taken(
        turn=replace(
            turn,
            text="\n\n".join(text for _, text, _ in asked if text),
            files=tuple(file for _, _, files in asked for file in files),
        ),
        fence=int(record["fence"]),
        attempts=int(record["attempts"]),
        shown=read_shown(record),
        stop="stop" in record,
        previous_answer=record.get("previous_answer", ""),
        above=record.get("above", ""),
        waited=waited,
        bill=read_bill(record),
    )
