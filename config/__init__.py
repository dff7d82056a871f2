"""The settings of the operator."""
