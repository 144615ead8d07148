"""Alerts: what people are told, kept until it is delivered, never in the way of a rollback."""
