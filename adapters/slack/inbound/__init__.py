"""What Slack tells: its events, and what becomes of them."""
