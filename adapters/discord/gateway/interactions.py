"""Hands each interaction to what answers it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import discord

from adapters.discord.gateway.buttons import Buttons
from adapters.discord.gateway.commands import Commands
from adapters.discord.gateway.responses import tell
from adapters.discord.rest import translated
from bot.domain import Turn
from bot.turns.intake import Intake

_log = logging.getLogger(__name__)

_DECLINED = (
    "I do not know this command or button, perhaps it is from another version of me. "
    "Mention me with your question instead, or use /ask."
)


class Interactions:
    """Answers commands, presses and forms of any process, and declines those of other versions."""

    def __init__(
        self,
        intake: Intake,
        client: discord.Client,
        *,
        on_asked: Callable[[Turn], object],
        threads: bool,
        rated: bool,
        within: float,
    ) -> None:
        self._buttons = Buttons(intake, on_asked=on_asked, rated=rated, answer_within=within)
        self._commands = Commands(intake, client, threads=threads, answer_within=within)

    async def answer(self, interaction: discord.Interaction) -> None:
        """Answer an interaction; raises SurfaceError."""
        if not await self._is_answered(interaction):
            await _decline(interaction)

    async def _is_answered(self, interaction: discord.Interaction) -> bool:
        if interaction.channel_id is None:
            return False
        match interaction.type.name, interaction.data:
            case "application_command", dict(data):
                return await self._commands.answer(interaction, data)
            case "autocomplete", dict(data):
                return await self._commands.complete(interaction, data)
            case "modal_submit", {"custom_id": str(name), "components": list(inputs)}:
                return await self._commands.take_form(interaction, name, inputs)
            case "component", {"custom_id": str(name)}:
                return await self._buttons.answer(interaction, name) or await self._commands.press(
                    interaction, name
                )
        return False


async def _decline(interaction: discord.Interaction) -> None:
    """Answer what this version does not know, which would otherwise look like a failure."""
    _log.info("Interaction %d of type %s declined", interaction.id, interaction.type)
    if interaction.type is discord.InteractionType.autocomplete:
        async with translated():
            await interaction.response.autocomplete([])
    else:
        await tell(interaction, _DECLINED)
