"""What is exported of a person is all that forgetting removes, and no words of others."""

from __future__ import annotations

import json
from collections.abc import Iterator

from bot.access.preferences import PreferenceStore
from bot.domain import FileText, Shown
from bot.store import Store
from bot.turns.collecting import Collector, Found
from bot.turns.erasing import Subject
from bot.turns.queue import TurnQueue
from bot.turns.records import read_file_text
from bot.turns.script import QueueScript, person_key
from tests.support.at_work import make_queue
from tests.support.stored import Stored, stored
from tests.turns.test_forgetting import (
    ANN,
    BOB,
    OWN,
    SHARED,
    WHO,
    exchange_of,
    next_of,
    said_by,
    talk,
    turn,
    work_due,
)

OWN_NAMES = {"discord": (":discord:{id}:",)}


async def talk_more(store: Store) -> TurnQueue:
    """Let both say more, so that each kind of what is kept of Ann is there."""
    queue = await talk(store)
    await store.command(
        "HSET", store.key("allowed", person_key("discord", ANN)), "office:make", "d"
    )
    await store.command("SET", store.key("upload", "discord", ANN.id, "7"), "gnu")
    await PreferenceStore(store=store).change(SHARED, "thread", {"persona": "yodel"}, by=ANN.id)
    for number, person in ((6, ANN), (7, BOB)):
        await queue.admit(turn(number, person))
        taken = await next_of(queue)
        heard = said_by(ANN, "yodel again", 95), said_by(BOB, "hum", 96)
        await queue.leases.save_context(taken, None, heard)
        for message, text in ((taken.turn.id, f"file of {person.id}"), ("discord:95", "file 95")):
            await queue.leases.save_file(taken, message, f"f-{message}", FileText(text))
        await queue.leases.save_file(taken, "discord:96", "f-96", FileText("file of bob"))
        await queue.leases.save_step(taken, "result:c", "moose", effect="digest", counts=False)
        shown = Shown((f"m{number}",), "walrus", "walrus", outcome="done")
        await queue.leases.finish(taken, shown, exchange_of(taken.turn, "wolverine", *heard))
    # One turn waits.
    await queue.admit(turn(8, ANN))
    return queue


async def collected(store: Store) -> tuple[list[Found], Collector]:
    collector = Collector(QueueScript(store, keep_seconds=60), Subject.of(WHO, OWN_NAMES))
    return [one async for one in collector.collect()], collector


def flat(value: object) -> Iterator[str]:
    """Yield all texts and numbers in a value, also in its names."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from (name, *flat(one))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from flat(one)
    elif value is not None:
        yield str(value)


def parts_of(one: Stored) -> set[tuple[str, str]]:
    """Return the fields and members that a key has, each with its name."""
    if isinstance(one.value, dict):
        return {(name, value) for name, value in one.value.items()}
    if isinstance(one.value, list):
        return {("", it if isinstance(it, str) else str(it[0])) for it in one.value}
    return {("", one.value)}


def words_of(kind: str, name: str, value: str) -> Iterator[str]:
    """Yield what a part of the store says, as a person reads it."""
    if kind == "context":
        value = value.split("\n", 3)[3]
    if kind == "files" and (text := read_file_text(value)):
        yield from (name, text.text)
    elif kind == "context" or name in ("place", "files", "question_files"):
        yield from flat(json.loads(value))
    else:
        yield from (value,)


async def test_all_that_forgetting_removes_is_exported(store: Store) -> None:
    await talk_more(store)
    queue = make_queue(store, own_names=OWN_NAMES)
    before = await stored(store)

    found, _ = await collected(store)

    # Nothing is changed by looking.
    assert [(one.name, one.value) for one in await stored(store)] == [
        (one.name, one.value) for one in before
    ]
    await queue.forgetting.begin(WHO)
    await work_due(queue.forgetting)
    after = {one.name: parts_of(one) for one in await stored(store)}
    told = {it for one in found for it in flat(one.value)}
    told |= {one.key.partition(":")[2] for one in found}
    lost = []
    for one in before:
        kind = one.name.partition(":")[0]
        for name, value in parts_of(one) - after.get(one.name, set()):
            is_others = kind == "context" and f"\n{BOB.id}\n" in value
            is_others |= kind == "files" and "f-96" in name
            # The name of a place, and whose persona answered, are nobody's words.
            # A file's bytes are counted.
            is_others |= kind == "upload"
            if is_others or name in ("where", "preferred:persona"):
                continue
            # The server uses less than it had reserved, and others rate what is gone.
            if kind in ("spent", "ratings") and ANN.id not in (one.name + name):
                continue
            lost += [
                (one.name, name, word)
                for word in words_of(kind, name, value)
                if word not in told and not {*word.split(" ")} <= {*told, ""}
            ]
    assert lost == []
    # As a check of this test: much has been removed.
    assert len({one.name for one in before} - {*after}) > 20


async def test_no_words_of_others_are_exported(store: Store) -> None:
    queue = await talk_more(store)
    # A tool that an open question has called knows of others, too.
    taken = await next_of(queue)
    await queue.leases.save_step(taken, "result:c", "penguin", effect="", counts=False)

    found, collector = await collected(store)

    text = json.dumps([(one.key, one.value) for one in found])
    for word in (BOB.id, "Bob", "lion", "penguin", "hum", "file of bob", f"file of {BOB.id}"):
        assert word not in text, word
    for word in (
        "zebra",
        "walrus",
        "wolverine",
        "yodel again",
        f"file of {ANN.id}",
        "file 95",
        "Zoe Ann",
        "result:c",
    ):
        assert word in text, word
    assert {"office:make": "d"} in [one.value for one in found]
    assert {"bytes": 3} in [one.value for one in found]
    assert collector.tally.questions == 5
    assert collector.tally.conversations == {str(SHARED), str(OWN)}
    assert str(collector.tally).startswith("5 questions in 2 conversations, and other entries: ")


async def test_a_person_of_whom_only_others_quotes_are_kept_is_found(store: Store) -> None:
    queue = await talk(store)
    await queue.changes.forget("discord:1", "discord:4", "discord:5")

    found, _ = await collected(store)

    assert "yodel" in json.dumps([one.value for one in found if one.key.startswith("context:")])
