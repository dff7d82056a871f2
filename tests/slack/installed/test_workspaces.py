"""The whole bot in several workspaces: each is answered with its own token, and can leave."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from adapters.slack.inbound.app import installed_in
from adapters.slack.installed.installations import Installation
from adapters.slack.setup import examine_several
from bot.domain import FileRef, Person, ThreadKey, Turn
from bot.errors import PlaceGone, WriteFailed
from bot.store import Store
from bot.turns.forgetting import named
from tests.emulators.model import ModelEmulator
from tests.emulators.slack import SlackEmulator
from tests.support.fakes import FakeQueue, NotedIntake
from tests.support.service import Service, serving
from tests.support.slack_installed import (
    app,
    app_settings,
    app_variables,
    dumped,
    install,
    store_of,
)
from tests.support.slack_platform import TEAM, dm_event, joined, missed, send_body
from tests.support.waiting import until

ORG = "E0ORG"


async def answer(
    slack: SlackEmulator, channel: str, text: str, service: Service, *, team: int = 1
) -> str:
    """Mention the bot of a workspace in a channel; return its answer once it has ended."""
    ann = slack.user("Ann", f"T0PARLEY00{team}")
    ts = await slack.say(channel, ann, f"<@U0PARLEY00{team}> {text}")
    # Only what has ended can be asked again.
    await until(
        lambda: any("regenerate" in one.buttons for one in slack.screen(channel, ts)),
        why=service.text,
    )
    return slack.screen(channel, ts)[1].text


async def test_the_bot_answers_in_each_workspace_with_the_token_of_that_workspace(
    own_store: Store, model: ModelEmulator
) -> None:
    async with SlackEmulator() as slack:
        slack.oauth.life = 43200.0
        other = slack.install("Umbrella")
        labs = slack.channel("labs", team_id=other.team_id)
        async with serving(own_store, variables=app_variables(slack, model)) as service:
            await slack.verify(f"{service.address}/slack/events")
            for team in (slack.team_id, other.team_id):
                await install(slack, service.address, team)
            answers = [
                await answer(slack, slack.channel_id, "one?", service),
                await answer(slack, labs, "two?", service, team=2),
            ]

        assert ["one?" in answers[0], "two?" in answers[1]] == [True, True]
        # Slack refuses a channel to the token of another workspace.
        assert [call for call in slack.requests if call.error] == []
        assert service.errors() == []
        assert "xox" not in await dumped(own_store)
        assert "xox" not in service.text()


async def test_a_workspace_is_answered_by_socket_mode_and_misses_nothing_in_an_outage(
    own_store: Store, model: ModelEmulator
) -> None:
    async with SlackEmulator(ack_within=30.0, retry_after=(0.0,)) as slack:
        variables = app_variables(slack, model, socket=True)
        async with serving(own_store, variables=variables) as service:
            await until(lambda: slack.sockets == 2, why=service.text)
            await install(slack, service.address, TEAM)
            assert "heard" in await answer(slack, slack.channel_id, "heard?", service)
        dm = await missed(slack, own_store, "missed?")
        async with serving(own_store, variables=variables) as service:
            await until(lambda: slack.screen(dm)[-1].buttons, why=service.text)

        assert "missed?" in slack.screen(dm)[-1].text
        assert [call for call in slack.requests if call.error] == []


async def test_events_of_a_workspace_that_has_not_installed_the_app_are_dropped_and_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    intake = NotedIntake(store)
    async with SlackEmulator() as slack, app(slack, store, intake) as (_, url):
        for body in ({"team_id": TEAM}, {"authorizations": [{"team_id": TEAM}]}, {}):
            event = {"type": "event_callback", "event": dm_event(slack), **body}
            assert await send_body(slack, f"{url}/slack/events", json.dumps(event).encode()) == 200

    assert intake.turns == []
    assert caplog.text.count(f"the app is not installed in {TEAM}") == 2
    assert "the app is not installed in any workspace" in caplog.text


async def test_a_workspace_that_leaves_in_the_middle_of_an_answer_is_forgotten(
    own_store: Store, model: ModelEmulator
) -> None:
    held = asyncio.Event()
    async with SlackEmulator() as slack:
        async with serving(own_store, variables=app_variables(slack, model)) as service:
            await slack.verify(f"{service.address}/slack/events")
            await install(slack, service.address, TEAM)
            await answer(slack, slack.channel_id, "first zebra?", service)
            model.answer = [(0.0, "It begins "), (held, "and goes on.")]
            ann = slack.user("Ann")
            ts = await slack.say(slack.channel_id, ann, f"{slack.bot_mention} second zebra?")
            await until(lambda: len(slack.screen(slack.channel_id, ts)) == 2, why=service.text)

            slack.uninstall(TEAM)
            # Slack tells it by two events.
            told = "its data will be removed"
            await until(lambda: service.text().count(told) == 2, why=service.text)
            assert await store_of(own_store).ids() == []
            held.set()
            # The job is due in 23 hours.
            job = named("server", "slack", TEAM)
            await own_store.command("ZADD", own_store.key("forgetting"), "XX", 0, job)
            gone = "forgotten kind=server platform=slack"
            await until(lambda: gone in service.text(), why=service.text)
            dump = await dumped(own_store)
            assert "zebra" not in dump
            assert [line for line in dump.splitlines() if f"slack:{TEAM}" in line] == []

            # Installed again, it is as new.
            model.answer = "Here I am."
            await install(slack, service.address, TEAM)
            async with asyncio.timeout(60):
                while await answer(slack, slack.channel_id, "again?", service) != "Here I am.":
                    pass

        assert service.errors() == []


@pytest.mark.parametrize("hours", [-1, 0, 1])
@pytest.mark.parametrize(
    "removal",
    [{"type": "app_uninstalled"}, {"type": "tokens_revoked", "tokens": {"bot": ["U1"]}}],
    ids=str,
)
async def test_a_workspace_leaves_if_slack_refuses_its_token_whatever_the_clocks_say(
    store: Store, removal: dict[str, object], hours: int
) -> None:
    # The event may be a late one, and the app have been installed again.
    told = {"event": removal, "event_time": int(time.time()) + hours * 3600}
    body = json.dumps({"type": "event_callback", "team_id": TEAM, **told}).encode()
    async with SlackEmulator() as slack, app(slack, store, NotedIntake(store)) as (_, url):
        await install(slack, url, TEAM)

        assert await send_body(slack, f"{url}/slack/events", body) == 200
        assert await store_of(store).ids() == [TEAM]
        slack.fail("auth.test", error="internal_error")
        assert await send_body(slack, f"{url}/slack/events", body) == 503
        slack.fail("auth.test", error="team_access_not_granted")
        assert await send_body(slack, f"{url}/slack/events", body) == 503
        assert await store_of(store).ids() == [TEAM]
        slack.oauth.uninstall(TEAM)
        assert await send_body(slack, f"{url}/slack/events", body) == 200
        assert await store_of(store).ids() == []


async def test_a_workspace_that_is_installed_again_while_slack_is_asked_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SlackEmulator() as slack, app(slack, store, NotedIntake(store)) as (platform, url):
        await install(slack, url, TEAM)
        slack.oauth.uninstall(TEAM)
        still_works, answers = platform._still_works, []

        async def slowly(id_: str) -> bool:
            answers.append(await still_works(id_))
            if len(answers) == 1:
                await install(slack, url, TEAM)
            return answers[-1]

        monkeypatch.setattr(platform, "_still_works", slowly)
        event = {"type": "event_callback", "team_id": TEAM, "event": {"type": "app_uninstalled"}}
        assert await send_body(slack, f"{url}/slack/events", json.dumps(event).encode()) == 200

        assert answers == [False, True]
        assert await store_of(store).ids() == [TEAM]


async def test_an_organisation_leaves_though_the_event_names_a_workspace_first(
    store: Store,
) -> None:
    async with SlackEmulator() as slack, app(slack, store, NotedIntake(store)) as (_, url):
        await install(slack, url, TEAM, organization=ORG)
        slack.oauth.uninstall(TEAM)
        event = {"type": "event_callback", "event": {"type": "app_uninstalled"}}
        body = json.dumps({**event, "team_id": TEAM, "enterprise_id": ORG}).encode()

        assert await send_body(slack, f"{url}/slack/events", body) == 200

        assert await store_of(store).ids() == []
        due = await store.command("ZRANGE", store.key("forgetting"), 0, -1)
        assert due == [named("server", "slack", ORG)]


async def test_an_admin_is_told_in_the_workspace_that_knows_them(store: Store) -> None:
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (platform, url):
        with pytest.raises(PlaceGone, match="installed nowhere for U0NOBODY"):
            await platform.tell("U0NOBODY", "80 % is used")
        other = slack.install("Umbrella")
        for team in (TEAM, other.team_id):
            await install(slack, url, team)
        bob = slack.user("Bob", other.team_id)

        await platform.tell(bob, "80 % is used")

        posts = [call for call in slack.requests if call.method == "chat.postMessage"]
        assert [call.error for call in posts] == ["channel_not_found", None]
        # One that does not answer may be the right one.
        slack.fail("chat.postMessage", status=503)
        with pytest.raises(WriteFailed):
            await platform.tell("U0NOBODY", "80 % is used")


async def test_admins_are_told_of_quotas_in_their_own_workspace(
    own_store: Store, model: ModelEmulator
) -> None:
    async with SlackEmulator() as slack:
        other = slack.install("Umbrella")
        bob = slack.user("Bob", other.team_id)
        quota = {"SERVER_TOKENS_PER_DAY": "1000", "MAX_TOKENS": "900", "ADMINS": bob}
        async with serving(own_store, variables=app_variables(slack, model) | quota) as service:
            await slack.verify(f"{service.address}/slack/events")
            for team in (TEAM, other.team_id):
                await install(slack, service.address, team)
            await answer(slack, slack.channel_id, "one?", service)
            dm = slack.dm(bob)
            await until(lambda: slack.screen(dm), why=service.text)

    assert TEAM in slack.screen(dm)[0].text


async def test_what_is_left_of_a_workspace_that_is_gone_ends_and_shows_nothing(
    store: Store,
) -> None:
    key = ThreadKey("slack", "T0GONE", "C1", "1.1")
    place = {"channel": "C1", "thread": "1.1", "question": "1.1"}
    turn = Turn("slack:T0GONE:C1:1.1", key, Person("U1", "Ann"), "why?", place, 0.0)
    file = FileRef("slack:F1", turn.id, "a.txt", 1, {})
    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (platform, _):
        with pytest.raises(PlaceGone, match="the app is not installed in T0GONE"):
            async with platform.surface(turn):
                pass
        with pytest.raises(PlaceGone):
            await anext(platform.fetch_file(file))
        reads = platform.earlier(turn)
        assert reads is not None
        with pytest.raises(PlaceGone):
            await reads(9e9, 1)

        assert slack.requests == []


async def test_a_slack_that_is_away_gets_the_event_again(store: Store) -> None:
    intake = NotedIntake(store)
    async with SlackEmulator() as slack, app(slack, store, intake) as (_, url):
        await install(slack, url, TEAM)
        slack.fail("auth.test", status=503)
        event = {"type": "event_callback", "team_id": TEAM, "event": dm_event(slack)}
        body = json.dumps(event).encode()

        assert await send_body(slack, f"{url}/slack/events", body) == 503
        assert await send_body(slack, f"{url}/slack/events", body) == 200

    assert intake.texts == ["why?"]


@pytest.mark.parametrize("is_readable", [True, False])
async def test_events_of_a_workspace_with_a_useless_token_are_acknowledged_and_logged_once(
    store: Store, caplog: pytest.LogCaptureFixture, *, is_readable: bool
) -> None:
    intake = NotedIntake(store)
    async with SlackEmulator() as slack, app(slack, store, intake) as (_, url):
        await install(slack, url, TEAM)
        slack.oauth.uninstall(TEAM)
        if not is_readable:
            await store.command("HSET", store.key("slack_installations"), TEAM, "damaged")
        event = {"type": "event_callback", "team_id": TEAM, "event": dm_event(slack)}
        body, asked = json.dumps(event).encode(), len(slack.requests)

        for _ in range(3):
            assert await send_body(slack, f"{url}/slack/events", body) == 200

        assert [call.method for call in slack.requests[asked:]] == ["auth.test"] * is_readable
        assert caplog.text.count(f"Events of {TEAM} are ignored") == 1
        # Installed again, maybe by way of another process, it is heard at once.
        answer = slack.grant(TEAM)
        await store_of(store).add(Installation.of(answer, asked_at=time.time()))
        assert await send_body(slack, f"{url}/slack/events", body) == 200

    assert intake.texts == ["why?"]


async def test_an_organisation_is_one_workspace_with_one_token(store: Store) -> None:
    intake = NotedIntake(store)
    names = {"user": "parley", "user_id": SlackEmulator.bot_user_id, "bot_id": SlackEmulator.bot_id}
    identity = {"ok": True, "team_id": "T0ONE", "enterprise_id": ORG, "is_enterprise_install": True}
    async with SlackEmulator() as slack, app(slack, store, intake) as (_, url):
        await install(slack, url, TEAM, organization=ORG)
        slack.fail("auth.test", status=200, body={**identity, **names})
        for number, team in enumerate(("T0ONE", "T0TWO", None)):
            event = {**dm_event(slack), "ts": f"1700000000.00{number}"}
            where = {"enterprise_id": ORG, "team_id": team, "is_enterprise_install": True}
            body = {"type": "event_callback", "team_id": "T0X", "authorizations": [where]}
            payload = json.dumps({**body, "event": event}).encode()
            assert await send_body(slack, f"{url}/slack/events", payload) == 200
        form = {"command": "/ask", "text": "", "trigger_id": "1.2", "user_id": slack.user("Bob")}
        form |= {"channel_id": slack.channel_id, "team_id": "T0ONE", "enterprise_id": ORG}
        command = urlencode({**form, "is_enterprise_install": "true"}).encode()
        kind = "application/x-www-form-urlencoded"
        assert await send_body(slack, f"{url}/slack/events", command, kind=kind) == 200

    assert [turn.key.workspace for turn in intake.turns] == [ORG] * 3


@pytest.mark.parametrize(
    ("rights", "manages"),
    [
        ({"enterprise_id": ORG, "teams": ["T0ONE"], "is_admin": True}, True),
        ({"enterprise_id": ORG, "teams": ["T0ONE"], "is_owner": True}, True),
        ({"enterprise_id": ORG, "teams": ["T0ONE"]}, False),
        ({"enterprise_id": "E0FAR", "teams": ["T0FAR"], "is_admin": True}, False),
        ({}, False),
    ],
    ids=str,
)
async def test_an_organisation_is_managed_by_its_own_admins(
    rights: dict[str, object], manages: bool
) -> None:
    # An admin of one of its workspaces is none of the others.
    person = {"id": "U1", "team_id": "T0ONE", "is_admin": True, "enterprise_user": rights}
    async with SlackEmulator() as slack, joined(slack) as platform:
        slack.fail("users.info", status=200, body={"ok": True, "user": person})
        identity = replace(platform.workspace.identity, team=ORG, enterprise=ORG)

        found = await replace(platform.workspace, identity=identity).is_admin("U1")

    assert found is manages


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"team_id": "T1", "authorizations": [{"team_id": "T2", "enterprise_id": "E2"}]}, "T2 E2"),
        ({"team_id": "T1", "authorizations": []}, "T1"),
        ({"team": {"id": "T1"}, "user": {"team_id": "T2"}, "enterprise": None}, "T1 T2"),
        ({"team": None, "enterprise": {"id": "E1"}, "is_enterprise_install": True}, "E1"),
        ({"team_id": "T1", "enterprise_id": "E1", "is_enterprise_install": "true"}, "E1 T1"),
        ({"team_id": 1, "team": "T1", "user": "U1", "authorizations": "none"}, ""),
    ],
    ids=str,
)
def test_a_payload_names_the_installation_that_it_is_for(body: dict[str, object], ids: str) -> None:
    assert [*installed_in(body)] == ids.split()


async def test_check_says_how_many_have_installed_the_app_and_whose_token_works(
    store: Store,
) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        yield store

    async def findings() -> list[tuple[str, bool]]:
        own = app_settings(slack)
        found = examine_several(own, store=opened(), workspaces=())
        return [(one.text, one.wrong) async for one in found]

    async with SlackEmulator() as slack, app(slack, store, FakeQueue()) as (_, url):
        nobody = await findings()
        other = slack.install("Umbrella")
        for team in (TEAM, other.team_id):
            await install(slack, url, team)
        slack.oauth.uninstall(other.team_id)
        two = await findings()

    assert nobody[0] == ("Workspaces and organizations that have installed the app: 0", False)
    assert two[0] == ("Workspaces and organizations that have installed the app: 2", False)
    assert (f"The token of Parley ({TEAM}) works", False) in two
    refused = f"Slack refuses the token of Umbrella ({other.team_id}): token_revoked"
    assert (refused, True) in two
