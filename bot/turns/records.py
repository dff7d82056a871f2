"""Reads and writes the fields of records, and the contexts, of turns; `History` reads exchanges.

Unknown fields are ignored, so that a later version may add some.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import get_args

from bot.access.preferences import read_preferences
from bot.access.quotas import Prices
from bot.domain import (
    ContextMessage,
    End,
    Exchange,
    FileRef,
    FileText,
    Json,
    Outcome,
    Person,
    Shown,
    ThreadKey,
    Turn,
    Used,
)
from bot.languages import spoken
from bot.store import Command, Store
from bot.text.sanitize import whole_characters
from bot.tokens.counters import Bill
from bot.turns.forgetting import named
from bot.turns.keeping import EVERYWHERE, Keeping

log = logging.getLogger(__name__)

# The store returns this for bytes that are not UTF-8: an id with it is not the stored one.
_REPLACEMENT = "\ufffd"
OUTCOMES: dict[str, Outcome] = {one: one for one in get_args(Outcome)}
_ENDS: dict[str, End] = {one: one for one in get_args(End)}
_BILL_LINE = re.compile(r"(~?)(\d{1,15}) (\d{1,15}) (?:-|\d{1,15}) (.*)")
_LARGEST = 1e12  # a time has ten digits
_MOST_OF_FILES = 2_000_000  # characters that a prompt needs; few models read as much
_WORDS = ("text", "question", "answer", "model", "files", "question_files")
_EXCHANGE = ("asker", "name", "asked_at", *_WORDS)
# Writes a value unless its person is being forgotten. KEYS: the jobs, and the value's key. ARGV:
# the name of the job, the expiry (ms), the value, and optionally a field of a hash.
_SAVE = """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
if not ARGV[4] then return redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2]) end
redis.call('HSET', KEYS[2], ARGV[4], ARGV[3])
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
"""
_MESSAGE_SECONDS = 3600  # for which a person may write a question about a message


class Unreadable(ValueError):
    """This version cannot read a record."""


class History:
    """Reads exchanges, which `TurnLeases.finish` writes. Raises StoreUnavailable.

    Where it does not remember (`remembers_in`), it drops the exchanges that it finds.
    """

    def __init__(
        self,
        *,
        store: Store,
        keep_seconds: float,
        remembers: bool = True,
        server_days: Mapping[str, int] = EVERYWHERE,
    ) -> None:
        self._store = store
        self._keeping = Keeping(keep_seconds, remembers, server_days)
        self.remembers_in = self._keeping.remembers_in
        self._save = store.script(_SAVE)

    async def read(self, thread: ThreadKey) -> list[Exchange]:
        """Return the thread's exchanges, oldest first, without those that are unreadable."""
        key, reads = self._store.key, list[Command]()
        ids = await self._store.command("LRANGE", key("history", str(thread)), 0, -1)
        if not self.remembers_in(thread):
            # From before nothing was to be remembered. A turn that is asked again needs its own.
            ids += await self._store.command("LRANGE", key("aside", str(thread)), 0, -1)
            running = await self._store.command("LRANGE", key("mailbox", str(thread)), 0, -1)
            old = [one for one in ids if one not in running]
            words = [("HDEL", key("turn", one), *_WORDS, "shown") for one in old]
            kinds = ("context", "files", "ratings", "thoughts")
            others = [("DEL", key(kind, one)) for one in old for kind in kinds]
            lists = [("DEL", key(kind, str(thread))) for kind in ("names", "history", "aside")]
            await self._store.commands([*words, *others, *lists])
            return []
        for one in ids:
            reads.append(("HMGET", key("turn", one), *_EXCHANGE))
            reads.append(("LRANGE", key("context", one), 0, -1))
        rows = await self._store.commands(reads)
        found = map(read_exchange, ids, rows[::2], rows[1::2])
        return await self._named(thread, [one for one in found if one])

    async def file_texts(self, *exchanges: Exchange) -> dict[str, FileText]:
        """Return what was read of the files that prompts have shown, by the ids of the files.

        That is all of the last exchange, and of those before it the newest, as far as they have two
        million characters: short compressed texts may be long.
        """
        keys = [self._store.key("files", one.turn_id) for one in exchanges if one.all_files]
        rows = await self._store.commands([("HGETALL", key) for key in keys])
        written = {name.rpartition(" ")[2]: text for row in rows for name, text in row.items()}
        own = {one.id for one in exchanges[-1].all_files}

        def read() -> dict[str, FileText]:
            found, room = dict[str, FileText](), _MOST_OF_FILES
            for file, text in reversed(written.items()):
                if (room > 0 or file in own) and (one := read_file_text(text)):
                    found[file] = one
                    room -= len(one.text)
            return found

        return await asyncio.to_thread(read) if written else {}

    async def save_name(self, thread: ThreadKey, person: Person) -> None:
        """Save the name of a person whose exchanges have only an id."""
        keys = [self._store.key("forgetting"), self._store.key("names", str(thread))]
        person_id, name = whole_characters(person.id), whole_characters(person.name)
        job = named("person", thread.platform, person.id)
        await self._save(keys=keys, args=[job, self._keeping.ms(thread), name, person_id])

    async def is_seen(self, thread: ThreadKey) -> bool:
        """Return whether earlier messages must not be read as context, even without a history.

        Part of the thread was forgotten, or the first question has no answer and nothing precedes
        it.
        """
        return bool(await self._store.command("EXISTS", self._store.key("seen", str(thread))))

    async def claim_truncation_notice(self, thread: ThreadKey, turn_id: str) -> bool:
        """Claim the notice that the thread's beginning no longer fits; True for one turn only.

        A repeated call returns the same.
        """
        name, keep_ms = self._store.key("told", str(thread)), self._keeping.ms(thread)
        await self._store.command("SET", name, turn_id, "NX", "PX", keep_ms)
        await self._store.command("PEXPIRE", name, keep_ms)
        return bool(await self._store.command("GET", name) == turn_id)

    async def keep_message(self, name: str, message: ContextMessage) -> None:
        """Store a message for an hour."""
        written = write_context_message(message)
        keys = [self._store.key("forgetting"), self._store.key("message", name)]
        person = message.person.id if message.person else ""
        job = named("person", name.partition(":")[0], person)
        await self._save(keys=keys, args=[job, _MESSAGE_SECONDS * 1000, written])

    async def kept_message(self, name: str) -> ContextMessage | None:
        """Return a message that `keep_message` stored; None if it has expired."""
        written = await self._store.command("GET", self._store.key("message", name))
        return read_context_message(written) if written else None

    async def _named(self, thread: ThreadKey, exchanges: Sequence[Exchange]) -> list[Exchange]:
        unnamed = [one.person.id for one in exchanges if one.person.name == one.person.id]
        if not unnamed:
            return list(exchanges)
        key = self._store.key("names", str(thread))
        found: list[str | None] = await self._store.command("HMGET", key, *unnamed)
        await self._store.command("PEXPIRE", key, self._keeping.ms(thread))
        names = {Person(one, one): name for one, name in zip(unnamed, found, strict=True) if name}
        return [
            replace(one, person=replace(one.person, name=names.get(one.person, one.person.name)))
            for one in exchanges
        ]


