"""The record of how well the checks see: made once, gone on with, thrown away; and its table."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import check_health
from flows.check_health import examine_checks, render_checks
from tasks.checks import health
from tasks.checks import second_reader as confirming
from tasks.checks.base import Expected
from tasks.checks.counts import CheckHealth, CleanHealth, DefectHealth
from tasks.checks.health import (
    HealthRecord,
    added,
    known_record,
    make_record,
    measure_drawings,
    own_record,
    second_reader,
    version,
    write,
)
from tasks.checks.planted_base import Good
from tasks.checks.suite import CHECKS
from tasks.errors import ConfigError
from tests.conftest import Command


def counts(found: int, planted: int, alarms: int = 0, clean: int = 10) -> CheckHealth:
    kind = DefectHealth("kind", "a.b", 0.5, found, planted)
    return CheckHealth("a.b", CleanHealth("a.b", alarms, clean), (kind,))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """Which drawings were measured; each has one planted defect, and it is found."""
    found: list[range] = []

    def measure(numbers: range, **_: object) -> Iterator[tuple[int, tuple[CheckHealth, ...]]]:
        found.append(numbers)
        for done in range(5, len(numbers) + 1, 5):
            yield done, (counts(done, done, clean=done),)

    monkeypatch.setattr(health, "measured", measure)
    return found


def test_a_record_is_made_once_and_goes_on_where_it_was_interrupted(
    tmp_path: Path, asked: list[range], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, none = own_record(tmp_path), tmp_path / "none.json"
    done: list[int] = []

    def interrupted(number: int) -> None:
        done.append(number)
        if number == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_record(path, 20, on_done=interrupted)
    assert done == [0, 5, 10]
    # A part of a record is none: how much there is could depend on what was found.
    assert known_record(tmp_path, none) is None
    made = make_record(path, 20)
    assert asked == [range(20), range(10, 20)]
    assert (made.pictures, made.checks[0].found, made.whole) == (20, 20, True)
    assert known_record(tmp_path, none) == made
    # Another version of a check: nothing is known of it.
    monkeypatch.setattr(health.planted, "VERSION", "another")
    assert known_record(tmp_path, none) is None
    assert make_record(path, 5).pictures == 5
    # Whoever wants more than was planned starts anew: what was found may be the reason.
    assert make_record(path, 10).pictures == 10
    assert make_record(path, 5, good=5).good == 5
    assert asked[2:] == [range(5), range(10), range(10)]


def test_the_shipped_record_is_used_while_it_is_of_this_version(tmp_path: Path) -> None:
    shipped = tmp_path / "shipped.json"
    record = HealthRecord(version(), second_reader(), 1000, 1000, (counts(990, 1000),))
    write(shipped, record)
    assert known_record(tmp_path, shipped) == record
    own = HealthRecord(version(), second_reader(), 100, 100, (counts(99, 100),))
    write(own_record(tmp_path), own)
    assert known_record(tmp_path, shipped) == record
    write(shipped, HealthRecord("sha256:other", second_reader(), 1000, 1000, (counts(990, 1000),)))
    assert known_record(tmp_path, shipped) == own
    shipped.write_text("{}", encoding="utf-8")
    assert known_record(tmp_path, shipped) == own


def test_a_record_holds_for_machines_without_a_second_reader_what_it_measured_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "second_reader", lambda: True)
    text = CheckHealth(
        "typography.text",
        CleanHealth("typography.text", 1, 50),
        (DefectHealth("letters dropped", "typography.text", 0.1, 38, 40),),
    )
    alone = replace(text, clean=replace(text.clean, alarms=4))
    both = (counts(9, 10), text, health.renamed(alone, "typography.text" + health.ONE_READER))
    shipped = tmp_path / "shipped.json"
    write(shipped, HealthRecord(version(), True, 10, 10, both))
    known = known_record(tmp_path, shipped)
    assert known is not None
    assert known.checks == (counts(9, 10), text)
    monkeypatch.setattr(health, "second_reader", lambda: False)
    known = known_record(tmp_path, shipped)
    assert known is not None
    assert known.checks == (counts(9, 10), alone)
    # One that was measured without says nothing of a machine with it, nor the other way round.
    write(shipped, HealthRecord(version(), False, 10, 10, both[:2]))
    assert known_record(tmp_path, shipped) is not None
    monkeypatch.setattr(health, "second_reader", lambda: True)
    assert known_record(tmp_path, shipped) is None


def test_good_drawings_are_shown_without_a_defect_and_counted_with_the_others() -> None:
    some = ("geometry.size", "composition.blank")
    parts = dict(health.measured(range(9), seed=5, checks=some, good_from=2, workers=1))
    assert list(parts) == [2, 7, 9]
    for one in parts[9]:
        assert (one.clean.clean, one.clean.alarms) == (9, 0)
        assert (one.found, one.planted) == (2, 2)


def test_one_reader_alone_is_measured_on_the_same_drawings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []

    def measure(goods: list[Good], checks: list[str] | None, **_: object) -> tuple[CheckHealth]:
        asked.append(confirming.code_for("SALE") is None)
        flagged = checks is not None
        for good in goods:
            good.verdicts["typography.text"] = "fail" if flagged else "pass"
            good.verdicts["geometry.size"] = "pass"
        return (CheckHealth("typography.text", CleanHealth("typography.text", flagged, 1)),)

    monkeypatch.setattr(health.planted, "measure", measure)
    monkeypatch.setattr(confirming, "code_for", lambda _: "eng")
    found = health.measure_unit(5, range(2), one_reader=True)
    assert asked == [False, True]
    assert confirming.code_for("SALE") == "eng"
    assert [(one.check, one.clean.alarms) for one in found] == [
        ("typography.text", 0),
        ("any check", 0),
        ("typography.text (one reader)", 1),
        ("any check (one reader)", 2),
    ]


def test_the_version_is_that_of_what_judges_and_not_of_its_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = version()
    others = [replace(c, datasets=Path("elsewhere")) for c in CHECKS if c.name == "colour.cast"]
    rest = [c for c in CHECKS if c.name != "colour.cast"]
    order = [next(o for o in (*others, *rest) if o.name == c.name) for c in CHECKS]
    monkeypatch.setattr(health, "CHECKS", order)
    assert version() == before
    stricter = [replace(c, limit=c.limit / 2) if c.name == "safety.refusal" else c for c in CHECKS]
    monkeypatch.setattr(health, "CHECKS", stricter)
    assert version() != before


def test_good_pictures_that_any_check_calls_bad_are_counted_once() -> None:
    goods = [Good("one", Expected(), bytes), Good("two", Expected(), bytes)]
    goods[0].verdicts.update({"a.b": "fail", "c.d": "fail", "e.f": "pass"})
    goods[1].verdicts.update({"a.b": "pass", "c.d": "skip"})
    found = health._flagged(goods)
    assert (found.alarms, found.clean, found.accused) == (1, 2, ("one: a.b, c.d",))


def test_parts_measured_by_processes_are_the_whole() -> None:
    some = ["geometry.size", "composition.blank"]
    done: list[int] = []
    parts = measure_drawings(
        range(7), seed=5, checks=some, every_kind=False, workers=1, on_unit=done.append
    )
    whole = health.measure_unit(5, range(7), tuple(some), whole_suite=False)
    assert [(p.check, p.found, p.planted, p.clean.clean) for p in parts] == [
        (w.check, w.found, w.planted, w.clean.clean) for w in whole
    ]
    assert done == [5, 7]
    assert added(whole, whole)[0].planted == 14


def test_the_table_names_what_is_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    cast = DefectHealth("colour cast", "colour.cast", 0.6, 3, 30, seconds=0.3, missed=("p: pass",))
    weak = DefectHealth("colour cast", "colour.cast", 0.2, 1, 30)
    found = (CheckHealth("colour.cast", CleanHealth("colour.cast", 1, 30, 1, 0.15), (weak, cast)),)
    monkeypatch.setattr(check_health, "measure_drawings", lambda *_, **__: found)
    monkeypatch.setattr(check_health, "measure_signed", lambda *_: None)
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
