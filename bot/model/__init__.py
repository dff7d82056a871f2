"""Language models over HTTP: requests, retries, fallbacks and the context window."""
