"""Answers presses of the buttons below an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import discord

from adapters.discord.gateway import events
from adapters.discord.gateway.calls import asker_of, command_key, is_elsewhere
from adapters.discord.gateway.connection import read_message
from adapters.discord.gateway.responses import acknowledge, finished, in_time, reply_privately
from adapters.discord.reply.channel import ChannelAddress
from adapters.discord.reply.command import ButtonPress, CommandAddress
from adapters.discord.reply.message import CONTINUE, RATINGS, REGENERATE, STOP, ended_buttons
from adapters.discord.rest import RestClient, own_id, request, translated
from bot.domain import Place, Rating, Shown, Turn
from bot.errors import HasEnded, StoreUnavailable, SurfaceError
from bot.intake.answers import THANKS
from bot.intake.intake import Intake

_log = logging.getLogger(__name__)

PRESSED_LABEL = "One moment…"


class Buttons:
    """Answers presses of buttons, also of those that other processes have posted.

    `on_asked` is called with each queued turn and the address of the press.
    """

    def __init__(
        self,
        rest: RestClient,
        intake: Intake,
        *,
        on_asked: Callable[[Turn], object],
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
        verbs = {STOP: self._stop, REGENERATE: self._regenerate, CONTINUE: self._continue}
        if verb := verbs.get(action + sign):
            await verb(interaction, turn_id)
        elif rating := RATINGS.get(action + sign):
            await self._rate(interaction, turn_id, rating)
        else:
            return False
        return True

    async def _stop(self, interaction: discord.Interaction, turn_id: str) -> None:
        by = asyncio.get_running_loop().time() + self._answer_within
        # Who manages messages may stop any answer there.
        who: dict[str, Any] = {"person_id": str(interaction.user.id)}
        if may_manage(interaction):
            who = {"at": command_key(interaction, interaction.channel_id or 0)}
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
        view = finished(
            *(
                discord.ui.Button(
                    custom_id=it["custom_id"],
                    label=it.get("label"),
                    emoji=it.get("emoji", {}).get("name"),
                )
                for it in shown
            )
        )
        try:
            async with translated():
                await interaction.response.edit_message(view=view)
        except SurfaceError as error:
            _log.info("Turn %s: cannot remove Stop from its ended reply: %s", turn_id, error)
            return False
        return True

    async def _regenerate(self, interaction: discord.Interaction, turn_id: str) -> None:
        regenerating = self._intake.answers.regenerate(
            turn_id,
            person_id=str(interaction.user.id),
            press_id=events.turn_id(interaction.id),
            place=press_place(interaction),
            asker=asker_of(interaction),
            reread=partial(_question_now, interaction),
        )
        seen_at = _seen_at(interaction)
        await self._await_turn(regenerating, at=seen_at)
        if seen_at:
            await acknowledge(interaction)
        else:
            await _acknowledge_on_button(interaction, turn_id)

    async def _continue(self, interaction: discord.Interaction, turn_id: str) -> None:
        continuing = self._intake.answers.continue_answer(
            turn_id,
            person_id=str(interaction.user.id),
            press_id=events.turn_id(interaction.id),
            place=place_below(interaction),
            asker=asker_of(interaction),
        )
        await self._await_turn(continuing)
        if _continues_command(interaction):
            # Otherwise the original response to this press would be the message with the button.
            await acknowledge(interaction, thinking=True, private=_is_private(interaction))
            return
        # Its answer is no longer the newest one.
        async with translated():
            await interaction.response.edit_message(view=finished())

    async def _await_turn(self, asking: Awaitable[Turn], *, at: Place | None = None) -> None:
        turn = await in_time(asking, within=self._answer_within)
        self._on_asked(replace(turn, place=at or turn.place))

    async def _rate(self, interaction: discord.Interaction, turn_id: str, rating: Rating) -> None:
        rating_it = self._intake.answers.rate(
            turn_id,
            person_id=str(interaction.user.id),
            rating=rating,
            at=command_key(interaction, interaction.channel_id or 0),
            asker=asker_of(interaction),
        )
        await in_time(rating_it, within=self._answer_within)
        await reply_privately(interaction, THANKS)


async def _question_now(interaction: discord.Interaction, turn: Turn) -> str:
    """Return the question of a turn as it stands in its message; empty without one."""
    channel, client = turn.place.get("channel"), interaction.client
    if not isinstance(channel, str) or "interaction" in turn.place:
        return ""
    ids = {"channel_id": channel, "message_id": turn.id.rpartition(":")[2]}
    found = await request(client, "GET", "/channels/{channel_id}/messages/{message_id}", ids)
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
        custom_id=f"{REGENERATE}{turn_id}", label=PRESSED_LABEL
    )
    async with translated():
        await interaction.response.edit_message(view=finished(button))


def may_manage(interaction: discord.Interaction) -> bool:
    """Whether the person may manage messages there; False in a DM."""
    permissions = interaction.permissions
    return permissions.manage_messages or permissions.administrator


def press_place(interaction: discord.Interaction) -> Place | None:
    """Return what a press adds to the address of a command; None for other answers."""
    pressed = interaction.message
    if pressed is None or pressed.interaction_metadata is None:
        return None
    return ButtonPress(interaction.id, interaction.token, pressed.id).to_json()


def place_below(interaction: discord.Interaction) -> Place | None:
    """Return the address of a turn that continues the message with the pressed button.

    None if Discord does not name that message. Below the answer to a command, the press is itself a
    command, whose original response is a new message.
    """
    pressed, channel = interaction.message, interaction.channel_id
    if pressed is None or channel is None:
        return None
    if _continues_command(interaction):
        private = _is_private(interaction)
        place = None if private or is_elsewhere(interaction) else channel
        return CommandAddress(place, interaction.id, interaction.token, private=private).to_json()
    # In a channel, each page replies to the question.
    question = pressed.reference.message_id if pressed.reference else None
    return ChannelAddress(channel, question, opens_thread=False).to_json()


def _seen_at(interaction: discord.Interaction) -> Place | None:
    """Return the address where typing can be shown after a press; None if nowhere.

    Discord itself shows no progress for an acknowledged press.
    """
    channel = interaction.channel_id
    if channel is None or _is_private(interaction) or is_elsewhere(interaction):
        return None
    return ChannelAddress(channel, None, opens_thread=False).to_json()


def _continues_command(interaction: discord.Interaction) -> bool:
    """Whether the pressed button is below a message that an interaction's webhook has written."""
    pressed = interaction.message
    return pressed is not None and pressed.interaction_metadata is not None


def _is_private(interaction: discord.Interaction) -> bool:
    """Whether only one person sees the message with the pressed button."""
    pressed = interaction.message
    return pressed is not None and pressed.flags.ephemeral
