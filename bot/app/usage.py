"""The command that shows what people have used, as a table or as CSV."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Literal, TextIO

from bot.access.quotas import MILLION
from bot.errors import CannotStart
from bot.store import connect
from bot.text.sanitize import one_line
from bot.turns.usage import DAYS, Row, Sums, UsageSums
from config.settings import Settings

By = Literal["day", "server", "person", "model"]

_NOBODY, _UNKNOWN = "(forgotten)", "(unknown)"
_HEADS = ("questions", "read", "written", "cut", "failed", "dollars", "without_price")


async def show_usage(
    settings: Settings, output: TextIO, *, by: By, since: str, as_csv: bool
) -> None:
    """Print the sums from a day on. Raises CannotStart and StoreUnavailable."""
    async with connect(url=settings.redis_url, data_dir=settings.data_dir) as store:
        usage = UsageSums(store)
        first = _first_day(since, await usage.today())
        found: dict[str, Sums] = defaultdict(Sums)
        async for row in usage.rows(first, by_person=by == "person"):
            name = _named(row, by)
            found[name] = found[name].plus(row.sums)
    sums = dict(sorted(found.items()))
    if by != "day":
        sums = dict(sorted(sums.items(), key=lambda it: -it[1].read - it[1].written))
    if as_csv:
        _write_csv(sums, by, output)
    else:
        output.write(_table(sums, by, first))


def _first_day(since: str, today: date) -> date:
    """Read the first day: a date, or a number of days with today, such as 7d."""
    if days := re.fullmatch(r"([1-9][0-9]{0,3})d", since):
        return today - timedelta(min(int(days[1]), DAYS) - 1)
    try:
        return date.fromisoformat(since)
    except ValueError:
        raise CannotStart(
            f"--since {since!r} is neither a date such as {today} nor a number of days such as 7d"
        ) from None


def _named(row: Row, by: By) -> str:
    match by:
        case "day":
            return str(row.day)
        case "server":
            return one_line(row.server)
        case "person":
            return one_line(row.person) or _NOBODY
        case "model":
            return one_line(row.model) or _UNKNOWN


def _table(sums: Mapping[str, Sums], by: By, first: date) -> str:
    if not sums:
        return f"Nobody has used anything since {first}.\n"
    total = Sums()
    for one in sums.values():
        total = total.plus(one)
    shown = _HEADS[: 6 if total.money else 5]
    lines = [[by, *shown]]
    for name, one in {**sums, "all": total}.items():
        lines.append([name, *(f"{it:,}" for it in one[:5])])
        if total.money:
            lines[-1].append(_dollars(one))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ""
    for name, *cells in lines:
        padded = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        text += "  ".join([f"{name:<{widths[0]}}", *padded]) + "\n"
    if total.unpriced:
        text += f"{total.unpriced:,} of the tokens have no price: PRICES can name it.\n"
    return text


def _write_csv(sums: Mapping[str, Sums], by: By, output: TextIO) -> None:
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([by, *_HEADS])
    for name, one in sums.items():
        # Spreadsheets take such a text for a formula (OWASP, "CSV Injection").
        safe = f"'{name}" if name.startswith(("=", "+", "-", "@")) else name
        writer.writerow([safe, *one[:5], _dollars(one), one.unpriced])


def _dollars(one: Sums) -> str:
    return f"{one.money / MILLION:.4f}"
