"""What a person allows for always, and how many calls they have in a day."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bot.access.preferences import PreferenceStore
from bot.access.quotas import Quota
from bot.domain import Person, Shown, ThreadKey
from bot.errors import QuotaUsed
from bot.store import Store
from bot.tools.toolbox import Toolbox
from bot.turns.allowed import AllowedTools
from bot.turns.forgetting import named
from tests.support.at_work import (
    ANN,
    BOB,
    KEY,
    LIMITS,
    all_ended,
    answer,
    make_queue,
    make_turn,
    make_worker,
    take,
    working,
)
from tests.support.fakes import FakePlatform
from tests.support.stored import stored
from tests.support.tools import FakeTool
from tests.tools.test_calls import ask, asked_for, calls_once, decide, until_asked

NAME = "tracker/make_ticket"


def tools_of(store: Store, tool: FakeTool) -> Toolbox:
    return Toolbox((tool,), AllowedTools(store).is_allowed, 60.0)


async def allow_always(store: Store, *, person: str = "u1", is_admin: bool = False) -> None:
    """Let Ann ask for a ticket, and a person allow the tool for always."""
    worker = make_worker(
        store, FakePlatform(), calls_once(), tools=tools_of(store, FakeTool(foreign=False))
    )
    async with working(worker):
        await ask(store)
        assert await decide(store, "always", person=person, is_admin=is_admin)
        await all_ended(store)


async def asks_again(store: Store, tool: FakeTool, *, person: Person = ANN) -> bool:
    """Return whether a further question has to ask before it calls a tool."""
    turn = make_turn(2, thread="t2", person=person)
    async with working(
        make_worker(store, FakePlatform(), calls_once(), tools=tools_of(store, tool))
    ):
        await make_queue(store).admit(turn)
        async with asyncio.timeout(60):
            while not (tool.runs or await asked_for(store, 2)):
                await asyncio.sleep(0.01)
        if asks := not tool.runs:
            await decide(store, "deny", number=2, person=person.id)
        await all_ended(store)
    return asks


async def forget(store: Store, who: str) -> None:
    forgetting = make_queue(store).forgetting
    await forgetting.begin(who)
    await forgetting.carry_out(who)


async def names_of(store: Store, person: Person = ANN) -> list[str]:
    return await AllowedTools(store).names("console", person)


async def test_what_is_allowed_for_always_is_called_at_once_from_then_on(store: Store) -> None:
    await allow_always(store)

    assert await names_of(store) == [NAME]
    assert not await asks_again(store, FakeTool())


@pytest.mark.parametrize(
    "tool",
    [
        FakeTool(description="Makes a ticket, and sends it to everybody."),
        FakeTool(kind="keyed"),
        FakeTool(server="other"),
        FakeTool(name="make_tickets"),
    ],
)
async def test_another_description_kind_server_or_name_is_asked_for(
    store: Store, tool: FakeTool
) -> None:
    await allow_always(store)

    key = store.key("allowed", "console:::u1")
    assert await store.command("HGET", key, NAME)
    offered = (await tool.offered(None))[0]  # type: ignore[arg-type]
    assert not await AllowedTools(store).is_allowed(make_turn(), offered)


async def test_another_person_is_asked(store: Store) -> None:
    await allow_always(store)

    assert await asks_again(store, FakeTool(), person=BOB)


async def test_an_admin_allows_one_call_of_another_and_nothing_for_always(store: Store) -> None:
    await allow_always(store, person="u2", is_admin=True)

    assert await names_of(store) == await names_of(store, BOB) == []
    assert await asks_again(store, FakeTool())


async def test_what_is_taken_back_is_asked_for_again(store: Store) -> None:
    await allow_always(store)
    allowed = AllowedTools(store)

    assert not await allowed.revoke("console", ANN, "tracker")
    assert await allowed.revoke("console", ANN, NAME)

    assert await asks_again(store, FakeTool())


async def test_what_a_person_allowed_is_forgotten_with_them(store: Store) -> None:
    await allow_always(store)

    await forget(store, named("person", "console", ANN.id))

    assert await names_of(store) == []


async def test_what_people_of_a_workspace_allowed_is_forgotten_with_it(store: Store) -> None:
    allowed = AllowedTools(store)
    ann, bob = Person("u1", "Ann", "T1"), Person("u2", "Bob", "T2")
    for name in ("slack:T1::u1", "slack:T2::u2"):
        await store.command("HSET", store.key("allowed", name), NAME, "digest")

    await forget(store, named("server", "slack", "T1"))

    assert await allowed.names("slack", ann) == []
    assert await allowed.names("slack", bob) == [NAME]


async def test_who_is_being_forgotten_allows_nothing(store: Store) -> None:
    async with working(
        make_worker(store, FakePlatform(), calls_once(), tools=tools_of(store, FakeTool()))
    ):
        await ask(store)
        await until_asked(store)
        job = named("person", "console", ANN.id)
        await store.command("ZADD", store.key("forgetting"), 1e15, job)

        await decide(store, "always")
        await all_ended(store)

    assert await names_of(store) == []


async def test_calls_of_a_day_are_counted_and_refused_beyond_the_limit(store: Store) -> None:
    queue = make_queue(store, limits=replace(LIMITS, calls_per_day=2))
    await queue.admit(make_turn())
    taken = await take(queue)

    async def begin(name: str) -> None:
        await queue.leases.save_step(taken, name, "reads", effect="", counts=True)

    for name in ("begun:a", "begun:a", "begun:b"):  # a command may be sent again
        await begin(name)
    await queue.leases.save_step(taken, "result:a", "{}", effect="", counts=False)
    with pytest.raises(QuotaUsed) as refused:
        await begin("begun:c")

    usage = await queue.usage(KEY, ANN, Quota())
    assert (usage.calls, usage.calls_per_day) == (2, 2)
    assert refused.value.kind == "tools"
    assert refused.value.apology.startswith("You have used all your calls of tools for today.")
    assert 0 < refused.value.renews_in <= 24 * 3600
    assert not await store.command("HEXISTS", store.key("steps", "console:1"), "begun:c")


async def test_a_call_beyond_the_limit_is_not_made_and_the_model_reads_why(store: Store) -> None:
    tool, model = FakeTool("reads"), calls_once()
    leases = make_queue(store, limits=replace(LIMITS, calls_per_day=0)).leases

    tools = tools_of(store, tool)
    await answer(store, FakePlatform(), model, make_turn(), tools=tools, leases=leases)

    assert not tool.runs
    assert "no calls of tools left today" in model.prompts[-1][-1].text


async def test_who_is_forgotten_has_no_new_calls_today(store: Store) -> None:
    queue = make_queue(store, limits=replace(LIMITS, calls_per_day=5))
    await queue.admit(make_turn())
    taken = await take(queue)
    await queue.leases.save_step(taken, "begun:a", "reads", effect="", counts=True)
    await queue.leases.finish(taken, Shown(outcome="done"), None)

    await forget(store, named("person", "console", ANN.id))

    assert (await queue.usage(KEY, ANN, Quota())).calls == 1
    assert not [one.name for one in await stored(store) if "u1" in one]


async def test_tools_that_are_off_for_a_channel_are_off_in_its_threads(store: Store) -> None:
    tool, model = FakeTool("reads"), calls_once(["Hello."])
    preferences = PreferenceStore(store=store)
    await preferences.change(KEY, "channel", {"tools": "off"}, by="u1")

    await answer(store, FakePlatform(), model, make_turn(), tools=tools_of(store, tool))
    elsewhere = make_turn(2, key=ThreadKey("console", "local", "other", "t1"))
    await answer(store, FakePlatform(), model, elsewhere, tools=tools_of(store, tool))

    assert model.offered == [[], ["make_ticket"]]
