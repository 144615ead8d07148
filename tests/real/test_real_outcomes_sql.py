"""Live outcomes from a real PostgreSQL: moments with zones, decimals, limits, read-only."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from tasks.policy import parse_strict
from tasks.rollout.outcomes.base import ArmOutcomes, OutcomeError
from tasks.rollout.outcomes.config import SqlConfig
from tasks.rollout.outcomes.sql import SqlInputs, SqlSource
from tests.fakes.postgres import PASSWORD, Postgres

pytestmark = pytest.mark.real
T0 = datetime(2020, 2, 29, 12, tzinfo=UTC)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
COUNTS = """
SELECT mix_digest, count(*) AS images, count(*) FILTER (WHERE NOT ok) AS failures,
       count(*) FILTER (WHERE latency_ms > 2000) AS slow, count(latency_ms) AS timed,
       sum(cost_microusd)::numeric AS cost_microusd
FROM requests
WHERE product = :product AND ended_at >= :since AND ended_at < :until::timestamptz
GROUP BY mix_digest
"""
ROWS = """
SELECT ended_at AS time, mix_digest, ok, latency_ms, cost_microusd, id AS request_id
FROM requests WHERE product = :product AND ended_at >= :since AND ended_at < :until
"""
INPUTS = """
SELECT 'fast' AS subtask, locale, count(*) AS images FROM requests
WHERE product = :product AND ended_at >= :since AND ended_at < :until GROUP BY locale
"""


@pytest.fixture(scope="module")
def url(postgres: Postgres) -> str:
    name = postgres.database()
    with closing(postgres.connect(name)) as connection:
        connection.execute(
            "CREATE TABLE requests (id bigserial, product text, ended_at timestamptz, "
            "mix_digest text, ok boolean, latency_ms real, cost_microusd bigint, locale text)"
        )
        connection.execute(
            "INSERT INTO requests (product, ended_at, mix_digest, ok, latency_ms, cost_microusd, "
            "locale) SELECT 'shop', %s + n * interval '0.1 second', CASE WHEN n %% 20 = 0 THEN %s "
            "ELSE %s END, n %% 50 > 0, n %% 3000, 19000, CASE WHEN n %% 2 = 0 THEN 'de' END "
            "FROM generate_series(0, 9999) AS n",
            (T0, B, A),
        )
        connection.commit()
    return postgres.url(name)


def source(url: str, query: str = COUNTS, **fields: Any) -> SqlSource:
    section = {"kind": "sql", "url_env": "SHOP_DB", "query": query, **fields}
    config = parse_strict(SqlConfig, section, "test")
    return SqlInputs(config, SecretStr(url), lambda: T0 + timedelta(days=1))


def test_counts_and_rows_say_the_same_in_every_window(url: str) -> None:
    counts = source(url)
    rows = source(url, ROWS, shape="rows", rows={"slow_above_ms": 2_000})
    total = ArmOutcomes()
    for minute in range(0, 17, 4):
        window = T0 + timedelta(minutes=minute), T0 + timedelta(minutes=minute + 4)
        one, other = (found.read("shop", [A, B], *window).arms for found in (counts, rows))
        for mix in (A, B):
            assert (one[mix].images, one[mix].failures) == (other[mix].images, other[mix].failures)
            assert one[mix].cost_microusd == other[mix].cost_microusd == one[mix].images * 19_000
        total += one[B]
    assert (total.images, total.failures) == (500, 100)


def test_zones_do_not_move_the_window(url: str, postgres: Postgres) -> None:
    from zoneinfo import ZoneInfo

    tokyo = ZoneInfo("Asia/Tokyo")
    since, until = T0.astimezone(tokyo), (T0 + timedelta(seconds=10)).astimezone(tokyo)
    assert source(url).read("shop", [A], since, until).arms[A].images == 95


def test_inputs(url: str) -> None:
    found = source(url, inputs_query=INPUTS)
    assert isinstance(found, SqlInputs)
    seen = found.inputs_seen("shop", T0, T0 + timedelta(seconds=10))
    assert seen == {("fast", "de"): 50, ("fast", ""): 50}


def test_a_query_that_writes_or_takes_too_long_is_ended(url: str) -> None:
    window = ("shop", [A], T0, T0 + timedelta(seconds=10))
    writes = COUNTS.replace("\nSELECT", "\nWITH gone AS (DELETE FROM requests RETURNING 1) SELECT")
    with pytest.raises(OutcomeError, match="data-modifying"):
        source(url, writes).read(*window)
    draws = COUNTS.replace("WHERE", "WHERE nextval('requests_id_seq') > 0 AND")
    with pytest.raises(OutcomeError, match="read-only"):
        source(url, draws).read(*window)
    slow = COUNTS.replace("WHERE", "WHERE (SELECT true FROM pg_sleep(60)) AND")
    with pytest.raises(OutcomeError, match="timeout"):
        source(url, slow, timeout_s=0.5).read(*window)
    assert source(url).read(*window).arms[A].images == 95


def test_a_refused_login_is_told_without_the_password(url: str) -> None:
    wrong = url.replace(PASSWORD, "hunter2-secret")
    with pytest.raises(OutcomeError) as caught:
        source(wrong).read("shop", [A], T0, T0 + timedelta(seconds=10))
    assert "hunter2" not in str(caught.value)
