"""tasks/evidence."""
