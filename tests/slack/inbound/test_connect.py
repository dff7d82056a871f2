"""People of other workspaces, and an app that is installed in a whole organisation."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from adapters.slack.manifest import SUMMARISE_ID
from bot.access.rules import AccessRules
from bot.domain import Exchange, Shown
from bot.store import Store
from tests.emulators.slack import SlackEmulator
from tests.support.at_work import take
from tests.support.fakes import FakeQueue, NotedIntake
from tests.support.slack_commands import read_by
from tests.support.slack_platform import dm_event, first, hearing, joined, send_body, serving
from tests.support.waiting import until

ORG, TEAM = "E0ORG", SlackEmulator.team_id
REFUSED = "I do not answer in this place. The person who runs me can change that."
ORG_INSTALL = {"enterprise_id": ORG, "team_id": None, "is_enterprise_install": True}
THERE = {"enterprise_id": ORG, "team_id": "T0OTHER", "is_enterprise_install": False}


@pytest.mark.parametrize(
    ("wrapper", "of_the_team", "of_the_organisation"),
    [
        ({"team_id": None, "enterprise_id": ORG}, True, True),
        ({"team_id": None, "enterprise_id": ORG, "authorizations": [ORG_INSTALL]}, True, True),
        ({"team_id": "T0OTHER", "enterprise_id": ORG}, False, True),
        ({"team_id": None, "enterprise_id": ORG, "authorizations": [THERE]}, False, True),
        ({"team_id": "T0FAR", "authorizations": [ORG_INSTALL]}, False, True),
        ({"team_id": None, "context_enterprise_id": ORG}, True, True),
        ({"team_id": None, "enterprise_id": "E0FAR"}, False, False),
        ({"team_id": "T0FAR", "enterprise_id": "E0FAR"}, False, False),
        ({"team_id": None, "enterprise_id": None, "authorizations": []}, False, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_org_wide", [False, True])
async def test_events_of_our_organisation_are_ours_as_far_as_our_token_is_good(
    wrapper: dict[str, object], of_the_team: bool, of_the_organisation: bool, is_org_wide: bool
) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack:
        in_an_organisation(slack, is_org_wide=is_org_wide)
        async with joined(slack) as platform, serving(platform.handler(intake.intake)) as url:
            wrapped = {"type": "event_callback", "event": dm_event(slack), **wrapper}
            status = await send_body(slack, url, json.dumps(wrapped).encode())

        assert status == 200
        assert bool(intake.asked) == (of_the_organisation if is_org_wide else of_the_team)


@pytest.mark.parametrize("is_org_wide", [False, True])
async def test_a_command_in_another_workspace_of_the_organisation_needs_its_token(
    is_org_wide: bool,
) -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack:
        in_an_organisation(slack, is_org_wide=is_org_wide)
        ann = slack.user("Ann")
        fields = {
            "command": "/ask",
            "text": "why?",
            "trigger_id": "1.2.3",
            "user_id": ann,
            "channel_id": slack.channel_id,
            "team_id": "T0OTHER",
            "enterprise_id": ORG,
        }
        async with joined(slack) as platform, serving(platform.handler(intake.intake)) as url:
            body, kind = urlencode(fields).encode(), "application/x-www-form-urlencoded"
            status = await send_body(slack, url, body, kind=kind)

        assert status == 200
        assert bool(intake.asked) is is_org_wide


async def test_a_press_in_an_organisation_names_no_workspace() -> None:
    intake = FakeQueue()
    async with SlackEmulator() as slack:
        in_an_organisation(slack, is_org_wide=True)
        async with joined(slack) as platform, serving(platform.handler(intake.intake)) as url:
            wrapped = {"type": "event_callback", "event": dm_event(slack), **ORG_INSTALL}
            await send_body(slack, url, json.dumps(wrapped).encode())
            press = {
                "type": "block_actions",
                "trigger_id": "12.34.abc",
                "team": None,
                "enterprise": {"id": ORG, "name": "Org"},
                "user": {"id": "U1", "team_id": ORG},
                "container": {"channel_id": intake.last.key.channel, "message_ts": "2.1"},
                "actions": [{"type": "button", "action_id": "stop", "value": intake.last.id}],
            }
            body = urlencode({"payload": json.dumps(press)}).encode()
            await send_body(slack, url, body, kind="application/x-www-form-urlencoded")

        assert intake.stopped == [intake.last.id]


@pytest.mark.parametrize("home", ["T0OTHER001", "E0OTHER001"])
@pytest.mark.parametrize("files", [(), ("notes.txt",)])
async def test_people_of_another_workspace_are_kept_out_by_the_list_of_servers(
    store: Store, home: str, files: tuple[str, ...]
) -> None:
    intake = NotedIntake(store)
    intake.access.rules = AccessRules(servers=frozenset({TEAM}))
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann, eve = slack.user("Ann"), slack.user("Eve")
        slack.foreign[eve] = home

        # Slack does not name the workspace of who uploads a file.
        await slack.say(slack.channel_id, eve, f"<@{slack.bot_user_id}> me?", files=files)
        await slack.say(slack.channel_id, ann, f"<@{slack.bot_user_id}> and I?", files=files)
        await until(lambda: intake.turns and read_by(slack, eve))

        assert [turn.person.id for turn in intake.turns] == [ann]
        assert read_by(slack, eve) == [REFUSED]


async def test_a_person_whose_workspace_is_unknown_is_in_no_allowed_one(store: Store) -> None:
    intake = NotedIntake(store)
    intake.access.rules = AccessRules(servers=frozenset({TEAM}))
    async with SlackEmulator() as slack, hearing(slack, intake):
        eve = slack.user("Eve")
        slack.fail("users.info", status=500, times=9)

        await slack.say(slack.channel_id, eve, f"<@{slack.bot_user_id}> me?", files=("a.txt",))
        await until(lambda: read_by(slack, eve))

        assert intake.turns == []


async def test_the_menu_of_a_message_is_not_for_people_of_another_workspace(store: Store) -> None:
    intake = NotedIntake(store)
    intake.access.rules = AccessRules(servers=frozenset({TEAM}))
    async with SlackEmulator() as slack, hearing(slack, intake):
        ann, eve = slack.user("Ann"), slack.user("Eve")
        slack.foreign[eve] = "T0OTHER001"
        ts = await slack.say(slack.channel_id, ann, "Good morning")

        await slack.choose(slack.channel_id, ts, eve, SUMMARISE_ID)
        form = slack.modal(eve)

        assert intake.turns == []
        assert form is not None
        assert form.texts == [REFUSED]


async def test_who_was_admitted_before_may_not_go_on_from_another_workspace(store: Store) -> None:
    intake = NotedIntake(store)
    async with SlackEmulator() as slack, hearing(slack, intake) as platform:
        eve = slack.user("Eve")
        slack.foreign[eve] = "T0OTHER001"
        await slack.say(slack.channel_id, eve, f"<@{slack.bot_user_id}> me?")
        await until(lambda: intake.turns)
        (turn,) = intake.turns
        async with platform.surface(turn) as surface:
            shown = await surface.post(first("Yes", final=True, last=True))
        taken = await take(intake.queue, "slack")
        exchange = Exchange(turn.id, turn.person, turn.asked_at, turn.text, "Yes")
        await intake.queue.leases.finish(
            taken, Shown((shown,), "Yes", "Yes", outcome="done"), exchange
        )
        intake.access.rules = AccessRules(servers=frozenset({TEAM}))

        await slack.click(slack.channel_id, shown.rpartition(":")[2], eve, "regenerate")
        await until(lambda: read_by(slack, eve))

        assert read_by(slack, eve) == [REFUSED]


def in_an_organisation(slack: SlackEmulator, *, is_org_wide: bool) -> None:
    """Let Slack say that the token is of a workspace in an organisation, or of all of them."""
    names = {"team_id": TEAM, "user_id": slack.bot_user_id, "bot_id": slack.bot_id}
    body = {"ok": True, "user": "parley", "team": "Parley", **names, "enterprise_id": ORG}
    slack.fail("auth.test", status=200, body={**body, "is_enterprise_install": is_org_wide})
