"""A candidate walks into production step by step, and is rolled back when it is worse."""
