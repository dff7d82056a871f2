"""Slack: Socket Mode or signed HTTP in, the Web API out."""

from __future__ import annotations

from adapters.slack.limits import Limits
from adapters.slack.platform import SlackPlatform, connect

__all__ = ["Limits", "SlackPlatform", "connect"]
