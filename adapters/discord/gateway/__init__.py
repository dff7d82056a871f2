"""What Discord tells: its gateway, and what becomes of an event."""
