"""Catalog, mix, freeze and preflight: what would serve, and whether it may be tried at all."""
