"""The terminal as a platform."""

from adapters.console.platform import ConsolePlatform

__all__ = ["ConsolePlatform"]
