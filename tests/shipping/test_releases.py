"""This version reads what each released one has left in the store, and answers what waits there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bot.app.platforms import own_names
from bot.domain import Exchange, Page
from bot.store import FORMAT, Store, connect
from bot.turns.forgetting import named
from bot.turns.records import History, read_thread
from bot.turns.worker import Worker
from tests.shipping.release import ANSWER, FIRST, SECOND, STORES, THIRD
from tests.support.at_work import (
    KEEP,
    LEASE,
    POLICY,
    all_ended,
    make_conversation,
    make_queue,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform
from tests.support.stored import Stored, load, stored

PLATFORMS = ("discord", "slack", "web")
RELEASED = sorted(STORES.glob("*.json"), key=lambda it: it.name)


@pytest.fixture(params=RELEASED, ids=lambda it: it.stem)
def released(request: pytest.FixtureRequest) -> str:
    """The text of a release's store."""
    path: Path = request.param
    return path.read_text(encoding="utf-8")


def of_kind(found: list[Stored], kind: str) -> list[Stored]:
    return [one for one in found if one.name.startswith(f"{kind}:")]


def make_worker(store: Store, model: FakeModel, turns: list[Stored]) -> Worker:
    platforms = {name: FakePlatform(name=name) for name in PLATFORMS}
    for one in turns:
        platform = platforms[one.name.split(":")[1]]
        for message in one.value.get("message_ids", "").split():
            platform.shown.screen[message] = Page(0, one.value["shown"], final=False)
    return Worker(
        queue=make_queue(store, own_names=own_names()),
        platforms=platforms,
        conversation=make_conversation(store, model),
        capacity=20,
        lease_seconds=LEASE,
        drain_seconds=5.0,
        policy=POLICY,
    )


async def exchanges(store: Store, history: Stored) -> list[Exchange]:
    name = history.name.removeprefix("history:")
    thread = read_thread(name, name.partition(":")[0])
    assert thread
    return await History(store=store, keep_seconds=KEEP).read(thread)


async def test_a_released_store_has_the_format_of_this_version(store: Store, released: str) -> None:
    await load(store, released)

    async with connect(url=store.url, data_dir=Path(), prefix=store.key().removesuffix(":{0}")):
        assert await store.command("GET", store.key("format")) == FORMAT


async def test_what_waits_or_runs_in_an_older_store_is_answered_in_order(
    store: Store, released: str
) -> None:
    found = await load(store, released)
    turns = of_kind(found, "turn")
    opened = [one for one in turns if one.value["state"] in ("queued", "running")]
    histories = of_kind(found, "history")
    model = FakeModel()
    assert {one.value["state"] for one in turns} == {"queued", "running", "done"}

    async with working(make_worker(store, model, turns)):
        await all_ended(store)

    queue = make_queue(store)
    for one in opened:
        result = await queue.lookup.result(one.name.removeprefix("turn:"))
        assert result
        assert result.outcome == "done"
    assert len(histories) == len(opened) / 2
    for history in histories:
        first, second, third = await exchanges(store, history)
        assert [one.question for one in (first, second, third)] == [FIRST, SECOND, THIRD]
        assert [one.answer for one in (first, second, third)] == [ANSWER, *["Hello world"] * 2]
        assert all(one.person.id and one.asked_at for one in (first, second, third))
    # Each prompt has all that was said before it in its thread.
    said = sorted(len(prompt) for prompt in model.prompts)
    assert said == [4] * len(histories) + [6] * len(histories)


async def test_what_has_ended_in_an_older_store_can_be_shown_and_asked_anew(
    store: Store, released: str
) -> None:
    found = await load(store, released)
    ended = [one for one in of_kind(found, "turn") if one.value["state"] == "done"]
    queue = make_queue(store)
    assert ended

    for one in ended:
        turn_id = one.name.removeprefix("turn:")
        result = await queue.lookup.result(turn_id)
        assert result
        assert (result.text, result.outcome, bool(result.message_ids)) == (ANSWER, "done", True)
        turn = await queue.lookup.turn(turn_id)
        assert turn
        assert str(turn.key) == one.value["thread"]
        assert await queue.lookup.standings(turn_id, person_id="u1")
        for message in result.message_ids:
            assert await queue.lookup.thread_of(turn.key.platform, message) == turn.key
        assert await queue.changes.rate(turn_id, person_id="u1", rating="good") == (
            "emulated",
            True,
        )
        # The same question, delivered again by the platform, is none.
        waiting = (await queue.load([])).open
        await queue.admit(turn)
        assert (await queue.load([])).open == waiting


async def test_the_people_of_an_older_store_can_be_forgotten(store: Store, released: str) -> None:
    found = await load(store, released)
    turns = of_kind(found, "turn")
    people = {person_of(one) for one in turns}
    queue, model = make_queue(store), FakeModel()

    for platform, person in people:
        await queue.forgetting.begin(named("person", platform, person))
    async with working(make_worker(store, model, turns)):
        for platform, person in people:
            while not await queue.forgetting.is_done(named("person", platform, person)):
                await asyncio.sleep(0.01)

    traces = [FIRST, SECOND, THIRD, ANSWER, "Ann", "Cleo", *(person for _, person in people)]
    left = [one for one in await stored(store) if any(word in one for word in traces)]
    assert left == []


def person_of(turn: Stored) -> tuple[str, str]:
    return turn.name.split(":")[1], turn.value["asker"]
