"""AccessRules in Discord: who is refused costs nothing, and other servers are left."""

from __future__ import annotations

import logging

import pytest

from bot.access.quotas import Quota
from bot.access.rules import AccessRules
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import after_a_session, listening, running_process
from tests.support.fakes import FakeQueue, NotedIntake
from tests.support.waiting import until


def noted(store: Store, access: AccessRules) -> NotedIntake:
    intake = NotedIntake(store)
    intake.access.rules = access
    return intake


def replies(emulator: DiscordEmulator, channel: str = "") -> list[str]:
    """What the bot has said in a channel."""
    shown = emulator.screen(channel or emulator.channel_id)
    return [one.text for one in shown if one.author_id == emulator.bot_id]


async def test_a_person_without_access_costs_nothing_and_reads_one_sentence(store: Store) -> None:
    async with DiscordEmulator() as emulator:
        ada, eve = emulator.user("Ada"), emulator.user("Eve")
        intake = noted(store, AccessRules(people=frozenset({ada})))
        async with listening(emulator, intake):
            for text in ("why?", "stop", "really?"):
                await emulator.say(emulator.channel_id, eve, f"{emulator.bot_mention} {text}")
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} and I?")
            await until(lambda: intake.turns and replies(emulator))

            assert intake.texts == ["and I?"]
            assert len(replies(emulator)) == 1
            assert "may not answer you" in replies(emulator)[0]
            # Neither a speaker, nor a question, nor a look at what was said.
            keys = [key for key in await store.command("KEYS", store.key("*")) if eve in key]
            assert keys == [store.key("warned", f"discord:::{eve}")]
            assert not emulator.typing


async def test_talk_of_people_without_access_in_a_thread_of_the_bot_is_not_noted(
    store: Store,
) -> None:
    async with DiscordEmulator() as emulator:
        ada, eve = emulator.user("Ada"), emulator.user("Eve")
        intake = noted(store, AccessRules(people=frozenset({ada})))
        async with listening(emulator, intake):
            asked = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} why?")
            await until(lambda: intake.turns)
            thread = await emulator.open_thread(asked, ada, "why?")
            await emulator.say(thread, ada, "first")
            await emulator.say(thread, eve, "I am here, too")
            await emulator.say(thread, ada, "second")
            await until(lambda: len(intake.turns) == 3)

            assert intake.texts == ["why?", "first", "second"]
            assert replies(emulator, thread) == []


async def test_a_command_is_refused_to_the_person_alone_each_time(store: Store) -> None:
    async with DiscordEmulator() as emulator:
        eve = emulator.user("Eve")
        async with listening(emulator, noted(store, AccessRules(people=frozenset({"1"})))):
            given = [
                await emulator.slash(emulator.channel_id, eve, "ask", question="why?")
                for _ in range(2)
            ]
            await until(lambda: all(emulator.original(one) for one in given))

            for answer in map(emulator.original, given):
                assert answer
                assert answer.ephemeral
                assert "may not answer you" in answer.text


async def test_a_role_lets_in(store: Store) -> None:
    async with DiscordEmulator() as emulator:
        ada, eve, friends = emulator.user("Ada"), emulator.user("Eve"), emulator.role("Friends")
        emulator.give_role(ada, friends)
        intake = noted(store, AccessRules(roles=frozenset({friends})))
        async with listening(emulator, intake):
            for one in (eve, ada):
                await emulator.say(emulator.channel_id, one, f"{emulator.bot_mention} why?")
            await until(lambda: intake.turns and replies(emulator))
            given = await emulator.slash(emulator.channel_id, ada, "ask", question="and so?")
            await until(lambda: emulator.original(given))

            assert [turn.person.id for turn in intake.turns] == [ada, ada]


async def test_the_roles_of_those_who_asked_while_nobody_listened_are_looked_up(
    store: Store,
) -> None:
    async with after_a_session(store) as (emulator, ada):
        eve, friends = emulator.user("Eve"), emulator.role("Friends")
        emulator.give_role(ada, friends)
        for one in (eve, ada):
            await emulator.say(emulator.channel_id, one, f"{emulator.bot_mention} why?")
        members = f"GET /guilds/{emulator.guild_id}/members"
        unknown = {"code": 10007, "message": "Unknown Member"}
        gone = emulator.fail(f"{members}/{eve}", status=404, body=unknown)
        failing = emulator.fail(f"{members}/{ada}", status=503, times=2)
        intake = noted(store, AccessRules(roles=frozenset({friends})))
        async with running_process(emulator, intake, store):
            await until(lambda: intake.turns and replies(emulator))

    assert [turn.person.id for turn in intake.turns] == [ada]
    assert "may not answer you" in replies(emulator)[0]
    assert gone.times == failing.times == 0


async def test_a_channel_stands_for_its_threads_and_for_no_direct_message(store: Store) -> None:
    async with DiscordEmulator() as emulator:
        ada, other = emulator.user("Ada"), emulator.channel("other")
        private = emulator.dm(ada)
        intake = noted(store, AccessRules(channels=frozenset({emulator.channel_id})))
        async with listening(emulator, intake):
            await emulator.say(other, ada, f"{emulator.bot_mention} there?")
            await emulator.say(private, ada, "in private?")
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} here?")
            await until(lambda: intake.turns and replies(emulator, other))

            assert intake.texts == ["here?"]
            # One sentence a day, wherever it was read.
            assert replies(emulator, private) == []


async def test_a_used_quota_is_told_with_the_time_of_its_renewal(store: Store) -> None:
    async with DiscordEmulator() as emulator:
        ada = emulator.user("Ada")
        intake = noted(store, AccessRules(quota=Quota(1)))
        async with listening(emulator, intake):
            for text in ("one", "two"):
                await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} {text}")
            await until(lambda: replies(emulator))

            assert intake.texts == ["one"]
            assert "again after 00:00 UTC, in " in replies(emulator)[0]


def leavings(emulator: DiscordEmulator) -> int:
    return len([one for one in emulator.requests if one.method == "DELETE"])


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_server_that_is_not_allowed_is_told_of_and_left_if_wanted(
    caplog: pytest.LogCaptureFixture, leaves: bool
) -> None:
    intake = FakeQueue()
    intake.access.rules = AccessRules(servers=frozenset({"123456789012345678"}))
    async with DiscordEmulator() as emulator:
        with caplog.at_level(logging.WARNING, "adapters.discord"):
            async with listening(emulator, intake, leaves_other_servers=leaves):
                await until(lambda: str(emulator.guild_id) in caplog.text)

    assert (leavings(emulator) > 0) == leaves
    assert caplog.text.count(str(emulator.guild_id)) == 1


async def test_a_server_that_adds_the_bot_again_is_left_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = FakeQueue()
    intake.access.rules = AccessRules(servers=frozenset({"123456789012345678"}))
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake, leaves_other_servers=True),
    ):
        await until(lambda: caplog.text.count("Left server") == 1)
        await emulator.add_bot()
        await until(lambda: caplog.text.count("Left server") == 2)


async def test_no_server_is_left_without_a_list(caplog: pytest.LogCaptureFixture) -> None:
    async with DiscordEmulator() as emulator:
        ada, intake = emulator.user("Ada"), FakeQueue()
        async with listening(emulator, intake, leaves_other_servers=True):
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} why?")
            await until(lambda: intake.turns)

        assert leavings(emulator) == 0
