"""tasks/rollout/routers."""
