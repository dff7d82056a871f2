"""The commands of people, the same on all platforms."""
