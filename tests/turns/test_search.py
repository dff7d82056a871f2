"""A search through what was said, which must not hold up the store."""

from __future__ import annotations

from bot.domain import ThreadKey
from bot.store import Command, Store
from bot.turns.lookup import TurnLookup


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


async def test_long_conversations_are_searched_one_by_one(own_store: Store) -> None:
    for number in range(6):
        await say(own_store, talk(number), "a" * 300_000, "a" * 300_000)
    await own_store.command("CONFIG", "RESETSTAT")

    words = [*(f"{'a' * 30}{letter}" for letter in "bcdefgh"), "a" * 1000]
    found = await TurnLookup(own_store).search({talk(number): words for number in range(6)})

    stats = await own_store.redis.info("commandstats")
    assert found == {}
    assert sum(stats[it]["calls"] for it in stats if it.startswith("cmdstat_eval")) >= 6
