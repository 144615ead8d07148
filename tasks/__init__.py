"""The steps of the release gate, one folder a step, in the order of the data."""
