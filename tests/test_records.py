from __future__ import annotations

import hashlib
import json
import pickle
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.errors import DataError, PreflightError, known
from tasks.records import (
    Attempt,
    Case,
    Generation,
    Usage,
    canonical_json,
    digest_bytes,
    digest_json,
    microusd,
    usd,
    utc_now,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None), max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=15,
)


def test_canonical_json_is_the_same_for_the_same_value() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "ü"]}) == '{"a":[1.5,"ü"],"b":1}'
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            canonical_json({"a": bad})


@given(JSON)
def test_canonical_json_comes_back_and_has_a_digest(value: object) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest_json(value))


def test_digests_are_sha256_of_the_bytes() -> None:
    assert digest_bytes(b"x") == "sha256:" + hashlib.sha256(b"x").hexdigest()
    assert digest_json({"a": 1}) == digest_bytes(b'{"a":1}')


@given(st.integers(0, 10**12))
def test_money_goes_to_dollars_and_back(amount: int) -> None:
    assert microusd(usd(amount)) == amount


@given(st.floats(0, 1e6))
def test_money_is_never_rounded_down(dollars: float) -> None:
    assert usd(microusd(dollars)) >= dollars - 1e-9


def test_small_money_is_exact() -> None:
    assert [microusd(d) for d in (0.036, 0.1 + 0.2, 0.0000001, 0)] == [36_000, 300_000, 1, 0]


def test_now_is_utc_with_milliseconds() -> None:
    before = datetime.now(UTC)
    now = utc_now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now)
    assert abs((datetime.fromisoformat(now) - before).total_seconds()) < 60


def case(**more: object) -> Case:
    return Case.model_validate({"case_id": "c", "prompt": 'a "b"', "subtask": "fast"} | more)


def test_a_case_is_known_by_what_is_asked_for() -> None:
    base = case()
    same = [
        case(case_id="other"),
        case(weight=3),
        case(stratum="x"),
        case(origin="stress"),
        case(theme="t"),
    ]
    other = [
        case(prompt="b"),
        case(subtask="edit"),
        case(locale="th"),
        case(width=1024),
        case(height=1024),
        case(expected_text=("b",)),
        case(brand="northwind"),
        case(upload="u.jpg"),
        case(expect="refusal"),
    ]
    assert {c.digest for c in same} == {base.digest}
    assert len({base.digest, *(c.digest for c in other)}) == len(other) + 1


def test_a_prompt_with_half_a_surrogate_has_a_digest() -> None:
    assert case(prompt="\ud800").digest != case(prompt="\ud801").digest


@pytest.mark.parametrize(
    "field",
    [
        {"width": 8},
        {"height": 9000},
        {"weight": 0},
        {"subtask": "paint"},
        {"origin": "x"},
        {"expect": "maybe"},
        {"colour": "red"},
    ],
)
def test_a_case_out_of_range_or_with_unknown_fields_is_refused(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        case(**field)


def test_records_do_not_change() -> None:
    with pytest.raises(ValidationError):
        case().prompt = "other"


def test_retries_are_counted_within_each_stage() -> None:
    def attempt(stage: int, number: int) -> Attempt:
        return Attempt(stage=stage, number=number, model="m", started_at="t")

    generation = Generation(
        run_id="r",
        arm="candidate",
        mix_digest="d",
        case_id="c",
        seed=1,
        models=("a", "b"),
        status="ok",
        attempts=(attempt(0, 1), attempt(0, 2), attempt(1, 1), attempt(1, 2), attempt(1, 3)),
    )
    assert generation.retries == 3
    assert generation.model_copy(update={"attempts": ()}).retries == 0


@given(st.text(), st.none() | st.integers(1), st.none() | st.text(), st.text())
def test_errors_cross_process_borders(
    path: str, row: int | None, field: str | None, problem: str
) -> None:
    error = DataError(path, row, field, problem)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301, TID251 - our own bytes
    assert (str(again), again.row, again.field) == (str(error), row, field)
    refusal = PreflightError([problem, "two"])
    assert pickle.loads(pickle.dumps(refusal)).problems == (problem, "two")  # noqa: S301, TID251


def test_a_data_error_says_file_row_and_field() -> None:
    assert (
        str(DataError("log.csv", 7, "width", "too big")) == "log.csv, row 7, field 'width': too big"
    )
    assert str(DataError("log.csv", None, None, "empty")) == "log.csv: empty"


def test_known_names_are_sorted_and_cut() -> None:
    assert known(["b", "a"]) == "(known: a, b)"
    assert known([]) == "(known: none)"
    assert known(map(str, range(20)), most=2) == "(known: 0, 1, …)"


#: As the first release wrote it.
OLD_ATTEMPT = {
    "schema_version": 1,
    "stage": 0,
    "number": 1,
    "model": "m",
    "started_at": "2026-11-22T00:00:00.000Z",
    "queued_s": 0.0,
    "ttfb_s": None,
    "total_s": 0.0,
    "http_status": None,
    "failure": None,
    "message": "",
    "retry_after_s": None,
    "billed": "no",
    "cost_microusd": 0,
    "cost_source": "list",
    "idempotency_key": "",
    "provider_request_id": None,
    "model_reported": None,
    "declared_mime": None,
    "sniffed_mime": None,
    "finish_reason": None,
    "body_digest": None,
    "body_bytes": 0,
    "headers": {},
}


def test_attempts_of_the_first_release_read_and_dump_as_they_were() -> None:
    attempt = Attempt.model_validate(OLD_ATTEMPT)
    assert attempt.model_dump(mode="json") == OLD_ATTEMPT
    assert json.loads(attempt.model_dump_json()) == OLD_ATTEMPT
    assert (attempt.seed_used, attempt.usage, attempt.pin) == (None, None, None)


def test_what_later_attempts_say_survives_the_journal() -> None:
    usage = Usage(image_out=1120, credits=6.5, raw={"a": [1, {"b": "c"}]})
    attempt = Attempt.model_validate(OLD_ATTEMPT | {"seed_used": 0, "usage": usage, "pin": "moved"})
    again = Attempt.model_validate_json(attempt.model_dump_json())
    assert again == attempt
    assert (again.seed_used, again.usage, again.pin) == (0, usage, "moved")


@pytest.mark.parametrize(
    "field", [{"image_out": -1}, {"credits": float("nan")}, {"gpu_seconds": 1e9}, {"tokens": 3}]
)
def test_a_usage_holds_sane_numbers(field: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Usage(**field)
