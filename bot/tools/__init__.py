"""What the model may call beside its own words, and how often that is done."""
