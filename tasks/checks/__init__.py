"""tasks/checks."""
