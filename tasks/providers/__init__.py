"""tasks/providers."""
