"""``imagegate doctor --checks``: what a policy's own checks see, and the reading of signatures."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence
from typing import Any

from tasks.check_rules import Extras
from tasks.checks import provenance
from tasks.checks.counts import NOT_PLANTED, CheckHealth, OwnHealth, together
from tasks.checks.pool import CheckPool
from tasks.verdict.eyes import own_eyes

#: Signing and reading one picture in each way takes a third of a second.
_MOST_SIGNED = 60


def measure_own(
    extras: Extras, pictures: int, seed: int
) -> tuple[tuple[OwnHealth, ...], tuple[str, ...]]:
    """Show a policy's own checks what they plant and know, in workers such as a gate has.

    Args:
        extras: The policy's rules.
        pictures: Numbers of drawings; two are drawn for each, and known pictures are shown once.
        seed: Which drawings, and which defects.

    Returns:
        The counts, and why drawings were not judged, each reason once.
    """
    own: tuple[OwnHealth, ...] = ()
    problems: list[str] = []
    with CheckPool(extras=extras) as pool:
        jobs = [pool.submit_drawing(seed, number, pictures, None) for number in range(pictures)]
        for job in jobs:
            report = job.result()
            own = together(own, report.own)
            if report.problem:
                problems.append(report.problem)
    return own, tuple(dict.fromkeys(problems))


def measure_signed(pictures: int, seed: int) -> CheckHealth | None:
    """Return what is read of signatures by authorities made up here, ``None`` without c2pa."""
    if importlib.util.find_spec("c2pa") is None:
        return None
    from tasks.checks.planted_good import drawn
    from tasks.checks.planted_signed import measure

    # One picture is another's stranger.
    count = max(2, min(pictures, _MOST_SIGNED))
    return measure([drawn(seed, number) for number in range(count)], seed)


def own_table(own: Sequence[OwnHealth], problems: Sequence[str], hold: bool) -> dict[str, Any]:
    """Return what is said of a policy's own checks beside their rows.

    Args:
        own: The counts.
        problems: Why drawings were not judged.
        hold: Whether the policy holds while it is not known what one sees.

    Returns:
        ``blind``, ``broken`` and ``held`` name checks that hold a gate: those that miss what they
        must see, that could not be measured, and of which nothing is known where the policy holds
        then; ``notes`` are sentences.
    """
    known = own_eyes(own)
    lost = [f"Drawings were not judged: {why}." for why in problems]
    required = [one for one in known if one.required]
    return {
        "blind": [one.name for one in required if one.state == "blind"],
        "broken": [one.name for one in required if one.broken],
        "held": [one.name for one in known if one.unmeasured and hold],
        "notes": [
            *lost,
            *(f"C{one.broken[1:]}." for one in required if one.broken),
            *(note for one in known for note in one.notes),
        ],
    }


def not_planted(checks: Collection[str] | None, *, signed: bool) -> list[str]:
    """Return why nothing is planted for some names that a finding can carry, as sentences."""
    return [
        f"{name.removesuffix('.')}: {why}"
        for name, why in NOT_PLANTED.items()
        if (checks is None or name in checks) and not (signed and name == provenance.NAME)
    ]
