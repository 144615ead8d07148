"""Inputs of a run: a sample of the production log, the stress set and the brand kits."""
