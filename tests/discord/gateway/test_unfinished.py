"""A process dies before the catch-up of its session has ended; the next one goes on, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from adapters.discord.tuning import Tuning
from bot.concurrency import Backoff
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import (
    QUICK,
    after_a_session,
    running_process,
    saved,
    until_heard,
    until_pending,
    until_saved,
)
from tests.support.fakes import FakeQueue
from tests.support.waiting import until

SUB_COMMAND = {"name": "reset", "type": 1, "options": []}
SEEN_BEFORE = replace(QUICK, fresh_for=0.0)
TOO_OLD = replace(QUICK, answers_wanted_for=0.0)
RETRYING = replace(QUICK, catch_up_retry=Backoff(0.01, 0.01))


@dataclass
class Scene:
    emulator: DiscordEmulator
    ada: str
    dm: str
    answered: list[str]  # messages
    session: str


@asynccontextmanager
async def killed_in_its_catch_up(store: Store) -> AsyncIterator[Scene]:
    """A Discord where "missed" waits, and "kept" and "gone" were admitted by a killed process."""
    old = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        before, dm = await saved(store), emulator.dm(ada)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} missed")
        emulator.fail("GET /channels/", status=503, times=10_000)
        async with running_process(emulator, old, store, tuning=RETRYING):
            answered = [await emulator.say(dm, ada, text) for text in ("kept", "gone")]
            await until(lambda: len(old.turns) > 1)
            await until(lambda: any("messages" in one.path for one in emulator.requests))
            # A process that is killed has saved as much as one that ends.
            await until_pending(store, but=before["id"])
        emulator.heal()
        assert old.texts == ["kept", "gone"]
        yield Scene(emulator, ada, dm, answered, (await saved(store))["id"])


async def test_an_edit_and_a_deletion_between_two_processes_are_heard(store: Store) -> None:
    new = FakeQueue()
    async with killed_in_its_catch_up(store) as scene:
        kept, gone = scene.answered
        await scene.emulator.edit(kept, "kept, and more")
        await scene.emulator.delete(gone)

        async with running_process(scene.emulator, new, store):
            await until(lambda: new.edits and new.forgotten)

        assert [turn.text for turn, _ in new.edits] == ["kept, and more"]
        assert new.forgotten == [f"discord:{gone}"]
        assert new.texts[0] == "missed"
        assert scene.emulator.sessions == 2


async def test_after_the_catch_up_the_session_is_saved_like_any_other(store: Store) -> None:
    new, last = FakeQueue(), FakeQueue()
    async with killed_in_its_catch_up(store) as scene:
        async with running_process(scene.emulator, new, store):
            await until_saved(store, 1)
            await until_heard(store, await scene.emulator.say(scene.dm, scene.ada, "then"))
        reads = len([one for one in scene.emulator.requests if one.path.endswith("/messages")])

        async with running_process(scene.emulator, last, store):
            await scene.emulator.say(scene.dm, scene.ada, "at last")
            await until(lambda: last.turns)

        assert last.texts == ["at last"]
        now = [one for one in scene.emulator.requests if one.path.endswith("/messages")]
        assert len(now) == reads
        assert (await saved(store))["id"] == scene.session


async def test_what_was_missed_is_found_though_discord_has_ended_that_session(store: Store) -> None:
    new = FakeQueue()
    async with killed_in_its_catch_up(store) as scene:
        scene.emulator.clock.advance(3600)

        async with running_process(scene.emulator, new, store):
            await until_saved(store, 1)
            await until(lambda: "missed" in new.texts)

        assert scene.emulator.sessions == 3
        reads = f"GET /channels/{scene.emulator.channel_id}/messages"
        done = [one for one in scene.emulator.requests if one.call == reads and one.status == 200]
        assert len(done) == 1


@pytest.mark.parametrize(("tuning", "resets"), [(SEEN_BEFORE, 1), (TOO_OLD, 0)])
async def test_a_command_that_is_sent_again_or_is_old_forgets_nothing(
    store: Store, tuning: Tuning, resets: int
) -> None:
    intake = FakeQueue()
    async with after_a_session(store) as (emulator, ada):
        dm = emulator.dm(ada)
        async with running_process(emulator, intake, store, tuning=tuning):
            given = await emulator.slash(dm, ada, "parley reset")
            if resets:
                await until(lambda: intake.handled)
            reset = {"id": "1", "name": "parley", "type": 1, "options": [SUB_COMMAND]}
            await emulator.interact(dm, ada, 2, reset, id=given)
            await until_heard(store, await emulator.say(dm, ada, "then"))

        assert len(intake.resets) == resets
