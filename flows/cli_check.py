"""placeholder"""


def check() -> None:
    """Check."""
