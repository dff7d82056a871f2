"""Who may answer whether a call is made, and how often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bot.access.rules import AccessRules
from bot.domain import Consent, Json, ThreadKey
from bot.errors import HasEnded, NotTheAsker
from bot.intake.answers import NOT_WAITING, NOT_YOURS, Answers
from bot.intake.intake import Intake
from bot.store import Store
from bot.tools.questions import AnswerRefused, ToolAsks, form_question, link_question
from bot.turns.records import History
from tests.support.at_work import KEEP, KEY, make_queue, make_turn, make_worker, working
from tests.support.fakes import FakePlatform
from tests.support.tools import CallingModel, FakeTool, call, toolbox
from tests.tools.test_calls import until_asked

ELSEWHERE = ThreadKey("console", "local", "bob", "t9")


def make_answers(store: Store, *, admin: str = "") -> Answers:
    history = History(store=store, keep_seconds=KEEP)
    access = AccessRules(admins=frozenset({admin} if admin else ()))
    return Intake(queue=make_queue(store), history=history, access=access).answers


async def asked(store: Store, *asks: ToolAsks) -> str:
    """Let a turn of Ann's wait for consent, or for an answer; return the call's id."""
    model = CallingModel((["Let me see.", call()], ["It is done."]))
    tool = FakeTool("reads" if asks else "effects", asks=asks)
    async with working(make_worker(store, FakePlatform(), model, tools=toolbox(tool))):
        await make_queue(store).admit(make_turn())
        return await until_asked(store)


async def unneeded() -> bool:
    raise AssertionError("whether this person is an admin makes no difference")


@pytest.mark.parametrize("consent", ["allow", "always", "deny"])
async def test_the_first_answer_of_the_asker_counts(store: Store, consent: Consent) -> None:
    answers, call_id = make_answers(store), await asked(store)

    counted = await answers.decide(
        "console:1", call_id, consent, person_id="u1", at=KEY, is_admin=unneeded
    )
    with pytest.raises(HasEnded) as again:
        await answers.decide("console:1", call_id, "deny", person_id="u1", at=KEY)

    assert (counted, again.value.apology) == (consent, NOT_WAITING)
    saved = await store.command("HGET", store.key("steps", "console:1"), f"consent:{call_id}")
    assert saved == consent


@pytest.mark.parametrize("how", ["looked up", "known", "listed"])
@pytest.mark.parametrize(
    ("consent", "counts"), [("allow", "allow"), ("always", "allow"), ("deny", "deny")]
)
async def test_an_admin_answers_for_this_call_alone(
    store: Store, how: str, consent: Consent, counts: Consent
) -> None:
    async def is_admin() -> bool:
        return True

    answers = make_answers(store, admin="u2" if how == "listed" else "")
    call_id = await asked(store)
    ways: dict[str, bool | Callable[[], Awaitable[bool]]] = {
        "looked up": is_admin,
        "known": True,
        "listed": unneeded,
    }

    counted = await answers.decide(
        "console:1", call_id, consent, person_id="u2", at=KEY, is_admin=ways[how]
    )

    assert counted == counts


async def test_nobody_else_may_answer(store: Store) -> None:
    answers, call_id = make_answers(store), await asked(store)

    with pytest.raises(NotTheAsker) as refused:
        await answers.decide("console:1", call_id, "deny", person_id="u2", at=KEY)
    counted = await answers.decide("console:1", call_id, "allow", person_id="u1", at=KEY)

    assert (refused.value.apology, counted) == (NOT_YOURS, "allow")


async def test_what_does_not_wait_takes_no_answer(store: Store) -> None:
    answers, call_id = make_answers(store), await asked(store)

    for turn, one, at in (
        ("console:1", call_id, ELSEWHERE),
        ("console:1", "x" * 9, KEY),
        ("console:1", "", KEY),
        ("console:9", call_id, KEY),
        ("\ud800", call_id, KEY),
    ):
        with pytest.raises(HasEnded):
            await answers.decide(turn, one, "allow", person_id="u1", at=at, is_admin=True)


ROOM: dict[str, Json] = {"properties": {"room": {"type": "integer"}}, "required": ["room"]}
FORM = ToolAsks(None, [form_question("k", "Which room?", ROOM)])
LINK = ToolAsks(None, [link_question("k", "Pay.", "https://example.com/1")])


async def saved(store: Store, call_id: str) -> str | None:
    name = store.key("steps", "console:1")
    found: str | None = await store.command("HGET", name, f"consent:{call_id}")
    return found


async def test_the_form_of_a_server_is_shown_to_the_asker_and_filled_in_once(store: Store) -> None:
    answers, call_id = make_answers(store), await asked(store, FORM)
    which: Any = {"person_id": "u1", "at": KEY}

    assert (await answers.question("console:1", call_id, **which)).message == "Which room?"
    with pytest.raises(AnswerRefused):
        await answers.fill_in("console:1", call_id, {"field0": "five"}, **which)
    await answers.fill_in("console:1", call_id, {"field0": "5"}, **which)
    with pytest.raises(HasEnded):
        await answers.question("console:1", call_id, **which)
    with pytest.raises(HasEnded):
        await answers.fill_in("console:1", call_id, {"field0": "6"}, **which)

    assert await saved(store, call_id) == 'answer\n{"room": 5}'


@pytest.mark.parametrize(("asks", "consent"), [(FORM, "answer"), (LINK, "done")])
async def test_no_admin_answers_a_server_for_somebody_else_but_may_deny(
    store: Store, asks: ToolAsks, consent: Consent
) -> None:
    answers, call_id = make_answers(store, admin="u2"), await asked(store, asks)
    admin: Any = {"person_id": "u2", "at": KEY}

    with pytest.raises(NotTheAsker):
        await answers.decide("console:1", call_id, consent, **admin)
    with pytest.raises(NotTheAsker):
        await answers.question("console:1", call_id, **admin)
    with pytest.raises(NotTheAsker):
        await answers.fill_in("console:1", call_id, {"field0": "5"}, **admin)
    await answers.decide("console:1", call_id, "deny", **admin)

    assert await saved(store, call_id) == "deny"


async def test_no_form_is_shown_elsewhere_or_for_a_call_that_waits_for_consent(
    store: Store,
) -> None:
    answers, call_id = make_answers(store), await asked(store)

    for one, at in ((call_id, KEY), ("form-000000000", KEY), (call_id, ELSEWHERE), ("\ud800", KEY)):
        with pytest.raises(HasEnded):
            await answers.question("console:1", one, person_id="u1", at=at)
