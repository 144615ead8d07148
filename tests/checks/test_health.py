"""The record of how well the checks see: kept, grown, thrown away; and what it says to the gate."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows import check_health
from flows.check_health import examine_checks, render_checks, sensitivities
from tasks.checks import health
from tasks.checks.health import HealthRecord, added, measure_drawings, read, take, version, write
from tasks.checks.planted import CheckHealth, CleanHealth, DefectHealth
from tasks.errors import ConfigError
from tasks.verdict.checkers import adjusted_pass, blind
from tests.conftest import Command


def counts(found: int, planted: int, alarms: int = 0, clean: int = 10) -> CheckHealth:
    kind = DefectHealth("kind", "a.b", 0.5, found, planted)
    return CheckHealth("a.b", CleanHealth("a.b", alarms, clean), (kind,))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """What was measured, with one planted defect found for each picture."""
    asked: list[range] = []

    def measure(numbers: range, **_: object) -> tuple[CheckHealth, ...]:
        asked.append(numbers)
        return (counts(len(numbers), len(numbers), clean=len(numbers)),)

    monkeypatch.setattr(health, "measure_drawings", measure)
    return asked


def test_the_record_grows_along_one_row_of_pictures(tmp_path: Path, measured: list[range]) -> None:
    none = tmp_path / "none.json"
    first = take(tmp_path, first=20, live=5, shipped=none)
    again = take(tmp_path, first=20, live=5, shipped=none)
    assert measured == [range(20), range(20, 25), range(25, 30)]
    assert [taken.record.pictures for taken in (first, again)] == [25, 30]
    assert (again.record.checks[0].found, again.now[0].found) == (30, 5)
    # Another measurement of the same row says the same: counts of different pictures.
    (file,) = (tmp_path / "checks").iterdir()
    assert read(file, version()) == again.record


def test_a_record_of_other_checks_or_a_broken_one_is_not_believed(
    tmp_path: Path, measured: list[range], monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped.json"
    write(shipped, HealthRecord(version(), 1000, (counts(990, 1000),)))
    taken = take(tmp_path, first=20, live=5, shipped=shipped)
    assert (taken.record.pictures, taken.record.checks[0].found) == (1005, 995)
    assert read(shipped, "sha256:other") is None
    shipped.write_text("{}", encoding="utf-8")
    assert read(shipped, version()) is None
    before = version()
    monkeypatch.setattr(health.planted, "VERSION", "another")
    assert version() != before
    assert take(tmp_path, first=7, live=1, shipped=shipped).record.pictures == 8


def test_parts_measured_by_processes_are_the_whole() -> None:
    some = ["geometry.size", "composition.blank"]
    done: list[int] = []
    parts = measure_drawings(
        range(7), seed=5, checks=some, every_kind=False, workers=1, on_unit=done.append
    )
    whole = health._unit(5, range(7), tuple(some), every_kind=False, curve=False)
    assert [(p.check, p.found, p.planted, p.clean.clean) for p in parts] == [
        (w.check, w.found, w.planted, w.clean.clean) for w in whole
    ]
    assert done == [5, 7]
    assert added(whole, whole)[0].planted == 14


def test_blind_kinds_and_checks_that_fell_blind_today_are_named() -> None:
    good = counts(990, 1000)
    assert [s.name for s in sensitivities((good,))] == ["a.b"]
    assert blind(sensitivities((good,), (counts(5, 6),))) == ()
    lame = CheckHealth(
        "a.b",
        good.clean,
        (*good.defects, DefectHealth("mirrored", "a.b", 1.0, 2, 20)),
    )
    found = sensitivities((lame,), (counts(3, 6),))
    assert [s.name for s in found] == ["a.b", "a.b (mirrored)", "a.b (today)"]
    assert [s.name for s in blind(found)] == ["a.b (mirrored)", "a.b (today)"]
    assert sensitivities((lame,), (counts(3, 6),), checks=["c.d"]) == ()
    # Nothing planted: blind, by definition.
    bare = CheckHealth("a.b", CleanHealth("a.b"))
    assert [s.name for s in blind(sensitivities((bare,)))] == ["a.b"]


def test_a_large_record_costs_a_clean_build_few_images() -> None:
    few, many = (adjusted_pass(0.02, sensitivities((counts(n, n),)), 0.05) for n in (10, 1000))
    assert few is not None
    assert many is not None
    assert few.bound < 0.7
    assert many.bound > 0.99


def test_the_table_names_what_is_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    cast = DefectHealth("colour cast", "colour.cast", 0.6, 3, 30, seconds=0.3, missed=("p: pass",))
    weak = DefectHealth("colour cast", "colour.cast", 0.2, 1, 30)
    found = (CheckHealth("colour.cast", CleanHealth("colour.cast", 1, 30, 1, 0.15), (weak, cast)),)
    monkeypatch.setattr(check_health, "measure_drawings", lambda *_, **__: found)
    table = examine_checks(pictures=30, curve=True, seed=1)
    assert not table["ok"]
    assert table["blind"] == ["colour.cast", "colour.cast (colour cast)"]
    assert table["broken"] == ["colour.cast"]
    (row,) = table["checks"]
    assert (row["found"], row["planted"], row["alarms"], row["cpu_ms"]) == (3, 30, 1, 5.0)
    assert [d["default"] for d in row["defects"]] == [False, True]
    shown = render_checks(table)
    assert "BLIND   colour.cast: a gate that uses it holds" in shown
    assert "0.6*" in shown
    with pytest.raises(ConfigError, match="no such check"):
        examine_checks(pictures=1, curve=False, seed=1, checks=["colour.smell"])


def test_doctor_prints_the_table_and_an_exit_code(light_imagegate: Command) -> None:
    asked = ("doctor", "--checks", "--check", "geometry.size", "--json", "--pictures")
    done = light_imagegate(*asked, "12")
    assert done.code == 0, done.err
    (row,) = done.json["checks"]
    assert (row["check"], row["alarms"]) == ("geometry.size", 0)
    assert row["found"] == row["planted"] == row["clean"]
    # Too few to prove that the check sees: nothing is broken, and a gate would hold.
    few: Any = light_imagegate(*asked, "1")
    assert few.code == 3, few.err
    assert json.loads(few.out)["blind"] == ["geometry.size"]
    assert light_imagegate("doctor", "--checks", "--check", "no.such").code == 2
