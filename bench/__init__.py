"""Measurements against a limit or a peer from the same run."""