def write_turn(turn: Turn) -> str:
    """Return a JSON object with the fields that a turn's record has for its question."""
    fields = {
        "asker": turn.person.id,
        "name": turn.person.name,
        "workspace": turn.person.workspace,
        "zone": turn.zone,
        "language": spoken(),
        "asked_at": str(turn.asked_at),
        "text": turn.text,
        "left_out": str(turn.left_out),
        "where": turn.where,
        "place": json.dumps(turn.place, ensure_ascii=False),
    }
    if turn.files:
        fields["files"] = write_files(turn.files)
    if turn.context is not None:
        fields["context_read"] = "1"
    if turn.once:
        fields["once"] = json.dumps(turn.once, ensure_ascii=False)
    if turn.traceparent:
        fields["traceparent"] = turn.traceparent
    return json.dumps(fields | ({"joins": "1"} if turn.joins else {}), ensure_ascii=False)


def read_turn(turn_id: str, record: Mapping[str, str], lines: Sequence[str] | None = None) -> Turn:
    """Read a turn from its record, and its context from its lines. Raises Unreadable."""
    platform, thread = turn_id.partition(":")[0], record.get("thread", "")
    key = read_thread(thread, platform)
    # No verb finds a turn under such an id.
    if key is None or _REPLACEMENT in turn_id:
        raise Unreadable(f"its thread is {thread!r}")
    place = read_object(record.get("place")) | read_object(record.get("pressed_place", "{}"))
    quote, context = read_context(lines or ())
    asker = record.get("asker", "")
    return Turn(
        id=turn_id,
        key=key,
        person=Person(asker, record.get("name") or asker, record.get("workspace", "")),
        text=record.get("text", ""),
        place=place | ({"refers": True} if "refers" in record else {}),
        asked_at=read_number(record.get("asked_at")),
        left_out=int(read_number(record.get("left_out"))),
        where=record.get("where", ""),
        zone=record.get("zone", ""),
        language=record.get("language", ""),
        files=read_files(record.get("files")),
        quote=quote,
        context=context if "context_read" in record else None,
        joins="joins" in record,
        instructions=record.get("instructions", ""),
        traceparent=record.get("traceparent", ""),
        preferences=read_preferences(
            {
                name.removeprefix("preferred:"): value
                for name, value in record.items()
                if name.startswith("preferred:")
            }
        ),
    )


