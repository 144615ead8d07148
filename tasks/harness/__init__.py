"""tasks/harness."""
