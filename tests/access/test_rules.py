"""Who may use the bot, and where: the decision alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from bot.access.preferences import Scope
from bot.access.quotas import Quota
from bot.access.rules import AccessRules
from bot.domain import Asker, Json, Person, Preferences, ThreadKey
from bot.errors import NotAllowed, QuotaUsed

CHANNEL = ThreadKey("discord", "100", "200", "300")
DIRECT = ThreadKey("discord", "dm", "400", "400")
SLACK_DIRECT = ThreadKey("slack", "T1", "D1", "D1")
ANN, BOB = Person("1", "Ann"), Person("2", "Bob")
HERE, PRIVATE = Asker(), Asker(direct=True)


def ids(*each: str) -> frozenset[str]:
    return frozenset(each)


def may(
    access: AccessRules, *, thread: ThreadKey = CHANNEL, person: Person = ANN, asker: Asker = HERE
) -> bool:
    try:
        access.check(thread, person, asker)
    except NotAllowed:
        return False
    return True


def test_everybody_may_use_a_bot_without_lists() -> None:
    assert may(AccessRules())
    assert may(AccessRules(), thread=DIRECT, asker=PRIVATE)


@pytest.mark.parametrize(
    ("access", "allowed"),
    [
        (AccessRules(servers=ids("100")), True),
        (AccessRules(servers=ids("101")), False),
        (AccessRules(channels=ids("200")), True),
        (AccessRules(channels=ids("300")), True),
        (AccessRules(channels=ids("201")), False),
        (AccessRules(servers=ids("101"), channels=ids("200")), False),
        (AccessRules(people=ids("1")), True),
        (AccessRules(people=ids("2")), False),
        (AccessRules(roles=ids("r1")), True),
        (AccessRules(roles=ids("r2")), False),
        (AccessRules(people=ids("2"), roles=ids("r1")), True),
        (AccessRules(blocked=ids("1")), False),
        (AccessRules(people=ids("1"), blocked=ids("1")), False),
        # Lists of people are not for admins; those of places are.
        (AccessRules(people=ids("2"), admins=ids("1")), True),
        (AccessRules(servers=ids("101"), admins=ids("1")), False),
        (AccessRules(channels=ids("201"), admins=ids("1")), False),
        (AccessRules(blocked=ids("1"), admins=ids("1")), False),
        (AccessRules(direct_messages=False), True),
    ],
)
def test_a_list_lets_in_whom_it_names(access: AccessRules, allowed: bool) -> None:
    assert may(access, asker=Asker(roles=("r1", "r3"))) is allowed


@pytest.mark.parametrize(
    ("access", "allowed"),
    [
        (AccessRules(direct_messages=False), False),
        (AccessRules(direct_messages=False, people=ids("1")), False),
        (AccessRules(direct_messages=False, admins=ids("1")), True),
        # In Discord it is in no server, and its roles are not known.
        (AccessRules(servers=ids("100")), False),
        (AccessRules(channels=ids("200")), False),
        (AccessRules(servers=ids("100"), direct_messages=True), True),
        (AccessRules(servers=ids("100"), people=ids("1")), True),
        (AccessRules(roles=ids("r1")), False),
        (AccessRules(roles=ids("r1"), people=ids("1")), True),
        (AccessRules(servers=ids("100"), admins=ids("1")), True),
        (AccessRules(direct_messages=True, blocked=ids("1")), False),
    ],
)
def test_a_direct_message_is_answered_unless_a_list_forbids_it(
    access: AccessRules, allowed: bool
) -> None:
    assert may(access, thread=DIRECT, asker=PRIVATE) is allowed


def test_a_direct_message_in_an_allowed_workspace_is_answered() -> None:
    assert may(AccessRules(servers=ids("T1")), thread=SLACK_DIRECT, asker=PRIVATE)
    assert not may(AccessRules(servers=ids("T2")), thread=SLACK_DIRECT, asker=PRIVATE)


def test_a_person_of_another_workspace_needs_both_to_be_allowed() -> None:
    channel = ThreadKey("slack", "T1", "C1", "1.1")
    visitor = Asker(home="T2")

    assert may(AccessRules(), thread=channel, asker=visitor)
    assert not may(AccessRules(servers=ids("T1")), thread=channel, asker=visitor)
    assert may(AccessRules(servers=ids("T1", "T2")), thread=channel, asker=visitor)


def test_people_at_the_page_are_chosen_by_its_sign_in() -> None:
    closed = AccessRules(servers=ids("100"), people=ids("9"), direct_messages=False)
    page, signed_in = ThreadKey("web", "local", "1", "t"), Asker(signed_in=True)

    assert may(closed, thread=page, asker=signed_in)
    assert not may(replace(closed, blocked=ids("1")), thread=page, asker=signed_in)


def test_the_operator_at_the_terminal_has_no_limit() -> None:
    closed = AccessRules(people=ids("9"), blocked=ids("1"), quota=Quota(0, 0, 0))
    operator = Asker(operator=True)

    assert may(closed, asker=operator)
    assert closed.quota_of(ANN, operator) == Quota()


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (Preferences(), True),
        (Preferences(people=("1",)), True),
        (Preferences(people=("2",)), False),
        (Preferences(roles=("r1",)), True),
        (Preferences(people=("2",), roles=("r2",)), False),
    ],
)
def test_an_admin_of_a_place_chooses_among_those_who_may(rules: Preferences, allowed: bool) -> None:
    asker = Asker(roles=("r1",))

    try:
        AccessRules().check(CHANNEL, ANN, asker, {"channel": rules})
        AccessRules(admins=ids("1")).check(
            CHANNEL, ANN, HERE, {"server": Preferences(people=("2",))}
        )
        found = True
    except NotAllowed:
        found = False

    assert found is allowed


def test_a_place_has_its_own_quota() -> None:
    access = AccessRules(quota=Quota(20, 9000, None), admins=ids("2"))
    server = Preferences(questions_per_day=10, server_tokens_per_day=50_000)

    assert access.quota_of(ANN, HERE) == Quota(20, 9000, None)
    assert access.quota_of(ANN, HERE, {"server": server}) == Quota(10, 9000, 50_000)
    channel = Preferences(questions_per_day=0)
    both: Mapping[Scope, Preferences] = {"server": server, "channel": channel}
    assert access.quota_of(ANN, HERE, both) == Quota(0, 9000, 50_000)
    assert access.quota_of(BOB, HERE, both) == Quota()


def test_a_limit_that_was_lowered_later_holds_in_places_that_chose_more_before() -> None:
    many = Preferences(questions_per_day=10**9, tokens_per_day=10**9)
    both: Mapping[Scope, Preferences] = {
        "server": Preferences(questions_per_day=5),
        "channel": many,
    }

    assert AccessRules(quota=Quota(20, 9000)).quota_of(ANN, HERE, {"server": many}) == Quota(
        20, 9000
    )
    assert AccessRules().quota_of(ANN, HERE, both) == Quota(5, 10**9)
    raised: Mapping[Scope, Preferences] = {"server": replace(many, raised=True)}
    assert AccessRules(quota=Quota(20, 9000)).quota_of(ANN, HERE, raised) == Quota(10**9, 10**9)


@pytest.mark.parametrize(
    ("seconds", "says"),
    [(10, "in 1 minute."), (80 * 60, "in 80 minutes."), (23.4 * 3600, "in 23 hours.")],
)
def test_a_used_quota_says_when_it_renews(seconds: float, says: str) -> None:
    sentence = QuotaUsed("questions", seconds).apology

    assert sentence.endswith(f"after 00:00 UTC, {says}")
    assert sentence.count(".") == 2


def test_an_admin_who_is_blocked_is_none() -> None:
    assert not AccessRules(admins=ids("1"), blocked=ids("1")).is_admin(ANN)


def test_the_limit_of_a_server_can_be_raised_again() -> None:
    chosen: Mapping[Scope, Preferences] = {"server": Preferences(questions_per_day=5)}
    changes: Mapping[str, Json] = {"questions_per_day": 10}

    assert AccessRules().with_limits(ANN, "server", changes, chosen) == changes


def test_a_quota_in_money_holds_in_every_place_but_for_admins() -> None:
    access = AccessRules(quota=Quota(money=5, server_money=50), admins=ids("2"))
    chosen: Mapping[Scope, Preferences] = {"server": Preferences(questions_per_day=10)}

    assert access.quota_of(ANN, HERE, chosen) == Quota(10, None, None, 5, 50)
    assert access.quota_of(BOB, HERE, chosen) == Quota()
