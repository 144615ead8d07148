"""Spans: one tree over threads and coroutines, nothing secret in it, nothing at all without it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tasks import telemetry
from tasks.records import FailureClass
from tasks.settings import Settings, load_settings
from tasks.state import State
from tests.conftest import ROOT
from tests.fakes.otlp_server import Collector
from tests.harness.test_run import Bench, some_cases

SECRET = "sk-very-secret-0123456789"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


def settings_of(tmp_path: Path, **env: str) -> Settings:
    return load_settings({"IMAGEGATE_HOME": str(tmp_path), **env})


def fail_the_test(text: str) -> None:
    raise AssertionError(text)


def by_name(spans: tuple[ReadableSpan, ...]) -> dict[str, list[ReadableSpan]]:
    found: dict[str, list[ReadableSpan]] = {}
    for span in spans:
        found.setdefault(span.name, []).append(span)
    return found


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def test_a_shard_is_a_tree_of_requests_with_the_figures_and_no_prompt(
    tmp_path: Path, state: State
) -> None:
    memory = InMemorySpanExporter()
    address = f"https://user:{SECRET}@images.example:8443/v1?key={SECRET}"
    bench = Bench(tmp_path, state)
    bench.answering = lambda request: (
        FailureClass.SERVER if request.attempt == 1 and "prompt 0" in request.prompt else None
    )
    plan = bench.plan(some_cases(6, subtask="upscale"))

    @telemetry.stage
    def run_harness(arm: str, shard: int) -> None:
        bench.run(plan, arm, shard=shard, endpoints={"embedded": address})

    with (
        telemetry.tracing(
            "release-gate", settings_of(tmp_path), fail_the_test, exporter=lambda: memory
        ),
        ThreadPoolExecutor(1) as pool,
    ):
        # As Prefect's runner does it: another thread, with a copy of the context.
        pool.submit(copy_context().run, run_harness, "candidate", 0).result()
    spans = by_name(memory.get_finished_spans())
    (root,), (shard,) = spans["release-gate"], spans["run_harness"]
    assert parent_of(root) is None
    assert parent_of(shard) == root.context.span_id
    assert shard.attributes is not None
    assert shard.attributes["imagegate.arm"] == "candidate"
    assert shard.attributes["imagegate.shard"] == 0
    asked = spans["generate_content m"]
    assert len(asked) == 7
    assert len(spans["generate_content up"]) == 7
    for span in asked:
        assert parent_of(span) == shard.context.span_id
        assert span.attributes is not None
        assert span.attributes["http.request.method"] == "POST"
        assert span.attributes["gen_ai.request.model"] == "m"
        assert span.attributes["server.address"] == "images.example"
        assert span.attributes["server.port"] == 8443
        assert str(span.attributes["imagegate.case_id"]).startswith("c")
    (failed,) = [s for s in asked if not s.status.is_ok and s.status.status_code.name == "ERROR"]
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "server"
    assert failed.attributes["imagegate.attempt"] == 1
    again = [s for s in asked if s.attributes and s.attributes["imagegate.attempt"] == 2]
    assert [s.attributes["http.request.resend_count"] for s in again if s.attributes] == [1]
    paid = sum(float(s.attributes["imagegate.cost_usd"]) for s in asked if s.attributes)  # type: ignore[arg-type]
    assert paid > 0
    told = "".join(span.to_json() for span in memory.get_finished_spans())
    assert SECRET not in told
    assert "prompt 0" not in told


def test_an_error_leaves_its_class_and_not_its_message(tmp_path: Path) -> None:
    memory = InMemorySpanExporter()

    @telemetry.stage
    def preflight(run_id: str) -> None:
        raise ValueError(f"the key {SECRET} of {run_id} is wrong")

    with (
        pytest.raises(ValueError, match="is wrong"),
        telemetry.tracing("gate", settings_of(tmp_path), fail_the_test, exporter=lambda: memory),
    ):
        preflight("r")
    for span in memory.get_finished_spans():
        assert span.attributes is not None
        assert span.attributes["error.type"] == "ValueError"
        assert SECRET not in span.to_json()


def test_gates_side_by_side_share_a_tracer_and_the_last_one_closes_it(tmp_path: Path) -> None:
    memory = InMemorySpanExporter()
    both = threading.Barrier(2, timeout=30)

    def gate(name: str) -> None:
        with telemetry.tracing(name, settings_of(tmp_path), fail_the_test, exporter=lambda: memory):
            both.wait()
            with telemetry.span("work", {"of": name}):
                both.wait()

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(gate, name) for name in ("one", "two")]:
            future.result()
    spans = by_name(memory.get_finished_spans())
    roots = {name: spans[name][0] for name in ("one", "two")}
    for work in spans["work"]:
        assert work.attributes is not None
        assert parent_of(work) == roots[str(work.attributes["of"])].context.span_id
    assert telemetry.span("x").__enter__() is telemetry.span("y").__enter__()


def test_it_goes_over_the_wire_as_otlp_below_the_span_of_the_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with Collector() as collector:
        # The exporter reads the process's own environment, as the standard says.
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=images")
        settings = settings_of(
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            TRACEPARENT=f"00-{trace}-b7ad6b7169203331-01",
        )
        with telemetry.tracing("release-gate", settings, fail_the_test) as root:
            root.set({"imagegate.run_id": "lone \ud800 surrogate", "left out": None})
            telemetry.note({"imagegate.verdict": "HOLD"})
    (span,) = collector.spans
    assert (span.trace, span.parent) == (trace, "b7ad6b7169203331")
    assert span.resource["service.name"] == "imagegate"
    assert span.attributes == {
        "imagegate.run_id": "lone \\ud800 surrogate",
        "imagegate.verdict": "HOLD",
    }
    assert collector.headers[0]["x-tenant"] == "images"


@pytest.mark.parametrize("how", ["nobody listens", "it hangs"])
def test_a_dead_collector_is_said_and_harms_nothing(
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as closed, Collector(hangs=True) as hanging:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        address = hanging.endpoint if how == "it hangs" else f"http://127.0.0.1:{port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        settings = settings_of(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=address)
        said: list[str] = []
        with telemetry.tracing("gate", settings, said.append, flush_s=0.2):
            for _ in range(3000):  # more than the queue of the SDK holds
                with telemetry.span("work"):
                    pass
        # Given up, the SDK stops to try: it must not go on beside what this process does next.
        hanging.hang_up()
        for thread in threading.enumerate():
            if thread.name.startswith(("telemetry-flush", "OtelBatch")):
                thread.join(60)
                assert not thread.is_alive(), thread.name
    (sentence,) = said
    assert "of 3001 spans were not taken" in sentence
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "off",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_the_standard_variables_switch_it_off(tmp_path: Path, off: dict[str, str]) -> None:
    settings = settings_of(tmp_path, **off)
    assert not telemetry.wanted(settings)
    with telemetry.tracing("gate", settings, fail_the_test):
        assert telemetry.span("a") is telemetry.span("b")


def test_without_a_collector_the_sdk_is_not_imported() -> None:
    code = (
        "import sys; from tasks import telemetry; from tasks.settings import load_settings\n"
        "import tasks.harness.run\n"
        "with telemetry.tracing('g', load_settings({}), print):\n"
        "    with telemetry.span('s') as s: s.set({'a': 1}); telemetry.note({'b': 2})\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_a_missing_sdk_is_said_and_traces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    settings = settings_of(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    said: list[str] = []
    with telemetry.tracing("gate", settings, said.append) as root:
        root.set({"a": 1})
    assert "imagegate[otel]" in said[0]
