"""tasks/rollout."""
