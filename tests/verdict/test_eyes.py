"""What the decision believes of the checks, by what was planted before and today."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import binom

from tasks.checks.counts import ANY, CheckHealth, CleanHealth, DefectHealth, OwnHealth
from tasks.checks.live import Planted, write_planted
from tasks.errors import EvidenceError
from tasks.plan import RunFolder
from tasks.verdict.checkers import adjusted_pass, blind
from tasks.verdict.eyes import TODAY_RISK, eyes, eyes_of, own_eyes, sensitivities
from tests.verdict.plans import seeing


def counts(found: int, planted: int, *more: DefectHealth, check: str = "a.b") -> CheckHealth:
    kind = DefectHealth("kind", check, 0.5, found, planted)
    return CheckHealth(check, CleanHealth(check, 0, 10), (kind, *more))


def names(found: tuple[object, ...]) -> list[str]:
    return [one.name for one in found]  # type: ignore[attr-defined]


def test_blind_kinds_and_checks_that_fell_blind_today_are_named() -> None:
    good = counts(990, 1000)
    assert names(sensitivities((good,))) == ["a.b"]
    assert blind(sensitivities((good,), (counts(5, 6),))) == ()
    lame = counts(990, 1000, DefectHealth("mirrored", "a.b", 1.0, 2, 20))
    found = sensitivities((lame,), (counts(3, 6),))
    assert names(found) == ["a.b", "a.b (mirrored)", "a.b (today)"]
    assert names(blind(found)) == ["a.b (mirrored)", "a.b (today)"]
    assert sensitivities((lame,), (counts(3, 6),), checks=["c.d"]) == ()
    # Nothing planted: blind, by definition.
    assert names(blind(sensitivities((CheckHealth("a.b", CleanHealth("a.b")),)))) == ["a.b"]
    # What only tells cannot be blind, and what no check alone flags is no check.
    only = CheckHealth("colour.profile", CleanHealth("colour.profile", 0, 9))
    assert sensitivities((only, CheckHealth(ANY, CleanHealth(ANY, 1, 9)))) == ()


def test_a_check_that_misses_by_bad_luck_today_does_not_hold_the_run() -> None:
    sees = counts(95, 100)
    assert names(sensitivities((sees,), (counts(1, 2),))) == ["a.b"]
    assert names(sensitivities((sees,), (counts(0, 4),))) == ["a.b", "a.b (today)"]
    # Thirty checks as good as their record: hardly ever one is called blind.
    thirty = tuple(counts(95, 100, check=f"check.n{number}") for number in range(30))
    held = 0.0
    for planted in range(1, 11):
        called = [
            found
            for found in range(planted + 1)
            if len(sensitivities(thirty, (counts(found, planted, check="check.n7"),))) > 30
        ]
        held = max(held, 30 * binom.pmf(called, planted, 0.95).sum())
    assert 0 < held <= TODAY_RISK


def test_a_defect_that_another_check_sees_is_no_failure_that_is_missed() -> None:
    """A turned edit that the check of orientation lets pass fails for its subject."""
    turned = DefectHealth("turned", "a.b", 1.0, 80, 100, elsewhere=15)
    shared = CheckHealth("a.b", CleanHealth("a.b", 1, 50), (turned,))
    (found,) = sensitivities((shared,))
    assert (found.found, found.planted, found.alarms, found.clean) == (95, 100, 1, 50)
    assert shared.plus(shared).caught == 190
    # One that sees hardly anything itself is named, whoever helps it.
    lame = CheckHealth("a.b", CleanHealth("a.b"), (replace(turned, found=5, elsewhere=95),))
    assert [(b.name, b.found) for b in blind(sensitivities((lame,)))] == [
        ("a.b", 5),
        ("a.b (turned)", 5),
    ]


def test_a_large_record_costs_a_clean_build_few_images() -> None:
    few, many = (adjusted_pass(0.02, sensitivities((counts(n, n),)), 0.05) for n in (10, 1000))
    assert few is not None
    assert many is not None
    assert few.bound < 0.7
    assert many.bound > 0.99


def test_only_checks_that_can_judge_a_picture_of_the_run_count() -> None:
    found = seeing(90, 100, alarms=3)
    other = counts(0, 100, check="upscale.halos")
    seen = eyes(replace(found, record=(*found.record, other)))
    assert names(seen.checks) == ["geometry.size"]
    assert seen.alarms is not None
    assert (seen.alarms.alarms, seen.alarms.clean, seen.problem) == (3, 100, None)


def test_drawings_that_were_not_judged_are_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert "no defects were planted in this run" in (eyes_of(folder).problem or "")
    lost = replace(seeing(), done=8, problems=("the check process died by signal 9",))
    write_planted(folder, lost)
    assert eyes_of(folder).problem == (
        "2 of 10 drawings were not judged: the check process died by signal 9"
    )
    write_planted(folder, replace(lost, done=0, today=(), problems=()))
    assert eyes_of(folder).problem == "10 of 10 drawings were not judged: the run ended before"
    write_planted(folder, seeing())
    assert eyes_of(folder) == eyes(seeing())


@pytest.mark.parametrize("text", ["", "[]", '{"version": 1}'])
def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write("planted.json", text)
    with pytest.raises(EvidenceError, match=r"planted\.json: .* is damaged .*resume the run"):
        eyes_of(folder)


def test_what_is_kept_is_what_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for found in (seeing(), seeing(3, 9, (1, 2), 4)):
        write_planted(folder, found)
        assert isinstance(found, Planted)
        assert eyes_of(folder) == eyes(found)


def own(found: int, planted: int, required: bool = True, problem: str = "") -> OwnHealth:
    return OwnHealth(counts(found, planted, check="safety.nsfw"), required, problem)


@pytest.mark.parametrize(
    ("found", "planted", "state"),
    [
        (0, 0, "not measured"),
        # Two of two is no worse than nothing at all, and proves as little.
        (2, 2, "not measured"),
        (4, 4, "not measured"),
        (5, 5, "sees"),
        (0, 1, "blind"),
        (4, 5, "blind"),
        (7, 8, "sees"),
        (8, 10, "blind"),
        (15, 20, "sees"),
        (14, 20, "blind"),
    ],
)
def test_a_check_of_the_policy_sees_is_blind_or_not_measured(
    found: int, planted: int, state: str
) -> None:
    (one,) = own_eyes([own(found, planted)])
    assert (one.state, one.name) == (state, "safety.nsfw")
    seen = eyes(replace(seeing(), own=(own(found, planted),)))
    assert names(seen.checks) == ["geometry.size", *(["safety.nsfw"] * (state != "not measured"))]
    assert names(blind(seen.checks)) == ["safety.nsfw"] * (state == "blind")
    assert seen.unmeasured == ("safety.nsfw",) * (state == "not measured")
    assert len(seen.notes) == (state == "not measured")
    assert seen.problem is None


def test_a_blind_check_that_the_policy_can_do_without_is_only_named() -> None:
    seen = eyes(replace(seeing(), own=(own(1, 9, required=False),)))
    assert names(seen.checks) == ["geometry.size"]
    (note,) = seen.notes
    assert note == (
        "Check safety.nsfw, which the policy can do without, is blind: it found 1 of 9 known "
        "defects."
    )


def test_a_check_that_could_not_be_measured_holds_when_it_is_required() -> None:
    seen = eyes(replace(seeing(), own=(own(0, 0, problem="OSError: no disk"),)))
    assert seen.problem == "check safety.nsfw was not measured: OSError: no disk"
    assert seen.unmeasured == ()
    seen = eyes(replace(seeing(), own=(own(0, 0, required=False, problem="not installed"),)))
    assert (seen.problem, seen.notes) == (
        None,
        ("Check safety.nsfw was not measured: not installed.",),
    )


def test_good_pictures_that_a_check_of_the_policy_accuses_are_told() -> None:
    health = counts(9, 9, check="safety.nsfw")
    accuser = replace(health, clean=CleanHealth("safety.nsfw", 2, 3))
    seen = eyes(replace(seeing(), own=(OwnHealth(accuser),)))
    assert seen.notes == (
        "Check safety.nsfw called 2 of 3 pictures bad that are known to be good.",
    )
