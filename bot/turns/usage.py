"""Reads the sums of what people have used, by day, server, person and model."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from urllib.parse import unquote

from bot.domain import ThreadKey
from bot.store import Store

log = logging.getLogger(__name__)

DAYS = 90  # for which sums are kept: USAGE_MS of prelude.lua
_EPOCH = date(1970, 1, 1)
_FIELDS_AT_ONCE = 1000


class Sums(NamedTuple):
    """What was used: `money` in millionths, and the tokens of models whose price was not known.

    Among the questions are those of which the answer was `cut` at its longest length, and those
    that failed.
    """

    questions: int = 0
    read: int = 0
    written: int = 0
    cut: int = 0
    failed: int = 0
    money: int = 0
    unpriced: int = 0

    def plus(self, other: Sums, factor: int = 1) -> Sums:
        """Return the sum of both."""
        return Sums(*(one + factor * more for one, more in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Row:
    """The sums of a day; `person` is empty for people who were forgotten.

    `server` and `person` are written with their platform, as in `discord:123`.
    """

    day: date
    server: str
    model: str
    sums: Sums
    person: str = ""


class UsageSums:
    """The sums that ended turns have left. Every method raises StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def today(self) -> date:
        """Return the day by the store's clock, in UTC."""
        seconds, _ = await self._store.command("TIME")
        return datetime.fromtimestamp(int(seconds), UTC).date()

    async def of_server(self, thread: ThreadKey, since: date) -> Mapping[str, Sums]:
        """Return what all people of a thread's server have used from a day on, by model."""
        days = (await self.today() - since).days + 1
        place = str(ThreadKey(thread.platform, thread.workspace, "", "")).removesuffix("::")
        names = [_name("usage", since + timedelta(one), place) for one in range(days)]
        commands = [("HGETALL", self._store.key(one)) for one in names]
        found: dict[str, Sums] = defaultdict(Sums)
        for answer in await self._store.commands(commands):
            for model, text in answer.items():
                found[model] = found[model].plus(_read(text))
        return found

    async def rows(self, since: date, *, by_person: bool) -> AsyncIterator[Row]:
        """Yield all sums from a day on; looks through the whole store."""
        found = {name async for some in self._store.names("usage:*") for name in some}
        for name in sorted(found):
            _, day, server = name.split(":", 2)
            if (on := _EPOCH + timedelta(int(day))) >= since:
                for row in await self._rows_of(on, server, by_person=by_person):
                    yield row

    async def _rows_of(self, day: date, server: str, *, by_person: bool) -> Sequence[Row]:
        platform, shown = server.partition(":")[0], unquote(server)
        totals = await self._fields(_name("usage", day, server))
        people = await self._fields(_name("usage_of", day, server)) if by_person else {}
        left = {model: _read(text) for model, text in totals.items()}
        rows: list[Row] = []
        for name, text in people.items():
            person, _, model = name.partition(" ")
            sums = _read(text)
            if any(sums):
                rows.append(Row(day, shown, model, sums, f"{platform}:{unquote(person)}"))
            left[model] = left.get(model, Sums()).plus(sums, -1)
        for model, sums in left.items():
            # That of people who were forgotten; a turn that has just ended is not among the totals.
            rest = Sums(*(max(number, 0) for number in sums))
            if any(rest):
                rows.append(Row(day, shown, model, rest))
        return rows

    async def _fields(self, name: str) -> Mapping[str, str]:
        found, cursor = dict[str, str](), 0
        while True:
            scan = "HSCAN", self._store.key(name), cursor, "COUNT", _FIELDS_AT_ONCE
            cursor, some = await self._store.command(*scan)
            found |= some
            if not int(cursor):
                return found


def _name(kind: str, day: date, server: str) -> str:
    return f"{kind}:{(day - _EPOCH).days}:{server}"


def _read(text: str) -> Sums:
    """Read what `add_sums` of quota.lua has written; a newer version may have more numbers.

    What cannot be read counts as nothing.
    """
    try:
        return Sums(*map(int, text.split()[:7]))
    except ValueError:
        log.error("A sum of usage cannot be read, and is left out")  # noqa: TRY400
        return Sums()
