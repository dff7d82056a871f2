"""A Discord on loopback: REST and gateway, strict and stateful."""

from tests.emulators.discord.edge import Call
from tests.emulators.discord.emulator import DiscordEmulator
from tests.emulators.discord.limits import Limits
from tests.emulators.discord.message import Shown
from tests.emulators.discord.rules import GatewayRules
from tests.emulators.discord.sessions import Listener

__all__ = ["Call", "DiscordEmulator", "GatewayRules", "Limits", "Listener", "Shown"]
