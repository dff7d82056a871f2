"""Responses to interactions: within three seconds, visible to the person only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import discord

from adapters.discord.reply.message import LIMIT
from adapters.discord.rest import translated
from bot.errors import StoreUnavailable

_T = TypeVar("_T")


class Unknown(Exception):
    """An interaction that this version does not know."""


async def in_time(asked: Awaitable[_T], *, within: float) -> _T:
    """Return the result of the core; raises StoreUnavailable if it takes too long."""
    try:
        async with asyncio.timeout(within):
            return await asked
    except TimeoutError as error:
        # It may be stored nevertheless; then the answer replaces the apology.
        raise StoreUnavailable("the store does not answer in time") from error


async def acknowledge(
    interaction: discord.Interaction, *, thinking: bool = False, private: bool = False
) -> None:
    """Defer the answer; with `thinking` Discord shows that. Raises SurfaceError.

    Only the person sees a `private` answer.
    """
    async with translated():
        await interaction.response.defer(thinking=thinking, ephemeral=private)


async def reply_privately(
    interaction: discord.Interaction, text: str, view: discord.ui.View | None = None
) -> None:
    """Respond with a message that only the person sees, cut if Discord would refuse it.

    Raises SurfaceError.
    """
    text = text if len(text) <= LIMIT else f"{text[: LIMIT - 1]}…"
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
