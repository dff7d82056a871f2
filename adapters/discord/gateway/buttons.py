"""Answers presses of the buttons below an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import discord

from adapters.discord.gateway import events, forms
from adapters.discord.gateway.calls import asker_of, command_key, is_elsewhere, may_manage
from adapters.discord.gateway.connection import read_message
from adapters.discord.gateway.responses import acknowledge, finished, in_time, reply_privately
from adapters.discord.reply.channel import ChannelAddress
from adapters.discord.reply.command import ButtonPress, CommandAddress
from adapters.discord.reply.message import (
    CONTINUE,
    RATINGS,
    REGENERATE,
    STOP,
    STOP_LABEL,
    ended_buttons,
    read_consent,
)
from adapters.discord.rest import RestClient, fetch_message, own_id, translated
from bot.commands.form import answer_form
from bot.domain import Consent, Place, Rating, Shown, Turn
from bot.errors import HasEnded, StoreUnavailable, SurfaceError
from bot.intake.answers import ALLOWED_ONCE, THANKS
from bot.intake.intake import Intake
from bot.languages import say

_log = logging.getLogger(__name__)

PRESSED_LABEL = "One moment…"


class Buttons:
    """Answers presses of buttons, also of those that other processes have posted.

    `on_asked` is called with each queued turn and the address of the press.
    """

    def __init__(
        self, rest: RestClient, intake: Intake, *, on_asked: Callable[[Turn], object]
    ) -> None:
        self._intake = intake
        self._on_asked = on_asked
        self._rated = rest.rated
        self._answer_within = rest.tuning.answer_within

    async def answer(self, interaction: discord.Interaction, pressed: str) -> bool:
        """Answer a press; False if the button is unknown.

        Raises Refused or StoreUnavailable, whose apology is for the person, and SurfaceError.
        """
        action, sign, turn_id = pressed.partition(":")
        button, message = action + sign, interaction.message
        if button == STOP:
            await self._stop(interaction, turn_id)
        elif rating := RATINGS.get(button):
            await self._rate(interaction, turn_id, rating)
        elif answered := read_consent(action):
            await self._decide(interaction, turn_id, *answered)
        elif message and button == REGENERATE:
            await self._regenerate(interaction, message, turn_id)
        elif message and button == CONTINUE:
            await self._continue(interaction, message, turn_id)
        else:
            return False
        return True

    async def take_form(
        self, interaction: discord.Interaction, name: str, parts: Sequence[Any]
    ) -> bool:
        """Take the answer to a question of a tool's server; False for other forms.

        Raises as `answer` does.
        """
        question_id, _, turn_id = name.removeprefix(forms.ANSWER).partition(":")
        if not name.startswith(forms.ANSWER):
            return False
        filling_in = self._intake.answers.fill_in(
            turn_id,
            question_id,
            forms.filled_in(parts),
            person_id=str(interaction.user.id),
            at=command_key(interaction),
        )
        await in_time(filling_in, within=self._answer_within)
        await _put_stop_back(interaction, turn_id)
        return True

    async def _stop(self, interaction: discord.Interaction, turn_id: str) -> None:
        by = asyncio.get_running_loop().time() + self._answer_within
        # Who manages messages may stop any answer there.
        who: dict[str, Any] = {"person_id": str(interaction.user.id)}
        if may_manage(interaction):
            who = {"at": command_key(interaction)}
        stopping = self._intake.answers.stop(turn_id, **who)
        try:
            await in_time(stopping, within=self._answer_within)
        except HasEnded as ended:
            if not await self._replace_stop(interaction, turn_id, by=by):
                raise
            async with translated():
                await interaction.followup.send(ended.apology, ephemeral=True)
        else:
            await acknowledge(interaction)

    async def _replace_stop(
        self, interaction: discord.Interaction, turn_id: str, *, by: float
    ) -> bool:
        """Replace the Stop button of an ended reply; False on failure.

        If its end cannot be read until `by` (loop time), the message gets no buttons.
        """
        result: Shown | None = None
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout_at(by):
                result = await self._intake.lookup.result(turn_id)
        shown = ended_buttons(result.end, turn_id, rated=self._rated) if result else ()
        buttons: list[discord.ui.Button[discord.ui.View]] = [
            discord.ui.Button(
                custom_id=it["custom_id"],
                label=it.get("label"),
                emoji=it.get("emoji", {}).get("name"),
            )
            for it in shown
        ]
        try:
            async with translated():
                await interaction.response.edit_message(view=finished(*buttons))
        except SurfaceError as error:
            _log.info("Turn %s: cannot remove Stop from its ended reply: %s", turn_id, error)
            return False
        return True

    async def _regenerate(
        self, interaction: discord.Interaction, message: discord.Message, turn_id: str
    ) -> None:
        regenerating = self._intake.answers.regenerate(
            turn_id,
            person_id=str(interaction.user.id),
            press_id=events.turn_id(interaction.id),
            place=press_place(interaction, message),
            asker=asker_of(interaction),
            reread=partial(_question_now, interaction),
        )
        turn = await in_time(regenerating, within=self._answer_within)
        # Discord itself shows no progress for an acknowledged press.
        if message.flags.ephemeral or is_elsewhere(interaction):
            self._on_asked(turn)
            await _acknowledge_on_button(interaction, turn_id)
        else:
            seen_at = ChannelAddress(interaction.channel_id or 0, None, opens_thread=False)
            self._on_asked(replace(turn, place=seen_at.to_json()))
            await acknowledge(interaction)

    async def _continue(
        self, interaction: discord.Interaction, message: discord.Message, turn_id: str
    ) -> None:
        continuing = self._intake.answers.continue_answer(
            turn_id,
            person_id=str(interaction.user.id),
            press_id=events.turn_id(interaction.id),
            place=place_below(interaction, message),
            asker=asker_of(interaction),
        )
        self._on_asked(await in_time(continuing, within=self._answer_within))
        if message.interaction_metadata:
            # Otherwise the original response to this press would be the message with the button.
            await acknowledge(interaction, thinking=True, private=message.flags.ephemeral)
            return
        # Its answer is no longer the newest one.
        async with translated():
            await interaction.response.edit_message(view=finished())

    async def _rate(self, interaction: discord.Interaction, turn_id: str, rating: Rating) -> None:
        rating_it = self._intake.answers.rate(
            turn_id,
            person_id=str(interaction.user.id),
            rating=rating,
            at=command_key(interaction),
            asker=asker_of(interaction),
        )
        await in_time(rating_it, within=self._answer_within)
        await reply_privately(interaction, say(THANKS))

    async def _decide(
        self, interaction: discord.Interaction, turn_id: str, consent: Consent, call_id: str
    ) -> None:
        if consent == "answer":
            await self._show_form(interaction, turn_id, call_id)
            return
        deciding = self._intake.answers.decide(
            turn_id,
            call_id,
            consent,
            person_id=str(interaction.user.id),
            at=command_key(interaction),
            is_admin=may_manage(interaction) and not is_elsewhere(interaction),
        )
        counted = await in_time(deciding, within=self._answer_within)
        await _put_stop_back(interaction, turn_id)
        if counted != consent:
            async with translated():
                await interaction.followup.send(say(ALLOWED_ONCE), ephemeral=True)

    async def _show_form(
        self, interaction: discord.Interaction, turn_id: str, question_id: str
    ) -> None:
        asking = self._intake.answers.question(
            turn_id,
            question_id,
            person_id=str(interaction.user.id),
            at=command_key(interaction),
        )
        question = await in_time(asking, within=self._answer_within)
        form = forms.answer_form(f"{question_id}:{turn_id}", answer_form(question))
        async with translated():
            await interaction.response.send_modal(form)


async def _put_stop_back(interaction: discord.Interaction, turn_id: str) -> None:
    """Replace the buttons of a question that was answered; raises SurfaceError.

    The turn goes on already. Its next write has Stop, too, so the order does not matter; if its
    last one comes first, a press of Stop restores the buttons.
    """
    stop: discord.ui.Button[discord.ui.View] = discord.ui.Button(
        custom_id=f"{STOP}{turn_id}", label=say(STOP_LABEL)
    )
    async with translated():
        await interaction.response.edit_message(view=finished(stop))


async def _question_now(interaction: discord.Interaction, turn: Turn) -> str:
    """Return the question of a turn as it stands in its message; empty without one."""
    channel, client = turn.place.get("channel"), interaction.client
    if not isinstance(channel, str) or "interaction" in turn.place:
        return ""
    found = await fetch_message(client, int(channel), turn.id.rpartition(":")[2])
    message = read_message(client.get_partial_messageable(int(channel)), found)
    if message is None or str(message.author.id) != turn.person.id:
        return ""
    role = interaction.guild.self_role if interaction.guild else None
    return events.text_of(message, own_id(client), role_id=role.id if role else 0)


async def _acknowledge_on_button(interaction: discord.Interaction, turn_id: str) -> None:
    """Acknowledge a press by its button, if typing cannot be shown; raises SurfaceError.

    Only the press's webhook writes there, and only after this, so no write is undone. The button
    still regenerates: the webhook may expire before a worker takes the turn.
    """
    button: discord.ui.Button[discord.ui.View] = discord.ui.Button(
        custom_id=f"{REGENERATE}{turn_id}", label=say(PRESSED_LABEL)
    )
    async with translated():
        await interaction.response.edit_message(view=finished(button))


def press_place(interaction: discord.Interaction, pressed: discord.Message) -> Place | None:
    """Return what a press adds to the address of a command; None for other answers."""
    if pressed.interaction_metadata is None:
        return None
    return ButtonPress(interaction.id, interaction.token, pressed.id).to_json()


def place_below(interaction: discord.Interaction, pressed: discord.Message) -> Place:
    """Return the address of a turn that continues the message with the pressed button.

    Below the answer to a command, the press is itself a command, whose original response is a new
    message.
    """
    channel = interaction.channel_id or 0
    if pressed.interaction_metadata:
        private = pressed.flags.ephemeral
        place = None if private or is_elsewhere(interaction) else channel
        return CommandAddress(place, interaction.id, interaction.token, private=private).to_json()
    # In a channel, each page replies to the question.
    question = pressed.reference.message_id if pressed.reference else None
    return ChannelAddress(channel, question, opens_thread=False).to_json()
