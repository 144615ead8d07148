"""Models and mixes to write into files, and a shop whose production is mix ``winter``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.mix.catalog import Model
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import adopt
from tasks.state import State

_spec = importlib.util.spec_from_file_location(
    "imagegate_test_mixes", Path(__file__).parent.parent / "fakes" / "mixes.py"
)
assert _spec is not None
assert _spec.loader is not None
_mixes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_mixes)


@pytest.fixture
def make_model() -> Callable[..., Model]:
    return _mixes.model


@pytest.fixture
def make_manifest() -> Callable[..., dict[str, Any]]:
    return _mixes.manifest


@pytest.fixture
def make_mix() -> Callable[..., ResolvedMix]:
    return _mixes.mix


@pytest.fixture
def winter() -> ResolvedMix:
    return _mixes.mix("winter", "folio-1")


@pytest.fixture
def summer() -> ResolvedMix:
    return _mixes.mix("summer", "folio-2")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    database = State(f"sqlite:///{tmp_path / 'state.db'}")
    yield database
    database.close()


@pytest.fixture
def shop(state: State, winter: ResolvedMix) -> State:
    """Production of ``shop`` on ``winter``, epoch 1."""
    adopt(state, winter, "test", "first")
    return state
