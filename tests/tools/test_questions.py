"""What a tool's server asks is kept with the turn, and its answer is sent by any worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bot.domain import Consent, Json, ToolCall
from bot.errors import NotTheAsker
from bot.store import Store
from bot.tools.questions import (
    Answered,
    AnswerRefused,
    Question,
    QuestionRefused,
    ToolAsks,
    form_question,
    link_question,
    read_question,
    write_question,
)
from bot.tools.steps import Steps
from bot.tools.toolset import Asked
from bot.turns.journal import TurnJournal
from bot.turns.lease import Lease
from bot.turns.repair import WorkPolicy
from tests.support.at_work import (
    all_ended,
    answer,
    expire_all,
    make_queue,
    make_turn,
    make_worker,
    outcome,
    take,
    working,
)
from tests.support.fakes import FakePlatform
from tests.support.tools import FakeTool, always, toolbox
from tests.support.waiting import until
from tests.tools.test_calls import ask, calls_once, decide, results, until_asked

ROOM: dict[str, Json] = {"properties": {"room": {"type": "string"}}, "required": ["room"]}
WHICH = form_question("k", "Which room?", ROOM)
VISIT = link_question("k", "Please pay.", "https://pay.example.com/1")
ASKS = "`tracker` asks: `Which room?` (Never answer with a password.)"


def asking(*questions: Question, kind: Any = "effects", times: int = 1) -> FakeTool:
    asks = [ToolAsks(str(number), questions) for number in range(1, times + 1)]
    return FakeTool(kind, asks=asks)


def calls(tool: FakeTool, **others: Any) -> Any:
    return toolbox(tool, allowed=always, **others)


async def said(
    store: Store, consent: Consent, words: str = "", *, call_id: str = "", **others: Any
) -> bool:
    call_id = call_id or await until_asked(store)
    who = {"person_id": "u1", "is_admin": False, **others}
    return await make_queue(store).changes.decide("console:1", call_id, consent, words=words, **who)


async def steps(store: Store) -> dict[str, str]:
    found: dict[str, str] = await store.command("HGETALL", store.key("steps", "console:1"))
    return found


@pytest.mark.parametrize("kind", ["reads", "effects"])
async def test_a_person_is_asked_and_the_call_goes_on_with_the_answer(
    store: Store, kind: Any
) -> None:
    platform, model, tool = FakePlatform(), calls_once(), asking(WHICH, kind=kind)
    async with working(make_worker(store, platform, model, tools=calls(tool))):
        await ask(store)
        question_id = await until_asked(store)
        (page,) = platform.shown.screen.values()
        assert (page.consent, page.text) == (question_id, f"Let me see.\n\n{ASKS}")
        assert await said(store, "answer", '{"room": "5"}')
        await all_ended(store)

    assert tool.answered == [Answered("1", {"k": {"room": "5"}})]
    assert [key for _, key in tool.runs] == [tool.runs[0][1]] * 2
    assert results(model.prompts[1]) == ["Ticket 7."]
    (page,) = platform.shown.screen.values()
    assert page.text.endswith("(Steps: Calling `make_ticket` on `tracker`: done.)")


async def test_the_answer_is_sent_by_the_next_worker_when_none_ran_at_the_press(
    store: Store,
) -> None:
    platform, model, tool = FakePlatform(), calls_once(), asking(WHICH)
    async with working(make_worker(store, platform, model, tools=calls(tool))):
        await ask(store)
        await until_asked(store)
    assert await said(store, "answer", '{"room": "5"}')
    assert len(tool.runs) == 1

    async with working(make_worker(store, platform, model, tools=calls(tool))):
        await all_ended(store)

    assert len(tool.runs) == 2
    assert tool.answered == [Answered("1", {"k": {"room": "5"}})]
    assert await outcome(store) == "done"


async def test_a_visited_page_is_an_answer_without_values(store: Store) -> None:
    platform, tool = FakePlatform(), asking(VISIT)
    async with working(make_worker(store, platform, calls_once(), tools=calls(tool))):
        await ask(store)
        assert (await until_asked(store)).startswith("link-")
        (page,) = platform.shown.screen.values()
        assert page.text.endswith(
            "`tracker` asks you to open a page of `pay.example.com`: `Please pay.` "
            "https://pay.example.com/1"
        )
        assert await said(store, "done")
        await all_ended(store)

    assert tool.answered == [Answered("1", {"k": None})]


async def test_questions_that_come_together_are_asked_one_after_another(store: Store) -> None:
    second = form_question("l", "Which floor?", ROOM)
    platform, tool = FakePlatform(), asking(WHICH, second)
    async with working(make_worker(store, platform, calls_once(), tools=calls(tool))):
        await ask(store)
        first = await until_asked(store)
        await said(store, "answer", '{"room": "5"}')
        await until(lambda: "Which floor?" in next(iter(platform.shown.screen.values())).text)
        assert await until_asked(store) != first
        await said(store, "answer", '{"room": "6"}')
        await all_ended(store)

    assert tool.answered == [Answered("1", {"k": {"room": "5"}, "l": {"room": "6"}})]


@pytest.mark.parametrize(
    ("consent", "outcome", "told"),
    [("deny", "denied", "does not answer"), ("", "not answered in time", "Nobody has answered")],
)
async def test_without_an_answer_the_call_is_not_completed(
    store: Store, consent: Consent, outcome: str, told: str
) -> None:
    platform, model, tool = FakePlatform(), calls_once(), asking(WHICH)
    tools = calls(tool, seconds=60.0 if consent else 0.3)
    async with working(make_worker(store, platform, model, tools=tools)):
        await ask(store)
        if consent:
            await said(store, consent)
        await all_ended(store)

    assert len(tool.runs) == 1
    assert told in results(model.prompts[1])[0]
    (page,) = platform.shown.screen.values()
    assert page.text.endswith(f"(Steps: Calling `make_ticket` on `tracker`: {outcome}.)")


async def test_only_the_asker_answers_a_server_and_an_admin_can_deny(store: Store) -> None:
    tool = asking(WHICH)
    async with working(make_worker(store, FakePlatform(), calls_once(), tools=calls(tool))):
        await ask(store)
        question_id = await until_asked(store)
        for is_admin in (False, True):
            with pytest.raises(NotTheAsker):
                await said(store, "answer", "{}", person_id="u2", is_admin=is_admin)
        # Neither a consent nor the answer to another kind of question.
        for other in ("allow", "always", "done", "late"):
            assert not await said(store, other)
        assert await said(store, "deny", person_id="u2", is_admin=True)
        await all_ended(store)

    assert len(tool.runs) == 1
    assert not await decide(store, "answer", call_id=question_id)


async def test_an_answer_to_a_server_allows_no_call(store: Store) -> None:
    tool = FakeTool()
    async with working(make_worker(store, FakePlatform(), calls_once(), tools=toolbox(tool))):
        await ask(store)
        for consent in ("answer", "done"):
            assert not await said(store, consent)
        await decide(store, "deny")
        await all_ended(store)

    assert not tool.runs


async def test_an_answer_in_the_moment_of_silence_counts_with_its_words(store: Store) -> None:
    queue = make_queue(store, lease=60.0)
    await queue.admit(make_turn())
    lease = Lease(
        leases=queue.leases,
        taken=await take(queue),
        seconds=60.0,
        finish_retry=WorkPolicy().finish_retry,
    )
    made, (offered,) = (
        ToolCall("aaaaaaaaa", "x", "{}"),
        await FakeTool().offered(Asked(make_turn())),
    )
    own = Steps(TurnJournal(lease), turn_id="console:1")
    await own.save_input(made, 0, ToolAsks("1", [WHICH]))
    waits = own.open_question(made)
    assert waits
    await own.ask(waits[0], offered, ASKS, waits[1])

    # The worker has not heard of the press when the time is over.
    assert await said(store, "answer", '{"room": "5"}', call_id=waits[0])
    counted = await own.settle(waits[0], "late")

    assert (counted, own.open_question(made)) == ("answer", None)
    assert own.answered(made) == Answered("1", {"k": {"room": "5"}})


@pytest.mark.parametrize(("kind", "runs"), [("effects", 2), ("keyed", 3), ("reads", 3)])
async def test_a_request_that_broke_off_behind_an_answer_is_repeated_only_if_that_does_no_harm(
    store: Store, kind: Any, runs: int
) -> None:
    platform, model, tool = FakePlatform(), calls_once(), asking(WHICH, kind=kind)
    worker = make_worker(store, platform, model, tools=calls(tool), drain=0.0)
    async with working(worker):
        await ask(store)
        await until_asked(store)
        tool.may = lambda: False
        await said(store, "answer", '{"room": "5"}')
        await until(lambda: len(tool.runs) == 2)
    tool.may = lambda: True
    await expire_all(store)

    async with working(make_worker(store, platform, model, tools=calls(tool))):
        await all_ended(store)

    assert len(tool.runs) == runs
    assert set(map(str, tool.answered)) == {str(Answered("1", {"k": {"room": "5"}}))}
    (page,) = platform.shown.screen.values()
    assert ("not known" in page.text) == (kind == "effects")


@pytest.mark.parametrize("has_answered", [False, True])
async def test_a_reply_that_is_given_up_names_a_call_only_if_its_server_may_be_at_work(
    store: Store, has_answered: bool
) -> None:
    platform, tool = FakePlatform(), asking(WHICH)
    worker = make_worker(store, platform, calls_once(), tools=calls(tool), drain=0.0)
    async with working(worker):
        await ask(store)
        await until_asked(store)
        if has_answered:
            tool.may = lambda: False
            await said(store, "answer", "{}")
            await until(lambda: len(tool.runs) == 2)
    await store.command("HSET", store.key("turn", "console:1"), "attempts", 99)
    await expire_all(store)
    if not has_answered:
        await said(store, "answer", "{}")

    async with working(make_worker(store, platform, calls_once(), tools=calls(tool))):
        await all_ended(store)

    shown = await make_queue(store).lookup.result("console:1")
    assert shown
    assert ("I do not know whether this was done: `make_ticket`." in shown.text) == has_answered


async def test_a_server_asks_four_times_at_most(store: Store) -> None:
    model, tool = calls_once(), asking(WHICH, times=9)
    async with working(make_worker(store, FakePlatform(), model, tools=calls(tool))):
        await ask(store)
        for number in range(1, 5):
            await until(lambda number=number: len(tool.runs) == number)  # type: ignore[misc]
            await said(store, "answer", "{}")
        await all_ended(store)

    assert len(tool.runs) == 5
    assert results(model.prompts[1]) == [
        "Its server asks too many questions, so the call was not completed."
    ]


async def test_a_server_that_only_says_to_come_again_is_called_four_times_more(
    store: Store,
) -> None:
    model, tool = calls_once(), asking(times=9)

    await answer(store, FakePlatform(), model, make_turn(), tools=calls(tool))

    assert [one.state for one in tool.answered] == ["1", "2", "3", "4"]


async def test_a_stop_ends_a_turn_whose_server_waits_and_drops_what_was_written(
    store: Store,
) -> None:
    second = form_question("l", "Which floor?", ROOM)
    tool = asking(WHICH, second)
    async with working(make_worker(store, FakePlatform(), calls_once(), tools=calls(tool))):
        await ask(store)
        first = await until_asked(store)
        await said(store, "answer", '{"room": "5"}')
        assert await until_asked(store) != first
        assert '"room": "5"' in "".join((await steps(store)).values())
        await make_queue(store).changes.stop("console:1")
        await all_ended(store)

    assert await outcome(store) == "stopped"
    assert not await steps(store)
    assert len(tool.runs) == 1


def field(schema: Mapping[str, Json], name: str = "it", *, required: bool = True) -> Question:
    needed: list[Json] = [name] if required else []
    return form_question("k", "Hm?", {"properties": {name: dict(schema)}, "required": needed})


CHOICE = {"type": "string", "enum": ["r", "b"], "enumNames": ["Red", "Blue"]}
TITLED: Json = [{"const": "r", "title": "Red"}, {"const": "b", "title": "Blue"}]


@pytest.mark.parametrize(
    ("schema", "given", "answers"),
    [
        ({"type": "string"}, "five", '{"it": "five"}'),
        ({"type": "integer"}, " 5 ", '{"it": 5}'),
        ({"type": "number"}, "2,5", '{"it": 2.5}'),
        ({"type": "boolean"}, "2", '{"it": false}'),
        ({"type": "boolean"}, "yes", '{"it": true}'),
        (CHOICE, "2", '{"it": "b"}'),
        ({"type": "string", "oneOf": TITLED}, ["1"], '{"it": "r"}'),
    ],
)
def test_an_answer_has_the_type_of_its_field(
    schema: Mapping[str, Json], given: str | Sequence[str], answers: str
) -> None:
    question = read_question(write_question(field(schema)))

    assert question.answers({"field0": given}) == answers


@pytest.mark.parametrize(
    ("schema", "given", "sentence"),
    [
        ({"type": "string"}, " ", "please answer this."),
        ({"type": "string"}, "x" * 1001, "please use at most 1,000 characters."),
        ({"type": "integer"}, "2.5", "please enter a whole number."),
        ({"type": "number"}, "1e999", "please enter a number."),
        ({"type": "boolean"}, "3", "please choose one of the options."),
        (CHOICE, "Green", "please choose one of the options."),
    ],
)
def test_a_wrong_value_gets_a_clear_sentence(
    schema: Mapping[str, Json], given: str, sentence: str
) -> None:
    with pytest.raises(AnswerRefused) as refused:
        field({"title": "How `much`?", **schema}).answers({"field0": given})

    assert refused.value.apology == f"`How 'much'?`: {sentence}"
    assert refused.value.field == "field0"


def test_what_was_left_empty_is_left_out() -> None:
    assert field({"type": "integer"}, required=False).answers({"field0": ""}) == "{}"


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {str(number): {"type": "string"} for number in range(6)},
        {"it": {"type": "array"}},
        {"it": {"type": "string", "enum": list(map(str, range(26)))}},
        {"it": "string"},
        {"it": {"type": "string", "title": "Your password"}},
        {"API_KEY": {"type": "string"}},
    ],
)
def test_a_form_that_is_not_understood_or_asks_for_a_secret_is_refused(properties: Json) -> None:
    with pytest.raises(QuestionRefused):
        form_question("k", "Hm?", {"properties": properties})


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/",
        "https://example.com@evil.example/",
        "https://ex\u0430mple.com/",
        "https://[::1/",
        "https:///x",
        "javascript:alert(1)",
        "https://example.com/" + "x" * 600,
    ],
)
def test_an_address_that_could_mislead_is_refused(address: str) -> None:
    with pytest.raises(QuestionRefused):
        link_question("k", "Hm?", address)


def test_the_words_of_a_server_are_inert() -> None:
    bad = "Hi <@1> `x`\n\n@everyone \u202e[a](https://evil.example)" + "x" * 400
    line = form_question("k", bad, ROOM).line("a`b")
    link = link_question("k", "Hm", "https://example.com/(@everyone)*<b>`").line("x")

    assert line.startswith("`a'b` asks: `Hi <@1> 'x' @everyone [a](https://evil.example)xxx")
    assert len(line) < 400
    assert link.endswith(" https://example.com/%28%40everyone%29%2A%3Cb%3E%60")


def test_another_question_has_another_id() -> None:
    other = form_question("k", "Which floor?", ROOM)

    named = {one.id("c", 0, at) for one in (WHICH, other, VISIT) for at in (0, 1)}

    assert len(named) == 6
    assert WHICH.id("c", 0, 0) == WHICH.id("c", 0, 0)
