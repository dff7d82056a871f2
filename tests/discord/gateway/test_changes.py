"""Edits and deletions that no session brings are found when another session begins."""

from __future__ import annotations

import pytest

from adapters.discord.gateway.session_store import SavedSession
from adapters.discord.gateway.shard import Shard
from bot.domain import Turn
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import FAST, QUICK, page, running_process, until_heard
from tests.support.fakes import FakeIntake
from tests.support.waiting import until

_ONE = r"GET /channels/\d+/messages/\d+"


class Ordered(FakeIntake):
    """Tells what happened, in its order; the queue answers only the newest question anew."""

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[str] = []

    async def admit(self, turn: Turn) -> bool:
        is_new = await super().admit(turn)
        self.happened += [turn.text] if is_new else []
        return is_new

    async def edit(self, turn: Turn, *, edited_at: float) -> None:
        await super().edit(turn, edited_at=edited_at)
        self.happened.append(f"edited: {turn.text}")


async def test_edits_and_deletions_before_a_session_are_heard_before_questions(
    store: Store,
) -> None:
    intake = Ordered()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm, channel = emulator.dm(ada), emulator.channel_id
        async with running_process(emulator, intake, store):
            said = [await emulator.say(dm, ada, text) for text in ("stays", "gone", "kept")]
            called = await emulator.say(channel, ada, f"{emulator.bot_mention} called")
            await until_heard(store, called)
        emulator.clock.advance(3600)
        await emulator.edit(said[2], "kept, and more")
        await emulator.delete(said[1])
        await emulator.delete(called)
        await emulator.say(dm, ada, "then")

        async with running_process(emulator, intake, store):
            await until(lambda: "then" in intake.texts)

        assert emulator.resumes == 0
        assert intake.happened[4:] == ["edited: kept, and more", "then"]
        assert sorted(intake.forgotten) == [f"discord:{said[1]}", f"discord:{called}"]


async def test_a_deleted_answer_is_found_where_it_stood(store: Store) -> None:
    intake = FakeIntake()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, intake, store) as platform:
            called = await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
            await emulator.say(dm, ada, "two")
            await until_heard(store, await emulator.say(dm, ada, "three"))
            for turn in intake.turns:
                async with platform.surface(turn) as surface:
                    posted = await surface.post(page("An answer.", last=True))
                intake.answers[turn.id] = (posted,)
        assert emulator.thread_of(called)
        one, _, three = (message for (message,) in intake.answers.values())
        emulator.clock.advance(3600)
        await emulator.delete(one)
        await emulator.delete(three)

        async with running_process(emulator, intake, store):
            await until(lambda: intake.forgotten_answers)

        assert sorted(intake.forgotten_answers) == [one, three]


async def test_what_cannot_be_read_is_not_taken_for_deleted(store: Store) -> None:
    intake = FakeIntake()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada = emulator.user("Ada")
        dm = emulator.dm(ada)
        async with running_process(emulator, intake, store):
            gone = await emulator.say(dm, ada, "gone")
            await until_heard(store, gone)
        emulator.clock.advance(3600)
        await emulator.delete(gone)
        emulator.fail(_ONE, status=503, times=1)

        async with running_process(emulator, intake, store):
            await emulator.say(dm, ada, "then")
            await until(lambda: "then" in intake.texts)

        assert not intake.forgotten


async def test_an_answer_that_stands_outside_of_the_thread_is_not_deleted(store: Store) -> None:
    intake = FakeIntake()
    async with DiscordEmulator(gateway=FAST) as emulator:
        ada, channel = emulator.user("Ada"), emulator.channel_id
        async with running_process(emulator, intake, store):
            called = await emulator.say(channel, ada, f"{emulator.bot_mention} one")
            answer = await emulator.say(channel, ada, "It stands in for an answer.")
            await emulator.open_thread(called, ada, "a thread of hers")
            await until_heard(store, answer)
            intake.answers[intake.last.id] = (answer,)
        emulator.clock.advance(3600)

        async with running_process(emulator, intake, store):
            await emulator.say(channel, ada, f"{emulator.bot_mention} then")
            await until(lambda: len(intake.turns) > 1)

        assert any(one.path.endswith(f"/messages/{answer}") for one in emulator.requests)
        assert not intake.forgotten_answers


@pytest.mark.parametrize(("server", "number"), [("dm", 0), (str(4 << 22), 0), (str(7 << 22), 1)])
async def test_a_server_belongs_to_one_shard(store: Store, server: str, number: int) -> None:
    def shard(number: int | None, count: int | None) -> Shard:
        saved = SavedSession(store=store, application="1", shard="it", holder="it")
        return Shard(number=number, count=count, saved=saved, tuning=QUICK)

    assert [shard(one, 2).receives(server) for one in (0, 1)] == [number == 0, number == 1]
    assert shard(None, None).receives(server)
