"""Shows replies in Slack."""
