"""Routers: what makes a production mix serve; one file a router."""
