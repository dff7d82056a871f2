"""One reply on one surface, written as it grows."""
