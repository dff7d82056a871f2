"""Who is addressed in the threads of Discord, over a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from adapters.discord.platform import DiscordPlatform
from bot.domain import Follow
from bot.store import Store
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import listening, our_thread
from tests.support.fakes import NotedIntake, RefusingStore
from tests.support.waiting import until


@dataclass
class Talk:
    """Ada, Bob and the bot; Ada has asked "one", for which the bot has opened a thread."""

    emulator: DiscordEmulator
    intake: NotedIntake
    platform: DiscordPlatform
    ada: str
    bob: str
    thread: str

    async def say(self, person: str, text: str, **reply: str) -> str:
        """Write in the thread, and wait until the bot has judged it."""
        judged = len(self.intake.judged) + len(self.intake.stopped)
        said = await self.emulator.say(self.thread, person, text, **reply)  # type: ignore[arg-type]
        await until(lambda: len(self.intake.judged) + len(self.intake.stopped) > judged)
        return said

    async def thread_of_bob(self) -> str:
        """Go on in a thread that Bob opens."""
        said = await self.emulator.say(self.emulator.channel_id, self.bob, "among people")
        self.thread = await self.emulator.open_thread(said, self.bob, "ours")
        return self.thread

    async def answered(self, *texts: str) -> bool:
        """Whether these were admitted; messages are judged and admitted one after another."""
        await until(lambda: len(self.intake.turns) > len(texts))
        return self.intake.texts == ["one", *texts]


@asynccontextmanager
async def talking(
    store: Store, *, follow: Follow = "auto", threads: bool = True
) -> AsyncIterator[Talk]:
    intake = NotedIntake(store, follow=follow)
    async with (
        DiscordEmulator() as emulator,
        listening(emulator, intake, threads=threads) as platform,
    ):
        ada, bob = emulator.user("Ada"), emulator.user("Bob")
        # The gateway has caught up by then: it finds no message once more that a test waits for.
        await emulator.say(emulator.dm(ada), ada, f"{emulator.bot_mention} hello")
        await until(lambda: intake.turns)
        await emulator.say(emulator.channel_id, ada, f"{emulator.bot_mention} one")
        await until(lambda: len(intake.turns) == 2)
        del intake.turns[0]
        thread = await our_thread(emulator, platform, intake) if threads else emulator.channel_id
        yield Talk(emulator, intake, platform, ada, bob, thread)


async def test_a_thread_of_one_person_is_followed(store: Store) -> None:
    async with talking(store) as talk:
        await talk.say(talk.ada, "two")

        assert await talk.answered("two")
        assert talk.intake.turns[1].key == talk.intake.turns[0].key


@pytest.mark.parametrize("whom", ["person", "role", "everyone"])
async def test_what_mentions_somebody_else_is_not_for_the_bot(store: Store, whom: str) -> None:
    async with talking(store, follow="all") as talk:
        role = talk.emulator.role("helpers")
        name = {"person": f"<@{talk.bob}>", "role": f"<@&{role}>", "everyone": "@everyone"}

        await talk.say(talk.ada, f"look, {name[whom]}")
        await talk.say(talk.ada, f"and you, <@{talk.ada}>?")

        assert await talk.answered("and you, @Ada?")


async def test_a_reply_to_somebody_else_is_not_for_the_bot(store: Store) -> None:
    async with talking(store, follow="all") as talk:
        said = await talk.say(talk.bob, "2 + 2 = 5")
        reply = talk.emulator.event_of(await talk.say(talk.ada, "no", reply_to=said))

        silent = reply | {"id": str(int(str(reply["id"])) + 1), "mentions": []}
        await talk.emulator.tell("MESSAGE_CREATE", silent)
        await talk.say(talk.ada, "is it?")

        assert await talk.answered("2 + 2 = 5", "is it?")


async def test_a_reply_to_the_bot_is_for_it_among_several(store: Store) -> None:
    async with talking(store) as talk:
        await talk.say(talk.bob, "hello")
        [answer] = [
            await talk.emulator.say(talk.thread, talk.emulator.bot_id, "an answer of the bot")
        ]

        await talk.say(talk.bob, "why?", reply_to=answer)
        await talk.say(talk.ada, "no")

        assert await talk.answered("why?")


async def test_a_thread_of_other_people_is_followed_once_the_bot_has_answered(store: Store) -> None:
    async with talking(store) as talk:
        thread, bot = await talk.thread_of_bob(), talk.emulator.bot_mention
        await talk.say(talk.bob, "not for the bot")

        await talk.say(talk.bob, f"{bot} two")
        await talk.say(talk.bob, "three")
        await talk.say(talk.ada, "hello")
        await talk.say(talk.bob, "hi")

        assert await talk.answered("two", "three")
        assert talk.intake.turns[-1].key.thread == thread


async def test_a_person_who_opened_the_thread_counts(store: Store) -> None:
    async with talking(store) as talk:
        await talk.thread_of_bob()

        await talk.say(talk.ada, f"{talk.emulator.bot_mention} two")
        await talk.say(talk.ada, "Bob, look")

        assert await talk.answered("two")


async def test_other_bots_do_not_count(store: Store) -> None:
    async with talking(store) as talk:
        other = talk.emulator.user("other", bot=True)

        await talk.emulator.say(talk.thread, other, "beep")
        await talk.say(talk.ada, "two")

        assert await talk.answered("two")


async def test_a_word_in_a_channel_costs_no_request_to_the_store(store: Store) -> None:
    async with talking(store) as talk:
        assert isinstance(store, RefusingStore)
        store.refused.add(store.key(""))
        await talk.emulator.say(talk.emulator.channel_id, talk.bob, "lunch?")
        store.refused.clear()

        await talk.say(talk.ada, "two")

        assert await talk.answered("two")
        assert len([one for one in talk.intake.judged if not one.calls_bot]) == 1


async def test_without_the_store_talk_is_dropped_and_questions_wait(store: Store) -> None:
    async with talking(store) as talk:
        assert isinstance(store, RefusingStore)
        ours = talk.thread
        await talk.thread_of_bob()
        store.refused.add(store.key(""))

        await talk.say(talk.bob, "among people")
        talk.thread, before = ours, store.refusals
        await talk.emulator.say(ours, talk.ada, "two")
        await talk.emulator.say(ours, talk.ada, "three")
        await until(lambda: store.refusals > before)
        store.refused.clear()
        await until(lambda: len(talk.intake.turns) == 3)

        assert await talk.answered("two", "three")


async def test_a_stop_ends_the_answer_of_who_says_it(store: Store) -> None:
    async with talking(store) as talk:
        await talk.say(talk.bob, "Stop.")
        said = await talk.say(talk.ada, "Stop.")
        await talk.emulator.redeliver(said)
        await talk.say(talk.bob, f"{talk.emulator.bot_mention} two")

        assert set(talk.intake.stopped) == {f"discord:{said}"}
        assert await talk.answered("two")


async def test_a_mention_with_stop_ends_the_answer_of_the_channel(store: Store) -> None:
    async with talking(store, threads=False) as talk:
        bot = talk.emulator.bot_mention

        said = await talk.say(talk.ada, f"{bot} stop")
        await talk.say(talk.bob, f"{bot} stop")

        assert talk.intake.stopped == [f"discord:{said}"]
        assert await talk.answered("stop")


async def test_without_message_content_help_says_what_cannot_be_read(store: Store) -> None:
    intake = NotedIntake(store)
    async with DiscordEmulator(message_content=False) as emulator, listening(emulator, intake):
        await until(lambda: emulator.sessions == 2)
        ada, bob, place = emulator.user("Ada"), emulator.user("Bob"), emulator.channel_id
        answer = await emulator.say(place, emulator.bot_id, "an answer of the bot")
        reply = emulator.event_of(await emulator.say(place, ada, "and then?", reply_to=answer))
        await emulator.say(place, bob, emulator.bot_mention)
        await until(lambda: len(emulator.screen(place)) == 4)
        said = await emulator.say(place, emulator.user("Cleo"), "unheard")

        # A reply that does not notify.
        answers = {"type": 19, "content": "", "mentions": []} | {
            key: reply[key] for key in ("message_reference", "referenced_message")
        }
        await emulator.tell("MESSAGE_CREATE", emulator.event_of(said) | answers)
        await until(lambda: len(emulator.screen(place)) == 6)

        assert "do not mention me" in emulator.screen(place)[3].text
        assert "only replies to me" in emulator.screen(place)[5].text
        assert intake.texts == ["and then?"]
