"""In the chats and at the terminal, a model that thinks is told by the sign of work alone."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from bot.reply.draft import THINKING
from bot.store import Store
from tests.emulators.model import ModelEmulator
from tests.support.at_work import all_ended
from tests.support.process import (
    DiscordMention,
    DiscordSlash,
    SlackDm,
    SlackMention,
    Way,
    offers_another,
    shows,
)
from tests.support.service import serving_both
from tests.support.stored import stored
from tests.support.waiting import until

THOUGHTS = "First, a walrus thinks."


async def test_in_the_chats_thinking_is_a_sign_of_work_and_nothing_more(
    own_store: Store, model: ModelEmulator
) -> None:
    model.answer = "It is 42."
    async with serving_both(own_store, model) as (discord, slack, service):
        # Below a press and at the top level of a DM no platform shows work.
        pressed, dm = DiscordSlash(discord), SlackDm(slack)
        mention, thread = DiscordMention(discord), SlackMention(slack)
        await pressed.ask("why?")
        await until(lambda: offers_another(pressed), why=service.text)
        gate = asyncio.Event()
        model.thoughts, model.answer = THOUGHTS, [(gate, "It is 43.")]
        message, button = next(one for one in pressed.buttons() if one[1].startswith("regenerate"))
        await discord.click(message, pressed.person, button)
        for way in (dm, mention, thread):
            await way.ask("why?")

        await until(lambda: shows(dm, THINKING), why=service.text)
        await until(lambda: shows(pressed, f"It is 42.\n\n{THINKING}"), why=service.text)
        status = partial(slack.shown_status, slack.channel_id, thread.question or "")
        await until(lambda: status() == "is thinking...", why=service.text)
        await until(lambda: mention.said in discord.typing, why=service.text)
        gate.set()
        ways: list[Way] = [pressed, dm, mention, thread]
        for one in ways:
            await until(partial(shows, one, "It is 43."), why=service.text)
        await all_ended(own_store)

        assert not any("walrus" in str(one.shown()) for one in ways)
        assert not [one for one in await stored(own_store) if "walrus" in one]


async def test_at_the_terminal_thinking_is_shown_at_once(
    own_store: Store, data_dir: Path, model: ModelEmulator
) -> None:
    for package in ("prompt_toolkit", "rich"):
        pytest.importorskip(package, reason="the window needs requirements-terminal.txt")
    from tests.console.test_tools import at_terminal

    gate = asyncio.Event()
    model.thoughts, model.answer = THOUGHTS, [(gate, "It is 42.")]
    async with at_terminal(own_store, data_dir, model) as terminal:
        terminal.type("why?\r")
        await terminal.until(THINKING)
        gate.set()
        await terminal.until("It is 42.")
        await all_ended(own_store)

        assert not [one for one in await stored(own_store) if "walrus" in one]
