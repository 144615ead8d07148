"""Real servers that several test modules share, and which modules begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from psycopg import sql

from tests.fakes.postgres import Postgres, binaries

#: The modules that take longest, each minutes: they begin, so that no worker ends with one.
LONGEST = (
    "test_real_gate.py",
    "test_real_cluster.py",
    "test_real_approval.py",
    "test_real_planted.py",
    "test_real_canary.py",
    "test_real_deployments.py",
    "test_real_s3.py",
    "test_real_canary_flow.py",
    "test_real_checks.py",
    "test_real_ci.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first; every worker of xdist sees the same order."""
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        long = item.path.parent == here and item.path.name in LONGEST
        return LONGEST.index(item.path.name) if long else len(LONGEST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; skips where it is not installed."""
    if binaries() is None:
        pytest.skip("needs PostgreSQL (Debian: postgresql)")
    server = Postgres()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def state_database(postgres: Postgres) -> str:
    """Name of a database with the tables of today."""
    from tasks.state import State

    name = postgres.database()
    State(postgres.url(name)).close()
    return name


@pytest.fixture
def postgres_url(postgres: Postgres, state_database: str) -> str:
    """An empty state database in PostgreSQL; emptying one is quicker than making many."""
    from tasks.tables import STATE_VERSION, metadata

    with closing(postgres.connect(state_database)) as connection:
        tables = sql.SQL(", ").join(map(sql.Identifier, sorted(metadata.tables)))
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(tables))
        connection.execute(
            "INSERT INTO meta (key, value) VALUES ('state_version', %s)", [str(STATE_VERSION)]
        )
    return postgres.url(state_database)
