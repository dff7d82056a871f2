"""The settings of Discord."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from config.settings import PlatformSettings, Settings
from config.variables import like, setting, switch, url, word

ID = r"[0-9]{15,20}"
_snowflake = like(ID, "is not an id of Discord, which has 15 to 20 digits")


def _shards(text: str) -> tuple[tuple[int, ...], int]:
    parts = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?/([0-9]{1,5})", text)
    if parts:
        first, last, count = int(parts[1]), int(parts[2] or parts[1]), int(parts[3])
        if first <= last < count:
            return tuple(range(first, last + 1)), count
    raise ValueError("is not like 0-3/8 or 4/8: the first, the last, and how many there are")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscordSettings(PlatformSettings):
    """The variables DISCORD_*; the bot runs in Discord if it has a token."""

    name: ClassVar[str] = "discord"
    needs: ClassVar[tuple[tuple[str, str], ...]] = (("shards", "token"),)

    token: str = setting("", word, "Discord bot token", secret=True)
    threads: bool = setting(
        True, switch, "on: a mention in a channel opens a thread; off: it is answered by a reply"
    )
    shards: tuple[tuple[int, ...], int] | None = setting(
        None,
        _shards,
        "which of the bot's shards this process serves, such as 0-3/8; empty means it has one",
    )
    command_server: str = setting(
        "",
        _snowflake,
        "id of one server in which the commands are registered, to try changes; empty: everywhere",
    )
    api_url: str = setting(
        "", url("http", "https", beside_token=True), "another address of Discord's REST API"
    )
    gateway_url: str = setting(
        "", url("ws", "wss", beside_token=True), "another address of Discord's gateway"
    )

    @property
    def is_configured(self) -> bool:
        """Whether there is a token."""
        return bool(self.token)

    @property
    def server(self) -> str:
        """The address of the REST API."""
        return self.api_url or "https://discord.com"

    def mistakes(self, settings: Settings) -> Iterator[str]:
        """Yield that all servers would be left."""
        listed = any(re.fullmatch(ID, one) for one in settings.allowed_servers)
        if settings.leave_other_servers and not listed:
            yield "LEAVE_OTHER_SERVERS=on needs a Discord server in ALLOWED_SERVERS"
