"""The shared async core: it knows no platform and reads no environment."""
