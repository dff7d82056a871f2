"""What a gateway event is to the bot: whether a message is for it, and the turn it asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from typing import Any, TypeVar

import discord

from adapters.discord.address import ButtonPress, ChannelAddress, CommandAddress
from adapters.discord.rest import fetch_channel, own_id, request
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
# Characters of all embeds and components of a forwarded message, or of a poll. Discord's own limits
# are 6000 for a message's embeds ("Embed Limits") and 4000 for its components.
_ENCLOSED_LIMIT = 10_000
_T = TypeVar("_T")
_WRITTEN = (discord.MessageType.default, discord.MessageType.reply)


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


def place_below(interaction: discord.Interaction) -> Place | None:
    """Return where a turn is answered that continues the message with the pressed button.

    None if Discord does not name that message. Below the answer to a command, the press is itself a
    command, whose original response is a new message (see `continues_command`).
    """
    pressed, channel = interaction.message, interaction.channel_id
    if pressed is None or channel is None:
        return None
    if continues_command(interaction):
        return CommandAddress(channel, interaction.id, interaction.token).to_json()
    # In a channel, each page replies to the question.
    question = pressed.reference.message_id if pressed.reference else None
    return ChannelAddress(channel, question, opens_thread=False).to_json()


def continues_command(interaction: discord.Interaction) -> bool:
    """Whether the pressed button is below a message that an interaction's webhook has written."""
    pressed = interaction.message
    return pressed is not None and pressed.interaction_metadata is not None


def may_manage(interaction: discord.Interaction) -> bool:
    """Whether the person may manage messages there; nobody may in a DM."""
    permissions = interaction.permissions
    return permissions.manage_messages or permissions.administrator


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


def enclosed(message: discord.Message) -> list[str]:
    """Return a line for the poll, each sticker and each file of a message."""
    lines = _named(message)
    if poll := message.poll:
        answers = " / ".join(filter(None, (answer.text for answer in poll.answers)))
        lines.insert(0, "[poll] " + _bounded(f"{poll.question} {answers}"))
    return lines


def forwarded(snapshot: discord.MessageSnapshot) -> list[str]:
    """Return the text of a forwarded message, with its components and embeds, then its files."""
    parts = [*_component_texts(snapshot.components), *map(_embed, snapshot.embeds)]
    rich = _bounded("\n".join(filter(None, parts)))
    text = "\n".join(filter(None, [snapshot.content, rich]))
    head = f"[forwarded] {text}".rstrip()
    return [head, *_named(snapshot)]


def _named(message: discord.Message | discord.MessageSnapshot) -> list[str]:
    stickers = [f"[sticker: {sticker.name}]" for sticker in message.stickers]
    return stickers + [f"[file: {attachment.filename}]" for attachment in message.attachments]


def _embed(embed: discord.Embed) -> str:
    fields = [": ".join(filter(None, [field.name, field.value])) for field in embed.fields]
    return "\n".join(filter(None, [embed.author.name, embed.title, embed.description, *fields]))


def _component_texts(components: Iterable[Any]) -> Iterator[str]:
    """Yield the text displays, those in sections and containers too, in their order."""
    for component in components:
        if isinstance(component, discord.TextDisplay):
            yield component.content
        elif isinstance(component, discord.SectionComponent | discord.Container):
            yield from _component_texts(component.children)


def _bounded(text: str) -> str:
    return text if len(text) <= _ENCLOSED_LIMIT else text[:_ENCLOSED_LIMIT] + "…"


class Relevance(Enum):
    """Why a message is for the bot, or that it is not."""

    NONE = auto()
    UNKNOWN = auto()  # its channel, or the bot's role there, has to be looked up
    DIRECT = auto()  # in a DM
    MENTION = auto()  # of the bot or of its role
    OWN_THREAD = auto()  # in a Discord thread that the bot opened
    REPLY = auto()  # to a message of the bot, among other conversations


