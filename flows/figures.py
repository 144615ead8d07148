"""Figures as people write and read them: per cent, dollars, minutes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from tasks.errors import ConfigError

_NUMBER = r"(\d+\.?\d*|\.\d+)(e-?\d{1,3})?"
_PER_CENT = re.compile(rf"\s*(?P<number>{_NUMBER})\s*%\s*", re.ASCII | re.IGNORECASE)
_SHARE = re.compile(rf"\s*(?P<number>{_NUMBER})\s*", re.ASCII | re.IGNORECASE)


def parse_share(text: str, what: str, *, zero: bool = False, one: bool = False) -> float:
    """Return a share between 0 and 1 from ``2%``, ``2 %`` or ``0.02``.

    Args:
        text: What was given.
        what: The flag or field, for the message.
        zero: Allow 0 itself.
        one: Allow 1 (100 %) itself.

    Raises:
        ConfigError: With what was found and what is allowed.
    """
    as_percent, as_share = _PER_CENT.fullmatch(text), _SHARE.fullmatch(text)
    if as_percent:
        value = float(as_percent["number"]) / 100
    elif as_share:
        value = float(as_share["number"])
    else:
        value = math.nan
    if 0 < value < 1 or (zero and value == 0) or (one and value == 1):
        return value
    least, most = ("from 0 %" if zero else "above 0 %"), ("to 100 %" if one else "to below 100 %")
    meant = f" (did you mean {text.strip()}%?)" if as_share and 1 <= value <= 100 else ""
    raise ConfigError(
        f"{what}: expected a share {least} {most}, such as 2% or 0.02; found {text[:40]!r}{meant}"
    )


def parse_amount(value: float, what: str, *, zero: bool = True) -> float:
    """Return a finite number that is not negative.

    Raises:
        ConfigError: It is negative, infinite or no number, or 0 where that makes no sense.
    """
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ConfigError(
            f"{what}: expected a number {'of 0 or more' if zero else 'above 0'}; found {value}"
        )
    return value


def chosen(share: float) -> str:
    """Return a share that somebody chose, without idle zeros: ``2 %``, ``0.25 %``."""
    return f"{100 * share:.4g} %"


def odds(share: float) -> str:
    """Return a probability in per cent; what is not certain is not written as if it were."""
    value = 100 * share
    if 1e-9 < value < 0.05:
        return "<0.1 %"
    if 99.95 <= value < 100 - 1e-9:
        return ">99.9 %"
    if value <= 1e-9 or value >= 100 - 1e-9 or 10 <= value < 89.5:
        return f"{value:.0f} %"
    return f"{value:.1f} %"


def dollars(amount: float) -> str:
    """Return dollars with cents, without cents from a thousand on."""
    return f"${amount:,.0f}" if amount >= 1000 else f"${amount:.2f}"


def duration(seconds: float) -> str:
    """Return a time that is no more exact than it deserves."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h"


def bar(value: float, top: float, width: int) -> str:
    """Return a horizontal bar in eighths of a character."""
    eighths = 0 if top <= 0 else round(8 * width * min(1.0, value / top))
    # Something is never drawn as nothing.
    eighths = max(eighths, 1) if value > 0 else 0
    whole, rest = divmod(eighths, 8)
    return "█" * whole + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]


def parts(shares: Sequence[float], width: int) -> list[int]:
    """Return how many of ``width`` characters each share gets; they sum to ``width``.

    The largest remainders are rounded up, and a share of half a per cent or more gets one at least.
    """
    exact = [width * share for share in shares]
    given = [
        max(int(value), 1 if share >= 0.005 else 0)
        for value, share in zip(exact, shares, strict=True)
    ]
    order = sorted(range(len(exact)), key=lambda n: given[n] - exact[n])
    for n in order:
        if sum(given) >= width:
            break
        given[n] += 1
    while sum(given) > width:
        given[max(range(len(given)), key=given.__getitem__)] -= 1
    return given
