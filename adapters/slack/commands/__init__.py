"""Commands, shortcuts, forms and the Home tab."""
