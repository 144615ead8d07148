"""tasks/providers/embedded."""