class MessageFilter:
    """Classifies messages.

    A session that was resumed shows no servers: REST is asked once for each channel, and for the
    bot's own role in each server. Discord makes that role when a bot is invited with permissions,
    under the bot's name, and people mention it in place of the bot.
    """

    def __init__(self, client: discord.Client, *, remembered: int) -> None:
        self._client = client
        self._remembered = remembered
        # The kind and the owner of a channel never change.
        self._channels: dict[int, object] = {}
        # By server; 0 if there is none. A role that is made later is known from the next session.
        self._roles: dict[int, int] = {}

    def classify(self, message: discord.Message) -> Relevance:
        """Return the relevance of a message as far as it is known."""
        if message.author.bot or message.webhook_id or message.type not in _WRITTEN:
            return Relevance.NONE
        channel = self._known_channel(message)
        if isinstance(channel, discord.DMChannel):
            return Relevance.DIRECT
        bot_id, reads_everything = own_id(self._client), self._client.intents.message_content
        # By name, or by a reply that notifies.
        is_mentioned = any(user.id == bot_id for user in message.mentions)
        is_called = is_mentioned or self.mentions_role(message)
        is_reply = answered_message(message, bot_id) is not None
        if isinstance(channel, discord.PartialMessageable):
            may_be = is_called is not False or is_reply or reads_everything
            return Relevance.UNKNOWN if may_be else Relevance.NONE
        if is_called is None:
            return Relevance.UNKNOWN
        if is_called:
            return Relevance.MENTION
        if isinstance(channel, discord.Thread):
            is_own = channel.owner_id == bot_id and reads_everything
            return Relevance.OWN_THREAD if is_own else Relevance.NONE
        return Relevance.REPLY if is_reply else Relevance.NONE

    async def resolve(self, message: discord.Message) -> tuple[Relevance, Channel | None]:
        """Look up what is unknown; return the relevance and the channel; raises SurfaceError.

        The channel is None if a message in it is not for the bot.
        """
        relevance = self.classify(message)
        if relevance is Relevance.UNKNOWN:
            await self._look_up_role(message)
            channel = self._known_channel(message)
            if isinstance(channel, discord.PartialMessageable):
                found = await fetch_channel(self._client, channel.id)
                self._remember(self._channels, channel.id, found)
            relevance = self.classify(message)
        channel = self._known_channel(message)
        if relevance is Relevance.UNKNOWN or not isinstance(channel, Channel):
            return Relevance.NONE, None
        return relevance, channel

    def mentions_role(self, message: discord.Message) -> bool | None:
        """Whether a message mentions the bot's own role; None until that is looked up."""
        # The library knows the roles of a server that the gateway has shown. The text names the
        # others too, and perhaps one that the person may not ping. Guess: `mention_roles` leaves
        # such a role out.
        mentioned = {role.id for role in message.role_mentions} | {*message.raw_role_mentions}
        own = self.role(message) if mentioned else 0
        return None if own is None else own > 0 and own in mentioned

    def role(self, message: discord.Message) -> int | None:
        """Return the id of the bot's own role: 0 if there is none, None until it is looked up."""
        guild = message.guild
        # The role of everybody has the server's id; it is missing until the server is shown.
        if guild is not None and guild.get_role(guild.id):
            return guild.self_role.id if guild.self_role else 0
        server = _server_of(message)
        return 0 if server is None else self._roles.get(server)

    def _known_channel(self, message: discord.Message) -> object:
        return self._channels.get(message.channel.id, message.channel)

    async def _look_up_role(self, message: discord.Message) -> None:
        server = _server_of(message)
        if self.mentions_role(message) is not None or server is None:
            return
        roles = await request(self._client, "GET", "/guilds/{guild_id}/roles", {"guild_id": server})
        tags = {int(role["id"]): role.get("tags") or {} for role in roles}
        own = (one for one, tag in tags.items() if tag.get("bot_id") == str(own_id(self._client)))
        self._remember(self._roles, server, next(own, 0))

    def _remember(self, known: dict[int, _T], key: int, value: _T) -> None:
        known[key] = value
        if len(known) > self._remembered:
            del known[next(iter(known))]


def _server_of(message: discord.Message) -> int | None:
    if message.guild is not None:
        return message.guild.id
    channel = message.channel
    return channel.guild_id if isinstance(channel, discord.PartialMessageable) else None
