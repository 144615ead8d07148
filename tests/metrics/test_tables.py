"""Tables keep their columns and types, empty or full, through Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import pytest

from tasks.metrics.tables import (
    attempts_frame,
    cases_frame,
    findings_frame,
    generations_frame,
    outcomes_frame,
    reports_frame,
)
from tasks.records import (
    Attempt,
    Case,
    FailureClass,
    Finding,
    Generation,
    ImageReport,
    Outcome,
    Region,
)

HALF = "\ud83d"  # half of a surrogate pair, as a JSON escape can bring it

CASE = Case(case_id="c1", prompt=f"a {HALF} b", subtask="fast", expected_text=("one", HALF))
GENERATION = Generation(
    run_id="r1",
    arm="candidate",
    mix_digest="sha256:0",
    case_id="c1",
    seed=2**31 - 1,
    models=("folio-2", "acnet-x2"),
    status="undelivered",
    failure=FailureClass.THROTTLED,
    attempts=(
        Attempt(stage=0, number=1, model="folio-2", started_at="2026-01-01T00:00:00.000Z"),
        Attempt(
            stage=0,
            number=2,
            model="folio-2",
            started_at="2026-01-01T00:00:01.000Z",
            http_status=429,
            failure=FailureClass.THROTTLED,
            retry_after_s=1.5,
            headers={"x-request-id": HALF},
        ),
    ),
)
FINDING = Finding(
    check="colour.cast",
    version="1",
    verdict="fail",
    score=4.5,
    region=Region(x=1, y=2, width=3, height=4),
)
REPORT = ImageReport(
    findings=(FINDING,),
    read_text=("Open", "half \ud800"),
    text_severity=("minor",),
    extra_text=("Shut",),
    extra_regions=(Region(x=1, y=2, width=3, height=4),),
    fingerprint="0f" * 32,
    look="00" * 192,
    width=64,
    height=48,
    colour=(50.0, 1.0, -2.0, 9.0),
    seconds=0.1,
)
OUTCOME = Outcome(
    run_id="r1",
    arm="candidate",
    case_id="c1",
    outcome="defect",
    failed=True,
    reasons=("colour.cast",),
    judged=("colour.cast", "decode.complete"),
    subtask="fast",
    locale="th",
    origin="stress",
    model="folio-2",
)

Build = Callable[[Iterable[Any]], pd.DataFrame]
TABLES: list[tuple[Build, Any]] = [
    (cases_frame, CASE),
    (generations_frame, GENERATION),
    (attempts_frame, GENERATION),
    (findings_frame, ("r1", "candidate", "c1", FINDING)),
    (reports_frame, ("r1", "candidate", "c1", REPORT)),
    (outcomes_frame, OUTCOME),
]


def through_parquet(frame: pd.DataFrame) -> pd.DataFrame:
    file = io.BytesIO()
    frame.to_parquet(file)
    return pd.read_parquet(file)


@pytest.mark.parametrize(("build", "row"), TABLES, ids=lambda v: getattr(v, "__name__", ""))
def test_columns_and_types_are_stable_and_survive_parquet(build: Build, row: Any) -> None:
    empty, full = build([]), build([row])

    assert len(empty) == 0
    assert len(full) >= 1
    pd.testing.assert_series_equal(empty.dtypes, full.dtypes)
    pd.testing.assert_series_equal(through_parquet(empty).dtypes, empty.dtypes)
    pd.testing.assert_frame_equal(through_parquet(full), full)


def test_tables_hold_every_field_of_their_records() -> None:
    assert set(cases_frame([]).columns) == set(Case.model_fields)
    assert set(outcomes_frame([]).columns) == set(Outcome.model_fields)
    assert set(generations_frame([]).columns) == set(Generation.model_fields) - {"attempts"} | {
        "retries"
    }
    assert set(attempts_frame([]).columns) == set(Attempt.model_fields) | {
        "run_id",
        "arm",
        "case_id",
    }
    assert set(reports_frame([]).columns) == (
        set(ImageReport.model_fields) - {"findings"} | {"run_id", "arm", "case_id"}
    )
    regions = {"region_x", "region_y", "region_width", "region_height"}
    assert set(findings_frame([]).columns) == (
        set(Finding.model_fields) - {"region"} | {"run_id", "arm", "case_id"} | regions
    )


def test_values_are_kept() -> None:
    attempts = attempts_frame([GENERATION])
    assert attempts["http_status"].tolist() == [pd.NA, 429]
    assert attempts["failure"].tolist()[1] == "throttled"
    assert attempts["case_id"].tolist() == ["c1", "c1"]
    finding = findings_frame([("r1", "candidate", "c1", FINDING)]).iloc[0]
    assert (finding["region_x"], finding["region_height"], finding["score"]) == (1, 4, 4.5)
    generation = generations_frame([GENERATION]).iloc[0]
    assert generation["retries"] == 1
    assert json.loads(generation["models"]) == ["folio-2", "acnet-x2"]
    assert json.loads(outcomes_frame([OUTCOME])["judged"][0]) == ["colour.cast", "decode.complete"]


def test_half_a_surrogate_pair_is_written_out() -> None:
    case = cases_frame([CASE]).iloc[0]
    assert case["prompt"] == "a \\ud83d b"
    assert json.loads(case["expected_text"]) == ["one", HALF]
    assert attempts_frame([GENERATION])["headers"][1] == '{"x-request-id":"\\ud83d"}'
