"""A Slack on loopback: the Web API, Socket Mode and signed HTTP, strict and stateful."""

from tests.emulators.slack.delivery import Delivery
from tests.emulators.slack.emulator import SlackEmulator
from tests.emulators.slack.events import EVENTS
from tests.emulators.slack.installation import Installation
from tests.emulators.slack.message import Ephemeral, Shown
from tests.emulators.slack.methods import SCOPES
from tests.emulators.slack.rates import Rate
from tests.emulators.slack.socket import Reason
from tests.emulators.slack.views import View
from tests.emulators.slack.web import Call

__all__ = [
    "EVENTS",
    "SCOPES",
    "Call",
    "Delivery",
    "Ephemeral",
    "Installation",
    "Rate",
    "Reason",
    "Shown",
    "SlackEmulator",
    "View",
]
