"""tasks/metrics."""
