"""tasks/verdict."""
