"""Great Expectations over real frames: what must fail fails, and unknown is never a success."""

from __future__ import annotations

import json
import math
import socket
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.errors import EvidenceError
from tasks.expectations import validate as validation
from tasks.expectations.validate import validate, warm_up
from tasks.metrics.compute import compute_metrics
from tasks.metrics.tables import outcomes_frame
from tasks.policy import MEASURES, Limit, Policy
from tasks.records import Case, ExpectationResult, Metrics, Outcome

POLICY = Policy(
    limits=(
        Limit(measure="effective_cost_per_1k_usd", max=25.0),
        Limit(measure="latency_p95_s", max=1.0, on_breach="rollback"),
        Limit(measure="images", min=3),
        Limit(measure="images", min=3),
        Limit(measure="retries_per_image", max=0.5, on_breach="warn"),
    )
)


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    warm_up()
    assert "great_expectations" in sys.modules


@pytest.fixture
def _no_docs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data Docs take most of the time; the tests about single results do without."""
    monkeypatch.setattr(validation, "_publish", lambda context, folder: None)
    monkeypatch.setattr(validation, "self_contained", lambda folder, held: None)


def outcomes(case_ids: tuple[str, ...] = ("a", "b", "c"), **changes: Any) -> list[Outcome]:
    figures: dict[str, Any] = {
        "run_id": "r1",
        "outcome": "ok",
        "failed": False,
        "judged": ("decode.complete",),
        "subtask": "fast",
        "locale": "en",
        "origin": "stress",
        "model": "dash-2",
        "cost_microusd": 17_000,
        "latency_s": 0.5,
        "ttfb_s": 0.2,
    }
    return [
        Outcome(**(figures | {"arm": arm, "case_id": name} | changes))
        for arm in ("baseline", "candidate")
        for name in case_ids
    ]


def figures_of(rows: list[Outcome], policy: Policy = POLICY) -> Metrics:
    names = dict.fromkeys(o.case_id for o in rows)
    cases = [Case(case_id=name, prompt="a", subtask="fast", expected_text=("x",)) for name in names]
    return compute_metrics(cases, rows, policy, baseline_digest="b", candidate_digest="c")


def run(
    folder: Path,
    policy: Policy = POLICY,
    *,
    metrics: Metrics | None = None,
    frame: pd.DataFrame | None = None,
) -> dict[str, ExpectationResult]:
    rows = outcomes()
    results = validate(
        policy,
        figures_of(rows) if metrics is None else metrics,
        outcomes_frame(rows) if frame is None else frame,
        folder,
    )
    found = {result.source: result for result in results}
    assert len(found) == len(results)
    return found


def failing(found: dict[str, ExpectationResult]) -> set[str]:
    return {source for source, result in found.items() if not result.success}


def test_good_data_holds_every_rule_and_leaves_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_network(*_: object) -> None:
        pytest.fail("a validation must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    found = run(tmp_path)

    assert failing(found) == set()
    assert not any(result.unmeasured for result in found.values())
    assert found["limits[0]"].observed == 17.0
    assert found["limits[0]"].sentence == (
        "effective_cost_per_1k_usd is $17.00; the policy wants at most $25.00."
    )
    assert [found[f"limits[{i}]"].on_breach for i in (0, 1, 4)] == ["hold", "rollback", "warn"]
    suite = json.loads((tmp_path / "expectations" / "suite-metrics.json").read_text())
    severities = {e["meta"]["source"]: e["severity"] for e in suite["expectations"]}
    assert severities["limits[1]"] == "critical"
    assert severities["limits[4]"] == "warning"
    result = json.loads((tmp_path / "expectations" / "validation-outcomes.json").read_text())
    assert result["success"] is True
    pages = list((tmp_path / "data_docs").rglob("*.html"))
    assert len(pages) == 5
    assert not any("https://" in p.read_text() and "src=" in p.read_text() for p in pages)
    # Progress bars and the like would spoil the terminal and the JSON on stdout.
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("_no_docs")
def test_breached_limits_fail_and_are_measured(tmp_path: Path) -> None:
    rows = outcomes(cost_microusd=30_000, latency_s=1.5)
    found = run(tmp_path, metrics=figures_of(rows), frame=outcomes_frame(rows))

    assert failing(found) == {"limits[0]", "limits[1]"}
    assert not found["limits[0]"].unmeasured
    assert (found["limits[1]"].observed, found["limits[1]"].success) == (1.5, False)


@pytest.mark.usefixtures("_no_docs")
def test_exactly_at_the_limit_holds(tmp_path: Path) -> None:
    rows = outcomes(latency_s=1.0, cost_microusd=25_000)
    assert failing(run(tmp_path, metrics=figures_of(rows))) == set()


@pytest.mark.usefixtures("_no_docs")
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_figure_that_is_none_never_succeeds(tmp_path: Path, value: float | None) -> None:
    """Great Expectations alone would call it a success: it looks only at values that are there."""
    good = figures_of(outcomes())
    candidate = good.candidate.model_copy(update={"latency_p95_s": value})
    policy = Policy(
        limits=(
            Limit(measure="latency_p95_s", max=1.0),
            Limit(measure="latency_p95_s", min=-1.0),
        )
    )
    found = run(tmp_path, policy, metrics=good.model_copy(update={"candidate": candidate}))

    assert failing(found) == {"limits[0]", "limits[1]"}
    assert found["limits[0]"].unmeasured
    assert found["limits[1]"].unmeasured
    assert found["limits[0]"].sentence.startswith("latency_p95_s is unknown")


@pytest.mark.usefixtures("_no_docs")
def test_a_run_without_outcomes_succeeds_in_nothing_that_needs_data(tmp_path: Path) -> None:
    policy = Policy(limits=tuple(Limit(measure=name, min=-1.0, max=1e9) for name in MEASURES))
    found = run(tmp_path, policy, metrics=figures_of([]), frame=outcomes_frame([]))

    assert {"structure.rows", "structure.arms", "structure.one_run"} <= failing(found)
    answered = {r.name.split()[0] for s, r in found.items() if s.startswith("limits") and r.success}
    assert answered == {"spend_usd", "images"}


@pytest.mark.usefixtures("_no_docs")
def test_every_measure_can_be_limited(tmp_path: Path) -> None:
    policy = Policy(limits=tuple(Limit(measure=name, min=-1.0, max=1e9) for name in MEASURES))
    assert failing(run(tmp_path, policy)) == set()


@pytest.mark.usefixtures("_no_docs")
def test_a_missing_column_is_unmeasured(tmp_path: Path) -> None:
    frame = outcomes_frame(outcomes()).drop(columns=["latency_s"])
    found = run(tmp_path, frame=frame)

    assert failing(found) == {"structure.latency_s_present", "structure.latency_s_not_negative"}
    assert found["structure.latency_s_not_negative"].unmeasured


@pytest.mark.usefixtures("_no_docs")
@pytest.mark.parametrize(
    ("column", "value", "broken"),
    [
        ("latency_s", math.nan, "structure.latency_s_present"),
        ("case_id", None, "structure.case_id_present"),
        ("cost_microusd", -1, "structure.cost_microusd_not_negative"),
        ("outcome", "fine", "structure.outcome_known"),
        ("run_id", "r2", "structure.one_run"),
    ],
)
def test_bad_rows_are_found(tmp_path: Path, column: str, value: object, broken: str) -> None:
    frame = outcomes_frame(outcomes())
    frame.loc[1, column] = value
    assert broken in failing(run(tmp_path, frame=frame))


@pytest.mark.usefixtures("_no_docs")
def test_cases_counted_twice_and_a_missing_arm_are_found(tmp_path: Path) -> None:
    frame = outcomes_frame(outcomes())
    twice = pd.concat([frame, frame.iloc[[0]]], ignore_index=True)
    one_arm = frame[frame["arm"] == "candidate"]

    assert failing(run(tmp_path, frame=twice)) == {"structure.counted_once"}
    assert failing(run(tmp_path, frame=one_arm)) == {"structure.arms"}


def test_hostile_case_ids_are_only_text_in_the_docs(tmp_path: Path) -> None:
    hostile = "</td><script>alert(1)</script>$value"
    frame = outcomes_frame([*outcomes((hostile,)), *outcomes((hostile,))])
    found = run(tmp_path, frame=frame)

    assert "structure.counted_once" in failing(found)
    for page in (tmp_path / "data_docs").rglob("*.html"):
        assert "alert(1)</script>" not in page.read_text()


def test_validating_again_replaces_the_docs(tmp_path: Path) -> None:
    run(tmp_path)
    first = {p.name for p in (tmp_path / "data_docs").rglob("*")}
    run(tmp_path)
    assert len(list((tmp_path / "data_docs").rglob("*.html"))) == 5
    assert "index.html" in first


@pytest.mark.usefixtures("_no_docs")
def test_an_expectation_that_raises_is_unmeasured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "_one_row", lambda figures: pd.DataFrame({"other": [1.0]}))
    found = run(tmp_path)

    limits = {source for source in found if source.startswith("limits")}
    assert limits <= failing(found)
    assert all(found[source].unmeasured for source in limits)


def test_a_folder_that_cannot_be_written_is_an_evidence_error(tmp_path: Path) -> None:
    (tmp_path / "data_docs").write_text("in the way")
    with pytest.raises(EvidenceError, match="cannot be written"):
        run(tmp_path)
