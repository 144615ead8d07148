"""Real servers that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from psycopg import sql

from tests.fakes.postgres import Postgres, binaries


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
