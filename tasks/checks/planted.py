"""Planted defects: what the checks see of what is known to be wrong, and say of what is good.

Good pictures get one defect each, at a strength that a person would not accept, and the check
that is made for it must say ``fail``. The good pictures themselves go through every check. Both
counts, exact and per check, are what the gate may believe of its own eyes.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tasks.checks import (
    duplicates,
    planted_brand,
    planted_colour,
    planted_edit,
    planted_extra,
    planted_files,
    planted_frame,
    planted_groups,
    planted_layout,
    planted_pixels,
    planted_shape,
    planted_text,
    planted_upscale,
    unrequested,
)
from tasks.checks.base import Check, Expected, Picture, Pixels
from tasks.checks.counts import CheckHealth, CleanHealth, DefectHealth
from tasks.checks.decode import FILE, MIME, STILL, decode
from tasks.checks.planted_base import Defect, Good, Planted
from tasks.checks.suite import CHECKS, check_picture
from tasks.providers.embedded.draws import generator
from tasks.records import CheckVerdict, Finding

#: Changes whenever other pictures are planted, or in another way.
VERSION = "7"

#: Every kind of defect; a new check brings its own in a module ``planted_*`` and joins it here.
DEFECTS: tuple[Defect, ...] = (
    *planted_files.DEFECTS,
    *planted_pixels.DEFECTS,
    *planted_shape.DEFECTS,
    *planted_text.DEFECTS,
    *planted_colour.DEFECTS,
    *planted_brand.DEFECTS,
    *planted_layout.DEFECTS,
    *planted_frame.DEFECTS,
    *planted_edit.DEFECTS,
    *planted_upscale.DEFECTS,
    *planted_extra.DEFECTS,
    *planted_groups.DEFECTS,
)
#: Checks that judge pictures together, or what other checks found: they are not of the suite.
APART = frozenset({duplicates.CHECK, unrequested.CHECK, *planted_groups.CHECKS})
_TOGETHER = APART - {unrequested.CHECK}
#: Checks that count in a run only where its policy says so.
BY_POLICY = APART - {duplicates.CHECK}
#: What decoding finds, before any check of the suite.
_DECODE = (FILE, MIME, STILL)
#: In a quick look, the share of the pictures that are made edits or enlargements of themselves, or
#: the last of a group.
_MADE_ANEW = 0.25
#: Checks that judge what another check leaves in the picture's notes: that one goes first.
_AFTER = {"composition.margins": "typography.text", "composition.subject": "typography.text"}


def check_names() -> tuple[str, ...]:
    """Return every check of the suite, those of the file and of the whole run included."""
    return (
        *_DECODE,
        *(check.name for check in CHECKS),
        duplicates.CHECK,
        *planted_groups.CHECKS,
        unrequested.CHECK,
    )


def defects_of(checks: Collection[str]) -> tuple[Defect, ...]:
    """Return the defects that are planted for these checks."""
    return tuple(defect for defect in DEFECTS if defect.check in checks)


def judge(name: str, shown: Planted) -> CheckVerdict:
    """Return what one check says of a picture; a picture that does not decode is a ``skip``.

    The picture goes the whole way, as the suite sends it. A check that breaks is a ``fault``.

    Raises:
        KeyError: No such check.
    """
    if name in _TOGETHER:
        return _repeats(shown) if name == duplicates.CHECK else planted_groups.judged(name, shown)
    decoded = decode(shown.data, shown.expected)
    if name in _DECODE:
        return next((f.verdict for f in decoded.findings if f.check == name), "skip")
    if decoded.picture is None:
        return "skip"
    references = {role: _pixels(file) for role, file in shown.references.items()}
    picture = replace(decoded.picture, references=references)
    if name == unrequested.CHECK:
        found = _unrequested(picture, shown.expected, {})
        return "skip" if found is None else found.verdict
    return _by_suite(name, picture, shown.expected)


def _by_suite(name: str, picture: Picture, expected: Expected) -> CheckVerdict:
    check = next((check for check in CHECKS if check.name == name), None)
    if check is None:
        raise KeyError(name)
    try:
        for before in CHECKS:
            if before.name == _AFTER.get(name):
                before.run(picture, expected)
        return check.run(picture, expected).verdict
    except Exception:  # noqa: BLE001 - a broken check is counted, not raised
        return "fault"


def _unrequested(
    picture: Picture, expected: Expected, seen: Mapping[str, Finding]
) -> Finding | None:
    try:
        return planted_extra.judged(picture, expected, seen)
    except Exception as error:  # noqa: BLE001 - a broken check is counted, not raised
        message = f"{type(error).__name__}: {error}"[:300]
        return Finding(check=unrequested.CHECK, version="", verdict="fault", message=message)


@functools.lru_cache(maxsize=4)
def _pixels(file: bytes) -> Pixels | None:
    """Return the pixels of a reference, decoded once for all that is planted beside it."""
    picture = decode(file, Expected()).picture
    return None if picture is None else picture.rgb


def _repeats(shown: Planted) -> CheckVerdict:
    """Ask for near-duplicates among the pictures that came before and this one."""
    files = (*shown.earlier, shown.data)
    pictures = [decode(file, Expected()).picture for file in files]
    if any(picture is None for picture in pictures):
        return "skip"
    marks = [duplicates.fingerprint(p.rgb) for p in pictures if p is not None]
    items = [(str(n), f"prompt {n}", mark) for n, mark in enumerate(marks)]
    found = duplicates.find_duplicates(items).get(str(len(files) - 1))
    return "skip" if found is None else found.verdict


def plant(
    defect: Defect,
    goods: Iterable[Good],
    *,
    strength: float | None = None,
    seed: int = 0,
    most: int | None = None,
) -> DefectHealth:
    """Plant one kind of defect in good pictures and count what its check finds.

    Args:
        defect: The kind.
        goods: Good pictures; those in which the defect cannot show are passed over.
        strength: Other than the defect's default.
        seed: Same seed, same defects.
        most: Stop after this many planted.
    """
    strength = defect.strength if strength is None else strength
    health = DefectHealth(defect.name, defect.check, strength)
    for good in goods:
        if most is not None and health.planted >= most:
            break
        if not good.speaks_of(defect.check) or not good.sound:
            continue
        shown = defect.plant(good, strength, generator(seed, defect.name, good.name))
        if shown is None or not _applies(defect.check, shown.of or good):
            continue
        started = time.process_time()
        verdict = judge(defect.check, shown)
        health = health.plus(
            DefectHealth(
                defect.name,
                defect.check,
                strength,
                found=verdict == "fail",
                planted=1,
                elsewhere=verdict != "fail" and _elsewhere(defect.check, shown, shown.of or good),
                unjudged=verdict in ("skip", "fault"),
                seconds=time.process_time() - started,
                missed=() if verdict == "fail" else (f"{good.name}: {verdict}",),
            )
        )
    return health


def _elsewhere(name: str, shown: Planted, good: Good) -> bool:
    """Say whether another check of the suite calls a picture bad, and not the good one.

    What counts for a build is whether the picture fails, whoever sees why.
    """
    if name in _TOGETHER:
        return False  # About several pictures.
    report = check_picture(shown.data, shown.expected, shown.references)
    accusers = (f.check for f in report.findings if f.verdict == "fail" and f.check != name)
    return any(judge(check, good.whole) == "pass" for check in accusers)


def _applies(name: str, good: Good) -> bool:
    """Say whether a check passes the picture as it is.

    Where it does not judge, a defect cannot show; where it fails already, finding proves nothing.
    """
    if name == duplicates.CHECK:
        return True  # About two pictures.
    if name not in good.verdicts:
        good.verdicts[name] = judge(name, good.whole)
    return good.verdicts[name] == "pass"


def look_at_good(
    goods: Iterable[Good], checks: Collection[str], every_kind: bool = True
) -> tuple[CleanHealth, ...]:
    """Count what the checks say of good pictures.

    Args:
        goods: The pictures.
        checks: Names of the checks; the answer has them in the order of the suite.
        every_kind: Make a good group of every picture; otherwise of one in four.
    """
    names = [name for name in check_names() if name in checks]
    notes = {_AFTER[name] for name in names if name in _AFTER}
    found = {name: CleanHealth(name) for name in names}
    marks: list[tuple[str, str, str | None]] = []
    for good in goods:
        decoded = decode(good.data, good.expected)
        for finding in decoded.findings:
            if finding.check in found and good.speaks_of(finding.check):
                good.verdicts[finding.check] = finding.verdict
                found[finding.check] = found[finding.check].plus(
                    _clean(finding.check, finding.verdict, good, finding.message, 0.0)
                )
        if decoded.picture is None:
            continue
        picture = _with_references(decoded.picture, good)
        seen: dict[str, Finding] = {}
        for check in CHECKS:
            if check.name not in found or not good.speaks_of(check.name):
                if check.name in notes:
                    _run_for_notes(check, picture, good.expected)
                continue
            started = time.process_time()
            try:
                finding = seen[check.name] = check.run(picture, good.expected)
                verdict, why = finding.verdict, finding.message
            except Exception as error:  # noqa: BLE001 - a broken check is counted, not raised
                verdict, why = "fault", f"{type(error).__name__}: {error}"
            spent = time.process_time() - started
            good.verdicts[check.name] = verdict
            found[check.name] = found[check.name].plus(
                _clean(check.name, verdict, good, why, spent)
            )
        if good.speaks_of(duplicates.CHECK):
            marks.append((good.name, good.name, duplicates.fingerprint(picture.rgb)))
        for one in _apart(good, picture, seen, [n for n in names if n in BY_POLICY], every_kind):
            found[one.check] = found[one.check].plus(one)
    if duplicates.CHECK in found:
        for name, repeat in duplicates.find_duplicates(marks).items():
            found[duplicates.CHECK] = found[duplicates.CHECK].plus(
                CleanHealth(
                    duplicates.CHECK,
                    alarms=repeat.verdict == "fail",
                    clean=1,
                    accused=(f"{name}: {repeat.message}",) if repeat.verdict == "fail" else (),
                )
            )
    return tuple(found[name] for name in names)


def _apart(
    good: Good,
    picture: Picture,
    seen: Mapping[str, Finding],
    names: Collection[str],
    every_kind: bool,
) -> Iterator[CleanHealth]:
    """Yield what the checks that are not of the suite say of a good picture, and of good groups."""
    for name in names:
        if not good.speaks_of(name):
            continue
        started = time.process_time()
        why = ""
        if name == unrequested.CHECK:
            found = _unrequested(picture, good.expected, seen)
            if found is None:
                continue
            verdict, why = found.verdict, found.message
        else:
            if not every_kind and not _chosen(name, good):
                continue
            group = planted_groups.grouped(name, good)
            if group is None:
                continue
            verdict = judge(name, group.whole)
            group.verdicts[name] = verdict
        good.verdicts.setdefault(name, verdict)
        yield _clean(name, verdict, good, why, time.process_time() - started)


def _chosen(name: str, good: Good) -> bool:
    """Say whether a quick look makes a group of a picture; always the same answer."""
    return bool(generator("planted group", name, good.name).random() < _MADE_ANEW)


def _run_for_notes(check: Check, picture: Picture, expected: Expected) -> None:
    """Run a check that is not measured, for what it leaves to those that are."""
    # What breaks leaves no notes: the check that needs them then says that it cannot judge.
    with contextlib.suppress(Exception):
        check.run(picture, expected)


def _with_references(picture: Picture, good: Good) -> Picture:
    pixels = {role: _pixels(file) for role, file in good.references.items()}
    return replace(picture, references=pixels)


def _clean(name: str, verdict: CheckVerdict, good: Good, why: str, spent: float) -> CleanHealth:
    if verdict == "skip":
        return CleanHealth(name)
    return CleanHealth(
        name,
        alarms=verdict == "fail",
        clean=1,
        faults=verdict == "fault",
        seconds=spent,
        accused=(f"{good.name}: {why}",) if verdict in ("fail", "fault") else (),
    )


def measure(
    goods: Sequence[Good],
    checks: Collection[str] | None = None,
    *,
    strength: float | None = None,
    seed: int = 0,
    every_kind: bool = True,
    curve: bool = False,
) -> tuple[CheckHealth, ...]:
    """Measure checks on pictures that are known to be good.

    Args:
        goods: The good pictures.
        checks: Names of the checks; all of the suite by default.
        strength: One strength for all defects instead of their own defaults.
        seed: Same seed, same defects.
        every_kind: Plant every kind of defect in every picture; otherwise one for each check, by
            the draw: for a quick look.
        curve: Plant every kind at every strength of its curve, the default among them.

    Returns:
        One entry for each check in the order of the suite, also where nothing could be planted.
    """
    names = [name for name in check_names() if checks is None or name in checks]
    clean = look_at_good(goods, names, every_kind)
    return tuple(
        CheckHealth(
            name, seen, _planted(name, goods, seed, every_kind, _strengths(strength, curve))
        )
        for name, seen in zip(names, clean, strict=True)
    )


def _strengths(strength: float | None, curve: bool) -> Callable[[Defect], tuple[float, ...]]:
    """Return which strengths of a kind are measured."""
    if curve:
        return lambda kind: kind.strengths
    return lambda kind: (kind.strength if strength is None else strength,)


def _planted(
    name: str,
    goods: Sequence[Good],
    seed: int,
    every_kind: bool,
    strengths: Callable[[Defect], tuple[float, ...]],
) -> tuple[DefectHealth, ...]:
    kinds = defects_of([name])
    if every_kind:
        return tuple(
            plant(kind, goods, strength=strength, seed=seed)
            for kind in kinds
            for strength in strengths(kind)
        )
    found = {kind.name: DefectHealth(kind.name, name, strengths(kind)[0]) for kind in kinds}
    for good in goods:
        rng = generator(seed, name, good.name)
        if _made_anew(name, good) and rng.random() >= _MADE_ANEW:
            continue
        if name in planted_groups.CHECKS and not _chosen(name, good):
            continue
        # One kind a picture: the first, in a drawn order, that can show in it.
        for number in rng.permutation(len(kinds)):
            kind = kinds[number]
            one = plant(kind, [good], strength=strengths(kind)[0], seed=seed)
            if one.planted:
                found[kind.name] = found[kind.name].plus(one)
                break
    return tuple(found.values())


def _made_anew(name: str, good: Good) -> bool:
    """Say whether a picture must first be made an edit or an enlargement for a check."""
    needs = {"edit": "upload", "upscale": "source"}.get(name.partition(".")[0])
    return (needs is not None or name == "geometry.orientation") and (
        needs or "upload"
    ) not in good.references
