"""What planted defects say of the checks: for the decision of a run, and as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from flows.watcher import Watcher
from tasks.checks.counts import CheckHealth
from tasks.checks.health import (
    FIRST,
    SEED,
    HealthRecord,
    known_record,
    make_record,
    measure_drawings,
    own_record,
    version,
)
from tasks.checks.live import LiveLook, Planted, counting
from tasks.checks.planted import DEFECTS, check_names
from tasks.checks.pool import CheckPool
from tasks.context import RunContext
from tasks.errors import ConfigError, DataError, PreflightError, known
from tasks.plan import RunPlan
from tasks.verdict.checkers import Sensitivity, blind
from tasks.verdict.eyes import RISK, sensitivities


def begin_look(context: RunContext, plan: RunPlan, pool: CheckPool, watcher: Watcher) -> LiveLook:
    """Let the run's own workers plant defects today, beside what is known of the checks.

    Where nothing is known of the checks as they are here, they are measured first, once.

    Args:
        context: The run.
        plan: Its plan.
        pool: The run's workers, before their first picture.
        watcher: Hears how far the measurement is.

    Raises:
        PreflightError: The checks cannot be measured; nothing was spent.
        EvidenceError: The disk is full.
    """
    settings = context.settings
    record = known_record(settings.home, settings.planted_file)
    if record is None:
        record = _measure_once(settings.home, watcher)
    now = Planted(
        version=record.version,
        pictures=record.pictures,
        record=record.checks,
        counting=counting([one.check for one in record.checks], plan),
        asked=settings.planted_drawings,
    )
    return LiveLook(context.folder, now, pool)


def _measure_once(home: Path, watcher: Watcher) -> HealthRecord:
    """Make this machine's own record."""
    watcher.step("plant_defects", f"{FIRST} drawings, once for this version of the checks")

    def on_done(done: int) -> None:
        watcher.progress({"plant defects": (done, FIRST, "drawings")})

    try:
        return make_record(own_record(home), FIRST, on_done=on_done)
    except (OSError, BrokenProcessPool) as error:
        raise PreflightError(
            [f"what the checks see could not be measured: {type(error).__name__}: {error}"]
        ) from None


def make_shipped(
    path: Path, pictures: int, good: int, on_done: Callable[[int], None]
) -> dict[str, Any]:
    """Measure ``pictures`` drawings, and ``good`` ones more, for the record that ships.

    Returns:
        The table as :func:`examine_checks` gives it.

    Raises:
        OSError: The file cannot be written.
        BrokenProcessPool: A process died while measuring; what was measured is kept.
    """
    record = make_record(path, pictures, good=good, everywhere=True, on_done=on_done)
    counts = record.counts(second_reader=record.second_reader) or ()
    return _table(counts, record.pictures, SEED) | {"record": str(path)}


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
    _known_names(checks)
    found = measure_drawings(
        range(pictures), seed=seed, checks=checks, curve=curve, on_unit=on_unit
    )
    return _table(found, pictures, seed)


def examine_pictures(
    source: Path,
    *,
    curve: bool,
    seed: int,
    checks: Collection[str] | None = None,
    on_unit: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Plant every kind of defect in the good pictures of a folder or manifest, as in drawings.

    Args:
        source: See :func:`tasks.checks.planted_pictures.known_good`.
        curve: As in :func:`examine_checks`, like the rest.
        seed: Which defects.
        checks: Names of the checks; all by default.
        on_unit: Called with the number of pictures done so far.

    Returns:
        The table; ``source`` names the folder or manifest. A check for which nothing can be
        planted in pictures that were made for no brand is not called blind; ``not_planted`` names
        those. ``left_out`` has the pictures that our decoder refuses, or of which nothing can be
        made, with the reason; ``labelled`` is false where nobody says which are good.

    Raises:
        ConfigError: No check of such a name.
        DataError: No picture, none that is known to be good or is left, or a manifest that is not
            valid.
    """
    from tasks.checks.planted_pictures import known_good, measure_pictures

    _known_names(checks)
    pictures = known_good(source)
    left_out: list[dict[str, str]] = []
    found = measure_pictures(
        pictures, seed=seed, checks=checks, curve=curve, on_unit=on_unit,
        on_left_out=lambda path, why: left_out.append({"file": str(path), "why": why}),
    )  # fmt: skip
    if len(left_out) == len(pictures):
        first = f"{left_out[0]['file']!r}: {left_out[0]['why']}"
        raise DataError(source, None, None, f"none of the pictures can be used; {first}")
    planted = [one for one in found if one.planted]
    without = [one.check for one in found if not one.planted]
    told = _table(found, len(pictures) - len(left_out), seed, judged=planted) | {
        "left_out": left_out, "labelled": any(one.labelled for one in pictures),
    }  # fmt: skip
    return told | {"source": str(source), "not_planted": without}


def _known_names(checks: Collection[str] | None) -> None:
    strangers = sorted(set(checks or ()) - set(check_names()))
    if strangers:
        raise ConfigError(f"--check {strangers[0]!r}: no such check {known(check_names())}")


def _table(
    found: Sequence[CheckHealth],
    pictures: int,
    seed: int,
    judged: Sequence[CheckHealth] | None = None,
) -> dict[str, Any]:
    at_default = [_at_default(one) for one in (found if judged is None else judged)]
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
    lines += [f"LEFT OUT  {one['file']!r}: {one['why']}" for one in found.get("left_out", ())]
    return "\n".join(lines)


def _of(counts: dict[str, Any]) -> str:
    return f"{counts['found']}/{counts['planted']}"


def _strength(defect: dict[str, Any]) -> str:
    return f"{defect['strength']:g}{'*' if defect['default'] else ' '}"
