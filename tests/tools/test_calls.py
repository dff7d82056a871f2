"""Calls of tools are asked for first, made once, and survive their worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from bot.domain import Consent, Delta, Message, ToolCall, ToolKind
from bot.errors import NotTheAsker
from bot.store import Store
from bot.tools.loop import MOST_ROUNDS, ToolLoop
from bot.tools.memory import MemoryJournal
from bot.tools.steps import Steps
from bot.tools.toolset import Asked, Offered, ToolBroken, ToolFailed
from tests.support.at_work import (
    KEY,
    all_ended,
    answer,
    expire_all,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    press,
    remembered,
    take,
    working,
)
from tests.support.fakes import FakePlatform
from tests.support.tools import CallingModel, FakeTool, always, call, toolbox
from tests.support.waiting import until

ANSWERS: Sequence[Sequence[Delta]] = (["Let me see.", call()], ["It is done."])


def calls_once(*rounds: Sequence[Delta]) -> CallingModel:
    return CallingModel(rounds or ANSWERS)


async def ask(store: Store, number: int = 1) -> None:
    await make_queue(store).admit(make_turn(number))


async def asked_for(store: Store, number: int = 1) -> str:
    """Return the call for which a turn waits; empty if it does not."""
    name = store.key("turn", f"console:{number}")
    state, asks = await store.command("HMGET", name, "state", "asks")
    return asks.partition(" ")[0] if state == "queued" and asks else ""


async def until_asked(store: Store, number: int = 1) -> str:
    async with asyncio.timeout(60):
        while not (found := await asked_for(store, number)):
            await asyncio.sleep(0.01)
    return found


async def decide(
    store: Store,
    consent: Consent,
    *,
    number: int = 1,
    person: str = "u1",
    is_admin: bool = False,
    call_id: str = "",
) -> bool:
    call_id = call_id or await until_asked(store, number)
    changes = make_queue(store).changes
    return await changes.decide(
        f"console:{number}", call_id, consent, person_id=person, is_admin=is_admin
    )


def results(prompt: Sequence[Message]) -> list[str]:
    return [one.text for one in prompt if one.role == "tool"]


async def test_a_call_with_effects_is_made_after_a_person_has_allowed_it(store: Store) -> None:
    platform, model, tool = FakePlatform(), calls_once(), FakeTool()
    async with working(make_worker(store, platform, model, tools=toolbox(tool))):
        await ask(store)
        call_id = await until_asked(store)
        (page,) = platform.shown.screen.values()
        assert page.consent == call_id
        assert page.text == (
            'Let me see.\n\nMay I call `make_ticket` on `tracker` with `{"title": "Printer"}`?'
        )
        assert not tool.runs

        assert await decide(store, "allow")
        await all_ended(store)

    assert [arguments for arguments, _ in tool.runs] == [{"title": "Printer"}]
    assert await remembered(store) == [("question 1", "Let me see.\n\nIt is done.")]
    (page,) = platform.shown.screen.values()
    assert page.text == (
        "Let me see.\n\nIt is done.\n\n(Steps: Calling `make_ticket` on `tracker`: done.)"
    )
    assert len(model.prompts) == 2  # the first round was not asked for again
    assert results(model.prompts[1]) == ["Ticket 7."]


@pytest.mark.parametrize(("consent", "said"), [("deny", "denied"), ("", "not allowed in time")])
async def test_a_call_that_is_denied_or_not_answered_is_not_made(
    store: Store, consent: Consent, said: str
) -> None:
    platform, model, tool = FakePlatform(), calls_once(), FakeTool()
    tools = toolbox(tool, seconds=60.0 if consent else 0.3)
    async with working(make_worker(store, platform, model, tools=tools)):
        await ask(store)
        if consent:
            await decide(store, consent)
        await all_ended(store)

    assert not tool.runs
    assert await outcome(store) == "done"
    (page,) = platform.shown.screen.values()
    assert page.text.endswith(f"(Steps: Calling `make_ticket` on `tracker`: {said}.)")


async def test_only_the_asker_or_an_admin_answers_and_only_once(store: Store) -> None:
    platform, model, tool = FakePlatform(), calls_once(), FakeTool()
    async with working(make_worker(store, platform, model, tools=toolbox(tool))):
        await ask(store)
        call_id = await until_asked(store)

        with pytest.raises(NotTheAsker):
            await decide(store, "allow", person="u2")
        assert not await decide(store, "allow", call_id="aaaaaaaaa")
        assert await decide(store, "deny", person="u2", is_admin=True)
        assert not await decide(store, "allow", call_id=call_id)
        await all_ended(store)

    assert not await decide(store, "allow", call_id=call_id)
    assert not tool.runs


async def test_a_turn_that_waits_holds_no_worker(store: Store) -> None:
    platform, model, tool = FakePlatform(), calls_once(), FakeTool()
    worker = make_worker(store, platform, model, tools=toolbox(tool), capacity=1)
    async with working(worker):
        await ask(store)
        await until_asked(store)
        await make_queue(store).admit(make_turn(2, thread="t2"))

        assert await until_asked(store, 2)
        for number in (1, 2):
            await decide(store, "deny", number=number)
        await all_ended(store)


async def test_what_a_person_has_answered_counts_for_the_next_worker(store: Store) -> None:
    platform, model, tool = FakePlatform(), calls_once(), FakeTool()
    async with working(make_worker(store, platform, model, tools=toolbox(tool))):
        await ask(store)
        call_id = await until_asked(store)
    await decide(store, "allow", call_id=call_id)

    async with working(make_worker(store, platform, model, tools=toolbox(tool))):
        await all_ended(store)

    assert len(tool.runs) == 1
    assert await remembered(store) == [("question 1", "Let me see.\n\nIt is done.")]


async def test_a_turn_that_waits_eight_times_does_not_use_up_its_attempts(store: Store) -> None:
    tool = FakeTool()
    calls = [[call(arguments=f'{{"title": "{at}"}}')] for at in range(MOST_ROUNDS)]
    tools, platform, model = toolbox(tool), FakePlatform(), calls_once(*calls, ["Done."])
    await ask(store)
    for _ in calls:
        async with working(make_worker(store, platform, model, tools=tools)):
            call_id = await until_asked(store)
        await decide(store, "allow", call_id=call_id)
        # Others take the turn, and die.
        for _ in range(3):
            await take(make_queue(store, "w2"))
            await expire_all(store)

    async with working(make_worker(store, platform, model, tools=tools)):
        await all_ended(store)

    assert await outcome(store) == "done"
    assert len(tool.runs) == MOST_ROUNDS


@pytest.mark.parametrize(("kind", "runs"), [("effects", 1), ("keyed", 2), ("reads", 2)])
async def test_a_call_without_a_result_is_repeated_only_if_its_kind_allows_that(
    store: Store, kind: Any, runs: int
) -> None:
    platform, model = FakePlatform(), calls_once()
    tool = FakeTool(kind, may=lambda: False)
    await ask(store)
    worker = make_worker(store, platform, model, tools=toolbox(tool, allowed=always), drain=0.0)
    async with working(worker):
        await until(lambda: tool.runs)
    tool.may = lambda: True
    await expire_all(store)

    async with working(make_worker(store, platform, model, tools=toolbox(tool, allowed=always))):
        await all_ended(store)

    assert len(tool.runs) == runs
    assert len({key for _, key in tool.runs}) == 1
    (page,) = platform.shown.screen.values()
    assert ("not known" in page.text) == (kind == "effects")
    assert ("Nobody knows" in results(model.prompts[-1])[0]) == (kind == "effects")


async def until_posted(store: Store) -> None:
    async with asyncio.timeout(60):
        while not await store.command("HGET", store.key("turn", "console:1"), "message_ids"):
            await asyncio.sleep(0.01)


async def killed_while_calling(store: Store, tool: FakeTool, **tools: Any) -> FakePlatform:
    """Let a worker die in the middle of a call; return what it showed."""
    platform, tool.may = FakePlatform(), lambda: False
    await ask(store)
    box = toolbox(tool, allowed=always)
    model = calls_once([call()], ["It is done."])  # nothing is shown before
    async with working(make_worker(store, platform, model, tools=box, drain=0.0)):
        await until(lambda: tool.runs)
        await until_posted(store)
    tool.may = lambda: True
    await expire_all(store)
    return platform


@pytest.mark.parametrize("kind", ["effects", "keyed"])
async def test_a_call_that_had_begun_is_unknown_where_its_tool_is_gone(
    store: Store, kind: Any
) -> None:
    model = calls_once()
    platform = await killed_while_calling(store, FakeTool(kind))

    async with working(make_worker(store, platform, model, tools=toolbox())):
        await all_ended(store)

    assert results(model.prompts[-1])[0].startswith("Nobody knows")
    (page,) = platform.shown.screen.values()
    assert page.text.endswith("(Steps: Calling `make_ticket`: not known.)")


@pytest.mark.parametrize("kind", ["effects", "keyed"])
async def test_a_call_that_may_be_done_is_not_repeated_as_one_that_reads(
    store: Store, kind: Any
) -> None:
    model, now = calls_once(), FakeTool("reads")
    platform = await killed_while_calling(store, FakeTool(kind))

    async with working(make_worker(store, platform, model, tools=toolbox(now))):
        await all_ended(store)

    assert not now.runs
    assert results(model.prompts[-1])[0].startswith("Nobody knows")


@dataclass
class FarTool(FakeTool):
    """A tool of a server that answers after two seconds, or at once if it `is_near`."""

    is_near: bool = True

    async def offered(self, asked: Asked) -> Sequence[Offered]:
        return await super().offered(asked) if self.is_near or asked.patience > 2 else ()


async def test_a_call_that_goes_on_waits_longer_for_its_server(store: Store) -> None:
    platform, model, tool = FakePlatform(), calls_once(), FarTool()
    async with working(make_worker(store, platform, model, tools=toolbox(tool))):
        await ask(store)
        await until_asked(store)
        tool.is_near = False
        await decide(store, "allow")
        await all_ended(store)

    assert len(tool.runs) == 1


async def test_a_stop_after_a_crash_tells_of_the_call_that_had_begun(store: Store) -> None:
    tool = FakeTool()
    platform = await killed_while_calling(store, tool)
    await make_queue(store).changes.stop("console:1")

    async with working(make_worker(store, platform, calls_once(), tools=toolbox(tool))):
        await all_ended(store)

    assert await outcome(store) == "stopped"
    (page,) = platform.shown.screen.values()
    assert page.text.endswith("(Stopped.)\n\nI do not know whether this was done: `make_ticket`.")


async def given_up(store: Store, tool: FakeTool) -> str:
    """Return what a reply says that is given up after its worker has died."""
    await store.command("HSET", store.key("turn", "console:1"), "attempts", 99)
    await expire_all(store)
    async with working(make_worker(store, FakePlatform(), calls_once(), tools=toolbox(tool))):
        await all_ended(store)
    result = await make_queue(store).lookup.result("console:1")
    assert result
    return result.text


@pytest.mark.parametrize(("kind", "is_named"), [("effects", 1), ("keyed", 1), ("reads", 0)])
async def test_a_call_in_a_reply_that_is_given_up_is_named_if_it_may_have_been_done(
    store: Store, kind: Any, is_named: int
) -> None:
    tool = FakeTool(kind)
    await killed_while_calling(store, tool)

    text = await given_up(store, tool)

    assert text.count("I do not know whether this was done: `make_ticket`.") == is_named


async def test_an_unknown_call_is_named_though_the_model_was_to_say_it(store: Store) -> None:
    tool, model = FakeTool(error=ToolBroken("reset")), calls_once([call()], [*map(str, range(9))])
    model.may = lambda: len(model.prompts) < 2
    await ask(store)
    worker = make_worker(
        store, FakePlatform(), model, tools=toolbox(tool, allowed=always), drain=0.0
    )
    async with working(worker):
        await until(lambda: len(model.prompts) == 2)
        await until_posted(store)

    text = await given_up(store, tool)

    assert "I do not know whether this was done: `make_ticket`." in text


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ToolFailed("The queue is full."), "effects", "The queue is full."),
        (ToolBroken("reset"), "effects", "Nobody knows"),
        (ToolBroken("The answer is too long."), "reads", "The answer is too long."),
        (TimeoutError(), "reads", "The tool did not answer."),
        (RuntimeError("secret"), "effects", "Nobody knows"),
        (RuntimeError("secret"), "reads", "The tool failed."),
    ],
)
async def test_the_model_reads_why_a_call_has_no_result(
    store: Store, error: Exception, kind: Any, said: str
) -> None:
    model, tool = calls_once(), FakeTool(kind, error=error)

    tools = toolbox(tool, allowed=always)
    await answer(store, FakePlatform(), model, make_turn(), tools=tools)

    assert results(model.prompts[-1])[0].startswith(said)
    is_broken = isinstance(error, ToolBroken) and kind == "reads"
    assert len(tool.runs) == (2 if is_broken else 1)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (call("unknown"), "There is no such tool."),
        (call(arguments="{"), "The arguments are no JSON."),
        (call(arguments="[]"), "The arguments must be a JSON object."),
        (call(arguments="{}"), "These arguments are missing: title."),
        (call(arguments='{"title": "' + "x" * 30_000 + '"}'), "These arguments are too long."),
    ],
)
async def test_a_call_that_cannot_be_made_asks_nobody(
    store: Store, made: ToolCall, said: str
) -> None:
    model, tool = calls_once([made], ["Sorry."]), FakeTool()

    await answer(store, FakePlatform(), model, make_turn(), tools=toolbox(tool))

    assert results(model.prompts[-1]) == [said]
    assert not tool.runs


async def test_a_tool_that_is_allowed_for_always_is_called_at_once(store: Store) -> None:
    tool = FakeTool()

    tools = toolbox(tool, allowed=always)
    await answer(store, FakePlatform(), calls_once(), make_turn(), tools=tools)

    assert len(tool.runs) == 1


@pytest.mark.parametrize(
    "rounds",
    [
        ([call("look", '{"title": ""}')], [call()], ["Done."]),  # a stranger's text came in
        ([call(), call()], ["Done."]),  # the same call twice
    ],
)
async def test_foreign_text_and_repeated_calls_are_asked_for_in_spite_of_always(
    store: Store, rounds: Sequence[Any]
) -> None:
    platform, model = FakePlatform(), calls_once(*rounds)
    tool, look = FakeTool(foreign=False), FakeTool("reads", name="look", server="")
    before = 0 if rounds[0][0].name == "look" else 1
    tools = toolbox(tool, look, allowed=always)
    async with working(make_worker(store, platform, model, tools=tools)):
        await ask(store)
        await until_asked(store)
        assert len(tool.runs) == before
        await decide(store, "allow")
        await all_ended(store)

    assert len(tool.runs) == before + 1


async def test_an_answer_that_is_asked_for_again_asks_again_for_its_effects(store: Store) -> None:
    platform, model, tool = FakePlatform(), calls_once(), FakeTool()
    tools = toolbox(tool, allowed=always)
    await answer(store, platform, model, make_turn(), tools=tools)
    await press(store)

    async with working(make_worker(store, platform, model, tools=tools)):
        await decide(store, "deny")
        await all_ended(store)

    assert len(tool.runs) == 1


async def test_a_stop_ends_a_turn_that_waits(store: Store) -> None:
    platform, model, tool = FakePlatform(), calls_once(), FakeTool()
    async with working(make_worker(store, platform, model, tools=toolbox(tool))):
        await ask(store)
        await until_asked(store)
        await make_queue(store).changes.stop("console:1")
        await all_ended(store)

    assert await outcome(store) == "stopped"
    assert not tool.runs


async def test_an_edit_of_a_question_that_waits_begins_anew(store: Store) -> None:
    platform, model, tool = FakePlatform(), calls_once(), FakeTool()
    async with working(make_worker(store, platform, model, tools=toolbox(tool))):
        await ask(store)
        first = await until_asked(store)
        turn = make_turn(text="Another one?")
        await make_queue(store).edit(turn, edited_at=turn.asked_at + 1)
        await until(lambda: len(model.prompts) == 2)
        await until_asked(store)

        assert model.prompts[1][-1].text.startswith("Another one?")
        assert not results(model.prompts[1])
        assert await decide(store, "deny")
        await all_ended(store)
    assert first


async def test_a_model_that_only_calls_has_eight_rounds(store: Store) -> None:
    tool = FakeTool("reads")
    model = calls_once(*[[call()]] * 20)

    await answer(store, FakePlatform(), model, make_turn(), tools=toolbox(tool))

    assert len(tool.runs) == MOST_ROUNDS
    assert model.offered == [["make_ticket"]] * MOST_ROUNDS + [[]]


async def test_nothing_is_kept_of_the_steps_but_digests_of_effects(store: Store) -> None:
    tools = toolbox(FakeTool(), allowed=always)
    await answer(store, FakePlatform(), calls_once(), make_turn(), tools=tools)

    assert not await store.command("EXISTS", store.key("steps", "console:1"))
    effects = store.key("effects", "console:1")
    assert await store.command("SCARD", effects) == 1
    await make_queue(store).changes.reset(KEY)
    assert not await store.command("EXISTS", effects)


@pytest.mark.parametrize(("kind", "runs"), [("reads", 2), ("keyed", 2), ("effects", 1)])
async def test_a_broken_connection_is_tried_once_more_if_the_kind_allows_it(
    store: Store, kind: ToolKind, runs: int
) -> None:
    tool = FakeTool(kind, error=ToolBroken("reset"))

    await answer(
        store, FakePlatform(), calls_once(), make_turn(), tools=toolbox(tool, allowed=always)
    )

    assert len(tool.runs) == runs
    assert len({key for _, key in tool.runs}) == 1


async def test_no_call_begins_when_the_time_of_the_reply_is_over() -> None:
    clock = asyncio.get_running_loop().time
    ends = clock() + 0.1
    tool, model = FakeTool(may=lambda: clock() > ends), calls_once([call(), call()], ["Well."])
    loop = ToolLoop(
        model=model,
        steps=Steps(MemoryJournal("allow"), turn_id="console:1"),
        offered=await tool.offered(Asked(make_turn())),
        turn=make_turn(),
        is_always_allowed=always,
        consent_seconds=-1.0,
        reply_seconds=0.1,
    )

    async for _ in loop.stream([Message("user", "Make two.")]):
        pass

    assert len(tool.runs) == 1
    assert results(model.prompts[-1]) == ["Ticket 7.", "There is no time left for this call."]
