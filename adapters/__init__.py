"""One package per platform: inbound (event -> Turn) and outbound (Surface)."""
