"""Answers commands, menus and forms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import discord

from adapters.discord.gateway import events, forms
from adapters.discord.gateway.calls import (
    asker_of,
    call_of,
    command_key,
    command_turn,
    help_for,
    is_own_dm,
)
from adapters.discord.gateway.connection import read_message
from adapters.discord.gateway.content import file_line, files_in
from adapters.discord.gateway.responses import (
    Unknown,
    acknowledge,
    finished,
    in_time,
    reply_privately,
)
from adapters.discord.rest import RestClient, fetch_messages, own_id, translated
from bot.commands import handlers
from bot.commands.form import Part, form_named, scope_of
from bot.commands.handlers import Call, CommandHandlers, NotOffered, Scope
from bot.concurrency import BackgroundTasks
from bot.domain import ContextMessage, FileRef, Turn
from bot.errors import PlaceGone, StoreUnavailable, SurfaceError
from bot.intake.intake import Intake
from bot.languages import say
from bot.text.sanitize import is_visible

_log = logging.getLogger(__name__)

HELP = "Ask me something: write your question after my name."
_FOLLOW_UP_SECONDS = 14 * 60  # a response can be edited for 15 minutes
_SUMMARISED = 100  # messages, the most of one request ("Get Channel Messages")
_READ_SECONDS = 1.5  # of the three seconds that Discord allows for a response
_MOST_CHOICES, _LONGEST_CHOICE = 25, 100  # Discord's documentation, "Autocomplete"
_UNREADABLE = (
    "I cannot read what was said here: I need View Channel, Read Message History and the Message "
    "Content Intent. `/parley help` tells more."
)
_NOT_FOR_YOU = "You cannot see the earlier messages here, so I cannot summarise them for you."
_TOO_LATE = "I could not read what was said here in time. Please try again."
_FORGOTTEN = "I do not remember that message any more. Please choose it again."
_NO_TEXT = "I cannot read anything in that message. Please choose another one."

_T = TypeVar("_T")
_Data = Mapping[str, Any]
_Verb = Callable[[Call], Awaitable[_T]]


class Commands:
    """Handles the registered commands.

    Raises Unknown for what this version does not know, Refused or StoreUnavailable, whose apology
    is for the person, and SurfaceError if Discord rejects the response.
    """

    def __init__(self, rest: RestClient, intake: Intake, tasks: BackgroundTasks) -> None:
        self._intake = intake
        self._threads = rest.own.threads
        self._answer_within = rest.tuning.answer_within
        self._handlers = CommandHandlers(intake)
        self._tasks = tasks

    async def answer(self, interaction: discord.Interaction, data: _Data) -> None:
        """Answer a command, or a choice in a message's menu."""
        match data:
            case {"name": "ask", "type": 1, "options": [*options]}:
                await self._ask(interaction, _values(options), data)
            case {"name": "parley", "options": [{"name": str(name), "type": 1, **rest}]}:
                await self._carry_out(interaction, name, _values(rest.get("options")), data)
            case {"name": handlers.ASK_ABOUT, "type": 3}:
                await self._ask_about(interaction, data)
            case {"name": handlers.SUMMARISE, "type": 3}:
                await self._summarise(interaction, data)
            case _:
                raise Unknown

    async def complete(self, interaction: discord.Interaction, data: _Data) -> None:
        """Suggest models or personas with the typed text; nothing for another command."""
        offered = list[tuple[str, str]]()
        match data:
            case {"name": "parley", "options": [{"name": "model", "options": [*options]}]}:
                offered = self._handlers.models(_text(_values(options), "name"))
            case {"name": "parley", "options": [{"name": "persona", "options": [*options]}]}:
                typed = _text(_values(options), "text")
                with suppress(StoreUnavailable):
                    names = await self._called(
                        interaction, lambda call: self._handlers.personas(call, typed)
                    )
                    offered = [(name, name) for name in names]
        found = [
            discord.app_commands.Choice(name=label[:_LONGEST_CHOICE], value=name)
            for name, label in offered
            if len(name) <= _LONGEST_CHOICE
        ]
        async with translated():
            await interaction.response.autocomplete(found[:_MOST_CHOICES])

    async def press(self, interaction: discord.Interaction, pressed: str) -> None:
        """Answer a press of a button below the bot's answer to a command."""
        match pressed.split(":"):
            case ["forget", person] if person == str(interaction.user.id):
                text = await self._respond(interaction, self._handlers.forget_me)
                if text == say(handlers.FORGETTING):
                    self._tasks.start(self._report_forgotten(interaction))
            case ["settings", scope, part] if named := form_named(f"{scope}:{part}"):
                await self._open_form(interaction, *named)
            case _:
                raise Unknown

    async def take_form(
        self, interaction: discord.Interaction, name: str, parts: Sequence[Any]
    ) -> None:
        """Handle a submitted form."""
        values = forms.filled_in(parts)
        match name.split(":"):
            case ["about", message]:
                await self._ask_about_stored(interaction, message, values)
            case ["settings", scope, part, seen] if named := form_named(f"{scope}:{part}"):
                await self._respond(
                    interaction,
                    lambda call: self._handlers.fill_in(call, *named, values, seen=seen),
                )
            case _:
                raise Unknown

    async def _ask(self, interaction: discord.Interaction, values: _Data, data: _Data) -> None:
        if "question" not in values:
            raise Unknown
        question = _text(values, "question")
        if not is_visible(question):
            await reply_privately(interaction, say(HELP))
            return
        private = values.get("private") is True and not is_own_dm(interaction)
        files = _files(interaction, values, data)
        asked = "\n".join([question.strip(), *(file_line(file.name) for file in files)])
        turn = replace(command_turn(interaction, asked, private=private), files=files)
        await self._admit(interaction, turn, private=private)

    async def _admit(self, interaction: discord.Interaction, turn: Turn, *, private: bool) -> None:
        await in_time(self._intake.ask(turn), within=self._answer_within)
        await acknowledge(interaction, thinking=True, private=private)

    async def _carry_out(
        self, interaction: discord.Interaction, name: str, values: _Data, data: _Data
    ) -> None:
        match name:
            case "settings":
                await self._show_settings(interaction)
            case "forget-me":
                await self._ask_to_forget(interaction)
            case "help":
                here = help_for(interaction, str(data.get("id")), threads=self._threads)
                await self._respond(interaction, lambda call: self._handlers.help(call, here))
            case _ if name in handlers.COMMANDS:
                scope = scope_of(str(values.get("where")))
                given = (_text(values, one) for one in ("name", "text", "change"))
                argument = next(filter(None, given), "")
                await self._respond(
                    interaction, lambda call: self._handlers.run(name, call, argument, scope)
                )
            case _:
                raise Unknown

    async def _ask_to_forget(self, interaction: discord.Interaction) -> None:
        button: discord.ui.Button[discord.ui.View] = discord.ui.Button(
            custom_id=f"forget:{interaction.user.id}",
            label=say(handlers.FORGET),
            style=discord.ButtonStyle.danger,
        )
        await reply_privately(interaction, say(handlers.FORGET_QUESTION), finished(button))

    async def _report_forgotten(self, interaction: discord.Interaction) -> None:
        """Report the end of a slow erasure in the message that announced it."""
        try:
            async with asyncio.timeout(_FOLLOW_UP_SECONDS):
                text = await self._handlers.forgotten(await call_of(interaction, self._intake))
            async with translated():
                await interaction.edit_original_response(content=text)
        except (TimeoutError, StoreUnavailable, SurfaceError) as error:
            _log.info("Interaction %d: cannot report an erasure: %r", interaction.id, error)

    async def _respond(self, interaction: discord.Interaction, verb: _Verb[str]) -> str:
        """Run a command and send its result to the person."""
        text = await self._called(interaction, verb)
        await reply_privately(interaction, text)
        return text

    async def _called(self, interaction: discord.Interaction, verb: _Verb[_T]) -> _T:
        async def called() -> _T:
            return await verb(await call_of(interaction, self._intake))

        return await in_time(called(), within=self._answer_within)

    async def _show_settings(self, interaction: discord.Interaction) -> None:
        overview = await self._called(interaction, self._handlers.overview)
        buttons: list[discord.ui.Button[discord.ui.View]] = [
            discord.ui.Button(custom_id=f"{forms.SETTINGS}{scope}:{part}", label=label)
            for scope, part, label in overview.forms
        ]
        await reply_privately(interaction, overview.text, finished(*buttons) if buttons else None)

    async def _open_form(self, interaction: discord.Interaction, scope: Scope, part: Part) -> None:
        form = await self._called(interaction, lambda call: self._handlers.form(call, scope, part))
        async with translated():
            modal = forms.settings_form(f"{scope}:{part}", form)
            await interaction.response.send_modal(modal)

    async def _ask_about(self, interaction: discord.Interaction, data: _Data) -> None:
        message = self._target(interaction, data)
        if message is None or not message.text:
            await reply_privately(interaction, say(_NO_TEXT))
            return
        name = str(interaction.id)
        # Stored now, because the bot cannot read it later if it is not a member there.
        await in_time(self._store_message(interaction, name, message), within=self._answer_within)
        form = forms.question_form(name, is_private=is_own_dm(interaction))
        async with translated():
            await interaction.response.send_modal(form)

    async def _store_message(
        self, interaction: discord.Interaction, name: str, message: ContextMessage
    ) -> None:
        await self._check(interaction)
        await self._intake.history.keep_message(_message_key(interaction, name), message)

    async def _check(self, interaction: discord.Interaction) -> None:
        """Raise NotAllowed if the person may not use the bot there."""
        await self._intake.access.check(
            command_key(interaction), events.person_of(interaction.user), asker_of(interaction)
        )

    async def _ask_about_stored(
        self, interaction: discord.Interaction, name: str, values: forms.Values
    ) -> None:
        question, private = _text(values, "question").strip(), values.get("who") == (forms.ONLY_ME,)
        reading = self._intake.history.kept_message(_message_key(interaction, name))
        message = await in_time(reading, within=self._answer_within)
        if message is None:
            await reply_privately(interaction, say(_FORGOTTEN))
            return
        turn = command_turn(interaction, question, private=private, quote=message)
        await self._admit(interaction, turn, private=private)

    async def _summarise(self, interaction: discord.Interaction, data: _Data) -> None:
        message = self._target(interaction, data)
        private = not is_own_dm(interaction)
        if message is None:
            await reply_privately(interaction, say(_NO_TEXT))
            return
        await in_time(self._check(interaction), within=self._answer_within)
        context = await self._messages_since(interaction, message)
        turn = command_turn(interaction, handlers.SUMMARY_QUESTION, private=private, quote=message)
        await self._admit(interaction, replace(turn, context=tuple(context)), private=private)

    async def _messages_since(
        self, interaction: discord.Interaction, first: ContextMessage
    ) -> list[ContextMessage]:
        """Read the messages after a message, with one request; raises Refused."""
        channel = interaction.channel_id or 0
        if interaction.guild_id and not interaction.client.intents.message_content:
            raise NotOffered(_UNREADABLE)
        if interaction.guild_id and not interaction.permissions.read_message_history:
            raise NotOffered(_NOT_FOR_YOU)
        try:
            async with asyncio.timeout(_READ_SECONDS):
                found = await fetch_messages(interaction.client, channel, limit=_SUMMARISED)
        except PlaceGone as error:
            raise NotOffered(_UNREADABLE) from error
        except (SurfaceError, TimeoutError) as error:
            raise NotOffered(_TOO_LATE) from error
        after = int(first.id.rpartition(":")[2])
        behind = [one for one in reversed(found) if after < int(one["id"]) < interaction.id]
        said = (events.context_message_in(interaction.client, one) for one in behind)
        return [one for one in said if one and one.text]

    def _target(self, interaction: discord.Interaction, data: _Data) -> ContextMessage | None:
        """Return the message whose menu has the command.

        Its files have their addresses, too: perhaps the bot may not read the message anew.
        """
        match data:
            case {"target_id": str(target), "resolved": {"messages": dict(messages)}}:
                client = interaction.client
                channel = client.get_partial_messageable(interaction.channel_id or 0)
                if message := read_message(channel, messages.get(target) or {}):
                    said = events.context_message(message, own_id(client))
                    urls = {events.turn_id(one.id): one.url for one in message.attachments}
                    files = (
                        replace(one, place={**one.place, "url": urls[one.id]}) for one in said.files
                    )
                    return replace(said, files=tuple(files))
        return None


def _message_key(interaction: discord.Interaction, form: str) -> str:
    """Return the storage key of a message for this person's form.

    The person's id is part of it, because clients may send the id of another form (a guess).
    """
    return f"{interaction.user.id}:{form}"


def _values(options: Any) -> dict[str, Any]:
    """Return the options of a command by name."""
    return {one["name"]: one.get("value") for one in options or ()}


def _text(values: _Data, name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _files(interaction: discord.Interaction, values: _Data, data: _Data) -> tuple[FileRef, ...]:
    """Return the file of a command. It is in no message, so its address cannot be asked for."""
    files = (data.get("resolved") or {}).get("attachments") or {}
    asked = events.turn_id(interaction.id)
    return tuple(
        FileRef(events.turn_id(it["id"]), asked, it["filename"], it["size"], {"url": it["url"]})
        for it in files_in({"attachments": [files.get(values.get("file"))]})
    )
