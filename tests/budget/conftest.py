"""A state database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.state import State


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    database = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield database
    database.close()
