"""One language model over HTTP."""
