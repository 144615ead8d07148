"""Visual assertions: one file a check, and the worker processes that run them."""
