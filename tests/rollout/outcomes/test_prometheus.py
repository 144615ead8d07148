from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tasks.errors import ConfigError
from tasks.policy import parse_strict
from tasks.rollout.outcomes.api import JsonApi
from tasks.rollout.outcomes.base import InputSource, OutcomeError
from tasks.rollout.outcomes.config import PrometheusConfig
from tasks.rollout.outcomes.prometheus import PrometheusInputs, PrometheusSource, increase

T0 = datetime(2020, 2, 29, 12, tzinfo=UTC)
A = "sha256:" + "a" * 64
COUNTERS = {"images": "requests_total", "failures": 'requests_total{outcome!="ok"}'}


def config(**fields: Any) -> PrometheusConfig:
    return parse_strict(
        PrometheusConfig,
        {"kind": "prometheus", "url": "http://prometheus:9090", **COUNTERS, **fields},
        "test",
    )


def source(handler: Callable[[httpx.Request], httpx.Response], **fields: Any) -> PrometheusSource:
    headers = {"Authorization": SecretStr("Bearer tok-secret-123")}
    api = JsonApi("http://prometheus:9090", headers, 10, httpx.MockTransport(handler))
    return PrometheusSource(config(**fields), api, lambda: T0 + timedelta(hours=1))


def read(found: PrometheusSource, seconds: float = 60) -> Any:
    return found.read("shop", [A], T0, T0 + timedelta(seconds=seconds))


def answers(
    matrix: list[Any], vector: list[Any], count: bool = True
) -> Callable[[httpx.Request], httpx.Response]:
    def handler(request: httpx.Request) -> httpx.Response:
        query = parse_qs(request.content.decode())["query"][0]
        kind = "vector" if query.startswith(("last_over_time", "count(", "group")) else "matrix"
        result = vector if kind == "vector" else matrix
        if query.startswith("count("):
            result = [{"metric": {}, "value": [0, "1"]}] if count else []
        return httpx.Response(
            200, json={"status": "success", "data": {"resultType": kind, "result": result}}
        )

    return handler


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5),
    st.integers(0, 30),
)
def test_increase_is_what_happened_whatever_the_restarts(
    lives: list[list[int]], split: int
) -> None:
    """A counter restarts with every life; what it missed is only what no sample saw."""
    samples: list[tuple[float, float]] = []
    truth, at = 0, 0
    for life in lives:
        value = 0
        for step in life:
            value += step
            at += 1
            if samples and value >= samples[-1][1] and step != value - samples[-1][1]:
                return  # A restart that no sample shows cannot be known.
            samples.append((at, value))
            truth += step
    cut = min(split, len(samples))
    base = samples[cut - 1][1] if cut else None
    assert increase(None, samples[:cut]) + increase(base, samples[cut:]) == truth


def test_raw_samples_are_asked_for_with_the_products_name() -> None:
    asked: list[tuple[str, str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        form = parse_qs(request.content.decode())
        asked.append((form["query"][0], form["time"][0]))
        assert request.headers["Authorization"] == "Bearer tok-secret-123"
        return answers(
            [{"metric": {"mix_digest": A}, "values": [[T0.timestamp() + 50, "7"]]}],
            [{"metric": {"mix_digest": A}, "value": [T0.timestamp(), "4"]}],
        )(request)

    found = source(handler, images='requests_total{product="$product"}')
    arm = found.read('a"b', [A], T0, T0 + timedelta(seconds=60)).arms[A]
    assert (arm.images, arm.failures) == (3, 3)
    assert asked[0] == ('requests_total{product="a\\"b"}[60000ms]', "1582977660.000")
    assert asked[1] == ('last_over_time(requests_total{product="a\\"b"}[86400s])', "1582977600.000")


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(503, json={"status": "error", "error": "overloaded"}),
        httpx.Response(400, json={"status": "error", "error": "bad query"}),
        httpx.Response(401, text="no"),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[1]),
        httpx.Response(200, json={"status": "success"}),
        httpx.Response(200, json={"status": "success", "data": {"resultType": "scalar"}}),
        httpx.Response(302, headers={"Location": "http://elsewhere/"}),
        httpx.Response(200, json={"status": "success", "data": {}, "warnings": ["store is down"]}),
        httpx.Response(200, text="[" * 100_000),
    ],
    ids=range(10),
)
def test_whatever_is_no_whole_answer_is_an_error_and_no_failure(response: httpx.Response) -> None:
    with pytest.raises(OutcomeError):
        read(source(lambda _: response))


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-3"])
def test_values_that_no_counter_has_are_refused(value: str) -> None:
    series = [{"metric": {"mix_digest": A}, "values": [[T0.timestamp() + 5, value]]}]
    with pytest.raises(OutcomeError, match="no known form"):
        read(source(answers(series, [])))


def test_the_token_is_in_no_error() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(403, json={"error": f"not {request.headers['Authorization']}"})

    with pytest.raises(OutcomeError) as caught:
        read(source(handler))
    assert "tok-secret-123" not in str(caught.value)

    def unreachable(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    with pytest.raises(OutcomeError, match="cannot be reached"):
        read(source(unreachable))


def test_a_metric_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OutcomeError, match="no series"):
        read(source(answers([], [], count=False)))


def test_a_recording_that_stopped_is_not_silence() -> None:
    old = [{"metric": {"mix_digest": A}, "values": [[T0.timestamp() + 1, "4"]]}]
    base = [{"metric": {"mix_digest": A}, "value": [T0.timestamp(), "4"]}]
    assert read(source(answers(old, base, count=False)), 60).arms[A].images == 0
    assert read(source(answers(old, base)), 600).arms[A].images == 0
    with pytest.raises(OutcomeError, match="nothing is being recorded"):
        read(source(answers(old, base, count=False)), 600)


def test_a_long_window_is_read_in_parts() -> None:
    late = [{"metric": {"mix_digest": A}, "values": [[T0.timestamp() + 6 * 3600 - 1, "9"]]}]
    found = source(answers(late, []))
    found._clock = lambda: T0 + timedelta(days=3)
    assert read(found, 2 * 86_400).until == T0 + timedelta(hours=6)


def test_inputs_need_their_counter() -> None:
    api = JsonApi("http://prometheus:9090", {}, 10)
    assert not isinstance(PrometheusSource(config(), api), InputSource)
    assert isinstance(PrometheusInputs(config(inputs="x"), api), InputSource)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"images": "sum(requests_total)"}, "metric with matchers"),
        ({"images": 'x{a="}"} or y{}'}, "metric with matchers"),
        ({"images": "x[5m]"}, "metric with matchers"),
        ({"failures": None}, "go together"),
        ({"latency": "h"}, "go together"),
        ({"url": "http://user:pw@host"}, "without a user"),
        ({"url": "ftp://host"}, "http"),
        ({"images": None, "failures": None}, "at least one"),
    ],
)
def test_what_the_section_may_say(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config(**fields)


def test_too_large_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.rollout.outcomes import api

    monkeypatch.setattr(api, "MOST_BYTES", 1_000)
    body = json.dumps({"status": "success", "data": "x" * 5_000})
    with pytest.raises(OutcomeError, match="above 1,000 bytes"):
        read(source(lambda _: httpx.Response(200, text=body)))
