"""A chat on this machine: its server, and the platform that Parley finds by its entry point."""
