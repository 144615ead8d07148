"""tasks/alerts."""
