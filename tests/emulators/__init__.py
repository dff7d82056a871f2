"""Servers on loopback that stand in for Discord, Slack and a model."""
