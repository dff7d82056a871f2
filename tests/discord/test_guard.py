"""Whatever is written into Discord calls nobody and previews nothing, however it comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.discord.reply.message import body_of
from bot.domain import Page, Shown
from bot.ports import Surface
from bot.reply.draft import Draft, Ending
from tests.emulators.discord import DiscordEmulator
from tests.support.discord_platform import channel_turn, dm_turn, listening
from tests.support.fakes import FakeQueue
from tests.support.waiting import until

PIECES = [
    "@everyone",
    "@here",
    "<@{ada}>",
    "<@!{ada}>",
    "<@&{role}>",
    "https://example.org/?q=1",
    "[a](https://example.org)",
    "`",
    "```\n",
    "| @everyone | <@{ada}> |\n",
    "|---|---|\n",
    "\\",
    "*",
    " ",
    "\n",
    "words " * 100,
]


async def show(surface: Surface, deltas: list[str]) -> None:
    """Post and edit what a reply would show after each delta, and at its end."""
    draft = Draft(limit=surface.limit, measure=surface.measure, earlier=Shown())
    ids: list[str] = []
    for delta in [*deltas, None]:
        if delta is None:
            draft.end(Ending("done"))
        else:
            draft.add(delta)
        for page in draft.pages(len(ids)):
            if page.number < len(ids):
                await surface.edit(ids[page.number], page)
            elif page.text.strip():
                ids.append(await surface.post(page))


async def say_all(deltas: list[str], size: int) -> None:
    """Say it where a mention, a message and a command are answered, in pieces of that size."""
    intake = FakeQueue()
    async with DiscordEmulator() as emulator, listening(emulator, intake) as platform:
        plenty = (10**6, 1.0)
        emulator.limits.create = emulator.limits.edit = emulator.limits.webhook = plenty
        emulator.limits.everything = plenty
        ada, role = emulator.user("Ada"), emulator.role("helpers")
        text = "".join(deltas).replace("{ada}", ada).replace("{role}", role)
        said = await emulator.say(emulator.channel_id, ada, "why?")
        await emulator.slash(emulator.channel_id, ada, "ask", question="why?")
        await until(lambda: intake.turns)
        mentioned = channel_turn(emulator, said, opens_thread=False)
        for turn in (mentioned, dm_turn(emulator), intake.turns[0]):
            async with platform.surface(turn) as surface:
                pieces = [text[at : at + size] for at in range(0, len(text), size)]
                await show(surface, ["Well: ", *pieces])

        assert not emulator.pings
        assert not emulator.unguarded
        shown = emulator.screen(emulator.channel_id)
        ours = [one for one in shown if one.author_id == emulator.bot_id]
        assert ours
        assert all(one.suppressed for one in ours)
        writes = [one.body for one in emulator.requests if "content" in one.body]
        assert {one["flags"] for one in writes} == {4}


@pytest.mark.parametrize("size", [40, 2500])
async def test_no_text_calls_anybody_or_is_previewed(size: int) -> None:
    await say_all(PIECES, size)


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5)).map("".join), st.booleans())
def test_every_message_is_guarded_whatever_its_text(text: str, final: bool) -> None:
    body = body_of(Page(0, text, final=final), "discord:1")

    assert body["allowed_mentions"] == {"parse": [], "replied_user": False}
    assert body["flags"] == 4