def read_number(written: str | None) -> float:
    """Read a number from 0 to a time in seconds; 0 if there is none. Raises Unreadable."""
    try:
        number = float(written or "0")
    except ValueError:
        number = -1.0
    if not 0 <= number < _LARGEST:
        raise Unreadable(f"{written!r} is no number")
    return number


def read_thread(written: str, platform: str) -> ThreadKey | None:
    """Parse the key of a thread; None if it belongs to another platform."""
    try:
        key = ThreadKey.parse(written)
    except ValueError:
        return None
    return key if key.platform == platform else None


def write_progress(shown: Shown, used: int = 0, bill: str = "") -> str:
    """Return a JSON object with the fields of a record for a reply, and for the used tokens.

    The `thoughts`, with their seconds, get a key of their own. In the record `shown` is the text,
    `said` the length of what the answer has of it, `ended` how the answer ended, and `by` its
    model.
    """
    fields = {
        "message_ids": write_ids(shown.message_ids),
        "shown": shown.text,
        "said": str(len(shown.said)),
        "below": shown.below,
        "outcome": shown.outcome,
        "ended": shown.end,
        "by": shown.model,
        "removed": write_ids(shown.removed),
        "cut": "{} {}".format(*shown.cut) if shown.cut else "",
        "used": str(used),
        "bill": bill,
    }
    if thought := shown.thought:
        fields |= {"thoughts": thought.text, "thought_seconds": str(thought.seconds)}
    return json.dumps(fields, ensure_ascii=False)


def write_bill(bill: Bill, prices: Prices) -> str:
    """Return a line for each model: `READ WRITTEN MONEY MODEL`; MONEY is - without a price.

    What is not reported yet stands behind a ~.
    """
    lines = [("", model, used) for model, used in bill.counted.items()]
    lines += [("~", model, used) for model, used in bill.unreported]
    return "\n".join(
        f"{mark}{used.read} {used.written} {price.of(used.read, used.written) if price else '-'} "
        + model
        for mark, model, used in lines
        for price in (prices.of(model),)
    )


def read_bill(record: Mapping[str, str]) -> Bill:
    """Read what earlier attempts used; versions before kept only a number. Raises Unreadable."""
    tokens = int(read_number(record.get("used")))
    found = [_BILL_LINE.fullmatch(line) for line in record.get("bill", "").split("\n")]
    lines = [(one[1], one[4], Used(int(one[2]), int(one[3]))) for one in found if one]
    counted = {model: used for mark, model, used in lines if not mark}
    bill = Bill(counted, tuple((model, used) for mark, model, used in lines if mark))
    if bill.tokens > tokens:  # it is of an earlier answer
        bill = Bill()
    rest = Used(tokens - bill.tokens, 0)
    return replace(bill, counted={**bill.counted, "": rest}) if rest.read else bill


def read_shown(record: Mapping[str, str]) -> Shown:
    """Read what `write_progress` returned; all text counts as said if that is not known."""
    text = record.get("shown", "")
    said = record.get("said", "")
    return Shown(
        message_ids=read_ids(record.get("message_ids")),
        text=text,
        said=text[: int(said)] if said.isdecimal() else text,
        below=record.get("below", ""),
        outcome=OUTCOMES.get(record.get("outcome", ""), ""),
        end=read_end(record.get("ended")),
        model=record.get("by", ""),
        removed=read_ids(record.get("removed")),
        cut=_read_cut(record.get("cut", "")),
    )


def _read_cut(written: str) -> tuple[int, int] | None:
    page, _, length = written.partition(" ")
    return (int(page), int(length)) if page.isdecimal() and length.isdecimal() else None


def read_end(written: str | None) -> End:
    """Read how an answer ended; unknown values count as a whole answer."""
    return _ENDS.get(written or "", "")


def write_exchange(exchange: Exchange) -> str:
    """Return a JSON object with the fields that make a turn remembered."""
    fields = {
        "question": exchange.question,
        "question_files": write_files(exchange.files),
        "answer": exchange.answer,
        "model": exchange.model,
    }
    return json.dumps(fields, ensure_ascii=False)


