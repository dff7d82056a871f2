"""Commands, shortcuts, forms and the Home tab: what people do besides writing."""
