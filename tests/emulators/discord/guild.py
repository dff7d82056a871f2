"""The guild as GUILD_CREATE and REST tell of it."""

from __future__ import annotations

from itertools import chain

from tests.emulators.discord.objects import PUBLIC_THREAD, Payload
from tests.emulators.discord.world import World

# What REST tells besides (docs: Guild Object).
_NONE = (
    "icon description home_header splash discovery_splash banner application_id afk_channel_id",
    "system_channel_id widget_channel_id max_presences vanity_url_code rules_channel_id",
    "safety_alerts_channel_id public_updates_channel_id incidents_data",
)
_ZERO = (
    *("system_channel_flags", "verification_level", "default_message_notifications", "mfa_level"),
    *("explicit_content_filter", "premium_tier", "premium_subscription_count", "nsfw_level"),
)
_FALSE = ("widget_enabled", "premium_progress_bar_enabled", "nsfw")
_LIMITS: Payload = {
    "region": "us-east",
    "afk_timeout": 300,
    "max_members": 500_000,
    "max_stage_video_channel_users": 50,
    "max_video_channel_users": 25,
}


def guild(world: World) -> Payload:
    """Return the guild with its channels and threads; of its members only the bot."""
    channels = [one for one in world.channels.values() if one.guild_id == world.guild_id]
    return {
        "id": world.guild_id,
        "name": "The workshop",
        "preferred_locale": world.guild_locale,
        "owner_id": "1",
        "joined_at": world.joined_at,
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


def guild_of_rest(world: World) -> Payload:
    """Return the guild without what only GUILD_CREATE has (docs: Guild Create)."""
    only = ("joined_at", "large", "unavailable", "member_count", "members", "channels", "threads")
    seen = {key: value for key, value in guild(world).items() if key not in only}
    unset: Payload = dict.fromkeys(chain.from_iterable(map(str.split, _NONE)))
    return unset | dict.fromkeys(_ZERO, 0) | dict.fromkeys(_FALSE, False) | _LIMITS | seen
