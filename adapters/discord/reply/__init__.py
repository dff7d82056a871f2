"""Writes replies in Discord."""
