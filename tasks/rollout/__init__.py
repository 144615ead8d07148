"""Rollout: decide, apply to the router, read back, record; fenced by an epoch at every step."""
