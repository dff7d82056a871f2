"""What becomes of a message: every adapter hands it to the same door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from bot.access.preferences import Scope
from bot.access.quotas import Quota
from bot.access.rules import AccessRules
from bot.domain import Json, Person, ThreadKey, Turn
from bot.errors import NotAllowed, NothingAsked, QuotaUsed, Refused
from bot.intake.addressed import Facts
from bot.intake.intake import Admitted, Commanded, Decision, Ignored, Intake, Received
from bot.store import Store
from tests.support.fakes import NotedIntake

KEY = ThreadKey("discord", "server", "channel", "thread")
ANN = Person("ann", "Ann")
MENTION, TALK, EDIT = Facts(calls_bot=True), Facts(), Facts(edited=True)


def said(text: str, facts: Facts = MENTION, *, number: int = 1) -> Received:
    turn = Turn(f"discord:{number}", KEY, ANN, text, {}, 1000.0)
    return Received(turn=turn, facts=facts, people=[ANN.id])


def intake_of(store: Store, access: AccessRules | None = None) -> Intake:
    return NotedIntake(store, access=access)


async def choose(intake: Intake, scope: Scope, **chosen: Json) -> None:
    await intake.preferences.change(KEY, scope, chosen, by="admin")


OUTCOMES: Mapping[str, tuple[Received, type[Decision]]] = {
    "a mention": (said("why?"), Admitted),
    "a mention of the word help": (said(" Help. "), Commanded),
    "a command in words": (replace(said("/parley usage"), command="usage"), Commanded),
    "an empty mention": (said(" "), NothingAsked),
    "talk among people": (said("lunch?", TALK), Ignored),
    "an edit that adds a mention": (replace(said("why?"), edited_at=2000.0), Admitted),
    "an edit that empties a question": (replace(said(" "), edited_at=2000.0), Admitted),
    "an edit of talk": (replace(said("lunch!", EDIT), edited_at=2000.0), Ignored),
    "a question by a command that reads as one": (replace(said("help"), facts=None), Admitted),
}


@pytest.mark.parametrize("name", OUTCOMES)
async def test_a_message_has_one_outcome(store: Store, name: str) -> None:
    received, outcome = OUTCOMES[name]

    assert type(await intake_of(store).receive(received)) is outcome


async def test_what_a_person_says_in_a_followed_thread_is_a_question_unless_it_says_nothing(
    store: Store,
) -> None:
    intake = intake_of(store)
    await intake.receive(said("why?"))

    outcomes = [await intake.receive(said(it, TALK, number=2)) for it in ("", "and how?")]

    assert [type(one) for one in outcomes] == [Ignored, Admitted]


async def test_a_person_without_access_reads_why_once_and_only_if_they_called(store: Store) -> None:
    intake = intake_of(store, AccessRules(people=frozenset({"bob"})))
    talk, mention = said("why?", TALK), said("why?")
    followed = replace(talk, ours=True)

    outcomes = [await intake.receive(one) for one in (talk, followed, mention, mention)]

    assert [type(one) for one in outcomes] == [Ignored, NotAllowed, NotAllowed, NotAllowed]
    assert [one.repeated for one in outcomes if isinstance(one, Refused)] == [True, False, True]


async def test_a_question_in_a_followed_thread_that_is_refused_again_is_known_as_that(
    store: Store,
) -> None:
    intake = intake_of(store, AccessRules(quota=Quota(questions=1)))
    await intake.receive(said("why?"))

    again = [await intake.receive(said("and how?", TALK, number=it)) for it in (2, 3)]

    assert [type(one) for one in again] == [QuotaUsed, QuotaUsed]
    assert [one.repeated for one in again if isinstance(one, Refused)] == [False, True]


async def test_a_person_without_access_does_not_count_as_a_speaker(store: Store) -> None:
    intake = intake_of(store, AccessRules(people=frozenset({"ann"})))
    await intake.receive(said("why?"))
    talk = said("lunch?", TALK, number=2)
    turn = replace(talk.turn, person=Person("bob", "Bob"))

    refused = await intake.receive(replace(talk, turn=turn, people=["bob"]))
    outcome = await intake.receive(said("and how?", TALK, number=3))

    assert (type(refused), type(outcome)) == (NotAllowed, Admitted)


@pytest.mark.parametrize("scope", [None, "channel", "server"])
async def test_roles_are_fetched_where_access_depends_on_them(
    store: Store, scope: Scope | None
) -> None:
    intake, fetched = intake_of(store), list[str]()

    async def roles() -> list[str]:
        fetched.append(ANN.id)
        return ["crew"]

    if scope:
        await choose(intake, scope, roles=["crew"])

    outcome = await intake.receive(replace(said("why?"), roles=roles))

    assert isinstance(outcome, Admitted)
    assert fetched == ([ANN.id] if scope else [])


async def test_names_are_fetched_for_questions_alone(store: Store) -> None:
    intake, fetched = intake_of(store), list[str]()

    async def complete(turn: Turn) -> Turn:
        fetched.append(turn.text)
        return replace(turn, where="#general")

    talk, question, stop = said("lunch?", TALK), said("why?"), said("help")
    outcomes = [
        await intake.receive(replace(one, complete=complete)) for one in (talk, question, stop)
    ]

    assert fetched == ["why?"]
    assert [one.turn.where for one in outcomes if isinstance(one, Admitted)] == ["#general"]
