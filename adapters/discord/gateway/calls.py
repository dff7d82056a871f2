"""Location-dependent parts of commands: the conversation, the turn, and the help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import discord

from adapters.discord.gateway import events
from adapters.discord.reply.command import CommandAddress
from adapters.discord.rest import own_id
from bot.commands.handlers import (
    ASK_ABOUT,
    SUMMARISE,
    SUMMARY_QUESTION,
    Call,
    HelpContext,
    MissingFeature,
    Scope,
)
from bot.domain import Asker, ContextMessage, ThreadKey, Turn
from bot.intake.intake import Intake
from bot.languages import say

_PORTAL = "https://discord.com/developers"


async def call_of(interaction: discord.Interaction, intake: Intake) -> Call:
    """Return the Call of an interaction. Raises StoreUnavailable."""
    permissions = interaction.permissions
    own_server = interaction.guild_id is not None and not is_elsewhere(interaction)
    scopes: dict[Scope, str] = {"thread": _conversation(interaction)}
    if own_server:
        scopes |= {"channel": say("this channel"), "server": say("this server")}
    administers = permissions.administrator
    return Call(
        id=events.turn_id(interaction.id),
        thread=command_key(interaction),
        person=events.person_of(interaction.user),
        scopes=scopes,
        asker=asker_of(interaction),
        in_thread=isinstance(interaction.channel, discord.Thread) or not interaction.guild_id,
        own_thread=await _is_own(interaction, intake),
        manages_messages=own_server and may_manage(interaction),
        manages_channel=own_server and (permissions.manage_channels or administers),
        manages_server=own_server and (permissions.manage_guild or administers),
    )


def help_for(interaction: discord.Interaction, command_id: str, *, threads: bool) -> HelpContext:
    """Return the help for the location of a command; with `threads`, mentions open threads.

    `command_id` makes mentions of the command clickable.
    """
    place: Literal["dm", "server", "elsewhere"] = "dm" if is_own_dm(interaction) else "server"
    if is_elsewhere(interaction):
        place = "elsewhere"
    return HelpContext(
        ways=tuple(ways(own_id(interaction.client), place=place)),
        lacks=tuple(_lacks(interaction, threads=threads)),
        # Discord's documentation, "Message Formatting".
        written=f"</parley {{name}}:{command_id}>",
    )


def _conversation(interaction: discord.Interaction) -> str:
    if isinstance(interaction.channel, discord.Thread):
        return say("this thread")
    by_ask = bool(interaction.guild_id)
    return say("your conversation by /ask") if by_ask else say("this conversation")


async def _is_own(interaction: discord.Interaction, intake: Intake) -> bool:
    thread = interaction.channel
    if not isinstance(thread, discord.Thread):
        # In a channel each person has their own conversation by /ask.
        return interaction.guild_id is not None or is_own_dm(interaction)
    if thread.owner_id != own_id(interaction.client):
        return thread.owner_id == interaction.user.id
    # A thread that the bot opened from a question has its id.
    turn = await intake.lookup.turn(events.turn_id(thread.id))
    return turn is not None and turn.person.id == str(interaction.user.id)


def ways(user_id: int, *, place: Literal["dm", "server", "elsewhere"]) -> Iterator[str]:
    """Yield the ways to ask the bot, `user_id`, in a place, in sentences."""
    menus = {"ask": f"**{say(ASK_ABOUT)}**", "summarise": f"**{say(SUMMARISE)}**"}
    if place == "dm":
        yield say("Write to me: every message here is a question to me.")
    elif place == "elsewhere":
        elsewhere = (
            "Use `/ask`, or {ask} in a message's menu (Apps). I am not a member here, so I only "
            "see what you send me."
        )
        yield say(elsewhere, ask=menus["ask"])
    else:
        mention = "Mention {bot}, reply to one of my messages, or use `/ask`."
        yield say(mention, bot=f"<@{user_id}>")
        about = (
            "{ask} in a message's menu (Apps) asks me about that message; {summarise} sums up "
            "what followed."
        )
        yield say(about, **menus)
    yield say("With the option `private` of `/ask`, only you see the question and the answer.")


def _lacks(interaction: discord.Interaction, *, threads: bool) -> Iterator[MissingFeature]:
    if interaction.guild_id is None or is_elsewhere(interaction):
        return
    if not interaction.client.intents.message_content:
        yield MissingFeature(
            say(
                "I only see messages that mention me or reply to me, because Discord hides the "
                "others."
            ),
            say(
                "An admin can switch on Message Content Intent under Bot at {address}.",
                address=_PORTAL,
            ),
        )
    allowed = interaction.app_permissions
    in_thread = isinstance(interaction.channel, discord.Thread)
    may_send = allowed.send_messages_in_threads if in_thread else allowed.send_messages
    if not (allowed.view_channel and may_send):
        permission = "Send Messages in Threads" if in_thread else "Send Messages"
        yield MissingFeature(
            say("I only answer commands, because I cannot write here."), _allow(permission)
        )
    elif threads and not in_thread and not allowed.create_public_threads:
        yield MissingFeature(
            say("I answer in the channel, because I cannot open threads here."),
            _allow("Create Public Threads"),
        )
    if not allowed.read_message_history:
        yield MissingFeature(
            say("I cannot read what was said before I was called."), _allow("Read Message History")
        )


def _allow(permission: str) -> str:
    return say(
        "An admin can give my role the permission {permission} in this channel.",
        permission=permission,
    )


def command_turn(
    interaction: discord.Interaction,
    question: str,
    *,
    private: bool = False,
    quote: ContextMessage | None = None,
) -> Turn:
    """Return the turn of `/ask` or of a form.

    In a DM or a Discord thread it belongs to the conversation there, in a channel to one
    conversation of each person. A `private` question has its own conversation, so that it never
    appears in other people's context.
    """
    channel = None if private or is_elsewhere(interaction) else interaction.channel_id
    address = CommandAddress(channel, interaction.id, interaction.token, private=private)
    may_read = interaction.permissions if interaction.guild_id else events.EVERYTHING
    place = address.to_json() | events.readable_by(may_read)
    if private and isinstance(interaction.channel, discord.Thread):
        place |= {} if is_elsewhere(interaction) else {events.READS: str(interaction.channel_id)}
    if not private and question != SUMMARY_QUESTION:
        place |= {events.ASKS: True}
    return Turn(
        id=events.turn_id(interaction.id),
        key=command_key(interaction, private=private),
        person=events.person_of(interaction.user),
        text=question,
        place=place,
        asked_at=interaction.created_at.timestamp(),
        asker=asker_of(interaction),
        where=events.where_of(interaction.channel, own_id(interaction.client)),
        quote=quote,
    )


def command_key(interaction: discord.Interaction, *, private: bool = False) -> ThreadKey:
    """Return the conversation to which a command belongs in a channel, a thread or a DM."""
    place, channel, user = interaction.channel, interaction.channel_id, interaction.user.id
    if interaction.guild_id is None:
        # A DM with the bot is private already.
        alone = private and is_elsewhere(interaction)
        thread = f"private-{user}" if alone else str(channel)
        return ThreadKey(events.NAME, "dm", str(channel), thread)
    guild = str(interaction.guild_id)
    if isinstance(place, discord.Thread):
        thread = f"private-{channel}-{user}" if private else str(channel)
        return ThreadKey(events.NAME, guild, str(place.parent_id), thread)
    return ThreadKey(events.NAME, guild, str(channel), f"{'private' if private else 'ask'}-{user}")


def asker_of(interaction: discord.Interaction) -> Asker:
    """Return the access facts of an interaction."""
    return Asker(direct=interaction.guild_id is None, roles=events.roles_of(interaction.user))


def is_elsewhere(interaction: discord.Interaction) -> bool:
    """Whether the bot is not a member there (user-installed app)."""
    if interaction.guild_id is None:
        return interaction.context.private_channel
    return interaction.is_user_integration() and not interaction.is_guild_integration()


def is_own_dm(interaction: discord.Interaction) -> bool:
    """Whether an interaction is in a DM with the bot."""
    return interaction.guild_id is None and not is_elsewhere(interaction)


def may_manage(interaction: discord.Interaction) -> bool:
    """Whether the person may manage messages there; False in a DM."""
    permissions = interaction.permissions
    return permissions.manage_messages or permissions.administrator
