"""tasks/expectations."""
