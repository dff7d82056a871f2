"""Responses to interactions: within three seconds, visible to the person only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import discord

from adapters.discord.rest import translated
from bot.errors import Refused, StoreUnavailable

_T = TypeVar("_T")

Refusal = Refused | StoreUnavailable


async def in_time(asked: Awaitable[_T], *, within: float) -> _T:
    """Return what the core answers; raises Refused, and StoreUnavailable if it takes too long."""
    try:
        async with asyncio.timeout(within):
            return await asked
    except TimeoutError as error:
        # It may be stored nevertheless: then the answer replaces the apology.
        raise StoreUnavailable("the store does not answer in time") from error


async def refusal_of(asked: Awaitable[object], *, within: float) -> Refusal | None:
    """Return the error if the core refuses, or does not answer in time."""
    try:
        await in_time(asked, within=within)
    except (Refused, StoreUnavailable) as error:
        return error
    return None


async def acknowledge(
    interaction: discord.Interaction,
    refusal: Refusal | None,
    *,
    thinking: bool = False,
    private: bool = False,
) -> None:
    """Respond with the refusal, or defer the answer. Raises SurfaceError.

    With `thinking` Discord shows that the bot works; an answer that is `private` is for the person
    alone.
    """
    if refusal:
        await reply_privately(interaction, refusal.apology)
        return
    async with translated():
        await interaction.response.defer(thinking=thinking, ephemeral=private)


async def reply_privately(
    interaction: discord.Interaction, text: str, view: discord.ui.View | None = None
) -> None:
    """Answer with a message to the person alone; raises SurfaceError."""
    async with translated():
        await interaction.response.send_message(
            text, ephemeral=True, suppress_embeds=True, view=view or discord.utils.MISSING
        )


def finished(*buttons: discord.ui.Button[discord.ui.View]) -> discord.ui.View:
    """Return a view with buttons that discord.py does not track."""
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    view.stop()
    return view
