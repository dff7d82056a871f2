"""A Discord on loopback: REST and gateway, strict and stateful."""

from tests.emulators.discord.edge import Call
from tests.emulators.discord.emulator import DiscordEmulator
from tests.emulators.discord.objects import Shown

__all__ = ["Call", "DiscordEmulator", "Shown"]
