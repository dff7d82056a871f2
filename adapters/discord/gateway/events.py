"""Turns from what people do in Discord."""

from __future__ import annotations

import re

import discord

from adapters.discord.address import ButtonPress, ChannelAddress, CommandAddress
from adapters.discord.gateway.content import enclosed, forwarded
from bot.domain import Person, Place, ThreadKey, Turn

Channel = (
    discord.TextChannel
    | discord.VoiceChannel
    | discord.StageChannel
    | discord.Thread
    | discord.DMChannel
)

_NAME = "discord"
_MARKUP = re.compile(r"<(?P<kind>@|@&|#)!?(?P<id>\d{15,20})>")


def turn_id(snowflake: int) -> str:
    """Return the id of the turn that a message or an interaction asks for."""
    return f"{_NAME}:{snowflake}"


def answered_message(message: discord.Message, author_id: int) -> int | None:
    """Return the message of this author to which a message replies; None if there is none."""
    answered = message.reference.resolved if message.reference else None
    if isinstance(answered, discord.Message) and answered.author.id == author_id:
        return answered.id
    return None


def has_threads(channel: Channel) -> bool:
    """Whether a channel has several conversations side by side."""
    return not isinstance(channel, discord.Thread | discord.DMChannel)


def message_turn(
    message: discord.Message,
    channel: Channel,
    *,
    text: str,
    goes_on: ThreadKey | None,
    threads: bool,
) -> Turn:
    """Return the turn of a message for the bot.

    `goes_on` is the thread that a reply in a channel continues; without one, a message in a channel
    begins a thread of its own, in a Discord thread if `threads` says so.
    """
    side_by_side = has_threads(channel)
    address = ChannelAddress(
        channel.id,
        message.id if side_by_side else None,
        opens_thread=side_by_side and goes_on is None and threads,
    )
    return Turn(
        id=turn_id(message.id),
        key=goes_on or _key(message, channel),
        person=_person(message.author),
        text=text,
        place=address.to_json(),
        asked_at=message.created_at.timestamp(),
    )


def command_turn(interaction: discord.Interaction, prompt: str) -> Turn:
    """Return the turn of `/ask`: each person has one thread of commands in each channel."""
    channel = interaction.channel_id
    if channel is None:
        raise ValueError("an interaction without a channel")
    workspace = "dm" if interaction.guild_id is None else str(interaction.guild_id)
    return Turn(
        id=turn_id(interaction.id),
        key=ThreadKey(_NAME, workspace, str(channel), f"ask-{interaction.user.id}"),
        person=_person(interaction.user),
        text=prompt,
        place=CommandAddress(channel, interaction.id, interaction.token).to_json(),
        asked_at=interaction.created_at.timestamp(),
    )


def press_place(interaction: discord.Interaction) -> Place | None:
    """Return what a press adds to the address of a command; None if it is on another answer."""
    pressed = interaction.message
    if pressed is None or pressed.interaction_metadata is None:
        return None
    return ButtonPress(interaction.id, interaction.token, pressed.id).to_json()


def text_of(message: discord.Message, user_id: int, *, role_id: int) -> str:
    """Return what a message says to this user; empty when it only mentions them or their role.

    Other mentions become names. A poll and a forwarded message are included; files and stickers are
    only named.
    """
    names = {f"@{user.id}": f"@{user.display_name}" for user in message.mentions}
    names |= {f"@&{role.id}": f"@{role.name}" for role in message.role_mentions}
    names |= {f"#{channel.id}": f"#{channel.name}" for channel in message.channel_mentions}

    def name(match: re.Match[str]) -> str:
        return names.get(match["kind"] + match["id"], match[0])

    own = rf"<@(?:!?{user_id}|&{role_id})>"
    parts = [re.sub(rf"^\s*{own}[,:]?|[ ]?{own}", "", message.content), *enclosed(message)]
    for snapshot in message.message_snapshots:
        parts += forwarded(snapshot)
    named = (_MARKUP.sub(name, part).strip() for part in parts)
    return "\n".join(filter(None, named))


def _key(message: discord.Message, channel: Channel) -> ThreadKey:
    if isinstance(channel, discord.DMChannel):
        return ThreadKey(_NAME, "dm", str(channel.id), str(channel.id))
    guild = str(channel.guild.id)
    if isinstance(channel, discord.Thread):
        return ThreadKey(_NAME, guild, str(channel.parent_id), str(channel.id))
    # The thread that is opened from a message will have the message's id.
    return ThreadKey(_NAME, guild, str(channel.id), str(message.id))


def _person(user: discord.User | discord.Member) -> Person:
    # One account has one id in every server and DM.
    return Person(id=str(user.id), name=user.display_name)
