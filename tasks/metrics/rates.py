"""Exact confidence bounds of a failure rate (Clopper and Pearson, Biometrika 26, 1934)."""

from __future__ import annotations

from tasks.records import Rate


def lower_bound(failures: int, n: int, error: float) -> float:
    """Return the exact one-sided lower bound of a rate; it is too high with risk ``error``.

    Args:
        failures: Failures seen.
        n: Independent images looked at.
        error: Risk, between 0 and 1, e.g. 0.05 for 95 % confidence.

    Raises:
        ValueError: The counts or the risk make no sense.
    """
    _sound(failures, n, error)
    if failures == 0:
        return 0.0
    # Imported here: scipy costs a third of a second, and `imagegate --help` needs none of it.
    from scipy.special import betaincinv

    return float(betaincinv(failures, n - failures + 1, error))


def upper_bound(failures: int, n: int, error: float) -> float:
    """Return the exact one-sided upper bound of a rate; it is too low with risk ``error``.

    Args and errors as :func:`lower_bound`.
    """
    _sound(failures, n, error)
    if failures == n:
        return 1.0
    from scipy.special import betainccinv

    return float(betainccinv(failures + 1, n - failures, error))


def rate(failures: int, n: int, confidence: float = 0.95, unmeasured: int = 0) -> Rate:
    """Return a failure rate with its exact two-sided interval.

    Fail closed: the upper end takes unmeasured images for failures, the lower end takes them for
    good ones, and a rate over nothing but unmeasured images has no estimate.

    Args:
        failures: Images known to have failed.
        n: All images, the unmeasured ones too.
        confidence: Coverage of the interval.
        unmeasured: Images of which nobody knows.

    Raises:
        ValueError: The counts or the confidence make no sense.
    """
    if unmeasured < 0 or failures + unmeasured > n:
        raise ValueError(f"{failures} failures and {unmeasured} unmeasured do not fit {n} images")
    tail = (1 - confidence) / 2
    return Rate(
        estimate=failures / n if n > unmeasured or failures else None,
        lower=lower_bound(failures, n, tail),
        upper=upper_bound(failures + unmeasured, n, tail),
        n=n,
        failures=failures,
        unmeasured=unmeasured,
    )


def images_needed(failures: int, below: float, error: float, most: int = 1_000_000) -> int | None:
    """Return the smallest number of images that proves a rate below ``below``.

    Args:
        failures: Failures among them.
        below: The rate to stay under.
        error: Risk of the proof.
        most: Where to stop looking.

    Returns:
        Number of images, or ``None`` when ``most`` images do not do.
    """
    high = max(failures, 1)
    while upper_bound(failures, high, error) >= below:
        if high >= most:
            return None
        high = min(high * 2, most)
    low = failures  # The bound of all images failed is 1, so `low` never proves it.
    while high - low > 1:
        middle = (low + high) // 2
        if upper_bound(failures, middle, error) < below:
            high = middle
        else:
            low = middle
    return high


def _sound(failures: int, n: int, error: float) -> None:
    """Refuse counts and risks that make no sense: a bound of nonsense would look like evidence."""
    if not 0 <= failures <= n:
        raise ValueError(f"failures must be 0 to {n}, the number of images; got {failures}")
    if not 0 < error < 1:
        raise ValueError(f"the risk must be between 0 and 1; got {error}")
