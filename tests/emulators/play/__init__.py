"""A person's seat before the emulated Discord and Slack: `python -m tests.emulators`."""
