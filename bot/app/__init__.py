"""One process: what it is wired from, and its lifetime."""
