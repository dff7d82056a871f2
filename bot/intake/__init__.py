"""Whether a message is for the bot, and what becomes of it."""
