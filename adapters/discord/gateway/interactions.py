"""Dispatches interactions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

import discord

from adapters.discord.gateway import events
from adapters.discord.gateway.buttons import Buttons
from adapters.discord.gateway.commands import Commands
from adapters.discord.gateway.responses import Unknown, reply_privately
from adapters.discord.rest import RestClient
from bot.commands.handlers import excuse
from bot.concurrency import BackgroundTasks
from bot.domain import Turn
from bot.errors import Refused, StoreUnavailable, SurfaceError
from bot.intake.intake import Intake
from bot.languages import say, speak

_log = logging.getLogger(__name__)

_DECLINED = (
    "I do not know this command or button. It may be from an older version of me. "
    "Mention me with your question instead, or use /ask."
)


class Interactions:
    """Answers commands, presses and forms, and declines unknown ones."""

    def __init__(
        self,
        rest: RestClient,
        intake: Intake,
        *,
        tasks: BackgroundTasks,
        on_asked: Callable[[Turn], object],
    ) -> None:
        self._intake = intake
        self._tuning = rest.tuning
        self._buttons = Buttons(rest, intake, on_asked=on_asked)
        self._commands = Commands(rest, intake, tasks)

    async def answer(self, interaction: discord.Interaction) -> None:
        """Answer an interaction; raises SurfaceError.

        Discord repeats interactions after a RESUME. Handled and expired ones are ignored: they
        could undo newer changes.
        """
        locale, server = interaction.locale, interaction.guild_locale
        speak(str(locale), str(server or ""))
        if await self._is_old_or_handled(interaction):
            _log.info("Ignored interaction %d: repeated or expired", interaction.id)
            return
        try:
            try:
                await self._dispatch(interaction)
            except Unknown:
                # Discord would otherwise show it as failed.
                _log.info("Interaction %d of type %s declined", interaction.id, interaction.type)
                await reply_privately(interaction, say(_DECLINED))
            except (Refused, StoreUnavailable) as refusal:
                await reply_privately(interaction, excuse(refusal))
        except SurfaceError:
            await self._note_handled(interaction)
            raise
        await self._note_handled(interaction)

    async def _is_old_or_handled(self, interaction: discord.Interaction) -> bool:
        age = time.time() - interaction.created_at.timestamp()
        if age > self._tuning.answers_wanted_for:
            return True
        if age < self._tuning.fresh_for:
            return False
        with suppress(StoreUnavailable):
            return await self._intake.lookup.is_handled(events.turn_id(interaction.id))
        return False

    async def _note_handled(self, interaction: discord.Interaction) -> None:
        if interaction.type is not discord.InteractionType.autocomplete:
            with suppress(StoreUnavailable):
                await self._intake.lookup.note_handled(events.turn_id(interaction.id))

    async def _dispatch(self, interaction: discord.Interaction) -> None:
        match interaction.type.name, interaction.data:
            case "autocomplete", dict(data):
                await self._commands.complete(interaction, data)
            case _ if interaction.channel_id is None:
                raise Unknown
            case "application_command", dict(data):
                await self._commands.answer(interaction, data)
            case "modal_submit", {"custom_id": str(name), "components": list(inputs)}:
                if not await self._buttons.take_form(interaction, name, inputs):
                    await self._commands.take_form(interaction, name, inputs)
            case "component", {"custom_id": str(name)}:
                if not await self._buttons.answer(interaction, name):
                    await self._commands.press(interaction, name)
            case _:
                raise Unknown
