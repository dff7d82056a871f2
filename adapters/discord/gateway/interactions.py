"""Answers the command /ask and presses of buttons."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress

import discord

from adapters.discord.gateway import events
from adapters.discord.reply.message import CONTINUE, RATINGS, REGENERATE, STOP, ended_buttons
from adapters.discord.rest import translated
from bot.domain import End, Rating
from bot.errors import HasEnded, NotRemembered, Refused, StoreUnavailable, SurfaceError
from bot.turns.intake import THANKS, Intake

_log = logging.getLogger(__name__)

_Refusal = Refused | StoreUnavailable

HELP = "Ask me something: write your question after my name."
_DECLINED = (
    "I do not know this command or button, perhaps it is from another version of me. "
    "Mention me with your question instead, or use /ask."
)


class Interactions:
    """Answers commands and presses of any process, and declines those of other versions."""

    def __init__(self, intake: Intake, *, rated: bool, answer_within: float) -> None:
        self._intake = intake
        self._rated = rated
        self._answer_within = answer_within  # seconds that the intake may take

    async def answer(self, interaction: discord.Interaction) -> None:
        """Answer an interaction; raises SurfaceError."""
        match interaction.type.name, interaction.data:
            case "application_command", {"name": "ask", "options": [{"value": str(prompt)}]} if (
                interaction.channel_id
            ):
                await self._ask(interaction, prompt.strip())
            case "component", {"custom_id": str(name)} if name.startswith(STOP):
                await self._stop(interaction, name.removeprefix(STOP))
            case "component", {"custom_id": str(name)} if name.startswith(REGENERATE):
                await self._regenerate(interaction, name.removeprefix(REGENERATE))
            case "component", {"custom_id": str(name)} if name.startswith(CONTINUE):
                await self._continue(interaction, name.removeprefix(CONTINUE))
            case "component", {"custom_id": str(name)} if rating := _rating(name):
                await self._rate(interaction, name.partition(":")[2], rating)
            case _:
                await _decline(interaction)

    async def _ask(self, interaction: discord.Interaction, prompt: str) -> None:
        if not prompt:
            await _tell(interaction, HELP)
            return
        refusal = await self._refusal(self._intake.admit(events.command_turn(interaction, prompt)))
        await _acknowledge(interaction, refusal, thinking=True)

    async def _stop(self, interaction: discord.Interaction, turn_id: str) -> None:
        by = asyncio.get_running_loop().time() + self._answer_within
        refusal = await self._refusal(self._stop_turn(interaction, turn_id))
        if isinstance(refusal, HasEnded) and await self._replace_stop(interaction, turn_id, by=by):
            async with translated():
                await interaction.followup.send(refusal.apology, ephemeral=True)
        else:
            await _acknowledge(interaction, refusal)

    async def _stop_turn(self, interaction: discord.Interaction, turn_id: str) -> None:
        manages = events.may_manage(interaction) and await self._is_here(interaction, turn_id)
        asker = "" if manages else str(interaction.user.id)
        if not await self._intake.stop(turn_id, person_id=asker):
            raise HasEnded

    async def _replace_stop(
        self, interaction: discord.Interaction, turn_id: str, *, by: float
    ) -> bool:
        """Replace the Stop of a message whose final edit failed, or is in flight; False on failure.

        The buttons are those of an ended reply. One that is not known, at least until `by` (loop
        time), gets none.
        """
        end: End | None = None
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout_at(by):
                end = await self._intake.how_ended(turn_id)
        view = discord.ui.View(timeout=None)
        for it in ended_buttons(end, turn_id, rated=self._rated) if end is not None else ():
            emoji = it.get("emoji", {}).get("name")
            view.add_item(
                discord.ui.Button(custom_id=it["custom_id"], label=it.get("label"), emoji=emoji)
            )
        view.stop()  # the library need not wait for presses
        try:
            async with translated():
                await interaction.response.edit_message(view=view)
        except SurfaceError as error:
            _log.info("Turn %s: its ended reply keeps the Stop button: %s", turn_id, error)
            return False
        return True

    async def _regenerate(self, interaction: discord.Interaction, turn_id: str) -> None:
        regenerating = self._intake.regenerate(
            turn_id,
            person_id=str(interaction.user.id),
            press_id=events.turn_id(interaction.id),
            place=events.press_place(interaction),
        )
        await _acknowledge(interaction, await self._refusal(regenerating))

    async def _continue(self, interaction: discord.Interaction, turn_id: str) -> None:
        continuing = self._intake.go_on(
            turn_id,
            person_id=str(interaction.user.id),
            press_id=events.turn_id(interaction.id),
            place=events.place_below(interaction),
        )
        # The original response to such a press would else be the message with the button.
        below = events.continues_command(interaction)
        await _acknowledge(interaction, await self._refusal(continuing), thinking=below)

    async def _rate(self, interaction: discord.Interaction, turn_id: str, rating: Rating) -> None:
        refusal = await self._refusal(self._rate_turn(interaction, turn_id, rating))
        await _tell(interaction, refusal.apology if refusal else THANKS)

    async def _rate_turn(
        self, interaction: discord.Interaction, turn_id: str, rating: Rating
    ) -> None:
        if not await self._is_here(interaction, turn_id):
            raise NotRemembered
        await self._intake.rate(turn_id, person_id=str(interaction.user.id), rating=rating)

    async def _is_here(self, interaction: discord.Interaction, turn_id: str) -> bool:
        """Whether a turn is answered in the channel or thread of a press.

        Guess: Discord sends presses only of buttons that a message has. A person's own turn needs
        no such check.
        """
        thread = await self._intake.thread_of_turn(turn_id)
        return thread is not None and str(interaction.channel_id) in (thread.channel, thread.thread)

    async def _refusal(self, asked: Awaitable[object]) -> _Refusal | None:
        """Return the error if the intake refuses, or does not answer in time."""
        try:
            async with asyncio.timeout(self._answer_within):
                await asked
        except TimeoutError:
            # It may be stored nevertheless: then the answer replaces the apology.
            return StoreUnavailable("the store does not answer in time")
        except (Refused, StoreUnavailable) as error:
            return error
        return None


def _rating(name: str) -> Rating | None:
    return next((rating for sign, rating in RATINGS.items() if name.startswith(sign)), None)


async def _decline(interaction: discord.Interaction) -> None:
    """Answer what this version does not know, which would otherwise look like a failure."""
    _log.info("Interaction %d of type %s declined", interaction.id, interaction.type)
    if interaction.type is discord.InteractionType.autocomplete:
        async with translated():
            await interaction.response.autocomplete([])
    else:
        await _tell(interaction, _DECLINED)


async def _acknowledge(
    interaction: discord.Interaction, refusal: _Refusal | None, *, thinking: bool = False
) -> None:
    if refusal:
        await _tell(interaction, refusal.apology)
        return
    async with translated():
        await interaction.response.defer(thinking=thinking)


async def _tell(interaction: discord.Interaction, text: str) -> None:
    async with translated():
        await interaction.response.send_message(text, ephemeral=True)
