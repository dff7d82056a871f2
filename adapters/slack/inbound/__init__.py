"""Receives what Slack sends: events, button presses and commands."""
