"""What planted defects say of the checks: for the decision of a run, and as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from tasks.checks.health import FIRST, LIVE, measure_drawings, take, version
from tasks.checks.planted import DEFECTS, NEVER_FAIL, CheckHealth, DefectHealth, check_names
from tasks.errors import ConfigError, known
from tasks.settings import Settings
from tasks.verdict.checkers import FLOOR, Sensitivity, blind

#: Risk of each bound in the table.
RISK = 0.05


def health(
    settings: Settings,
    checks: Collection[str] | None = None,
    *,
    first: int = FIRST,
    live: int = LIVE,
    workers: int | None = None,
) -> tuple[Sensitivity, ...]:
    """Return what the decision may believe of the checks; measures a few pictures now.

    Args:
        settings: Where the record lies.
        checks: Checks that can count in this run; all of them by default. A check that no case
            of the run can fail (a logo without a brand) need not hold it.
        first: Pictures where nothing is on record.
        live: Pictures of this run alone.
        workers: Processes; one a core by default.

    Raises:
        OSError: The record cannot be written.
        BrokenProcessPool: A measuring process died.
    """
    taken = take(settings.home, first=first, live=live, workers=workers)
    return sensitivities(taken.record.checks, taken.now, checks)


def sensitivities(
    record: Sequence[CheckHealth],
    now: Sequence[CheckHealth] = (),
    checks: Collection[str] | None = None,
) -> tuple[Sensitivity, ...]:
    """Return the counts of every check; what is blind in a part has an entry of its own.

    All kinds of defects of a check count together, as defects come mixed. That could hide a kind
    that the check never sees, and a check that fell blind today behind years of good counts. So
    these follow under names of their own, which :func:`tasks.verdict.checkers.blind` finds: a
    kind whose sensitivity is proven to be below the floor, and a check that missed half of what
    was planted in this run alone.

    Args:
        record: Everything on record, this run included.
        now: This run alone.
        checks: Which checks; all by default.
    """
    found = []
    for one in record:
        if one.check in NEVER_FAIL or (checks is not None and one.check not in checks):
            continue
        found.append(
            Sensitivity(one.check, one.found, one.planted, one.clean.alarms, one.clean.clean)
        )
        found += [
            Sensitivity(f"{one.check} ({kind.name})", kind.found, kind.planted)
            for kind in one.defects
            if not _sees(kind)
        ]
    for one in now:
        if (checks is None or one.check in checks) and one.planted and one.found * 2 <= one.planted:
            found.append(Sensitivity(f"{one.check} (today)", one.found, one.planted))
    return tuple(found)


def _sees(kind: DefectHealth) -> bool:
    """Say whether a kind may be seen; nothing is said against one that was hardly planted."""
    counts = Sensitivity(kind.name, kind.found, kind.planted)
    return counts.upper(RISK) >= FLOOR


def examine_checks(
    *,
    pictures: int,
    curve: bool,
    seed: int,
    checks: Collection[str] | None = None,
    on_unit: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Plant every kind of defect in ``pictures`` drawings and return the table.

    Returns:
        ``ok`` is false when a check is blind or breaks; ``blind`` and ``broken`` name those.
        Bounds are one-sided at 95 %.

    Raises:
        ConfigError: No check of such a name.
    """
    strangers = sorted(set(checks or ()) - set(check_names()))
    if strangers:
        raise ConfigError(f"--check {strangers[0]!r}: no such check {known(check_names())}")
    found = measure_drawings(
        range(pictures), seed=seed, checks=checks, curve=curve, on_unit=on_unit
    )
    at_default = [_at_default(one) for one in found]
    blinded = [b.name for b in blind(sensitivities(at_default))]
    broken = [one.check for one in found if one.clean.faults]
    return {
        "ok": not blinded and not broken,
        "blind": blinded,
        "broken": broken,
        "pictures": pictures,
        "seed": seed,
        "version": version(),
        "checks": [_shown(one) for one in found],
    }


def _at_default(one: CheckHealth) -> CheckHealth:
    """Return the part of a measurement that was made at the default strengths."""
    usual = {(d.check, d.name, d.strength) for d in DEFECTS}
    kept = tuple(d for d in one.defects if (d.check, d.name, d.strength) in usual)
    return CheckHealth(one.check, one.clean, kept)


def _shown(one: CheckHealth) -> dict[str, Any]:
    default = _at_default(one)
    counts = Sensitivity(
        one.check, default.found, default.planted, one.clean.alarms, one.clean.clean
    )
    judged = max(one.clean.clean, 1)
    return {
        "check": one.check,
        **_rate(counts),
        "alarms": counts.alarms,
        "clean": counts.clean,
        "alarms_upper": round(counts.alarms_upper(RISK), 4),
        "cpu_ms": round(one.clean.seconds / judged * 1000, 1),
        "accused": list(one.clean.accused),
        "defects": [
            {
                "defect": d.name,
                "strength": d.strength,
                "default": d in default.defects,
                **_rate(Sensitivity(d.name, d.found, d.planted)),
                "unjudged": d.unjudged,
                "cpu_ms": round(d.seconds / max(d.planted, 1) * 1000, 1),
                "missed": list(d.missed),
            }
            for d in one.defects
        ],
    }


def _rate(counts: Sensitivity) -> dict[str, Any]:
    return {
        "found": counts.found,
        "planted": counts.planted,
        "sensitivity": round(counts.found / counts.planted, 4) if counts.planted else None,
        "lower": round(counts.lower(RISK), 4),
        "upper": round(counts.upper(RISK), 4),
    }


def render_checks(found: dict[str, Any]) -> str:
    """Return the table in lines."""
    lines = [
        f"{found['pictures']} good pictures; sensitivity and false alarms with 95 % bounds",
        f"{'check / defect':<30} {'strength':>8} {'found':>9}  {'at least':>8}"
        f" {'alarms':>8} {'at most':>8} {'CPU ms':>7}",
    ]
    for one in found["checks"]:
        lines.append(
            f"{one['check']:<30} {'':>8} {_of(one):>9}  {one['lower']:>8.1%}"
            f" {one['alarms']:>3}/{one['clean']:<4} {one['alarms_upper']:>8.1%} {one['cpu_ms']:>7}"
        )
        lines += [
            f"  {d['defect']:<28} {_strength(d):>8} {_of(d):>9}  {d['lower']:>8.1%}"
            f" {'':>8} {'':>8} {d['cpu_ms']:>7}"
            for d in one["defects"]
        ]
    lines += [f"BLIND   {name}: a gate that uses it holds" for name in found["blind"]]
    lines += [f"BROKEN  {name}: it breaks on good pictures" for name in found["broken"]]
    return "\n".join(lines)


def _of(counts: dict[str, Any]) -> str:
    return f"{counts['found']}/{counts['planted']}"


def _strength(defect: dict[str, Any]) -> str:
    return f"{defect['strength']:g}{'*' if defect['default'] else ' '}"
