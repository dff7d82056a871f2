"""A question that only waits is shown to be heard, on both platforms, by the process that hears."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from bot.reply.draft import WAITING
from bot.reply.writer import ReplyTiming
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.process import (
    DiscordDm,
    DiscordMention,
    DiscordSlash,
    InDiscord,
    InSlack,
    SlackDm,
    SlackMention,
    SlackSlash,
    Way,
    offers_another,
    shows,
)
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


async def test_while_the_model_is_silent_all_who_ask_or_press_see_a_sign(
    own_store: Store, model: ModelEmulator
) -> None:
    free = asyncio.Event()
    async with serving_both(own_store, model) as (discord, slack, service):
        pressed: list[InDiscord | InSlack] = [DiscordSlash(discord), SlackDm(slack)]
        for way in pressed:
            await way.ask("one")
            await until(lambda w=way: offers_another(w), why=service.text)  # type: ignore[misc]
        model.fail("completions", "late", gate=free, times=9)
        mention, dm, command = DiscordMention(discord), DiscordDm(discord), SlackSlash(slack)
        thread, fresh = SlackMention(slack), SlackDm(slack)
        for way in pressed:
            await press(way, "regenerate")
        for asked in (mention, dm, command, thread, fresh):
            await asked.ask("two")
        hidden = await discord.slash(
            discord.channel_id, mention.person, "ask", question="two", private=True
        )

        await until(lambda: {mention.said, dm.channel} <= set(discord.typing), why=service.text)
        for one in (command, thread):
            status = partial(slack.shown_status, slack.channel_id, one.question or "")
            await until(lambda s=status: s() == "is thinking...", why=service.text)  # type: ignore[misc]
        await until(lambda: discord.original(hidden), why=service.text)
        await until(lambda: shows(fresh, WAITING), why=service.text)
        for way in pressed:
            await until(lambda w=way: shows(w, f"You said: one\n\n{WAITING}"), why=service.text)  # type: ignore[misc]

        free.set()
        await until(lambda: shows(fresh, "You said: two"), why=service.text)


def test_the_word_about_a_failing_model_comes_within_ten_seconds() -> None:
    assert ReplyTiming().busy_silence < 10.0


PRESSES = pytest.mark.parametrize("what", ["regenerate", "continue", "edit"])


@PRESSES
async def test_while_all_places_are_taken_those_who_want_another_answer_see_a_sign(
    own_store: Store, model: ModelEmulator, what: str
) -> None:
    """A press of Retry is one of Regenerate."""
    free = asyncio.Event()
    model.finish_reason = "length" if what == "continue" else "stop"
    async with serving_both(own_store, model, CAPACITY="1") as (discord, slack, service):
        ways: tuple[InDiscord, InSlack] = DiscordMention(discord), SlackMention(slack)
        for way in ways:
            await way.ask("one")
            await until(lambda w=way: offers_another(w), why=service.text)  # type: ignore[misc]
        busy, thread = DiscordDm(discord), discord.thread_of(ways[0].said)
        seen = discord.channel_id if what == "edit" else thread
        model.fail("completions", "late", gate=free)
        asked = len(model.requests)
        await busy.ask("two")
        await until(lambda: len(model.requests) > asked, why=service.text)
        discord.typing.clear()
        status = partial(slack.shown_status, slack.channel_id, ways[1].said)
        await until(lambda: not status(), why=service.text)

        for way in ways:
            await (way.edit("anew") if what == "edit" else press(way, what))
        await until(lambda: seen in discord.typing, why=service.text)
        await until(lambda: status() == "is thinking...", why=service.text)

        assert len(model.requests) == asked + 1
        free.set()
        await until(lambda: len(model.requests) == asked + 3, why=service.text)
        await until(lambda: not status(), why=service.text)


async def press(way: InDiscord | InSlack, action: str) -> None:
    message, button = next(one for one in way.buttons() if one[1].startswith(action))
    if isinstance(way, InDiscord):
        await way.discord.click(message, way.person, button)
    else:
        await way.slack.click(way.channel, message, way.person, button)
