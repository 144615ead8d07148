"""The gate's metrics: what the database holds, by Prometheus' own parser, and nothing unbounded."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from flows.cli_metrics import address_of
from tasks import metrics_export
from tasks.errors import ConfigError
from tasks.harness.ledger import SpendLedger
from tasks.metrics_export import registry_of
from tasks.metrics_tables import MOST_PRODUCTS, OTHER
from tasks.records import utc_now
from tasks.runs import begin_run, end_run
from tasks.settings import Settings, load_settings
from tasks.state import State
from tasks.tables import approvals, freezes, incidents, journal, outbox, production, runs
from tests.conftest import ROOT, Command

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"IMAGEGATE_HOME": str(tmp_path / "home")})


@pytest.fixture
def state(settings: Settings) -> Iterator[State]:
    opened = State(settings.state_url.get_secret_value())
    yield opened
    opened.close()


def scraped(settings: Settings, **options: Any) -> Samples:
    text = generate_latest(registry_of(settings, **options)).decode()
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("imagegate_"), family.name
        assert family.documentation, family.name
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def a_result(failures: int = 6, n: int = 120, **changes: Any) -> str:
    rate = {"estimate": failures / n, "lower": 0.02, "upper": 0.11, "n": n, "failures": failures}
    return json.dumps(
        {
            "failure_rate": rate,
            "baseline_failure_rate": rate | {"estimate": None},
            "accounts": {"defect": 3, "refused": 1, "undelivered": 2, "unmeasured": 0},
            "images": n,
            "effective_cost_per_1k_usd": 19.5,
            "baseline_effective_cost_per_1k_usd": None,
            "spend_usd": 3.25,
            "seconds": 61.5,
        }
        | changes
    )


def a_run(state: State, name: str, product: str, verdict: Any = None, **end: Any) -> None:
    begin_run(state, name, product, "sha256:c", "sha256:b")
    if verdict is not None:
        end_run(state, name, "finished", verdict, end.get("result", a_result()))


def put(state: State, table: sa.Table, **values: Any) -> None:
    with state.begin() as connection:
        connection.execute(sa.insert(table).values(**values))


def test_it_counts_runs_verdicts_and_the_last_good_one(settings: Settings, state: State) -> None:
    a_run(state, "r1", "shop", "PROMOTE")
    a_run(state, "r2", "shop", "HOLD")
    a_run(state, "r3", "shop")
    end_run(state, "r3", "failed")
    a_run(state, "r4", "blog", "ROLLBACK", result=a_result(failures=30))
    with state.begin() as connection:
        for name, at in (
            ("r1", "2026-11-24T00:00:00.000Z"),
            ("r2", "2026-11-24T12:00:00.000Z"),
            ("r3", "2026-11-25T00:00:00.000Z"),
        ):
            connection.execute(sa.update(runs).where(runs.c.run_id == name).values(ended_at=at))
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    found = scraped(settings, now=lambda: now)
    assert of(found, "imagegate_state_up") == 1
    assert of(found, "imagegate_runs_total", product="shop") == 3
    by_state = "imagegate_runs_by_state"
    assert of(found, by_state, product="shop", status="finished", verdict="PROMOTE") == 1
    assert of(found, by_state, product="shop", status="failed", verdict="") == 1
    assert of(found, "imagegate_last_good_run_age_seconds", product="shop") == 36 * 3600
    assert of(found, "imagegate_last_run_age_seconds", product="shop") == 12 * 3600
    assert of(found, "imagegate_last_good_run_timestamp_seconds", product="shop") == (
        datetime(2026, 11, 24, tzinfo=UTC).timestamp()
    )
    ratio = "imagegate_last_run_failure_ratio"
    assert of(found, ratio, product="blog", arm="candidate", bound="estimate") == 0.25
    assert of(found, ratio, product="blog", arm="candidate", bound="upper") == 0.11
    # A rate that was not measured is no sample, and never a zero.
    assert of(found, ratio, product="blog", arm="baseline", bound="estimate") is None
    assert of(found, "imagegate_last_run_images", product="blog", outcome="good") == 114
    assert of(found, "imagegate_last_run_images", product="blog", outcome="undelivered") == 2
    cost = "imagegate_last_run_effective_cost_dollars"
    assert of(found, cost, product="blog", arm="candidate") == 19.5
    assert of(found, cost, product="blog", arm="baseline") is None


def test_a_run_whose_process_is_gone_is_dead(settings: Settings, state: State) -> None:
    a_run(state, "alive", "shop")
    a_run(state, "dead", "shop")
    with state.begin() as connection:
        silent = datetime.now(UTC) - timedelta(minutes=5)
        connection.execute(
            sa.update(runs)
            .where(runs.c.run_id == "dead")
            .values(host="another-host", heartbeat_at=silent.isoformat())
        )
    assert of(scraped(settings), "imagegate_runs_dead", product="shop") == 1


def test_it_tells_money_and_the_budget(settings: Settings, state: State, tmp_path: Path) -> None:
    check_money_and_budget(settings, state, tmp_path, "shop")


def check_money_and_budget(settings: Settings, state: State, tmp_path: Path, product: str) -> None:
    run_id = f"of-{product}"
    a_run(state, run_id, product)
    book = SpendLedger(state, run_id, 10**9, 10**9)
    for key in ("booked", "unknown", "reserved"):
        book.reserve(
            key, arm="candidate", case_id="c", stage=0, attempt=1, model="m", microusd=500_000
        )
    book.book("booked", 200_000)
    book.mark_unknown("unknown")
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text(
        "raised_by: {name: lead, contact: '#c'}\n"
        "all: {day_usd: {soft: 5, hard: 10}}\n"
        f"products: {{{product}: {{month_usd: {{hard: 50}}}}}}\n",
        encoding="utf-8",
    )
    found = scraped(settings.model_copy(update={"budgets_file": budgets}))
    assert of(found, "imagegate_spend_dollars", product=product) == pytest.approx(1.2)
    for status in ("unknown", "reserved"):
        doubtful = of(found, "imagegate_spend_uncertain_dollars", product=product, status=status)
        assert doubtful == pytest.approx(0.5)
    for scope, window in (("all", "day"), (product, "month")):
        spent = of(found, "imagegate_budget_spent_dollars", scope=scope, window=window)
        assert spent == pytest.approx(1.2)
    limit = "imagegate_budget_limit_dollars"
    assert of(found, limit, scope="all", window="day", limit="hard") == 10
    assert of(found, limit, scope=product, window="month", limit="hard") == 50
    assert of(found, limit, scope=product, window="month", limit="soft") is None
    damaged = settings.model_copy(update={"budgets_file": tmp_path / "missing.yaml"})
    assert of(scraped(damaged), "imagegate_budget_up") == 0


def test_it_tells_alerts_production_freezes_and_questions(settings: Settings, state: State) -> None:
    at = "2026-11-25T10:00:00.000Z"
    later = "2999-01-01T00:00:00.000Z"
    for key, status, severity in (
        ("a", "pending", "page"),
        ("b", "delivered", "page"),
        ("c", "sending", "info"),
        ("d", "superseded", "info"),
    ):
        put(
            state,
            outbox,
            dedup_key=key,
            channel="slack",
            payload="{}",
            status=status,
            attempts=0,
            created_at=at,
            severity=severity,
        )
    put(
        state,
        incidents,
        key="k",
        number=1,
        severity="page",
        title="t",
        status="open",
        count=3,
        opened_at=at,
        last_at=at,
    )
    put(
        state,
        production,
        product="shop",
        mix_digest="sha256:a",
        epoch=7,
        applied_epoch=5,
        changed_at=at,
    )
    for run, until, released in (
        ("r", later, None),
        (None, later, None),
        (None, at, None),
        (None, later, at),
    ):
        put(
            state,
            freezes,
            product="shop",
            mix_digest="sha256:a",
            owner="kim",
            reason="x",
            run_id=run,
            from_at=at,
            until_at=until,
            released_at=released,
        )
    for arm, case in (("candidate", "c1"), ("candidate", "c2"), ("baseline", "c1")):
        put(state, journal, run_id="r1", arm=arm, case_id=case, generation="{}")
    a_run(state, "r1", "shop")
    waiting = {
        "run_id": "r1",
        "product": "shop",
        "status": "pending",
        "asked_because": "x",
        "requester": "kim",
        "requested_at": at,
        "expires_at": later,
        "verdict": "{}",
        "rules": "{}",
        "journal_id": 0,
    }
    put(state, approvals, **waiting)
    now = datetime(2026, 11, 25, 10, 30, tzinfo=UTC)
    found = scraped(settings, now=lambda: now)
    assert of(found, "imagegate_alerts_undelivered", severity="page") == 1
    assert of(found, "imagegate_alerts_undelivered", severity="info") == 1
    assert of(found, "imagegate_alerts_undelivered", severity="warning") == 0
    assert of(found, "imagegate_alerts_oldest_undelivered_age_seconds") == 1800
    assert of(found, "imagegate_incidents_open", severity="page") == 1
    assert of(found, "imagegate_production_epoch", product="shop") == 7
    assert of(found, "imagegate_production_unapplied", product="shop") == 2
    assert of(found, "imagegate_freezes_active", product="shop", holder="run") == 1
    assert of(found, "imagegate_freezes_active", product="shop", holder="person") == 1
    assert of(found, "imagegate_approvals_pending", product="shop") == 1
    assert of(found, "imagegate_images_total", product="shop", arm="candidate") == 2


def test_names_of_products_cannot_make_series_without_end(settings: Settings, state: State) -> None:
    with state.begin() as connection:
        connection.execute(
            sa.insert(runs),
            [
                {
                    "run_id": f"r{n}",
                    "product": f"product-{n:04}",
                    "status": "finished",
                    "verdict": "PROMOTE",
                    "candidate_digest": "c",
                    "baseline_digest": "b",
                    "started_at": utc_now(),
                    "ended_at": utc_now(),
                    "host": "h",
                    "pid": 1,
                    "result": a_result(),
                }
                for n in range(3 * MOST_PRODUCTS)
            ],
        )
    a_run(state, "evil", 'x"} 1\nimagegate_state_up 0 \\')
    found = scraped(settings)
    products = {dict(labels).get("product") for _, labels in found} - {None}
    assert len(products) == MOST_PRODUCTS + 1
    assert OTHER in products
    total = sum(v for (name, _), v in found.items() if name == "imagegate_runs_total")
    assert total == 3 * MOST_PRODUCTS + 1
    assert of(found, "imagegate_state_up") == 1


def test_a_database_that_fails_is_down_and_not_zero(settings: Settings, state: State) -> None:
    a_run(state, "r1", "shop", "PROMOTE")
    registry = registry_of(settings)
    state.close()
    (settings.home / "state.db").write_bytes(b"no database at all" * 100)
    for rest in ("state.db-wal", "state.db-shm"):
        (settings.home / rest).unlink(missing_ok=True)
    text = generate_latest(registry).decode()
    samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
    assert [(s.name, s.value) for s in samples] == [("imagegate_state_up", 0.0)]


def test_a_scrape_waits_for_no_gate_and_no_gate_for_it(settings: Settings, state: State) -> None:
    a_run(state, "r1", "shop")
    registry = registry_of(settings)
    with state.begin() as connection:  # a gate writes, and is not done
        connection.execute(sa.update(runs).values(status="stopped"))
        text = generate_latest(registry).decode()
    assert "imagegate_state_up 1.0" in text
    assert 'status="running"' in text
    collector = metrics_export.StateCollector(settings, lambda: datetime.now(UTC))
    families = collector.collect()
    next(families)
    # In the midst of a scrape a writer gets its lock at once.
    with sqlite3.connect(settings.home / "state.db", timeout=0) as writer:
        writer.execute("UPDATE runs SET status = 'failed'")
    assert list(families)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9464", ("127.0.0.1", 9464)),
        (":9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),  # noqa: S104 - an example
        ("[::1]:0", ("::1", 0)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert address_of(text) == expected


@pytest.mark.parametrize("text", ["", "host", "host:", "1:70000", "host:-1", "host:٣"])
def test_wrong_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST"):
        address_of(text)


def test_the_command_prints_and_serves_until_it_is_told_to_end(light_imagegate: Command) -> None:
    printed = light_imagegate("metrics")
    assert printed.code == 0, printed.err
    names = {f.name for f in text_string_to_metric_families(printed.out)}
    assert {"imagegate_runs", "imagegate_state_up", "imagegate_alerts_undelivered"} <= names
    process = light_imagegate.start("metrics", "--serve", "0")
    assert process.stderr is not None
    line = process.stderr.readline()
    try:
        url = line.split()[2].rstrip(",")
        assert url.startswith("http://127.0.0.1:")
        answer = httpx.get(url, timeout=10, trust_env=False)
        assert answer.status_code == 200
        assert {f.name for f in text_string_to_metric_families(answer.text)} == names
        port = url.split(":")[2].split("/")[0]
        taken = light_imagegate("metrics", "--serve", port)
        assert taken.code == 2
        assert "cannot listen" in taken.err
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err


def test_help_does_not_import_it() -> None:
    code = (
        "import sys, flows.cli; heavy = ('prometheus_client', 'opentelemetry');"
        "print([m for m in sys.modules if m.split('.')[0] in heavy])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
