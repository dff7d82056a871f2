"""A search through what was said, which must not hold up the store."""

from __future__ import annotations

from dataclasses import replace

from bot.domain import Exchange, Shown, ThreadKey
from bot.store import Command, Store
from bot.turns.lookup import TurnLookup
from tests.support.at_work import make_turn, take
from tests.turns.test_queue import make_queue


async def say(store: Store, thread: ThreadKey, text: str, answer: str) -> None:
    turn_id = f"web:{thread.thread}-{len(text)}"
    commands: list[Command] = [
        ("RPUSH", store.key("history", str(thread)), turn_id),
        ("HSET", store.key("turn", turn_id), "text", text, "answer", answer),
    ]
    await store.commands(commands)


def talk(number: int) -> ThreadKey:
    return ThreadKey("web", "", "ann", f"talk-{number}")


async def test_all_conversations_are_searched_however_many(store: Store) -> None:
    for number in range(250):
        await say(
            store, talk(number), f"number {number}", "Zebra!" if number % 100 == 7 else "Cow."
        )

    found = await TurnLookup(store).search({talk(n): ["zebra", "number"] for n in range(250)})

    assert sorted(one.thread for one in found) == ["talk-107", "talk-207", "talk-7"]
    assert found[talk(107)].text == "Zebra!"
    assert await TurnLookup(store).search({talk(7): []}) == {}


async def test_case_is_no_matter_in_records_with_mixed_words_and_without(store: Store) -> None:
    said = ["On GitHub it is.", "on GITHUB", "github", "GiThUb of older times", "no git hub"]
    for number, text in enumerate(said):
        await say(store, talk(number), "?", text)
    for number in range(3):
        await store.command("HSET", store.key("turn", f"web:talk-{number}-1"), "mixed", "github")

    for typed in ("github", "GitHub", "GITHUB", "gitHub"):
        found = await TurnLookup(store).search({talk(number): [typed] for number in range(5)})
        assert sorted(one.thread for one in found) == ["talk-0", "talk-1", "talk-2", "talk-3"]


async def test_an_ended_turn_is_found_by_its_words_in_any_case(store: Store) -> None:
    long = "x" * 60_000
    answer = f"Push to (GitHub), not to Hewlett-Packard's {long} or I/O. Well Done."
    queue, turn = make_queue(store), replace(make_turn(1), text="Where?")
    await queue.admit(turn)
    exchange = Exchange(turn.id, turn.person, turn.asked_at, turn.text, answer)
    shown = Shown(("m1",), answer, answer, outcome="done")
    await queue.leases.finish(await take(queue), shown, exchange)

    found = [
        len(await TurnLookup(store).search({turn.key: [word]}))
        for word in ("github", "hewlett-packard", "i/o", "DONE", "where", "pushed")
    ]
    mixed = await store.command("HGET", store.key("turn", turn.id), "mixed")

    assert found == [1, 1, 1, 1, 1, 0]
    assert mixed == "github), hewlett-packard's"


async def test_many_small_exchanges_are_not_looked_at_in_one_go(own_store: Store) -> None:
    commands: list[Command] = []
    for number in range(40):
        for turn in range(200):
            commands.append(("RPUSH", own_store.key("history", str(talk(number))), f"{turn}"))
    await own_store.commands(commands)
    await own_store.command("CONFIG", "RESETSTAT")

    await TurnLookup(own_store).search({talk(number): ["zebra"] for number in range(40)})

    stats = await own_store.redis.info("commandstats")
    assert sum(stats[it]["calls"] for it in stats if it.startswith("cmdstat_eval")) >= 4


async def test_long_conversations_are_searched_one_by_one(own_store: Store) -> None:
    for number in range(6):
        await say(own_store, talk(number), "a" * 300_000, "a" * 300_000)
    await own_store.command("CONFIG", "RESETSTAT")

    words = [*(f"{'a' * 30}{letter}" for letter in "bcdefgh"), "a" * 1000]
    found = await TurnLookup(own_store).search({talk(number): words for number in range(6)})

    stats = await own_store.redis.info("commandstats")
    assert found == {}
    assert sum(stats[it]["calls"] for it in stats if it.startswith("cmdstat_eval")) >= 6
