"""Live outcomes from a real Prometheus: written to its store, and scraped live."""

from __future__ import annotations

import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.policy import parse_strict
from tasks.rollout.outcomes.api import JsonApi
from tasks.rollout.outcomes.base import ArmOutcomes, OutcomeError
from tasks.rollout.outcomes.config import PrometheusConfig
from tasks.rollout.outcomes.prometheus import PrometheusInputs, PrometheusSource
from tests.conftest import clean_environment, free_port
from tests.real.cluster import Process, find_program, until

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        find_program("prometheus") is None or find_program("promtool") is None,
        reason="needs Prometheus and promtool (Debian: prometheus)",
    ),
]
T0 = datetime(2020, 2, 29, 12, tzinfo=UTC)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
METRICS = {
    "images": 'requests_total{product="$product"}',
    "failures": 'requests_total{product="$product",outcome!="ok"}',
    "latency": 'latency_seconds{product="$product"}',
    "slow_above_s": 2,
    "cost": 'cost_usd_total{product="$product"}',
    "cost_unit": "usd",
    "inputs": 'inputs_total{product="$product"}',
}
Server = Callable[..., str]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Server]:
    """Start Prometheus over what a text of OpenMetrics holds, or over what it scrapes."""
    started: list[Process] = []

    def start(text: str = "", target: str = "") -> str:
        store, config = tmp_path / "store", tmp_path / "prometheus.yml"
        program, tool = find_program("prometheus"), find_program("promtool")
        assert program is not None
        assert tool is not None
        if text:
            (tmp_path / "metrics.txt").write_text(text)
            subprocess.run(
                [tool, "tsdb", "create-blocks-from", "openmetrics", "metrics.txt", str(store)],
                check=True,
                cwd=tmp_path,
                capture_output=True,
            )
        config.write_text(
            "scrape_configs: []\n"
            if not target
            else "scrape_configs:\n- {job_name: shop, scrape_interval: 200ms, "
            f"scrape_timeout: 200ms, static_configs: [{{targets: ['{target}']}}]}}\n"
        )
        port = free_port()
        arguments = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={store}",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        process = Process("prometheus", tmp_path, arguments, clean_environment())
        started.append(process)
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert process.lives, process.text()[-2_000:]
            try:
                return httpx.get(f"{url}/-/ready", timeout=5, trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        until("Prometheus is ready", ready)
        return url

    yield start
    for process in started:
        process.stop()


def source(url: str, now: Callable[[], datetime], **fields: Any) -> PrometheusSource:
    config = parse_strict(
        PrometheusConfig, {"kind": "prometheus", "url": url, "lag_s": 0, **METRICS, **fields}, "t"
    )
    return PrometheusInputs(config, JsonApi(url, {}, 60), now)


class World:
    """Two pods that serve two mixes for an hour, restart now and then, and are scraped."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self.rows: dict[str, list[str]] = {}
        #: What truly happened, by the moment of the scrape that saw it.
        self.truth: list[tuple[datetime, Counter[tuple[str, str]]]] = []
        for at in range(-600, 3_600, 15):
            self._write("up", 'instance="pod-1"', 1, at)
        for pod in ("pod-1", "pod-2"):
            counters: Counter[str] = Counter()
            for at in range(-600 if pod == "pod-1" else 900, 3_600, 15):
                if at > 0 and draw.random() < 0.02:
                    # A restart that its first scrape shows: one that grows beyond the old value
                    # before anybody looks is seen by nobody.
                    counters = Counter(dict.fromkeys(counters, 0))
                else:
                    self._serve(draw, counters, at, pod)
                for series, value in counters.items():
                    name, _, labels = series.partition("{")
                    self._write(name, labels, value, at)

    def _serve(self, draw: random.Random, counters: Counter[str], at: int, pod: str) -> None:
        happened: Counter[tuple[str, str]] = Counter()
        for _ in range(draw.randrange(8)):
            mix = B if at > 600 and draw.random() < 0.3 else A
            outcome = "ok" if draw.random() < 0.9 else draw.choice(["server", "empty"])
            seconds = draw.choice([0.5, 1.5, 3.0])
            same = f'product="shop",instance="{pod}",mix_digest="{mix}"'
            counters[f'requests_total{{{same},outcome="{outcome}"'] += 1
            counters[f'inputs_total{{{same},subtask="fast",locale="de"'] += 1
            counters[f"cost_usd_total{{{same}"] += 2
            for edge in ("1.0", "2.0", "+Inf"):
                counters[f'latency_seconds_bucket{{{same},le="{edge}"'] += seconds <= float(edge)
            counters[f"latency_seconds_count{{{same}"] += 1
            happened[mix, "images"] += 1
            happened[mix, "failures"] += outcome != "ok"
            happened[mix, "slow"] += seconds > 2
        self.truth.append((T0 + timedelta(seconds=at), happened))

    def _write(self, name: str, labels: str, value: float, at: int) -> None:
        moment = T0.timestamp() + at
        line = f"{name}{{{labels}}} {value} {moment:.3f}\n"
        self.rows.setdefault(name, []).append(line)

    @property
    def text(self) -> str:
        kinds = "".join(
            f"# TYPE {name} unknown\n" + "".join(lines) for name, lines in self.rows.items()
        )
        return kinds + "# EOF\n"

    def between(self, mix: str, since: datetime, until_: datetime) -> ArmOutcomes:
        total: Counter[str] = Counter()
        for at, happened in self.truth:
            if since < at <= until_:
                for (arm, name), count in happened.items():
                    total[name] += count if arm == mix else 0
        images = total["images"]
        return ArmOutcomes(
            images,
            total["failures"],
            total["slow"],
            images,
            images * 2_000_000,
            costed=images,
        )


def test_every_window_is_exact_through_restarts_and_new_pods(prometheus: Server) -> None:
    world = World(3)
    found = source(prometheus(world.text), lambda: T0 + timedelta(hours=1))
    edges = [0, 7, 333, 600, 901, 1_500, 1_515, 2_700, 3_599]
    total = {A: ArmOutcomes(), B: ArmOutcomes()}
    for one, other in zip(edges, edges[1:], strict=False):  # noqa: RUF007
        window = T0 + timedelta(seconds=one), T0 + timedelta(seconds=other)
        seen = found.read("shop", [A, B], *window)
        assert seen.until == window[1]
        for mix in (A, B):
            expected = world.between(mix, *window)
            assert seen.arms[mix] == expected, (one, other)
            total[mix] += seen.arms[mix]
    assert total[B].images > 200
    assert total[B].failures > 10
    assert isinstance(found, PrometheusInputs)
    inputs = found.inputs_seen("shop", T0, T0 + timedelta(seconds=3_599))
    assert inputs == {("fast", "de"): total[A].images + total[B].images}
    # Prometheus' own way misses what makes a series appear and extrapolates the rest.
    assert found.read("shop", [A], T0, T0 + timedelta(minutes=30)).others > 0


def test_names_that_nothing_exports_are_errors(prometheus: Server) -> None:
    url = prometheus(World(3).text)
    window = "shop", [A], T0, T0 + timedelta(minutes=30)

    def now() -> datetime:
        return T0 + timedelta(hours=1)

    with pytest.raises(OutcomeError, match="no series"):
        source(url, now, images="request_total").read(*window)
    with pytest.raises(OutcomeError, match="no series"):
        source(url, now, failures="failures_total").read(*window)
    with pytest.raises(OutcomeError, match=r"there are: 1\.0, 2\.0, \+Inf"):
        source(url, now, slow_above_s=3).read(*window)
    none = source(url, now, failures='requests_total{outcome="drift"}').read(*window)
    assert none.arms[A].failures == 0
    assert any("no series yet" in note for note in none.notes)


def test_a_prometheus_that_began_in_the_window_counts_from_its_first_sample(
    prometheus: Server,
) -> None:
    text = "".join(
        f'requests_total{{mix_digest="{A}",outcome="ok",product="shop"}} {value} '
        f"{T0.timestamp() + at:.3f}\n"
        for at, value in ((20, 1_000_000), (40, 1_000_007))
    )
    found = source(
        prometheus(f"# TYPE requests_total unknown\n{text}# EOF\n"),
        lambda: T0 + timedelta(hours=1),
        latency=None,
        slow_above_s=None,
        cost=None,
    )
    seen = found.read("shop", [A], T0, T0 + timedelta(minutes=1))
    assert seen.arms[A].images == 7
    assert any("nothing from before" in note for note in seen.notes)


class _Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.server.metrics().encode()  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def test_counters_that_are_scraped_live_restart_and_go_silent(prometheus: Server) -> None:
    counts: Counter[str] = Counter(ok=1_000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Exporter)
    server.daemon_threads = True
    server.metrics = (
        lambda: "".join(  # type: ignore[attr-defined]
            f'requests_total{{product="shop",mix_digest="{A[7:23]}",outcome="{name}"}} {count}\n'
            for name, count in list(counts.items())
        )
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        url = prometheus(target=f"127.0.0.1:{server.server_address[1]}")
        # A sample can be asked for a moment after the time that it bears: without a lag, a window
        # that ends in between loses it.
        found = source(
            url,
            lambda: datetime.now(UTC),
            lag_s=1,
            latency=None,
            slow_above_s=None,
            cost=None,
            inputs=None,
        )
        total, since = ArmOutcomes(), datetime.now(UTC)

        def reaches(images: int) -> bool:
            nonlocal total, since
            try:
                seen = found.read("shop", [A], since, datetime.now(UTC))
            except OutcomeError:
                return False  # Nothing is scraped yet.
            total, since = total + seen.arms[A], seen.until
            return total.images >= images

        def scraped() -> bool:
            # A window that surely has room for a sample: an empty one says 0 without asking.
            try:
                found.read("shop", [A], since - timedelta(seconds=10), datetime.now(UTC))
            except OutcomeError:
                return False
            return True

        until("the first sample is there", scraped)
        since = datetime.now(UTC)
        until("a sample before the traffic", lambda: reaches(0) and not total.images)
        begin = total
        counts.update(ok=50, server=3)
        until("the first requests", lambda: reaches(begin.images + 53))
        counts.clear()
        counts.update(ok=2)
        until("the restart", lambda: reaches(begin.images + 55))
        assert total.images - begin.images == 55
        assert total.failures - begin.failures == 3
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