def read_exchange(
    turn_id: str, fields: Sequence[str | None], lines: Sequence[str]
) -> Exchange | None:
    """Read an exchange from some fields of a record and its context.

    None if the turn has no answer any more, or the fields cannot be read.
    """
    if fields[_EXCHANGE.index("answer")] is None:
        return None
    known = {name: value or "" for name, value in zip(_EXCHANGE, fields, strict=True)}
    quote, context = read_context(lines)
    try:
        asked_at = read_number(known["asked_at"])
    except Unreadable as error:
        log.warning("Turn %s: left out of its thread's history: %s", turn_id, error)
        return None
    return Exchange(
        turn_id=turn_id,
        person=Person(known["asker"], known["name"] or known["asker"]),
        asked_at=asked_at,
        question=known["question"] or known["text"],
        answer=known["answer"],
        quote=quote,
        context=context,
        model=known["model"],
        files=read_files(known["question_files"] if known["question"] else known["files"]),
    )


def write_context(quote: ContextMessage | None, messages: Sequence[ContextMessage] | None) -> str:
    """Return a JSON array with a line for each message that a turn's prompt shows of others."""
    lines = [_line("quote", quote)] if quote else []
    lines += [_line("message", one) for one in messages or ()]
    return json.dumps(lines, ensure_ascii=False)


def read_context(lines: Iterable[str]) -> tuple[ContextMessage | None, tuple[ContextMessage, ...]]:
    """Read the quote, and the messages, of lines, without those that cannot be read."""
    found: dict[str, list[ContextMessage]] = {"quote": [], "message": []}
    for line in lines:
        kind, *others = line.split("\n", 3)
        if one := read_context_message("".join(others[2:])):
            found.setdefault(kind, []).append(one)
    return next(iter(found["quote"]), None), tuple(found["message"])


def _line(kind: str, one: ContextMessage) -> str:
    return "\n".join(
        (kind, one.id, one.person.id if one.person else "", write_context_message(one))
    )


def write_context_message(one: ContextMessage) -> str:
    """Return a message of a context as a JSON object."""
    person = {"id": one.person.id, "name": one.person.name} if one.person else None
    fields = {"id": one.id, "person": person, "text": one.text}
    if one.files:
        fields["files"] = write_files(one.files)
    return json.dumps(fields, ensure_ascii=False)


def read_context_message(written: str) -> ContextMessage | None:
    """Read what `write_context_message` returned; None if it cannot be read."""
    try:
        value = read_object(written)
        person = None if value.get("person") is None else _person(value)
        files = read_files(str(value.get("files") or ""))
        return ContextMessage(_text(value, "id"), person, _text(value, "text"), files=files)
    except Unreadable as error:
        log.warning("A message of a context cannot be read: %s", error)
        return None


def write_files(files: Iterable[FileRef]) -> str:
    """Return files as a JSON array; empty if there are none."""
    return json.dumps([asdict(one) for one in files], ensure_ascii=False) if files else ""


def read_files(written: str | None) -> tuple[FileRef, ...]:
    """Read what `write_files` returned; none if they cannot be read."""
    try:
        return tuple(
            FileRef(one["id"], one["message"], one["name"], int(one["size"]), dict(one["place"]))
            for one in json.loads(written or "[]")
        )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        log.warning("Files cannot be read: %s", type(error).__name__)
        return ()


def write_file_text(file: FileText) -> str:
    """Return what was read of a file, compressed, as letters."""
    data = json.dumps(asdict(file), ensure_ascii=False).encode(errors="surrogatepass")
    return b64encode(zlib.compress(data)).decode()


def read_file_text(written: str) -> FileText | None:
    """Read what `write_file_text` returned; None if it cannot be read."""
    try:
        return FileText(**json.loads(zlib.decompress(b64decode(written))))
    except (ValueError, TypeError, zlib.error) as error:
        log.warning("The text of a file cannot be read: %s", type(error).__name__)
        return None


def write_ids(ids: Iterable[str]) -> str:
    """Return ids, one a line."""
    return "\n".join(ids)


def read_ids(written: str | None) -> tuple[str, ...]:
    """Read what `write_ids` returned."""
    return tuple(written.split("\n")) if written else ()


def read_object(written: str | None) -> dict[str, Json]:
    """Parse a JSON object. Raises Unreadable."""
    try:
        value: Json = json.loads(written or "")
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise Unreadable("no JSON object")
    return value


def _text(value: Mapping[str, Json], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise Unreadable(f"no {name}")
    return whole_characters(text)


def _person(value: Mapping[str, Json]) -> Person:
    person = value.get("person")
    if not isinstance(person, dict):
        raise Unreadable("no person")
    person_id, name = _text(person, "id"), person.get("name")
    return Person(person_id, whole_characters(name) if isinstance(name, str) else person_id)
