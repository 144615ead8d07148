from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tasks.errors import ConfigError
from tasks.policy import parse_strict
from tasks.rollout.outcomes.base import ArmOutcomes, InputSource, OutcomeError
from tasks.rollout.outcomes.config import SqlConfig
from tasks.rollout.outcomes.sql import SqlInputs, SqlSource

T0 = datetime(2020, 2, 29, 12, tzinfo=UTC)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
WINDOW = "product = :product AND ended >= :since AND ended < :until"
COUNTS = (
    "SELECT mix_digest, count(*) AS Images, sum(1 - ok) AS failures, sum(ms > 2000) AS slow, "
    "count(ms) AS timed, sum(cost) AS cost_microusd FROM requests WHERE @window GROUP BY 1"
)
ROWS = (
    "SELECT ended AS time, mix_digest, ok, ms AS latency_ms, cost AS cost_microusd, request_id "
    "FROM requests WHERE @window"
)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE requests (product, ended, mix_digest, ok, ms, cost, request_id, "
            "subtask, locale)"
        )
        for n in range(100):
            mix = (A, B, "sha256:" + "c" * 64)[(n % 10 > 6) + (n % 10 > 8)]
            values = (
                "shop" if n < 90 else "blog",
                at(n).timestamp(),
                mix,
                int(n % 9 > 0),
                n * 100 if n % 4 else None,
                19_000,
                f"r{n}",
                "fast" if n % 2 else "edit",
                None if n < 10 else "de",
            )
            connection.execute("INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    return path


def config(query: str, **fields: Any) -> SqlConfig:
    query = query.replace("@window", WINDOW).replace("@mix", A)
    if "inputs_query" in fields:
        fields["inputs_query"] = fields["inputs_query"].replace("@window", WINDOW)
    section = {"kind": "sql", "url_env": "SHOP_DB", "time_as": "epoch", "query": query, **fields}
    return parse_strict(SqlConfig, section, "test")


def source(path: Path, query: str, now: float = 10_000, **fields: Any) -> SqlSource:
    made = SqlInputs if "inputs_query" in fields else SqlSource
    return made(config(query, **fields), SecretStr(f"sqlite:///{path}"), lambda: at(now))


def test_counts_and_rows_say_the_same(database: Path) -> None:
    window = ("shop", [A, B], at(10), at(95))
    counts = source(database, COUNTS).read(*window)
    rows = source(database, ROWS, shape="rows", rows={"slow_above_ms": 2_000}).read(*window)
    assert counts.arms[A].images == rows.arms[A].images == 56
    assert counts.arms[B].failures == rows.arms[B].failures > 0
    assert counts.others == rows.others == 8
    # The query counts latencies of failures too; rows leave them out.
    assert counts.arms[A].slow is not None
    assert rows.arms[A].slow is not None
    assert counts.arms[A].slow >= rows.arms[A].slow > 0
    assert counts.arms[A].cost_microusd == rows.arms[A].cost_microusd == 56 * 19_000


def test_windows_add_up(database: Path) -> None:
    found = source(database, COUNTS)
    parts = [found.read("shop", [A], at(n), at(n + 10)).arms[A].images for n in range(0, 100, 10)]
    assert sum(parts) == found.read("shop", [A], at(0), at(100)).arms[A].images == 63


def test_no_rows_are_zero_and_no_column_is_not_measured(database: Path) -> None:
    tickets = "SELECT mix_digest, count(*) AS tickets FROM requests WHERE @window GROUP BY 1"
    found = source(database, tickets).read("shop", [A], at(500), at(600))
    assert found.arms[A] == ArmOutcomes(tickets=0)
    assert source(database, tickets).read("shop", [A], at(0), at(7)).arms[A].tickets == 7


def test_a_replica_that_lags_ends_the_window(database: Path) -> None:
    found = source(database, COUNTS, complete_query="SELECT max(ended) FROM requests")
    assert found.read("shop", [A], at(0), at(500)).until == at(99)
    assert source(database, COUNTS, now=80).read("shop", [A], at(0), at(500)).until == at(50)
    for query in ("SELECT NULL", "SELECT 1, 2", "SELECT 1 WHERE 1 = 2", "SELECT 'soon'"):
        with pytest.raises(OutcomeError, match="complete_query"):
            source(database, COUNTS, complete_query=query).read("shop", [A], at(0), at(9))


def test_inputs_seen(database: Path) -> None:
    query = "SELECT subtask, locale, count(*) AS images FROM requests WHERE @window GROUP BY 1, 2"
    found = source(database, COUNTS, inputs_query=query)
    assert isinstance(found, InputSource)
    assert not isinstance(source(database, COUNTS), InputSource)
    assert found.inputs_seen("shop", at(0), at(20)) == {
        ("edit", ""): 5,
        ("fast", ""): 5,
        ("edit", "de"): 5,
        ("fast", "de"): 5,
    }


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT mix_digest FROM requests WHERE @window", "counts"),
        ("SELECT count(*) AS images FROM requests WHERE @window", "mix_digest"),
        ("SELECT 'x' AS mix, -1 AS images FROM requests WHERE @window", "whole numbers"),
        ("SELECT 'x' AS mix, 0.5 AS images FROM requests WHERE @window", "whole numbers"),
        ("SELECT '@mix' AS mix, 1 AS images, 2 AS failures FROM requests WHERE @window", "sense"),
        ("SELECT 'x' AS mix, 1 AS images, 2 AS images FROM requests WHERE @window", "one name"),
        ("SELECT colour FROM requests WHERE @window", "no such column"),
        ("SELECT mix_digest FROM requests WHERE @window AND x = :other", "other"),
    ],
)
def test_queries_that_make_no_sense_are_errors(database: Path, query: str, problem: str) -> None:
    with pytest.raises(OutcomeError, match=problem):
        source(database, query).read("shop", [A], at(0), at(9))


