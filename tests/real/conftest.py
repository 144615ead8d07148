"""Real servers that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
def state_template(postgres: Postgres) -> str:
    """A database with the tables of today, to copy: quicker than to make them every time."""
    from tasks.state import State

    name = postgres.database()
    State(postgres.url(name)).close()
    return name


@pytest.fixture
def postgres_url(postgres: Postgres, state_template: str) -> Iterator[str]:
    """A state database in PostgreSQL of the test's own."""
    name = postgres.database(state_template)
    yield postgres.url(name)
    postgres.drop(name)
