"""`python -m bot usage`, `/parley usage` for admins, and the word to them, as people see them."""

from __future__ import annotations

import csv
import io

import pytest

from bot.app.usage import By, show_usage
from bot.domain import Person, Used
from bot.errors import CannotStart
from bot.store import Store
from bot.tokens.counters import Bill
from tests.app.test_commands import answered
from tests.emulators.model import ModelEmulator
from tests.support.rooms import PLATFORMS, Platform, Room, last_word, served
from tests.support.service import make_settings
from tests.support.waiting import until
from tests.turns.test_queue import make_turn, take
from tests.turns.test_usage import LARGE, end, make_queue


async def shown(store: Store, *, by: By = "day", since: str = "7d", as_csv: bool = False) -> str:
    output = io.StringIO()
    settings = make_settings(store, {})
    await show_usage(settings, output, by=by, since=since, as_csv=as_csv)
    return output.getvalue()


async def used(store: Store, number: int, person: str, bill: Bill = LARGE) -> None:
    queue = make_queue(store)
    await queue.admit(make_turn(number, person=Person(person, "Ann")))
    await end(queue, await take(queue), bill)


async def test_the_table_has_a_line_for_each_person_and_their_sum(own_store: Store) -> None:
    await used(own_store, 1, "u1")
    await used(own_store, 2, "u2", Bill({"small": Used(1_000_000, 0)}))

    text = await shown(own_store, by="person")

    assert text.splitlines() == [
        "person      questions       read  written  cut  failed  dollars",
        "console:u2          1  1,000,000        0    0       0   0.0000",
        "console:u1          1        100       20    0       0   0.0004",
        "all                 2  1,000,100       20    0       0   0.0004",
        "1,000,000 of the tokens have no price: PRICES can name it.",
    ]


async def test_a_spreadsheet_takes_no_name_for_a_formula(own_store: Store) -> None:
    await used(own_store, 1, "u1", Bill({'=HYPERLINK("x","y")': Used(5, 1)}))

    text = await shown(own_store, by="model", as_csv=True)

    head, *lines = csv.reader(io.StringIO(text))
    assert head[0] == "model"
    assert all(line[0][0] in "'l" for line in lines)
    assert len(lines) == 2


async def test_a_beginning_that_is_none_is_refused_and_a_later_one_leaves_out(
    own_store: Store,
) -> None:
    await used(own_store, 1, "u1")

    for wrong in ("soon", "0d", "2026-13-01", "-1d"):
        with pytest.raises(CannotStart, match="neither a date"):
            await shown(own_store, since=wrong)

    assert (await shown(own_store, since="2999-01-01")).startswith("Nobody has used anything")
    assert "100       20" in await shown(own_store, since="1d")


@PLATFORMS
async def test_admins_read_what_their_server_has_used_and_are_told_of_its_limit(
    kind: type[Platform], own_store: Store, model: ModelEmulator
) -> None:
    model.answer = last_word
    variables = {
        "SERVER_TOKENS_PER_DAY": "1000",
        "MAX_TOKENS": "900",
        "PRICES": "emulated=2/10",
        "MONEY_PER_MONTH": "5",
    }
    async with kind() as platform:
        room = Room(platform)
        variables["ADMINS"] = room.people["Bob"]
        async with served(platform, own_store, model, variables=variables):
            await room.begin()
            await room.call("one")
            await answered(room, own_store, "one")
            for_all = await room.command("usage")
            for_admins = await room.command("usage", person="Bob")

            def told() -> list[str]:
                place = platform.dm(room.people["Bob"])
                return [one.text for one in platform.screen(place)]

            await until(told, why=told)

    assert "What you cost this month: $0.0" in for_all
    assert "Everybody here" not in for_all
    assert "Everybody here today: 1 question, " in for_admins
    assert "\n- emulated: 1 question, " in for_admins
    assert len(told()) == 1
    assert "has used 80 % of its tokens for today: 9" in told()[0]
