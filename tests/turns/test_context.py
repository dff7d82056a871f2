"""What others said is read once, shown again after a crash, and forgotten with its exchange."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bot.concurrency import cancelled
from bot.domain import BeginningLeftOut, ContextMessage, Message, Person, Shown, Turn
from bot.errors import LeaseLost, ModelUnavailable, PlaceGone, WriteDelayed
from bot.intake.addressed import Facts
from bot.intake.intake import Intake
from bot.ports import PartlyRead
from bot.reply.draft import BEGINNING_LEFT_OUT, CONTEXT_UNREAD
from bot.store import Store
from bot.turns.records import History
from tests.support.at_work import (
    ANN,
    BOB,
    KEEP,
    KEY,
    all_ended,
    answer,
    expire_all,
    make_queue,
    make_turn,
    make_worker,
    press,
    take,
    working,
)
from tests.support.fakes import FakeModel, FakePlatform, is_for_bot
from tests.support.tools import FakeTool, toolbox
from tests.support.waiting import until

EVE = Person("u3", "Eve")


def said(number: int, person: Person | None, text: str) -> ContextMessage:
    return ContextMessage(f"console:{number}", person, text)


HEARD = (said(100, BOB, "Let us deploy."), said(101, None, "Fine."))
NEVER = [lambda: False]
SHOWN = ("Bob: Let us deploy.", "You: Fine.")


def intake_of(store: Store) -> Intake:
    history = History(store=store, keep_seconds=KEEP)
    return Intake(queue=make_queue(store), history=history)


async def answered(
    store: Store, platform: FakePlatform, *turns: Turn, model: FakeModel | None = None
) -> list[Message]:
    """Answer turns one after the other; return the last prompt."""
    model = model or FakeModel()
    async with working(make_worker(store, platform, model)):
        for turn in turns:
            await intake_of(store).ask(turn)
            await all_ended(store)
    return model.prompts[-1]


async def test_in_a_thread_that_is_not_known_earlier_messages_are_read_once(store: Store) -> None:
    platform = FakePlatform(context=HEARD)

    prompt = await answered(store, platform, make_turn(1))

    assert prompt[-1] == Message("user", "Ann: question 1", SHOWN)
    assert platform.read_since == [""]


async def test_tools_know_what_was_read(store: Store) -> None:
    tool = FakeTool()
    worker = make_worker(store, FakePlatform(context=HEARD), FakeModel(), tools=toolbox(tool))
    async with working(worker):
        await intake_of(store).ask(make_turn(1))
        await all_ended(store)

    assert tool.asked[0].turn.context == HEARD


async def test_what_the_adapter_has_read_is_shown_and_nothing_else_is_read(store: Store) -> None:
    platform = FakePlatform(context=[said(99, EVE, "Something else.")])
    turn = replace(make_turn(1), quote=HEARD[0], context=(HEARD[1], said(102, EVE, "Monday?")))

    prompt = await answered(store, platform, turn)

    shown = ("You: Fine.", "Eve: Monday?", "In reply to Bob: Let us deploy.")
    assert prompt[-1] == Message("user", "Ann: question 1", shown)
    assert platform.read_since == []


async def test_a_context_is_shown_again_with_its_exchange_and_not_read_again(store: Store) -> None:
    platform = FakePlatform(context=HEARD)
    await answered(store, platform, make_turn(1))
    platform.context = ()

    prompt = await answered(store, platform, make_turn(2))

    assert prompt[1] == Message("user", "Ann: question 1", SHOWN)
    assert prompt[-1] == Message("user", "Ann: question 2")


async def test_with_several_people_what_they_said_since_the_last_answer_is_read(
    store: Store,
) -> None:
    platform = FakePlatform()
    await answered(store, platform, make_turn(1), make_turn(2, person=BOB))
    platform.context = said(102, None, "Hello world"), said(103, EVE, "I disagree.")

    prompt = await answered(store, platform, make_turn(3))

    assert prompt[-1].context == ("Eve: I disagree.",)
    assert platform.read_since == ["", "console:1", "console:2"]


async def test_people_who_speak_without_asking_are_read_too(store: Store) -> None:
    platform = FakePlatform()
    await answered(store, platform, make_turn(1))
    bobs = Facts(calls_other=True)
    assert not await is_for_bot(intake_of(store), bobs, KEY, BOB)
    platform.context = (said(102, BOB, "Not on Friday!"),)

    prompt = await answered(store, platform, make_turn(3))

    assert prompt[-1].context == ("Bob: Not on Friday!",)


async def test_a_question_of_the_thread_is_no_context(store: Store) -> None:
    platform = FakePlatform()
    await answered(store, platform, make_turn(1), make_turn(2, person=BOB))
    platform.context = said(1, ANN, "question 1"), said(4, BOB, "question 4"), said(5, EVE, "No.")
    model = FakeModel(NEVER)

    await intake_of(store).ask(make_turn(3))
    # It waits behind the one that runs, and is not part of its talk yet.
    await intake_of(store).ask(make_turn(4, person=BOB))
    async with working(make_worker(store, platform, model)):
        await until(lambda: model.prompts)
        await make_queue(store).changes.forget("console:4")
        await make_queue(store).changes.stop("console:3")
        await all_ended(store)

    assert model.prompts[0][-1].context == ("Eve: No.",)


@pytest.mark.parametrize("failed", [False, True])
async def test_a_question_that_was_answered_with_another_is_no_context(
    failed: bool, store: Store
) -> None:
    platform, model = FakePlatform(), FakeModel()
    await answered(store, platform, make_turn(1, person=BOB))
    for number in (2, 3):
        await intake_of(store).ask(replace(make_turn(number), joins=True))
    model.error = ModelUnavailable("down") if failed else None
    model.deltas = [] if failed else ["Hi"]
    await answer(store, platform, model)
    platform.context = said(3, ANN, "question 3"), said(9, EVE, "No.")

    prompt = await answered(store, platform, make_turn(4, person=BOB))

    # What no exchange has is shown.
    shown = ("Ann: question 3", "Eve: No.") if failed else ("Eve: No.",)
    assert prompt[-1].context == shown


async def test_a_turn_that_is_tried_again_after_a_crash_shows_the_same(store: Store) -> None:
    platform, dying = FakePlatform(context=HEARD), FakeModel(NEVER)
    crashed = asyncio.create_task(
        make_worker(store, platform, dying, name="dying").run(asyncio.Event())
    )
    await intake_of(store).ask(make_turn(1))
    await until(lambda: dying.prompts)
    await cancelled(crashed)
    platform.context = [said(102, EVE, "Too late.")]
    await expire_all(store)
    model = FakeModel()

    await answer(store, platform, model)

    assert model.prompts[0] == dying.prompts[0]
    assert model.prompts[0][-1].context == SHOWN
    assert platform.read_since == [""]


async def test_an_answer_is_written_anew_with_the_same_context(store: Store) -> None:
    platform, model = FakePlatform(context=HEARD), FakeModel()
    turn = replace(make_turn(1), quote=said(99, EVE, "When?"))
    await answered(store, platform, turn, model=model)
    platform.context = ()

    async with working(make_worker(store, platform, model)):
        for press_id in ("p1", "p2"):
            await press(store, press_id=press_id)
            await all_ended(store)

    assert model.prompts[0][-1].context == (*SHOWN, "In reply to Eve: When?")
    assert model.prompts[0] == model.prompts[1] == model.prompts[2]
    assert platform.read_since == [""]


@pytest.mark.parametrize(
    ("error", "context"),
    [
        (WriteDelayed("Slack answered ratelimited", retry_after=60.0), ()),
        (PlaceGone("no scope"), ()),
        (PartlyRead([said(100, EVE, "When?")]), ("Eve: When?",)),
    ],
)
async def test_what_cannot_be_read_is_left_out_with_a_line_below(
    store: Store, error: Exception, context: tuple[str, ...]
) -> None:
    platform, model = FakePlatform(unreadable=error), FakeModel()

    await answered(store, platform, make_turn(1), make_turn(2), model=model)

    assert [prompt[1].context for prompt in model.prompts] == [context] * 2
    noted = [CONTEXT_UNREAD in page.text for page in platform.shown.screen.values()]
    assert noted == [True, False]
    assert platform.read_since == [""]


async def test_a_quote_is_shown_without_a_request(store: Store) -> None:
    platform = FakePlatform()
    await answered(store, platform, make_turn(1))
    turn = replace(make_turn(2), quote=said(100, EVE, "When?"))

    prompt = await answered(store, platform, turn)

    assert prompt[-1] == Message("user", "Ann: question 2", ("In reply to Eve: When?",))
    assert platform.read_since == [""]


async def test_a_quote_of_which_only_the_id_is_known_is_read_once(store: Store) -> None:
    platform = FakePlatform()
    await answered(store, platform, make_turn(1))
    platform.context = [replace(said(100, EVE, "When?"), in_thread=True)]
    turn = replace(make_turn(2), quote=said(100, None, ""))

    prompt = await answered(store, platform, turn)
    later = await answered(store, platform, replace(make_turn(3), quote=said(100, None, "")))

    assert prompt[-1] == Message("user", "Ann: question 2", ("In reply to Eve: When?",))
    assert later[-1] == Message("user", "Ann: question 3")
    assert platform.read_since == ["", "console:1", "console:2"]


async def test_a_quote_that_the_history_shows_is_not_read(store: Store) -> None:
    platform = FakePlatform()
    await answered(store, platform, make_turn(1))

    prompt = await answered(store, platform, replace(make_turn(2), quote=said(1, None, "")))

    assert prompt[-1] == Message("user", "question 2")
    assert platform.read_since == [""]


async def test_a_question_below_one_that_is_answered_with_it_does_not_quote_it(
    store: Store,
) -> None:
    platform, model = FakePlatform(context=[said(1, ANN, "question 1")]), FakeModel()
    # Events of one moment may come in any order.
    below = replace(make_turn(2), asked_at=2.0, quote=said(1, None, ""))
    for turn in (below, replace(make_turn(1), asked_at=1.0)):
        await intake_of(store).ask(replace(turn, joins=True))

    await answer(store, platform, model)

    (prompt,) = model.prompts
    assert prompt[-1] == Message("user", "question 1\n\nquestion 2")


async def test_a_context_is_forgotten_with_its_exchange_and_not_read_again(store: Store) -> None:
    platform = FakePlatform(context=HEARD)
    turn = replace(make_turn(1), quote=said(99, EVE, "deploy when?"))
    await answered(store, platform, turn)

    await make_queue(store).changes.forget("console:1")
    prompt = await answered(store, platform, make_turn(2))

    assert prompt[-1] == Message("user", "question 2")
    assert await keys_with(store, "deploy") == []


async def test_a_thread_that_was_forgotten_is_not_read_again(store: Store) -> None:
    platform = FakePlatform(context=HEARD)
    await answered(store, platform, make_turn(1))

    await make_queue(store).changes.reset(KEY)
    prompt = await answered(store, platform, make_turn(2))

    assert prompt[-1] == Message("user", "question 2")


async def test_a_failed_turn_keeps_its_context_for_another_try_until_it_is_forgotten(
    store: Store,
) -> None:
    platform, failing = FakePlatform(context=HEARD), FakeModel([], error=ModelUnavailable("no"))
    await answered(store, platform, make_turn(1), model=failing)
    model = FakeModel()

    await press(store)
    await answer(store, platform, model)
    await make_queue(store).changes.forget("console:1")

    assert model.prompts[0] == failing.prompts[0]
    assert await keys_with(store, "deploy") == []


async def test_a_talk_whose_first_question_failed_is_not_read(store: Store) -> None:
    platform, failing = FakePlatform(), FakeModel([], error=ModelUnavailable("no"))
    await answered(store, platform, make_turn(1), model=failing)
    platform.context = said(1, ANN, "question 1"), said(100, None, "I cannot answer.")

    prompt = await answered(store, platform, make_turn(2))

    assert prompt[-1] == Message("user", "question 2")
    assert platform.read_since == [""]


async def test_after_a_failure_in_a_thread_of_others_it_is_read_again(store: Store) -> None:
    platform, failing = FakePlatform(context=HEARD), FakeModel([], error=ModelUnavailable("no"))
    await answered(store, platform, make_turn(1), model=failing)

    prompt = await answered(store, platform, make_turn(2))

    assert prompt[-1].context == SHOWN
    assert platform.read_since == ["", ""]


async def test_long_messages_are_kept_in_part_and_long_talks_by_their_end(store: Store) -> None:
    talk = [said(100 + n, BOB, f"{n} " + "x" * 3_990) for n in range(40)]
    platform = FakePlatform(context=[*talk, said(150, BOB, "start" + "x" * 9_000 + "end")])

    prompt = await answered(store, platform, make_turn(1))

    assert 59_000 < sum(map(len, prompt[-1].context)) < 64_500
    assert len(prompt[-1].context[-1]) <= 4_010
    assert prompt[-1].context[-1].endswith("xend")
    assert prompt[-1].context[-2].startswith("Bob: 39 ")


async def test_no_more_messages_are_kept_than_asked_for(store: Store) -> None:
    platform = FakePlatform(context=[said(100 + n, BOB, f"{n}") for n in range(80)])

    prompt = await answered(store, platform, make_turn(1))

    # 50, and the one with which a thread begins.
    assert prompt[-1].context == tuple(f"Bob: {n}" for n in range(29, 80))


async def keys_with(store: Store, text: str) -> list[str]:
    """Return the keys in which a text stands."""
    found = []
    for name in await store.command("KEYS", store.key("*")):
        kind = await store.command("TYPE", name)
        read = {"hash": ("HGETALL", name), "list": ("LRANGE", name, 0, -1)}.get(kind)
        if read and text in str(await store.command(*read)):
            found.append(name)
    return found


async def test_a_worker_that_has_lost_its_turn_saves_no_context(store: Store) -> None:
    queue = make_queue(store)
    await intake_of(store).ask(make_turn(1))
    late = await take(queue)
    await queue.leases.release(late, delay_seconds=0, counts=True)
    taken = await take(queue)

    with pytest.raises(LeaseLost):
        await queue.leases.save_context(late, None, HEARD)
    await queue.leases.save_context(taken, said(99, EVE, "When?"), HEARD[:1])
    await queue.leases.release(taken, delay_seconds=0, counts=True)
    again = await take(queue)

    assert (again.turn.context, again.turn.quote) == (HEARD[:1], said(99, EVE, "When?"))


async def test_what_is_forgotten_while_it_is_answered_keeps_no_context(store: Store) -> None:
    queue = make_queue(store)
    await intake_of(store).ask(replace(make_turn(1), quote=said(99, EVE, "deploy when?")))
    taken = await take(queue)

    await queue.changes.forget("console:1")
    await queue.leases.save_context(taken, None, HEARD)
    await queue.leases.finish(taken, Shown(outcome="stopped"), None)

    assert await keys_with(store, "deploy") == []


@pytest.mark.parametrize("when", ["remembered", "running"])
async def test_a_deleted_message_is_in_no_later_prompt(when: str, store: Store) -> None:
    text = 'She said ", "text": "no" \\ and left.'
    platform = FakePlatform(context=[said(100, BOB, text), said(101, EVE, "Fine.")])
    queue, model = make_queue(store), FakeModel(["Hello", *NEVER])
    await intake_of(store).ask(replace(make_turn(1), quote=said(99, BOB, "Call 555!")))
    async with working(make_worker(store, platform, model)):
        await until(lambda: platform.shown.text)
        if when == "running":
            await queue.changes.forget("console:99", "console:100")
        await queue.changes.stop("console:1")
        await all_ended(store)

    if when == "remembered":
        await queue.changes.forget("console:99", "console:100")
    prompt = await answered(store, platform, make_turn(2))

    assert [each.context for each in prompt if each.role == "user"] == [("Eve: Fine.",), ()]
    assert "555" not in str(await store.command("LRANGE", store.key("history", str(KEY)), 0, -1))


async def test_a_message_can_be_deleted_as_long_as_the_thread_that_shows_it_is_used(
    store: Store,
) -> None:
    platform = FakePlatform(context=[said(100, BOB, "Call 555!")])
    await answered(store, platform, make_turn(1))
    heard = store.key("heard", "console:100")
    await store.command("PEXPIRE", heard, 3_600_000)
    history = store.key("history", str(KEY))

    await answered(store, platform, make_turn(2))
    ends = [await store.command("PEXPIRETIME", name) for name in (heard, history)]
    await make_queue(store).changes.forget("console:100")

    assert ends[0] == ends[1] > 0
    assert "555" not in str(await store.command("LRANGE", history, 0, -1))


async def test_every_key_of_a_context_expires(store: Store) -> None:
    model = FakeModel([BeginningLeftOut(3), "Hi"])
    await answered(store, FakePlatform(context=HEARD), make_turn(1), model=model)
    await make_queue(store).changes.forget("console:1")

    for name in await store.command("KEYS", store.key("*")):
        assert await store.command("PTTL", name) > 0, name


async def test_the_notice_of_a_beginning_that_no_longer_fits_is_shown_once(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel([BeginningLeftOut(3), "Hi"])

    for number in (1, 2):
        # Each time by another worker, as after a restart.
        await answered(store, platform, make_turn(number), model=model)
    await answered(store, platform, make_turn(3, thread="t2"), model=model)

    noted = [BEGINNING_LEFT_OUT in page.text for page in platform.shown.screen.values()]
    assert noted == [True, False, True]
    history = await History(store=store, keep_seconds=KEEP).read(KEY)
    assert [one.answer for one in history] == ["Hi", "Hi"]


async def test_a_thread_that_is_used_knows_of_its_notice(store: Store) -> None:
    history, name = History(store=store, keep_seconds=KEEP), store.key("told", str(KEY))
    await history.claim_truncation_notice(KEY, "console:1")
    await store.command("EXPIRE", name, 5)

    assert not await history.claim_truncation_notice(KEY, "console:2")

    assert await store.command("TTL", name) > 50


async def test_an_answer_with_that_notice_keeps_it_when_it_is_regenerated(store: Store) -> None:
    platform, model = FakePlatform(), FakeModel([BeginningLeftOut(3), "Hi"])
    await answered(store, platform, make_turn(1), model=model)

    await press(store)
    await answer(store, platform, model)

    assert platform.shown.text == f"Hi\n\n{BEGINNING_LEFT_OUT}"
