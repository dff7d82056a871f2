"""The durable queue of turns, and the workers that answer them."""
