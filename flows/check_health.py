"""What planted defects say of the checks: for the decision of a run, and as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from flows.check_own import measure_own, measure_signed, not_planted, own_table
from flows.watcher import Watcher
from tasks.check_rules import Extras
from tasks.checks import provenance
from tasks.checks.counts import CheckHealth, OwnHealth
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
from tasks.checks.planted import BY_POLICY, DEFECTS, check_names
from tasks.checks.planted_own import idle
from tasks.checks.pool import CheckPool
from tasks.context import RunContext
from tasks.errors import ConfigError, DataError, PreflightError, known
from tasks.plan import RunPlan
from tasks.verdict.checkers import Sensitivity, blind
from tasks.verdict.eyes import RISK, sensitivities

#: Drawings that a policy's own checks are shown beside a folder of pictures.
_OWN_DRAWINGS = 10


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
    counted = counting([one.check for one in record.checks], plan)
    now = Planted(
        version=record.version,
        pictures=record.pictures,
        record=record.checks,
        counting=counted,
        asked=settings.planted_drawings,
    )
    # What only some policies ask for costs only their runs.
    without = BY_POLICY - {*counted}
    own = idle(plan.policy.checks, plan.by_id.values())
    return LiveLook(context.folder, now, pool, without, own)


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
    extras: Extras | None = None,
    on_unit: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Plant every kind of defect in ``pictures`` drawings and return the table.

    Args:
        pictures: How many drawings.
        curve: Weaker and stronger defects too.
        seed: Which drawings, and which defects.
        checks: Names of the checks; all by default.
        extras: A policy whose own checks are measured too, by what they plant and know.
        on_unit: Called with the number of drawings done after each part.

    Returns:
        ``ok`` is false when a check is blind or breaks; ``blind`` and ``broken`` name those.
        ``own`` has the rows of the policy's own checks, ``held`` those of which nothing is known
        where the policy holds then, ``notes`` what is to be said of them, and ``why_not`` why
        nothing is planted for a name. Bounds are one-sided at 95 %.

    Raises:
        ConfigError: No check of such a name.
    """
    own = _Own(extras, pictures, seed, checks)
    _known_names(checks, own.names)
    found: tuple[CheckHealth, ...] = ()
    if checks is None or not own.names.issuperset(checks):
        found = measure_drawings(
            range(pictures), seed=seed, checks=checks, curve=curve, on_unit=on_unit
        )
    signed = None
    if checks is None or provenance.NAME in checks:
        signed = measure_signed(pictures, seed)
    told = _table(found if signed is None else (*found, signed), pictures, seed)
    return own.told(told) | {"why_not": not_planted(checks, signed=signed is not None)}


class _Own:
    """What a policy's own checks see, for the table."""

    def __init__(
        self, extras: Extras | None, pictures: int, seed: int, checks: Collection[str] | None
    ) -> None:
        self._hold = extras is not None and extras.rules.unmeasured == "hold"
        self._found: tuple[OwnHealth, ...] = ()
        self._problems: tuple[str, ...] = ()
        if extras is not None:
            self._found, self._problems = measure_own(extras, pictures, seed)
        #: Names that may be asked for; the reading of signatures needs no policy.
        self.names = {provenance.NAME, *(one.health.check for one in self._found)}
        if checks is not None:
            self._found = tuple(one for one in self._found if one.health.check in checks)

    def told(self, table: dict[str, Any]) -> dict[str, Any]:
        """Return a table with the policy's own checks."""
        more = own_table(self._found, self._problems, self._hold)
        blind, broken = ([*table[key], *more[key]] for key in ("blind", "broken"))
        return table | {
            "ok": not blind and not broken and not more["held"] and not self._problems,
            "blind": blind,
            "broken": broken,
            "held": more["held"],
            "own": [_shown(one.health, one.health) for one in self._found],
            "notes": more["notes"],
        }


def examine_pictures(
    source: Path,
    *,
    curve: bool,
    seed: int,
    checks: Collection[str] | None = None,
    extras: Extras | None = None,
    on_unit: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Plant every kind of defect in the good pictures of a folder or manifest, as in drawings.

    Args:
        source: See :func:`tasks.checks.planted_pictures.known_good`.
        curve: As in :func:`examine_checks`, like the rest.
        seed: Which defects.
        checks: Names of the checks; all by default.
        extras: A policy, whose own checks are shown drawings as in :func:`examine_checks`.
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

    own = _Own(extras, _OWN_DRAWINGS, seed, checks)
    _known_names(checks, own.names)
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
    why = not_planted(checks, signed=False)
    return own.told(told) | {"source": str(source), "not_planted": without, "why_not": why}


def _known_names(checks: Collection[str] | None, own: Collection[str]) -> None:
    names = {*check_names(), *own}
    strangers = sorted(set(checks or ()) - names)
    if strangers:
        raise ConfigError(f"--check {strangers[0]!r}: no such check {known(names)}")


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
    apart = one.check not in check_names()  # Planted at one strength only.
    kept = tuple(d for d in one.defects if apart or (d.check, d.name, d.strength) in usual)
    return CheckHealth(one.check, one.clean, kept)


def _shown(one: CheckHealth, default: CheckHealth | None = None) -> dict[str, Any]:
    default = _at_default(one) if default is None else default
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
        lines += _rows(one)
    if found.get("own"):
        lines.append("of the policy, by what they themselves plant and know:")
    for one in found.get("own", ()):
        lines += _rows(one)
    lines += [f"BLIND   {name}: a gate that uses it holds" for name in found["blind"]]
    lines += [f"BROKEN  {name}: it breaks" for name in found["broken"]]
    lines += [
        f"HELD    {name}: it is not known what it sees, and the policy holds then"
        for name in found.get("held", ())
    ]
    lines += [f"NOTE    {note}" for note in found.get("notes", ())]
    lines += [f"LEFT OUT  {one['file']!r}: {one['why']}" for one in found.get("left_out", ())]
    lines += [f"no defects for {why}" for why in found.get("why_not", ())]
    return "\n".join(lines)


def _rows(one: dict[str, Any]) -> list[str]:
    """Return the line of a check and those of its kinds of defects."""
    return [
        f"{one['check']:<30} {'':>8} {_of(one):>9}  {one['lower']:>8.1%}"
        f" {one['alarms']:>3}/{one['clean']:<4} {one['alarms_upper']:>8.1%} {one['cpu_ms']:>7}",
        *(
            f"  {d['defect']:<28} {_strength(d):>8} {_of(d):>9}  {d['lower']:>8.1%}"
            f" {'':>8} {'':>8} {d['cpu_ms']:>7}"
            for d in one["defects"]
        ),
    ]


def _of(counts: dict[str, Any]) -> str:
    return f"{counts['found']}/{counts['planted']}"


def _strength(defect: dict[str, Any]) -> str:
    return f"{defect['strength']:g}{'*' if defect['default'] else ' '}"
