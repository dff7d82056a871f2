"""/parley in Slack, through the real slack-bolt and a real store: who may, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.slack.manifest import ASKED_EVENT
from bot.access.rules import AccessRules
from bot.commands.handlers import COMMANDS, FORGET_QUESTION, FORGETTING, FORGOTTEN
from bot.domain import Preferences
from bot.store import Store
from bot.turns.forgetting import Forgetting
from bot.turns.script import QueueScript
from tests.emulators.slack import SCOPES, SlackEmulator
from tests.emulators.slack.workspace import Role
from tests.support.at_work import take
from tests.support.fakes import NotedIntake, RefusingStore
from tests.support.slack_commands import AWAY, chosen, commanded, read_by
from tests.support.slack_platform import LIMITS, Transport, both_transports
from tests.support.waiting import until


@both_transports
async def test_each_command_is_answered_to_its_person_alone(
    transport: Transport, store: Store
) -> None:
    async with commanded(store, transport=transport) as (slack, _):
        ann = slack.user("Ann")
        dm = slack.dm(ann)

        for name in COMMANDS:
            delivery = await slack.slash(dm, ann, "/parley", name)
            assert delivery.status == 200, name

        # Without words, /parley model and /parley persona open forms, too.
        assert len(slack.ephemerals) == len(COMMANDS)
        assert slack.modal(ann)
        assert {said.user_id for said in slack.ephemerals} == {ann}
        assert not slack.screen(dm)


async def test_a_dm_is_forgotten_by_its_person(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann = slack.user("Ann")
        await slack.say(slack.dm(ann), ann, "why?")
        await until(lambda: intake.turns)

        await slack.slash(slack.dm(ann), ann, "/parley", " RESET ")

        assert read_by(slack, ann)[0].startswith("I have forgotten this conversation.")


@pytest.mark.parametrize("words", ["reset", "persona Be brief."])
async def test_a_dm_of_two_people_is_nobodys_own(words: str, store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann = slack.user("Ann")
        place = slack.dm_of_others(ann, slack.user("Bob"))

        await slack.slash(place, ann, "/parley", words)

        assert "Only the person who started this conversation" in read_by(slack, ann)[0]
        assert await chosen(slack, intake, "thread", place) == Preferences()


async def test_tools_are_switched_off_for_a_channel_by_an_admin(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann, bob = slack.user("Ann"), slack.user("Bob", role="admin")

        for person in (ann, bob):
            await slack.slash(slack.channel_id, person, "/parley", "tools off")

        assert "manages this channel" in read_by(slack, ann)[0]
        assert read_by(slack, bob) == ["From now on I use no tools in this channel."]
        assert await chosen(slack, intake, "channel") == Preferences(tools="off")


async def test_an_admin_ends_anothers_answer_in_its_thread(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann, bob, place = slack.user("Ann"), slack.user("Bob", role="admin"), slack.channel_id
        root = await slack.say(place, ann, f"{slack.bot_mention} why?")
        await running(intake)

        await slack.say(place, bob, f"{slack.bot_mention} /parley stop", thread_ts=root)
        await until(lambda: slack.ephemerals)

        assert read_by(slack, bob) == ["Stopped."]


async def running(intake: NotedIntake) -> None:
    """Let a worker begin with the question that waits."""
    await until(lambda: intake.turns)
    await take(intake.queue, "slack")


async def test_stop_in_a_channel_ends_what_the_person_asked_there(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} why?")
        await running(intake)

        for person in (bob, ann):
            await slack.slash(slack.channel_id, person, "/parley", "stop")

        assert read_by(slack, bob) == ["I am not answering you here right now."]
        assert read_by(slack, ann) == ["Stopped."]


async def test_an_unknown_command_gets_the_list_of_those_that_exist(store: Store) -> None:
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann")

        await slack.slash(slack.channel_id, ann, "/parley", "<!channel> *resett*")

        assert all(f"`{name}`" in read_by(slack, ann)[0] for name in COMMANDS)
        assert not slack.pings


async def test_a_command_without_words_is_help(store: Store) -> None:
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann")

        await slack.slash(slack.channel_id, ann, "/parley", "")

        [text] = read_by(slack, ann)
        assert all(f"`/parley {name}`" in text for name in COMMANDS)
        assert "`@parley`" in text
        assert "What does not work" not in text


async def test_help_names_the_scopes_that_are_missing(store: Store) -> None:
    scopes = SCOPES - {"channels:read", "files:read", "groups:history"}
    async with commanded(store, SlackEmulator(scopes=scopes)) as (slack, _):
        ann = slack.user("Ann")

        await slack.slash(slack.channel_id, ann, "/parley", "help")
        await slack.slash(slack.dm(ann), ann, "/parley", "help")

        in_channel, in_dm = read_by(slack, ann)
        assert "In private channels I only see messages that mention me" in in_channel
        assert "the scope groups:history" in in_channel
        assert "the scope channels:read" in in_channel
        assert "the scope mpim:history" not in in_channel
        assert "I cannot read files" in in_dm
        assert in_dm.count("the scope") == in_dm.count("the scope files:read") == 1


@pytest.mark.parametrize("role", [None, "admin", "owner"])
async def test_admins_and_owners_may_choose_for_the_workspace(
    role: Role | None, store: Store
) -> None:
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann", role=role)

        await slack.slash(slack.channel_id, ann, "/parley", "settings")

        [said] = slack.ephemerals
        offered = [label for label in said.buttons.values() if "workspace" in label]
        assert len(offered) == (2 if role else 0)


async def test_the_creator_of_a_channel_may_choose_for_it(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        place = slack.channel("own", creator=ann, private=True)

        await slack.slash(place, bob, "/parley", "model org/small")
        before = await chosen(slack, intake, "channel", place)
        await slack.slash(place, ann, "/parley", "model large")

        assert "manages this channel" in read_by(slack, bob)[0]
        assert before == Preferences()
        assert read_by(slack, ann) == ["From now on Large answers in this channel."]
        assert await chosen(slack, intake, "channel", place) == Preferences(model="org/large")


async def test_without_the_scope_a_creator_has_no_rights_and_admins_keep_theirs(
    store: Store,
) -> None:
    slack = SlackEmulator(scopes=SCOPES - {"channels:read"})
    async with commanded(store, slack) as (_, intake):
        ann, bob = slack.user("Ann"), slack.user("Bob", role="admin")
        place = slack.channel("own", creator=ann)

        await slack.slash(place, ann, "/parley", "persona Be loud.")
        await slack.slash(place, bob, "/parley", "persona Be brief.")

        assert "manages this channel" in read_by(slack, ann)[0]
        assert await chosen(slack, intake, "channel", place) == Preferences(persona="Be brief.")


async def test_an_admin_of_another_workspace_is_none_here(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann = slack.user("Ann", role="owner")
        slack.foreign[ann] = "T0OTHER001"

        await slack.slash(slack.channel_id, ann, "/parley", "persona Be loud.")

        assert "manages this channel" in read_by(slack, ann)[0]
        assert await chosen(slack, intake, "channel") == Preferences()


async def test_unknown_rights_are_not_guessed(store: Store) -> None:
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann", role="owner")
        # Asked for the language, and for the rights.
        slack.fail("users.info", status=500, times=2)

        await slack.slash(slack.channel_id, ann, "/parley", "settings")

        assert read_by(slack, ann)[0].startswith("Slack did not tell me what you may do here")


@pytest.mark.parametrize("name", ["settings", "model large", "persona Be brief."])
async def test_a_command_that_cannot_be_done_now_says_so(name: str, store: Store) -> None:
    assert isinstance(store, RefusingStore)
    store.refused.add(store.key("preferences"))
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann", role="admin")

        delivery = await slack.slash(slack.dm(ann), ann, "/parley", name)

        assert delivery.status == 200
        assert read_by(slack, ann) == [AWAY]


async def test_a_command_whose_store_does_not_answer_is_answered_in_time(store: Store) -> None:
    limits = replace(LIMITS, view_read_within=0.0)
    async with commanded(store, limits=limits) as (slack, _):
        ann = slack.user("Ann")

        await slack.slash(slack.channel_id, ann, "/parley", "stop")

        assert read_by(slack, ann) == [AWAY]


@pytest.mark.parametrize("name", ["reset", "quiet", "follow"])
async def test_in_a_channel_a_command_of_threads_says_how_to_use_it(
    name: str, store: Store
) -> None:
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann")

        await slack.slash(slack.channel_id, ann, "/parley", name)

        assert f"`@parley /parley {name}`" in read_by(slack, ann)[0]


async def test_another_app_gives_nobody_a_thread(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        eve, place = slack.user("Eve"), slack.channel_id
        payload: dict[str, object] = {"user": eve}
        metadata: dict[str, object] = {"event_type": ASKED_EVENT, "event_payload": payload}
        root = slack.message_of_another(place, "", "Eve asks: mine?", metadata=metadata)

        words = f"{slack.bot_mention} /parley persona Be loud."
        await slack.say(place, eve, words, thread_ts=root)
        await until(lambda: read_by(slack, eve))

        assert "Only the person who started this conversation" in read_by(slack, eve)[0]
        assert await chosen(slack, intake, "thread", place, root) == Preferences()


async def test_in_a_thread_a_mention_with_the_command_carries_it_out(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        place = slack.channel_id
        root = await slack.say(place, ann, "Good morning")
        await slack.say(place, bob, "Hello", thread_ts=root)

        async def use(person: str, words: str) -> None:
            said = len(slack.ephemerals)
            command = f"{slack.bot_mention} /parley {words}"
            await slack.say(place, person, command, thread_ts=root)
            await until(lambda: len(slack.ephemerals) > said)

        await use(bob, "follow")
        await use(ann, "quiet")
        await use(ann, "persona Be brief.")

        assert not intake.turns
        assert {said.thread_ts for said in slack.ephemerals} == {root}
        assert "Only the person who started this conversation" in read_by(slack, bob)[0]
        assert await chosen(slack, intake, "thread", place, root) == Preferences(
            follow="mention", persona="Be brief."
        )


async def test_a_command_in_a_message_to_others_is_none(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann = slack.user("Ann")
        root = await slack.say(slack.channel_id, ann, "/parley reset")
        await slack.say(slack.channel_id, ann, "/parley reset", thread_ts=root)
        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} is /parley reset good?")
        await until(lambda: intake.turns)

        assert not slack.ephemerals
        assert intake.texts == ["is /parley reset good?"]


async def test_a_command_in_a_message_that_comes_again_is_carried_out_once(store: Store) -> None:
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann")
        ts = await slack.say(slack.dm(ann), ann, "/parley reset")
        await until(lambda: len(slack.screen(slack.dm(ann))) == 2)

        await slack.redeliver(ts)
        await slack.say(slack.dm(ann), ann, "/parley stop")
        await until(lambda: len(slack.screen(slack.dm(ann))) == 4)

        said = [shown.text for shown in slack.screen(slack.dm(ann))]
        assert sum(text.startswith("I have forgotten") for text in said) == 1


async def test_forget_me_asks_once_more_and_answers_in_the_same_place(store: Store) -> None:
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann")
        place = slack.channel("elsewhere", member=False)
        await slack.slash(place, ann, "/parley", "forget-me")
        asked = slack.ephemerals[0]

        await slack.press(asked, "forget_me")
        await until(lambda: slack.ephemerals[0] != asked)

        assert asked.text == FORGET_QUESTION
        assert slack.ephemerals[0].text == FORGETTING
        assert not slack.ephemerals[0].buttons

        # There is no worker here.
        forgetting = Forgetting(QueueScript(store, keep_seconds=60), own_names={})
        await forgetting.carry_out(str(await forgetting.claim()))
        await until(lambda: slack.ephemerals[0].text == FORGOTTEN)


async def test_forget_me_while_the_store_is_away_says_so(store: Store) -> None:
    assert isinstance(store, RefusingStore)
    async with commanded(store) as (slack, _):
        ann = slack.user("Ann")
        await slack.slash(slack.dm(ann), ann, "/parley", "forget-me")
        store.refused.add(store.key("forgetting"))

        await slack.press(slack.ephemerals[0], "forget_me")
        await until(lambda: read_by(slack, ann) != [FORGET_QUESTION])

        assert read_by(slack, ann) == [AWAY]


async def test_who_asked_by_command_looks_after_the_thread(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        place = slack.channel_id
        await slack.slash(place, ann, "/ask", "why?")
        root = slack.screen(place)[-1].ts
        await slack.say(place, bob, "Hello", thread_ts=root)

        for person in (bob, ann):
            command = f"{slack.bot_mention} /parley quiet"
            await slack.say(place, person, command, thread_ts=root)
        await until(lambda: len(slack.ephemerals) == 2)

        assert read_by(slack, ann) == ["From now on I answer only mentions and replies here."]
        assert "Only the person who started this conversation" in read_by(slack, bob)[0]
        assert (await chosen(slack, intake, "thread", place, root)).follow == "mention"


async def test_a_person_without_access_gets_no_form_and_the_reason_each_time(store: Store) -> None:
    async with commanded(store) as (slack, intake):
        ann = slack.user("Ann")
        intake.access.rules = AccessRules(blocked=frozenset({ann}))
        ts = await slack.say(slack.channel_id, ann, "Good morning")

        await slack.choose(slack.channel_id, ts, ann, "summarise")
        await slack.choose(slack.channel_id, ts, ann, "ask_about")
        for name in ("usage", "help", "settings"):
            await slack.slash(slack.channel_id, ann, "/parley", name)

        shown = slack.modal(ann)
        assert shown is not None
        assert shown.texts[0].startswith("I may not answer you here.")
        assert not shown.fields
        assert sum(call.method == "views.open" for call in slack.requests) == 2
        assert read_by(slack, ann) == shown.texts * 3
        assert not intake.turns
