"""/parley in Slack: who may, what it says, and the forms that it opens."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bot.domain import ThreadKey
from bot.errors import StoreUnavailable
from bot.turns.desk import COMMANDS, FORGET_QUESTION, NotAThread, NotOffered
from tests.emulators.slack import SCOPES, SlackEmulator, View
from tests.support.fakes import FakeIntake
from tests.support.slack_commands import FakeDesk, TooHot, commanding
from tests.support.slack_platform import LIMITS, Transport, both_transports, hearing
from tests.support.waiting import until

AWAY = "I cannot do this at the moment. Please try again in a minute."


@both_transports
async def test_each_command_is_answered_to_its_person_alone(transport: Transport) -> None:
    async with SlackEmulator() as slack, hearing(slack, FakeIntake(), transport):
        ann = slack.user("Ann")
        dm = slack.dm(ann)

        for name in COMMANDS:
            delivery = await slack.slash(dm, ann, "/parley", name)
            assert delivery.status == 200, name

        # Without words, /parley persona opens a form.
        assert len(slack.ephemerals) == len(COMMANDS) - 1
        assert slack.modal(ann)
        assert {said.user_id for said in slack.ephemerals} == {ann}
        assert not slack.screen(dm)


@pytest.mark.parametrize("name", ["reset", "stop", "quiet", "follow", "usage"])
async def test_a_command_in_a_dm_is_about_the_conversation_there(name: str) -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann = slack.user("Ann")
        dm = slack.dm(ann)

        await slack.slash(dm, ann, "/parley", f" {name.upper()} ")

        assert slack.ephemerals[0].text == f"Done: {name}."
        assert desk.last.thread == ThreadKey("slack", slack.team_id, dm, dm)
        assert desk.last.person.id == ann
        assert desk.last.own_thread
        assert [*desk.last.scopes] == ["thread", "server"]


async def test_an_unknown_command_gets_the_list_of_those_that_exist() -> None:
    async with SlackEmulator() as slack, commanding(slack, FakeDesk()):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/parley", "<!channel> *resett*")

        assert all(f"`{name}`" in slack.ephemerals[0].text for name in COMMANDS)
        assert not slack.pings


async def test_a_command_without_words_is_help() -> None:
    async with SlackEmulator() as slack, commanding(slack, FakeDesk()):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/parley", "")

        text = slack.ephemerals[0].text
        assert all(f"`/parley {name}`" in text for name in COMMANDS)
        assert "@parley" in text
        assert "What does not work" not in text


async def test_help_tells_which_scopes_an_admin_would_have_to_give() -> None:
    scopes = SCOPES - {"groups:history", "channels:read"}
    async with SlackEmulator(scopes=scopes) as slack, commanding(slack, FakeDesk()):
        ann = slack.user("Ann")

        await slack.slash(slack.channel_id, ann, "/parley", "help")
        await slack.slash(slack.dm(ann), ann, "/parley", "help")

        in_channel, in_dm = (said.text for said in slack.ephemerals)
        assert "In private channels I hear only messages that mention me" in in_channel
        assert "the scope groups:history" in in_channel
        assert "the scope channels:read" in in_channel
        assert "the scope mpim:history" not in in_channel
        assert "scope" not in in_dm


@pytest.mark.parametrize("role", [None, "admin", "owner"])
async def test_admins_and_owners_may_choose_for_the_workspace(role: str | None) -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann = slack.user("Ann", role=role)  # type: ignore[arg-type]

        await slack.slash(slack.channel_id, ann, "/parley", "settings")

        rights = desk.last.manages_server, desk.last.manages_channel, desk.last.manages_messages
        assert rights == ((True,) * 3 if role else (False,) * 3)


async def test_the_creator_of_a_channel_may_choose_for_it() -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        place = slack.channel("own", creator=ann, private=True)

        await slack.slash(place, bob, "/parley", "model large")
        bobs = desk.last
        await slack.slash(place, ann, "/parley", "model large")

        assert not bobs.manages_channel
        assert desk.last.manages_channel
        assert not desk.last.manages_server
        assert desk.calls[-1][2] == ("large", None)


async def test_without_the_scope_a_creator_has_no_rights_and_others_keep_theirs() -> None:
    desk = FakeDesk()
    scopes = SCOPES - {"channels:read"}
    async with SlackEmulator(scopes=scopes) as slack, commanding(slack, desk):
        ann, bob = slack.user("Ann"), slack.user("Bob", role="admin")
        place = slack.channel("own", creator=ann)

        await slack.slash(place, ann, "/parley", "settings")
        anns = desk.last
        await slack.slash(place, bob, "/parley", "settings")

        assert not anns.manages_channel
        assert desk.last.manages_server


async def test_an_admin_of_another_workspace_is_none_here() -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann = slack.user("Ann", role="owner")
        slack.foreign.add(ann)

        await slack.slash(slack.channel_id, ann, "/parley", "settings")

        assert not desk.last.manages_server


async def test_rights_that_slack_does_not_tell_are_not_guessed() -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann = slack.user("Ann", role="owner")
        slack.fail("users.info", status=500)

        await slack.slash(slack.channel_id, ann, "/parley", "settings")

        assert not desk.calls
        assert slack.ephemerals[0].text.startswith("Slack did not tell me what you may do here")


@pytest.mark.parametrize("name", ["reset", "stop", "usage", "settings", "model large"])
async def test_a_command_that_cannot_be_done_now_says_so(name: str) -> None:
    desk = FakeDesk(error=StoreUnavailable("no Redis"))
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann = slack.user("Ann")

        delivery = await slack.slash(slack.dm(ann), ann, "/parley", name)

        assert delivery.status == 200
        assert slack.ephemerals[0].text == AWAY


async def test_a_command_that_hangs_is_answered_in_time() -> None:
    class Hanging(FakeDesk):
        async def usage(self, call: object) -> str:
            await asyncio.Event().wait()
            raise AssertionError

    limits = replace(LIMITS, question_posted_within=0.1)
    async with SlackEmulator() as slack, commanding(slack, Hanging(), limits=limits):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/parley", "usage")

        assert slack.ephemerals[0].text == AWAY


async def test_in_a_channel_a_command_of_threads_tells_how_to_use_it_there() -> None:
    desk = FakeDesk(error=NotAThread())
    async with SlackEmulator() as slack, commanding(slack, desk):
        await slack.slash(slack.channel_id, slack.user("Ann"), "/parley", "reset")

        assert "`@parley /parley reset`" in slack.ephemerals[0].text


async def test_in_a_thread_a_mention_with_the_command_carries_it_out() -> None:
    desk, intake = FakeDesk(), FakeIntake()
    async with SlackEmulator() as slack, commanding(slack, desk, intake=intake):
        ann, bob = slack.user("Ann"), slack.user("Bob")
        place = slack.channel_id
        root = await slack.say(place, ann, "Good morning")
        await slack.say(place, bob, "Hello", thread_ts=root)
        for person in (ann, bob):
            words = f"{slack.bot_mention} /parley reset"
            await slack.say(place, person, words, thread_ts=root)
        await until(lambda: len(slack.ephemerals) == 2)

        assert not intake.asked
        assert {said.thread_ts for said in slack.ephemerals} == {root}
        owns = {call.person.id: call.own_thread for _, call, _ in desk.calls}
        assert owns == {ann: True, bob: False}
        assert desk.last.thread == ThreadKey("slack", slack.team_id, place, root)
        assert [*desk.last.scopes] == ["thread", "channel", "server"]


async def test_a_command_in_a_message_of_others_is_no_command() -> None:
    desk, intake = FakeDesk(), FakeIntake()
    async with SlackEmulator() as slack, commanding(slack, desk, intake=intake):
        ann = slack.user("Ann")
        root = await slack.say(slack.channel_id, ann, "/parley reset")
        await slack.say(slack.channel_id, ann, "/parley reset", thread_ts=root)
        await slack.say(slack.channel_id, ann, f"{slack.bot_mention} is /parley reset good?")
        await until(lambda: intake.turns)

        assert not desk.calls
        assert intake.texts == ["is /parley reset good?"]


async def test_an_event_that_comes_again_carries_a_command_out_once() -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann = slack.user("Ann")
        ts = await slack.say(slack.dm(ann), ann, "/parley reset")
        await until(lambda: len(slack.screen(slack.dm(ann))) == 2)

        await slack.redeliver(ts)

        assert len(desk.calls) == 1
        assert slack.screen(slack.dm(ann))[-1].text == "Done: reset."


@pytest.mark.parametrize("name", ["model", "persona"])
async def test_without_words_a_form_offers_what_can_be_chosen(name: str) -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann = slack.user("Ann", role="admin")

        await slack.slash(slack.channel_id, ann, "/parley", name)
        form = slack.modal(ann)
        assert form is not None
        places = form.options("scope")
        chosen = "large" if name == "model" else "Be <!channel> brief."
        await slack.submit(ann, **{name: chosen, "scope": "server"})

        assert not slack.ephemerals
        assert places == ["channel", "server"]
        assert desk.calls[-1][0] == name
        assert desk.calls[-1][2] == (chosen, "server")
        assert desk.last.manages_server
        assert form.texts == [f"Done: {name}."]
        assert not form.fields


async def test_a_model_is_offered_by_its_label() -> None:
    async with SlackEmulator() as slack, commanding(slack, FakeDesk()):
        ann = slack.user("Ann")

        await slack.slash(slack.dm(ann), ann, "/parley", "model")

        form = slack.modal(ann)
        assert form is not None
        assert form.options("model") == ["small", "large"]


async def test_without_models_nothing_is_offered() -> None:
    async with SlackEmulator() as slack, commanding(slack, FakeDesk(offered=())):
        ann = slack.user("Ann")

        await slack.slash(slack.channel_id, ann, "/parley", "model")

        assert slack.modal(ann) is None
        assert slack.ephemerals[0].text == NotOffered.apology


async def test_settings_show_what_is_chosen_and_open_the_forms_that_a_person_may_use() -> None:
    desk = FakeDesk(chosen={"model": "large", "temperature": "0.3"})
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann, bob = slack.user("Ann", role="admin"), slack.user("Bob")

        await slack.slash(slack.channel_id, bob, "/parley", "settings")
        await slack.slash(slack.channel_id, ann, "/parley", "settings")
        bobs, anns = slack.ephemerals
        await slack.press(anns, "open_form:channel:answers")
        form = await opened(slack, ann)

        assert (bobs.text, bobs.buttons) == ("Answers come from Small.", {})
        assert [*anns.buttons.values()] == ["Answers…", "Who may ask…"]
        assert form.title == "How I answer in this ch…"
        assert [*form.fields] == ["model", "temperature", "persona"]
        values = form.values({})
        assert values["model"]["value"]["selected_option"]["value"] == "large"  # type: ignore
        assert values["temperature"]["value"]["value"] == "0.3"  # type: ignore


async def test_a_form_is_stored_with_the_rights_of_that_moment() -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann, bob = slack.user("Ann", role="admin"), slack.user("Bob")
        await slack.slash(slack.channel_id, ann, "/parley", "settings")
        await slack.press(slack.ephemerals[0], "open_form:server:access")
        form = await opened(slack, ann)
        slack.set_role(ann, None)

        await slack.submit(ann, people=[ann, bob], temperature="")

        name, call, rest = desk.calls[-1]
        filled = {"model": "", "temperature": "", "people": [ann, bob]}
        assert (name, rest) == ("fill_in", ("server", "access", filled, "version 7"))
        assert not call.manages_server
        assert call.thread.channel == slack.channel_id
        assert form.texts == ["Done: fill_in."]


async def test_what_cannot_be_stored_is_told_below_its_field_and_the_form_stays() -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann = slack.user("Ann", role="admin")
        await slack.slash(slack.channel_id, ann, "/parley", "settings")
        await slack.press(slack.ephemerals[0], "open_form:channel:answers")
        form = await opened(slack, ann)

        await slack.submit(ann, temperature="hot")
        errors = form.errors
        desk.error = StoreUnavailable("no Redis")
        await slack.submit(ann, temperature="1")

        assert errors == {"temperature": TooHot.apology}
        assert form.errors == {"model": AWAY}
        assert [*form.fields] == ["model", "temperature", "persona"]


async def test_a_form_that_cannot_be_read_turns_into_an_excuse() -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann = slack.user("Ann", role="admin")
        await slack.slash(slack.channel_id, ann, "/parley", "settings")
        desk.error = StoreUnavailable("no Redis")

        await slack.press(slack.ephemerals[0], "open_form:channel:answers")
        await until(lambda: (form := slack.modal(ann)) is not None and form.texts == [AWAY])


async def test_forget_me_asks_once_more_and_answers_in_the_same_place() -> None:
    desk = FakeDesk()
    async with SlackEmulator() as slack, commanding(slack, desk):
        ann = slack.user("Ann")
        place = slack.channel("elsewhere", member=False)
        await slack.slash(place, ann, "/parley", "forget-me")
        asked = slack.ephemerals[0]
        assert asked.text == FORGET_QUESTION
        assert not desk.calls

        await slack.press(asked, "forget_me")
        await until(lambda: slack.ephemerals[0].text == "Done: forget-me.")

        assert desk.last.person.id == ann
        assert not slack.ephemerals[0].buttons


async def opened(slack: SlackEmulator, user: str) -> View:
    """Return the form that a person sees, once it has its fields."""
    await until(lambda: (form := slack.modal(user)) is not None and bool(form.fields))
    form = slack.modal(user)
    assert form is not None
    return form
