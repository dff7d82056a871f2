"""A question that only waits is shown to be heard, on both platforms, by the process that hears."""

from __future__ import annotations

import asyncio

from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.process import DiscordDm, DiscordMention, SlackMention, Way, shows
from tests.support.service import serving_both
from tests.support.waiting import until


async def test_while_all_places_of_the_worker_are_taken_those_who_ask_see_a_sign(
    own_store: Store, model: ModelEmulator
) -> None:
    answered = asyncio.Event()
    model.fail("completions", "late", gate=answered)
    async with serving_both(own_store, model, CAPACITY="1") as (discord, slack, service):
        first, mention, thread = DiscordDm(discord), DiscordMention(discord), SlackMention(slack)
        mention.person, thread.person = discord.user("Bob"), slack.user("Cleo")
        await first.ask("one")
        await until(lambda: model.requests, why=service.text)

        await mention.ask("two")
        await thread.ask("three")
        await until(lambda: discord.channel_id in discord.typing, why=service.text)
        await until(
            lambda: slack.status(slack.channel_id, thread.said) == ["is thinking..."],
            why=service.text,
        )

        assert len(model.requests) == 1
        answered.set()
        asked: list[tuple[Way, str]] = [(first, "one"), (mention, "two"), (thread, "three")]
        for way, text in asked:
            await until(lambda w=way, t=text: shows(w, f"You said: {t}"), why=service.text)  # type: ignore[misc]
        assert slack.shown_status(slack.channel_id, thread.said) == ""
