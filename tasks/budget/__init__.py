"""Step: money over all runs; limits by day, week and month, the pace, and the refusal."""
