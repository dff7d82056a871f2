"""Reads the text of files that people send, in child processes."""
