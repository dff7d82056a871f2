"""One process: its parts, its start and its end."""
