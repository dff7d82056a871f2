"""The durable queue of turns: one Lua script, one method per verb."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from typing import Any, get_args

from bot.domain import Exchange, Json, Outcome, Person, Place, Purpose, Shown, ThreadKey, Turn
from bot.errors import (
    LeaseLost,
    NotRemembered,
    NotTheAsker,
    NotTheLast,
    PersonBusy,
    QueueFull,
    Refused,
    StoreUnavailable,
    ThreadBusy,
)
from bot.store import Store, store_errors
from bot.text.sanitize import whole_characters
from bot.turns.history import encode
from bot.turns.records import (
    UNKNOWN_CHARACTER,
    Unreadable,
    read_list,
    read_number,
    read_object,
    read_person,
    read_text,
)

log = logging.getLogger(__name__)

GROUP = "workers"
# Leases after which a write whose answer was lost has landed, or will not.
LANDED = 3

_Answer = str | int | list[str] | None

_OUTCOMES: dict[str, Outcome] = {one: one for one in get_args(Outcome)}

_REFUSALS: dict[str, type[Refused]] = {
    "thread": ThreadBusy,
    "person": PersonBusy,
    "full": QueueFull,
    "asker": NotTheAsker,
    "older": NotTheLast,
    "gone": NotRemembered,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """How many turns may wait, how many of one person may run at once, and how much is kept.

    `history` and `history_bytes` are what a thread remembers, the newest exchange in any case:
    more than a prompt holds. `person_bytes` is what is kept of the ended turns of a person: some
    2,000 turns of usual length.
    """

    waiting_per_thread: int
    waiting_per_person: int
    waiting: int
    running_per_person: int
    history: int = 200
    history_bytes: int = 500_000
    person_bytes: int = 8_000_000


@dataclass(frozen=True, slots=True)
class Token:
    """The right to work on one thread, as it stands in a platform's stream."""

    platform: str
    entry: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A turn that this worker has, with what an earlier try left behind.

    `fence` proves it: the next taker gets a higher one. `tries` counts this one and those before it
    that got no further than the one that had shown most. `shown` is as last saved. `former` is the
    whole answer that the turn had before it was to be answered anew; the pages and cuts that are
    shown are its, as long as nothing else is.
    """

    turn: Turn
    fence: int
    tries: int
    shown: Shown
    stop: bool
    former: str

    @property
    def purpose(self) -> Purpose:
        """What the surface is opened for: a turn that was taken before may have pages already."""
        return Purpose.RESUME if self.fence > 1 else Purpose.ANSWER


@dataclass(frozen=True, slots=True)
class Mend:
    """A turn that has ended, and of which an earlier try may have left something.

    `late` are the messages of those who have lost it, as far as they have told. `claim` is the
    time, in ms of Redis's clock, at which somebody else may have it.
    """

    turn: Turn
    late: tuple[str, ...]
    claim: int


class TurnQueue:
    """Every turn that was admitted, until it has an outcome.

    Every method raises StoreUnavailable. Those that take a `Taken` raise LeaseLost when a higher
    fence exists or the turn has ended.
    """

    def __init__(
        self,
        *,
        store: Store,
        worker: str,
        limits: Limits,
        lease_seconds: float,
        keep_seconds: float,
    ) -> None:
        self.store = store
        self._worker = worker
        self._limits = limits
        self._lease_ms = int(lease_seconds * 1000)
        self._keep_ms = int(keep_seconds * 1000)
        kept = limits.history, limits.history_bytes, limits.person_bytes
        self._ending = LANDED * self._lease_ms, *kept
        source = files("bot.turns").joinpath("queue.lua").read_text(encoding="utf-8")
        self._script = store.script(source)

    async def admit(self, turn: Turn) -> bool:
        """Store the turn and return True; False when another with its id is known. Raises Refused.

        The very same turn, admitted again, is stored once and answers True.
        """
        limits = self._limits
        answer = await self._call(
            "admit",
            turn.id,
            str(turn.key),
            _person_key(turn.key.platform, turn.person),
            *_body(turn),
            limits.waiting_per_thread,
            limits.waiting_per_person,
            limits.waiting,
        )
        _raise_refusal(answer)
        return answer == "admitted"

    async def check_room(self, platform: str, person: Person) -> None:
        """Raise Refused if a turn of this person in a new thread would be refused now."""
        limits = self._limits
        answer = await self._call(
            "room", _person_key(platform, person), limits.waiting_per_person, limits.waiting
        )
        _raise_refusal(answer)

    async def regenerate(
        self, turn_id: str, *, person_id: str, press_id: str, place: Place | None = None
    ) -> None:
        """Queue an ended turn once more, with the messages it has; raises Refused.

        The person has to be its asker, it the last of its thread, and nothing else at work there.
        The same press, told again, changes nothing. The keys of `place` stand in the turn's place
        from now on.
        """
        limits = self._limits
        answer = await self._call(
            "regenerate",
            turn_id,
            person_id,
            press_id,
            json.dumps(place) if place else "",
            limits.waiting_per_person,
            limits.waiting,
        )
        _raise_refusal(answer)

    async def ready(
        self, platforms: Sequence[str], *, count: int, block_seconds: float
    ) -> list[Token]:
        """Wait for tokens; empty when none came in time."""
        streams = {self._stream(name): name for name in platforms}
        try:
            answer = await self.store.command(
                "XREADGROUP", "GROUP", GROUP, self._worker,
                "COUNT", count, "BLOCK", int(block_seconds * 1000),
                "STREAMS", *streams, *(">" for _ in streams),
            )  # fmt: skip
        except StoreUnavailable as error:
            if not _lacks_group(error):
                raise
            for name in platforms:
                await self._call("open", name)
            return []
        # RESP3 answers {stream: [entries]}, RESP2 [[stream, entries]].
        found = answer.items() if isinstance(answer, Mapping) else answer or ()
        return [token for stream, entries in found for token in _tokens(streams[stream], entries)]

    async def reclaim(self, platforms: Sequence[str], *, count: int) -> list[Token]:
        """Return tokens whose worker let its lease run out, and make due retries ready."""
        tokens: list[Token] = []
        for name in platforms:
            await self._call("due", name)
            cursor = "0-0"
            while len(tokens) < count:
                try:
                    answer = await self.store.command(
                        "XAUTOCLAIM", self._stream(name), GROUP, self._worker,
                        self._lease_ms, cursor, "COUNT", count - len(tokens),
                    )  # fmt: skip
                except StoreUnavailable as error:
                    if not _lacks_group(error):
                        raise
                    break
                tokens += _tokens(name, answer[1])
                # One call looks through a part of what is pending and tells where it stopped.
                cursor = answer[0]
                if cursor == "0-0":
                    break
        return tokens

    async def take(self, token: Token) -> Taken | None:
        """Become the worker of the turn that is next in line; None when there is nothing for us."""
        answer = await self._call(
            "take",
            token.platform,
            token.entry,
            self._worker,
            self._limits.running_per_person,
        )
        if not isinstance(answer, list):
            return None
        turn_id, fence, tries, body, pressed_at, stop, former, pages, text, _, rest, key = answer
        try:
            turn = _turn(turn_id, token.platform, key, body, pressed_at)
        except Unreadable as error:
            log.warning("Turn %s is given up: its record cannot be read: %s", turn_id, error)
            await self._call("give_up", token.platform, token.entry, fence, *self._ending)
            return None
        return Taken(
            turn=turn,
            fence=int(fence),
            tries=int(tries),
            shown=_read(turn_id, pages, text, rest),
            stop=bool(stop),
            former=former,
        )

    async def renew(self, taken: Taken) -> bool:
        """Keep the lease for another while; True when somebody asked for a stop."""
        return bool(await self._fenced("renew", taken, self._worker))

    async def save(self, taken: Taken, shown: Shown) -> bool:
        """Remember what is shown; True when somebody asked for a stop."""
        return bool(await self._fenced("save", taken, *_written(shown)))

    async def finish(self, taken: Taken, shown: Shown, exchange: Exchange | None) -> None:
        """End the turn with its outcome: the exchange enters the history, the thread's next wakes.

        The exchange takes the place of the one that the turn had; without one the history stays.
        """
        pages, text, cuts, _ = _written(shown)
        remembered = encode(exchange) if exchange else ""
        await self._fenced(
            "finish", taken, shown.outcome, pages, text, cuts, remembered, *self._ending
        )

    async def back(self, taken: Taken, *, delay_seconds: float, counts: bool) -> None:
        """Give the turn back, for a later try or (not counted) for another worker."""
        await self._fenced("back", taken, int(delay_seconds * 1000), "1" if counts else "")

    async def late(self, turn: Turn, pages: Sequence[str]) -> None:
        """Have a turn mended that we have lost, for we may have written after its end.

        `pages` are all messages that we have posted.
        """
        await self._call("late", turn.id, json.dumps(list(pages)))

    async def mend(self, platform: str, *, patience: float) -> Mend | None:
        """Claim a turn that is to be mended, for so many seconds; None when there is none."""
        answer = await self._call("mend", platform, int(patience * 1000))
        if not isinstance(answer, list):
            return None
        turn_id, claim, body, pressed_at, late, key = answer
        try:
            turn = _turn(turn_id, platform, key, body, pressed_at)
            return Mend(turn, read_list(late, str), int(claim))
        except Unreadable as error:
            log.warning("Turn %s cannot be mended: its record cannot be read: %s", turn_id, error)
            await self._call("mended", platform, turn_id, claim)
            return None

    async def mended(self, mend: Mend) -> None:
        """Let nobody mend the turn again, unless that was asked for meanwhile."""
        await self._call("mended", mend.turn.key.platform, mend.turn.id, mend.claim)

    async def stop(self, turn_id: str) -> bool:
        """Ask whoever works on the turn to end it; False when it has ended or is not known."""
        return bool(await self._call("stop", turn_id))

    async def stop_thread(self, thread: ThreadKey) -> bool:
        """Ask for the end of the turn that was begun in a thread; False when none was."""
        return bool(await self._call("stop_thread", str(thread)))

    async def forget(self, *turn_ids: str, asked_at: float | None = None) -> None:
        """Drop turns: waiting, running or remembered, or admitted within the next ten minutes.

        `asked_at` is when the last of them was asked, in seconds since the epoch, None if that is
        not known. Ten minutes later an admission is no longer expected, and an unknown id costs one
        look.
        """
        asked = "" if asked_at is None else int(asked_at * 1000)
        await self._call("forget", asked, *turn_ids)

    async def thread_of(self, platform: str, message_id: str) -> ThreadKey | None:
        """Return the thread in which a reply was posted as this message."""
        thread = await self.store.command("GET", self.store.key("posted", platform, message_id))
        return _thread(f"message {message_id}", thread, platform)

    async def thread_of_turn(self, turn_id: str) -> ThreadKey | None:
        """Return the thread of a turn; None when the turn is not known (any more)."""
        thread = await self.store.command("HGET", self.store.key("turn", turn_id), "thread")
        return _thread(f"turn {turn_id}", thread, turn_id.partition(":")[0])

    async def ended(self, turn_id: str) -> Shown | None:
        """Return what a turn left on the screen, all of it as text; None without an outcome."""
        state, pages, text = await self.store.command(
            "HMGET", self.store.key("turn", turn_id), "state", "pages", "shown"
        )
        if state in (None, "queued", "running", "dropped"):
            return None
        return replace(_read(turn_id, pages, text or "", "{}"), outcome=state)

    async def lacks_apology(self, turn_id: str) -> bool:
        """Tell whether a turn was given up of which nothing was shown, and is not forgotten."""
        state, pages, forgotten = await self.store.command(
            "HMGET", self.store.key("turn", turn_id), "state", "pages", "forget"
        )
        return state == "dead" and pages == "[]" and not forgotten

    async def is_at_rest(self, thread: ThreadKey) -> bool:
        """Tell whether each turn of a thread has its outcome."""
        return not await self.store.command("LLEN", self.store.key("mailbox", str(thread)))

    async def depth(self) -> int:
        """Return how many turns are admitted and have no outcome yet."""
        return int(await self.store.command("ZCARD", self.store.key("open")))

    @asynccontextmanager
    async def stops(self) -> AsyncIterator[AsyncIterator[str]]:
        """Follow the ids of turns that somebody asked to stop; the record tells it too, later."""
        async with self.store.redis.pubsub() as channel:
            with store_errors():
                await channel.subscribe(self.store.key("stops"))
            async with aclosing(_texts(channel.listen())) as messages:
                yield messages

    async def leave(self, platforms: Sequence[str]) -> None:
        """Forget the names of workers in the streams that have no tokens there."""
        for name in platforms:
            await self._call("leave", name)

    def _stream(self, platform: str) -> str:
        return self.store.key("ready", platform)

    async def _fenced(self, verb: str, taken: Taken, *arguments: str | int) -> str:
        answer = await self._call(verb, taken.turn.id, taken.fence, *arguments)
        if answer == "lost":
            raise LeaseLost(taken.turn.id)
        return str(answer) if answer != "ok" else ""

    async def _call(self, verb: str, *arguments: str | int) -> _Answer:
        answer: _Answer = await self._script(
            keys=[self.store.key("")], args=[verb, self._keep_ms, *arguments]
        )
        return answer


def _raise_refusal(answer: _Answer) -> None:
    if refusal := _REFUSALS.get(str(answer)):
        raise refusal


def _lacks_group(error: StoreUnavailable) -> bool:
    # Nobody has read this stream yet, or it expired while somebody waited for it.
    return "NOGROUP" in str(error) or "UNBLOCKED" in str(error)


def _person_key(platform: str, person: Person) -> str:
    return str(ThreadKey(platform, person.workspace, "", person.id))


def _body(turn: Turn) -> tuple[str, str]:
    """Write a turn as a JSON object without its text and its last brace, and the text."""
    value = asdict(turn)
    text = value.pop("text")
    # Older versions cannot read a person with another field.
    value["person_workspace"] = value["person"].pop("workspace")
    head = json.dumps(value, ensure_ascii=False).removesuffix("}")
    return head, json.dumps(text, ensure_ascii=False)


def _turn(turn_id: str, platform: str, key: str, body: str, pressed_at: str) -> Turn:
    """Read what `admit` wrote; Unreadable. The queue knows best who and where the turn is."""
    value = read_object(body)
    place = value.get("place", {})
    if not isinstance(place, dict):
        raise Unreadable("its place is no object")
    try:
        thread = ThreadKey.parse(key)
    except ValueError as error:
        raise Unreadable(f"thread {key!r}") from error
    # U+FFFD: bytes that are no text, with which no verb would find it.
    if thread.platform != platform or UNKNOWN_CHARACTER in turn_id:
        raise Unreadable(f"it stands in the line of {platform}")
    return Turn(
        id=turn_id,
        key=thread,
        person=_person(value, thread),
        text=read_text(value, "text"),
        place=place | read_object(pressed_at),
        asked_at=read_number(value, "asked_at"),
        left_out=int(read_number(value, "left_out")),
    )


def _thread(of: str, written: str | None, platform: str) -> ThreadKey | None:
    try:
        key = ThreadKey.parse(written) if written else None
    except ValueError:
        key = None
    if written and (key is None or key.platform != platform):
        log.warning("The thread of %s cannot be read: %r", of, written)
        return None
    return key


def _person(value: Mapping[str, Json], thread: ThreadKey) -> Person:
    # Older records count a person in each workspace.
    workspace = value.get("person_workspace")
    if not isinstance(workspace, str):
        workspace = thread.workspace
    return replace(read_person(value), workspace=workspace)


def _written(shown: Shown) -> tuple[str, str, str, str]:
    """Write what is shown as the four fields of a turn's record that hold it."""
    rest: dict[str, str | int] = {"outcome": shown.outcome} if shown.outcome else {}
    if shown.said != shown.text:
        rest["said"] = len(shown.said)
    if shown.below:
        rest["below"] = shown.below
    # An older version reads `cuts`, where pages were ended early, and needs a list.
    return json.dumps(shown.pages), shown.text, "[]", json.dumps(rest, ensure_ascii=False)


def _read(turn_id: str, pages: str, text: str, rest: str) -> Shown:
    """Read back what `_written` wrote, as far as it can be read."""
    ids: tuple[str, ...] = ()
    more: dict[str, Json] = {}
    try:
        ids = read_list(pages, str)
        more = read_object(rest)
    except Unreadable as error:
        log.warning("Turn %s: not all of what it has shown can be read: %s", turn_id, error)
    said, below, outcome = (more.get(name) for name in ("said", "below", "outcome"))
    return Shown(
        pages=ids,
        text=text,
        said=text[:said] if isinstance(said, int) else text,
        below=whole_characters(below) if isinstance(below, str) else "",
        outcome=_OUTCOMES.get(outcome, "") if isinstance(outcome, str) else "",
    )


def _tokens(platform: str, entries: Sequence[Any]) -> list[Token]:
    """Return an entry's token, whatever stands in it; a deleted one stands without fields."""
    return [Token(platform, entry) for entry, fields in entries if fields]


async def _texts(messages: AsyncIterator[Any]) -> AsyncGenerator[str]:
    with store_errors():
        async for message in messages:
            if message["type"] == "message":
                yield message["data"]
