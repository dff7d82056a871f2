"""Receives events from Discord's gateway."""
