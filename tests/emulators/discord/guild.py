"""The guild as GUILD_CREATE tells of it."""

from __future__ import annotations

from tests.emulators.discord.objects import PUBLIC_THREAD, Payload, now
from tests.emulators.discord.world import World


def guild(world: World) -> Payload:
    """Return the guild with its channels and threads; of its members only the bot."""
    channels = [
        one for one in world.channels.values() if one.guild_id == world.guild_id and not one.deleted
    ]
    return {
        "id": world.guild_id,
        "name": "The workshop",
        "owner_id": "1",
        "joined_at": now(),
        "large": False,
        "unavailable": False,
        "member_count": len(world.users),
        "roles": world.all_roles(),
        "members": [world.bot.member() | {"user": world.bot.payload()}],
        "channels": [one.payload() for one in channels if one.kind != PUBLIC_THREAD],
        # Only the active ones (docs: Guild Create).
        "threads": [
            one.payload() for one in channels if one.kind == PUBLIC_THREAD and not one.archived
        ],
        "features": [],
        "emojis": [],
        "stickers": [],
    }
