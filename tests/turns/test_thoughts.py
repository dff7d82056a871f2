"""What a model has thought goes with its turn: saved beside it, and dropped with what it led to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

import pytest

from bot.domain import Delta, Message, Shown, Thought, Tool
from bot.ports import OnThought
from bot.store import Store
from bot.turns.queue import Taken, TurnQueue
from tests.support.at_work import all_ended, answer, make_worker, working
from tests.support.fakes import FakePlatform, FakeSurface
from tests.support.stored import stored
from tests.support.tools import CallingModel, FakeTool, call, toolbox
from tests.tools.test_calls import ask, decide, until_asked
from tests.turns.test_queue import finish, grown, make_queue, make_turn, press, take, taken_again

ID = "console:1"
HM = Thought("Hm, a walrus.", 3)
GROWN = grown("4", "m1")


async def thought(queue: TurnQueue) -> tuple[str, int]:
    """Return what is kept of the thoughts of the first turn, and what its screen tells of them."""
    (one,) = await queue.lookup.standings(ID, person_id="ann")
    return await queue.lookup.thoughts(ID), one.thought


async def thinking(queue: TurnQueue, shown: Shown = GROWN) -> Taken:
    await queue.admit(make_turn(1))
    taken = await take(queue)
    await queue.leases.save(taken, replace(shown, thought=HM))
    return taken


async def test_thoughts_stay_with_an_answer_until_it_is_written_anew(store: Store) -> None:
    queue = make_queue(store)
    taken = await thinking(queue)
    (saved,) = [one for one in await stored(store) if "walrus" in one]
    assert 0 < saved.expires_ms <= 60_000
    await queue.leases.save(taken, grown("42", "m1"))
    await finish(queue, taken, answer="42")

    assert await thought(queue) == ("Hm, a walrus.", 3)
    await press(queue, 1)
    assert await thought(queue) == ("", 0)


@pytest.mark.parametrize(("goes_on", "kept"), [("", ""), ("step", HM.text), ("end", HM.text)])
async def test_another_attempt_thinks_for_itself_unless_it_goes_on(
    store: Store, goes_on: str, kept: str
) -> None:
    queue = make_queue(store)
    shown = replace(grown("42", "m1"), outcome="done") if goes_on == "end" else GROWN
    taken = await thinking(queue, shown)
    if goes_on == "step":
        await queue.leases.save_step(taken, "round:0", "{}", effect="", counts=False)

    again = await taken_again(queue)

    assert again.thought.text == await queue.lookup.thoughts(ID) == kept


async def test_thoughts_of_an_edited_question_go(store: Store) -> None:
    queue = make_queue(store)
    taken = await thinking(queue)
    await queue.edit(replace(make_turn(1), text="Another question"), edited_at=2000.0)

    with pytest.raises(Exception, match=ID):
        await queue.leases.save(taken, replace(GROWN, thought=Thought("Late.", 4)))
    await queue.leases.release(taken, delay_seconds=0.0, counts=False)
    await take(queue)

    assert await thought(queue) == ("", 0)


@pytest.mark.parametrize("when", ["running", "answered"])
async def test_thoughts_go_with_a_question_that_is_deleted(store: Store, when: str) -> None:
    queue = make_queue(store)
    taken = await thinking(queue)
    if when == "answered":
        await finish(queue, taken)

    await queue.changes.forget(ID)
    if when == "running":
        await queue.leases.save(taken, replace(GROWN, thought=HM))
        await finish(queue, taken, outcome="stopped")

    assert not [one for one in await stored(store) if "walrus" in one]


async def test_without_a_history_thoughts_do_not_outlive_their_turn(store: Store) -> None:
    queue = make_queue(store, history=0)
    taken = await thinking(queue)
    assert await queue.lookup.thoughts(ID)

    await finish(queue, taken)

    assert await thought(queue) == ("", 0)


async def test_thoughts_end_with_their_record_and_count_as_their_persons(store: Store) -> None:
    queue = make_queue(store, person_bytes=100_000)
    for number in range(1, 5):
        await queue.admit(make_turn(number))
        taken = await take(queue)
        long = Thought("walrus" * 10_000, 3)
        await queue.leases.save(taken, replace(GROWN, thought=long))
        await finish(queue, taken)

    kept = [one for one in await stored(store) if "walrus" in one]
    assert [one.name for one in kept] == ["thoughts:console:3", "thoughts:console:4"]
    assert all(0 < one.expires_ms <= 60_000 for one in kept)


async def test_a_turn_that_goes_on_after_a_consent_keeps_what_was_thought_before(
    store: Store,
) -> None:
    model, tool = Pensive([[call()], ["It is done."]]), FakeTool()
    platform = FakePlatform(FakeSurface(shows_thoughts=True))
    async with working(make_worker(store, platform, model, tools=toolbox(tool))):
        await ask(store)
        await decide(store, "allow", call_id=await until_asked(store))
        await all_ended(store)

    read = await make_queue(store).lookup.thoughts(ID)
    assert read == "Round 0. Yes.\n\nRound 1. Yes."


@dataclass
class Pensive(CallingModel):
    """Thinks in each round; each request fails once before, after a thought."""

    async def stream(
        self,
        prompt: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        on_thought: OnThought | None = None,
    ) -> AsyncGenerator[Delta]:
        assert on_thought
        number = sum(bool(one.calls) for one in prompt)
        for piece in (None, "Never.", None, f"Round {number}. ", "Yes."):
            on_thought(piece)
        async for delta in super().stream(prompt, tools=tools):
            yield delta


@pytest.mark.parametrize("shows", [True, False])
async def test_each_round_of_calls_thinks_again_and_nothing_is_kept_that_nobody_can_read(
    store: Store, shows: bool
) -> None:
    model = Pensive([[call()], ["It is done."]])
    platform = FakePlatform(FakeSurface(shows_thoughts=shows))
    await answer(store, platform, model, make_turn(1), tools=toolbox(FakeTool("reads")))

    read = await make_queue(store).lookup.thoughts(ID)
    assert read == ("Round 0. Yes.\n\nRound 1. Yes." if shows else "")
    assert not any("Round" in one.text for prompt in model.prompts for one in prompt)
