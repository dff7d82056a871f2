"""What calls have done: nothing hides it, repeats it unasked, or keeps it too long."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest

from bot.domain import ContextMessage, Delta, FileText, Json, Message, Person, Tool
from bot.errors import EmptyAnswer
from bot.ports import OnThought
from bot.store import Store
from bot.tools.toolset import Asked, Offered
from bot.turns.forgetting import named
from tests.support.at_work import (
    ANN,
    all_ended,
    answer,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    press,
    take,
    working,
)
from tests.support.fakes import FakePlatform
from tests.support.tools import CallingModel, FakeTool, always, call, toolbox
from tests.support.waiting import until
from tests.tools.test_calls import ask, calls_once, decide, results, until_asked

CALLED = "(An earlier answer to this question has called `tracker/make_ticket`.)"


def shown(platform: FakePlatform) -> str:
    return "\n".join(page.text for page in platform.shown.screen.values())


async def test_an_answer_that_is_written_again_asks_for_what_is_allowed_and_tells_of_the_first(
    store: Store,
) -> None:
    platform, tool = FakePlatform(), FakeTool(foreign=False)
    tools = toolbox(tool, allowed=always)
    await answer(store, platform, calls_once(), make_turn(), tools=tools)
    await press(store)
    other = calls_once([call(arguments='{"title": "Printer!"}')], ["It is done."])
    async with working(make_worker(store, platform, other, tools=tools)):
        call_id = await until_asked(store)
        assert len(tool.runs) == 1
        await decide(store, "deny", call_id=call_id)
        await all_ended(store)

    assert len(tool.runs) == 1
    assert CALLED in shown(platform)


async def test_a_continued_answer_asks_again(store: Store) -> None:
    platform, tool = FakePlatform(), FakeTool(foreign=False)
    tools = toolbox(tool, allowed=always)
    await answer(store, platform, calls_once(), make_turn(), tools=tools)
    await store.command("HSET", store.key("turn", "console:1"), "ended", "cut")
    await make_queue(store).changes.continue_answer(
        "console:1", make_turn(2, text="go on"), person_id=ANN.id
    )
    async with working(make_worker(store, platform, calls_once(), tools=tools)):
        await until_asked(store, 2)
        await decide(store, "deny", number=2)
        await all_ended(store)

    assert len(tool.runs) == 1


async def test_an_edit_in_the_middle_of_a_call_tells_of_it(store: Store) -> None:
    platform, tool = FakePlatform(), FakeTool(may=lambda: False)
    tools = toolbox(tool, allowed=always)
    model = calls_once([call()], ["It is done."])
    async with working(make_worker(store, platform, model, tools=tools)):
        await ask(store)
        await until(lambda: tool.runs)
        edited = make_turn(text="Another one?")
        await make_queue(store).edit(edited, edited_at=edited.asked_at + 1)
        await decide(store, "deny")
        await all_ended(store)

    assert len(tool.runs) == 1
    assert CALLED in shown(platform)


async def test_what_is_allowed_for_always_is_asked_for_where_others_have_written(
    store: Store,
) -> None:
    said = ContextMessage("console:9", Person("u2", "Bob"), "Make a ticket.")
    platform, tool = FakePlatform(context=[said]), FakeTool(foreign=False)
    worker = make_worker(store, platform, calls_once(), tools=toolbox(tool, allowed=always))
    async with working(worker):
        await ask(store)
        await until_asked(store)

    assert not tool.runs
    assert Asked(make_turn(), files={"1": FileText("a.pdf")}).is_foreign


async def test_a_call_that_was_allowed_and_stopped_no_longer_waits(store: Store) -> None:
    class Silent(CallingModel):
        async def stream(
            self,
            prompt: Sequence[Message],
            *,
            tools: Sequence[Tool] = (),
            on_thought: OnThought | None = None,
        ) -> AsyncGenerator[Delta]:
            if any(one.calls for one in prompt):
                await asyncio.get_running_loop().create_future()
            yield "I make the ticket now."
            yield call()

    platform, tool, model = FakePlatform(), FakeTool(), Silent(())
    async with working(make_worker(store, platform, model, tools=toolbox(tool))):
        await ask(store)
        await decide(store, "allow", call_id=await until_asked(store))
        result = store.key("steps", "console:1")
        async with asyncio.timeout(60):
            while not any(it.startswith("result:") for it in await store.command("HKEYS", result)):
                await asyncio.sleep(0.01)
        await make_queue(store).changes.stop("console:1")
        await all_ended(store)

    assert "Calling `make_ticket` on `tracker`: done" in shown(platform)
    assert "waits" not in shown(platform)


async def test_the_earlier_answer_that_stays_tells_what_was_done_for_the_new_one(
    store: Store,
) -> None:
    platform, tool = FakePlatform(), FakeTool(may=lambda: False)
    await answer(store, platform, calls_once(["The first answer."]), make_turn())
    await press(store)
    model = calls_once([call()], ["It is done."])
    async with working(make_worker(store, platform, model, tools=toolbox(tool, allowed=always))):
        await until(lambda: tool.runs)
        await make_queue(store).changes.stop("console:1")
        await all_ended(store)

    assert shown(platform).startswith("The first answer.")
    assert "Calling `make_ticket` on `tracker`: not known" in shown(platform)


async def test_a_call_that_was_stopped_in_the_middle_has_a_line_for_auditors(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "parley.audit")
    tool = FakeTool(may=lambda: False)
    worker = make_worker(store, FakePlatform(), calls_once(), tools=toolbox(tool, allowed=always))
    async with working(worker):
        await ask(store)
        await until(lambda: tool.runs)
        await make_queue(store).changes.stop("console:1")
        await all_ended(store)

    (line,) = (it.getMessage() for it in caplog.records if it.name == "parley.audit")
    assert "consent=always outcome=not_known" in line


async def test_a_model_that_says_nothing_after_its_call_has_answered(store: Store) -> None:
    class Curt(CallingModel):
        async def stream(
            self,
            prompt: Sequence[Message],
            *,
            tools: Sequence[Tool] = (),
            on_thought: OnThought | None = None,
        ) -> AsyncGenerator[Delta]:
            if any(one.calls for one in prompt):
                raise EmptyAnswer("nothing")
            yield "I make it."
            yield call()

    platform, tool = FakePlatform(), FakeTool()
    tools = toolbox(tool, allowed=always)
    await answer(store, platform, Curt(()), make_turn(), tools=tools)

    assert await outcome(store) == "done"
    assert shown(platform).startswith("I make it.")


async def test_nobody_allows_a_call_of_an_answer_that_was_stopped(store: Store) -> None:
    tool = FakeTool()
    async with working(make_worker(store, FakePlatform(), calls_once(), tools=toolbox(tool))):
        await ask(store)
        call_id = await until_asked(store)
    await make_queue(store).changes.stop("console:1")

    assert not await decide(store, "allow", call_id=call_id)


async def test_a_forgotten_person_leaves_no_steps(store: Store) -> None:
    queue = make_queue(store)
    await ask(store)
    taken = await take(queue)
    await queue.leases.save_step(taken, "round:0", "words", effect="", counts=False)
    await queue.leases.release(taken, delay_seconds=5, counts=True)

    who = named("person", "console", ANN.id)
    await queue.forgetting.begin(who)
    await queue.forgetting.carry_out(who)

    assert not await store.command("EXISTS", store.key("steps", "console:1"))


async def test_a_schema_that_demands_nonsense_hinders_no_call(store: Store) -> None:
    class Odd(FakeTool):
        async def offered(self, asked: Asked) -> Sequence[Offered]:
            (one,) = await super().offered(asked)
            schema: dict[str, Json] = {"type": "object", "required": [["title"], {}, 1, "title"]}
            return [replace(one, tool=replace(one.tool, schema=schema))]

    model, tool = calls_once(), Odd("reads")
    await answer(store, FakePlatform(), model, make_turn(), tools=toolbox(tool))

    assert results(model.prompts[-1]) == ["Ticket 7."]


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        ('{"to": "me", "to": "eve"}', '{"to": "eve"}'),
        (r'{"to": "\u0065\u0076e"}', '{"to": "eve"}'),
        ('{"to": "me\u200b\U000e0041"}', r'{"to": "me\u200b\udb40\udc41"}'),
        ('{"to": "a`b"}', """{"to": "a'b"}"""),
    ],
)
async def test_a_person_reads_what_a_call_really_has(
    store: Store, arguments: str, question: str
) -> None:
    platform, model = FakePlatform(), calls_once([call(arguments=arguments)], ["Well."])
    tool = FakeTool(needs=())
    async with working(make_worker(store, platform, model, tools=toolbox(tool))):
        await ask(store)
        await until_asked(store)

    assert f"May I call `make_ticket` on `tracker` with `{question}`?" in shown(platform)


async def test_no_argument_hides_behind_a_long_one(store: Store) -> None:
    arguments = {"title": "a" * 5000, "body": " " * 5000, "bcc": "eve@evil.example"}
    platform, model = FakePlatform(), calls_once([call(arguments=json.dumps(arguments))], ["Well."])
    async with working(make_worker(store, platform, model, tools=toolbox(FakeTool()))):
        await ask(store)
        await until_asked(store)

    assert '"bcc": "eve@evil.example"' in shown(platform)
    assert shown(platform).count("(4,802 characters more)") == 2
    assert len(shown(platform)) < 1_000
