"""Discord: the gateway in, REST out."""

from adapters.discord.platform import DiscordPlatform, connect

__all__ = ["DiscordPlatform", "connect"]
