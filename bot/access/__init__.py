"""Who may use the bot, how much in a day, and how it answers them."""
