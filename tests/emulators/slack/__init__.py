"""A Slack on loopback: the Web API, Socket Mode and signed HTTP, strict and stateful."""

from tests.emulators.slack.delivery import Delivery
from tests.emulators.slack.emulator import SlackEmulator
from tests.emulators.slack.events import EVENTS
from tests.emulators.slack.web import Call, Rate
from tests.emulators.slack.workspace import Ephemeral, Shown

__all__ = ["EVENTS", "Call", "Delivery", "Ephemeral", "Rate", "Shown", "SlackEmulator"]