def test_nothing_can_be_written(database: Path) -> None:
    query = (
        "WITH gone AS (SELECT 1) SELECT mix_digest, count(*) AS images FROM requests "
        "WHERE @window GROUP BY 1"
    )
    found = source(database, query)
    with found._connected() as connection, pytest.raises(Exception, match=r"readonly|read-only"):
        connection.exec_driver_sql("DELETE FROM requests")


def test_what_takes_too_long_is_ended(database: Path) -> None:
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT 'x' AS mix, count(*) AS images FROM n WHERE :since < :until AND :product > ''"
    )
    with pytest.raises(OutcomeError, match="interrupted"):
        source(database, endless, timeout_s=0.2).read("shop", [A], at(0), at(9))


def test_a_missing_database_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(OutcomeError, match="no such database"):
        source(tmp_path / "none.db", COUNTS).read("shop", [A], at(0), at(9))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("DELETE FROM requests WHERE :since < :until", "one query that reads"),
        ("SELECT 1 WHERE :since < :until; DROP TABLE requests", "only one statement"),
        ("SELECT 1 WHERE 1 < :until", ":since"),
    ],
)
def test_what_a_query_may_be(query: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config(query)


@pytest.mark.parametrize(
    "url", ["no address", "sqlite:///x.db", "nosuchdb://reader:secret@host/db", "oracle://h/db"]
)
def test_addresses_that_cannot_be_opened_are_told_without_their_secret(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SqlSource(config(COUNTS, time_as="timestamp"), SecretStr(url))
    assert "secret" not in str(caught.value)


def test_the_password_is_in_no_error() -> None:
    url = "postgresql+psycopg://reader:hunter2-secret@127.0.0.1:1/shop"
    found = SqlSource(config(COUNTS, timeout_s=1), SecretStr(url), lambda: at(100))
    with pytest.raises(OutcomeError) as caught:
        found.read("shop", [A], at(0), at(9))
    assert "hunter2" not in str(caught.value) + repr(found)
