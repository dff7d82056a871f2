"""The guild as GUILD_CREATE tells of it."""

from __future__ import annotations

from tests.emulators.discord.objects import PERMISSIONS, PUBLIC_THREAD, TEXT, Payload, now
from tests.emulators.discord.world import World


def guild(world: World) -> Payload:
    """Return the guild with its channels and threads; of its members only the bot."""
    channels = [one for one in world.channels.values() if one.guild_id and not one.deleted]
    return {
        "id": world.guild_id,
        "name": "The workshop",
        "owner_id": "1",
        "joined_at": now(),
        "large": False,
        "unavailable": False,
        "member_count": len(world.users),
        "roles": [_everyone(world.guild_id)],
        "members": [world.bot.member() | {"user": world.bot.payload()}],
        "channels": [one.payload() for one in channels if one.kind == TEXT],
        "threads": [one.payload() for one in channels if one.kind == PUBLIC_THREAD],
        "features": [],
        "emojis": [],
        "stickers": [],
    }


def _everyone(guild_id: str) -> Payload:
    """Return the role that every member has; its id is the guild's."""
    return {
        "id": guild_id,
        "name": "@everyone",
        "permissions": PERMISSIONS,
        "position": 0,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "managed": False,
        "mentionable": False,
        "icon": None,
        "unicode_emoji": None,
        "flags": 0,
    }
