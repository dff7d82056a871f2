"""One package or module per platform: events become turns, and a surface shows the reply."""
