"""How the watchdog says times and foreign texts."""

from __future__ import annotations

from datetime import UTC, datetime


def ago(seconds: float) -> str:
    """Return a duration for people: ``45 s``, ``12 min``, ``3 h``, ``2 days``."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3_600:.0f} h"
    return f"{seconds / 86_400:.0f} days"


def clock(moment: datetime) -> str:
    """Return a moment as people read it: date, minute and zone."""
    if moment.utcoffset() is None:
        moment = moment.replace(tzinfo=UTC)
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or 'UTC'}"


def one_line(text: str, most: int = 300) -> str:
    """Return a foreign text on one line; the sender of the message escapes it."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"
