"""What the checks that a policy asks for itself see: ONNX models, plug-ins, provenance.

No record can ship for them. So each run shows them what is known to be bad: good drawings in which
a check itself plants its defects (:class:`tasks.checks.base.Plants`), and pictures that it knows
(:class:`tasks.checks.base.Knows`), by the run's own workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from tasks.check_rules import CheckRules
from tasks.checks.base import Check, Expected, Knows, Picture, Pixels, Plants
from tasks.checks.counts import CheckHealth, CleanHealth, DefectHealth, OwnHealth
from tasks.checks.decode import decode
from tasks.checks.planted_base import Good
from tasks.checks.plugins import Absent, Guarded, inside, read_only
from tasks.providers.embedded.draws import generator
from tasks.providers.embedded.render import png
from tasks.records import Case, CheckVerdict

#: Names of the two kinds, for the tables.
PLANTED, KNOWN = "planted by the check", "known bad pictures"
#: A job looks at two drawings, its own and one this far along the row, of the same kind: with half
#: as many a check that finds 19 of 20 would be called blind in one run of twelve.
_FURTHER = 12_000
_MESSAGE = 300


def measure_own(
    checks: Sequence[Check], seed: int, number: int, of: int = 1
) -> tuple[OwnHealth, ...]:
    """Measure the checks of a policy in one part of what there is to see.

    Args:
        checks: The checks as :func:`tasks.checks.plugins.load` gives them.
        seed: The row of drawings in which they plant.
        number: Which part: drawings of this number, and each known picture of which it is the turn.
        of: How many parts there are.

    Returns:
        One entry for each check in their order, always. What breaks is the entry's problem.
    """
    goods: list[Good] = []
    return tuple(_measured(check, seed, number, of, goods) for check in checks)


def _measured(check: Check, seed: int, number: int, of: int, goods: list[Good]) -> OwnHealth:
    nothing = OwnHealth(
        CheckHealth(
            check.name,
            CleanHealth(check.name),
            tuple(DefectHealth(kind, check.name, 1.0) for kind in (PLANTED, KNOWN)),
        )
    )
    if isinstance(check, Absent):
        return replace(nothing, required=check.required, problem=check.why[:_MESSAGE])
    found = replace(nothing, required=check.required if isinstance(check, Guarded) else True)
    own = inside(check)
    try:
        if isinstance(own, Knows):
            for told in list(own.known())[number::of]:
                found = found.plus(_shown(check, told.name, told.bad, told.read, told.expected))
        if isinstance(own, Plants):
            if not goods:
                goods += _drawings(seed, number)
            for good in goods:
                found = found.plus(_planted(check, own, good, seed))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - told, and it holds if required
        return replace(found, problem=f"{type(error).__name__}: {error}"[:_MESSAGE])
    return found


def _drawings(seed: int, number: int) -> Iterator[Good]:
    from tasks.checks.planted_good import drawn

    yield drawn(seed, number)
    yield drawn(seed, number + _FURTHER)


def _shown(
    check: Check, name: str, bad: bool, read: Callable[[], bytes], expected: Expected
) -> OwnHealth:
    """Show a check a picture that it knows."""
    try:
        picture = decode(read(), expected).picture
        verdict, why, spent = (
            ("fault", "the file does not decode", 0.0)
            if picture is None
            else _judged(check, picture, expected)
        )
    except (OSError, ValueError) as error:
        verdict, why, spent = "fault", str(error), 0.0
    verdict = cast("CheckVerdict", verdict)
    if bad:
        return _counted(check, KNOWN, name, verdict, spent, why)
    return _clean(check, name, verdict, spent, why)


def _planted(check: Check, own: Plants, good: Good, seed: int) -> OwnHealth:
    """Let a check plant its defect in a good picture, which counts as clean as it is."""
    references = {role: decode(file, Expected()).picture for role, file in good.references.items()}
    shown = replace(
        good.picture,
        references={role: None if one is None else one.rgb for role, one in references.items()},
    )
    verdict, why, spent = _judged(check, shown, good.expected)
    seen = _clean(check, good.name, verdict, spent, why)
    if verdict != "pass":
        return seen  # Where it does not judge, or fails already, a defect proves nothing.
    rng = generator(seed, check.name, good.name)
    try:
        made = own.plant(read_only(shown), good.expected, rng)
        if made is None:
            return seen
        picture, expected = _spoilt(made, shown, good.expected)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a defect that nobody found
        why = f"planting broke: {type(error).__name__}: {error}"[:_MESSAGE]
        return seen.plus(_counted(check, PLANTED, good.name, "fault", 0.0, why))
    verdict, why, spent = _judged(check, picture, expected)
    return seen.plus(_counted(check, PLANTED, good.name, verdict, spent, why))


def _spoilt(
    made: Pixels | bytes | Expected, shown: Picture, expected: Expected
) -> tuple[Picture, Expected]:
    """Return what a check planted, as it would come: pixels go through a file like any picture.

    Raises:
        ValueError: It is no picture, or no other one.
        TypeError: It is none of what may be planted.
    """
    if isinstance(made, Expected):
        if made == expected:
            raise ValueError("the same expectation came back")
        return shown, made
    if isinstance(made, np.ndarray):
        if made.dtype != np.uint8 or made.ndim != 3 or made.shape[2] != 3:
            raise ValueError(f"pixels are uint8, height × width × 3; got {made.dtype} {made.shape}")
        if made.shape == shown.rgb.shape and bool((made == shown.rgb).all()):
            raise ValueError("the same pixels came back")
        made = png(np.ascontiguousarray(made))
    if not isinstance(made, bytes):
        raise TypeError(f"plant returned {type(made).__name__}, not pixels, bytes or Expected")
    picture = decode(made, Expected()).picture
    if picture is None:
        raise ValueError("it is no picture that decodes")
    return replace(picture, references=shown.references), expected


def _judged(check: Check, picture: Picture, expected: Expected) -> tuple[CheckVerdict, str, float]:
    started = time.process_time()
    try:
        found = check.run(replace(picture, notes={}), expected)
    except Exception as error:  # noqa: BLE001 - counted, as the suite books a fault
        return "fault", f"{type(error).__name__}: {error}", time.process_time() - started
    return found.verdict, found.message, time.process_time() - started


def _counted(
    check: Check, kind: str, name: str, verdict: CheckVerdict, spent: float, why: str
) -> OwnHealth:
    """Return the count of one defect; it was found if the check says ``fail``."""
    missed = () if verdict == "fail" else (f"{name}: {verdict} {why}".rstrip()[:_MESSAGE],)
    one = DefectHealth(
        kind,
        check.name,
        1.0,
        found=verdict == "fail",
        planted=1,
        unjudged=verdict in ("skip", "fault"),
        seconds=spent,
        missed=missed,
    )
    none = DefectHealth(PLANTED if kind == KNOWN else KNOWN, check.name, 1.0)
    kinds = (none, one) if kind == KNOWN else (one, none)
    return OwnHealth(CheckHealth(check.name, CleanHealth(check.name), kinds))


def _clean(check: Check, name: str, verdict: CheckVerdict, spent: float, why: str) -> OwnHealth:
    """Return the count of one good picture; one that is not judged is not counted."""
    nothing = tuple(DefectHealth(kind, check.name, 1.0) for kind in (PLANTED, KNOWN))
    clean = CleanHealth(check.name)
    if verdict != "skip":
        accused = (f"{name}: {why}"[:_MESSAGE],) if verdict in ("fail", "fault") else ()
        clean = CleanHealth(check.name, verdict == "fail", 1, verdict == "fault", spent, accused)
    return OwnHealth(CheckHealth(check.name, clean, nothing))


def idle(rules: CheckRules, cases: Collection[Case]) -> frozenset[str]:
    """Return the models that can judge no picture of a run: nothing is asked of their eyes."""
    there = {case.subtask for case in cases}
    return frozenset(
        rule.name for rule in rules.onnx if rule.subtasks and there.isdisjoint(rule.subtasks)
    )
