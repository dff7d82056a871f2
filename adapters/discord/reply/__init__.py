"""What the bot writes in Discord."""
