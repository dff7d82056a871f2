"""A mention of the role that Discord made for the bot is a mention of the bot."""

from __future__ import annotations

from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import (
    after_a_session,
    heard,
    listening,
    our_thread,
    running_process,
    until_saved,
)
from tests.support.fakes import FakeQueue
from tests.support.waiting import until


async def test_a_mention_of_our_own_role_is_a_question_and_not_part_of_it() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        ada, own, other = (
            emulator.user("Ada"),
            emulator.role("parley", own=True),
            emulator.role("x"),
        )
        channel = emulator.channel_id

        await emulator.say(channel, ada, f"<@&{other}> nobody asks us, <@&000000000000000> either")
        await emulator.say(channel, ada, f"<@&{own}>, why?")
        await until(lambda: intake.turns)
        thread = await our_thread(emulator, platform, intake)
        await emulator.say(thread, ada, f"and <@&{own}> how?")
        await emulator.say(channel, ada, f"{emulator.bot_mention} <@&{own}> <@&{other}> both")
        await until(lambda: len(intake.turns) > 2)

        assert intake.texts == ["why?", "and how?", "@x both"]


async def test_a_reply_to_somebody_else_that_mentions_our_role_is_a_question() -> None:
    async with heard() as (emulator, intake, ada):
        own = emulator.role("parley", own=True)
        said = await emulator.say(emulator.channel_id, emulator.user("Bob"), "2 + 2 = 5")

        await emulator.say(emulator.channel_id, ada, f"<@&{own}> is it?", reply_to=said)
        await until(lambda: intake.turns)

        assert intake.texts == ["is it?"]


async def test_a_role_that_was_made_while_we_listen_is_ours() -> None:
    intake = FakeQueue()
    async with DiscordEmulator() as emulator:
        ada, before = emulator.user("Ada"), emulator.role("helpers")
        async with listening(emulator, intake):
            await emulator.say(emulator.channel_id, ada, f"<@&{before}> hello")
            own = emulator.role("parley", own=True)

            await emulator.say(emulator.channel_id, ada, f"<@&{own}> why?")
            await until(lambda: intake.turns)

        assert intake.texts == ["why?"]
        asked = [one.path for one in emulator.requests if one.path.startswith("/guilds/")]
        # A catch-up may have read the message, which then lacks its author's rights.
        assert not [path for path in asked if "/members/" not in path]


async def test_after_a_resume_a_server_is_asked_for_once(store: Store) -> None:
    new = FakeQueue()
    async with DiscordEmulator() as emulator:
        ada, own, other = (
            emulator.user("Ada"),
            emulator.role("parley", own=True),
            emulator.role("x"),
        )
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)

        async with running_process(emulator, new, store):
            for text in (f"<@&{other}> one", f"<@&{own}> two", f"<@&{other}> three"):
                await emulator.say(emulator.channel_id, ada, text)
            await emulator.say(emulator.channel_id, ada, f"<@&{own}> four")
            await until(lambda: len(new.turns) > 1)

        assert new.texts == ["two", "four"]
        assert emulator.resumes == 1
        asked = [one.path for one in emulator.requests if one.path.startswith("/guilds/")]
        assert asked == [f"/guilds/{emulator.guild_id}", f"/guilds/{emulator.guild_id}/channels"]


async def test_a_question_to_the_role_waits_in_order_until_discord_tells_of_it(
    store: Store,
) -> None:
    new = FakeQueue()
    async with DiscordEmulator() as emulator:
        ada, own = emulator.user("Ada"), emulator.role("parley", own=True)
        async with running_process(emulator, FakeQueue(), store):
            await until_saved(store, 1)
        failing = emulator.fail("GET /guilds/", status=503, times=1000)

        async with running_process(emulator, new, store):
            await emulator.say(emulator.channel_id, ada, f"<@&{own}> one")
            await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} two")
            await emulator.say(emulator.dm(ada), ada, "elsewhere")
            await until(lambda: new.turns and failing.times < 1000)
            early = list(new.texts)
            emulator.heal()
            await until(lambda: len(new.turns) > 2)

        assert (early, new.texts) == (["elsewhere"], ["elsewhere", "one", "two"])


async def test_a_question_to_the_role_that_was_missed_is_found(store: Store) -> None:
    new = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        own, other = emulator.role("parley", own=True), emulator.role("x")
        await emulator.say(emulator.channel_id, ada, f"<@&{other}> one")
        await emulator.say(emulator.channel_id, ada, f"<@&{own}> two")

        async with running_process(emulator, new, store):
            await until(lambda: new.turns)

        assert new.texts == ["two"]


async def test_without_its_text_a_mention_of_the_role_is_told_to_mention_the_bot() -> None:
    intake = FakeQueue()
    async with (
        DiscordEmulator(message_content=False) as emulator,
        listening(emulator, intake),
    ):
        await until(lambda: emulator.sessions == 2)
        ada, own = emulator.user("Ada"), emulator.role("parley", own=True)

        said = await emulator.say(emulator.channel_id, ada, f"<@&{own}> why?")
        await until(lambda: len(emulator.screen(emulator.channel_id)) > 1)

        told = emulator.screen(emulator.channel_id)[1]
        assert told.reply_to == said
        assert emulator.bot_mention in told.text
        assert not emulator.pings
        assert not intake.turns


async def test_an_empty_mention_of_the_role_gets_one_line_of_help() -> None:
    async with heard() as (emulator, intake, ada):
        own = emulator.role("parley", own=True)

        await emulator.say(emulator.channel_id, ada, f"<@&{own}>")
        await until(lambda: len(emulator.screen(emulator.channel_id)) > 1)

        assert "question" in emulator.screen(emulator.channel_id)[1].text
        assert not intake.turns
