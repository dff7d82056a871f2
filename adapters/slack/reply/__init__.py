"""What the bot writes in Slack."""
