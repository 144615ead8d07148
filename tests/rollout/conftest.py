"""A shop whose production is mix ``winter``, and the mix ``summer`` that wants its place."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import adopt
from tasks.rollout.change import reconcile
from tasks.rollout.routers.file import FileRouter
from tasks.state import State

_spec = importlib.util.spec_from_file_location(
    "imagegate_test_mixes", Path(__file__).parent.parent / "fakes" / "mixes.py"
)
assert _spec is not None
assert _spec.loader is not None
_mixes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_mixes)


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
def autumn() -> ResolvedMix:
    return _mixes.mix("autumn", "folio-3")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def state(home: Path) -> Iterator[State]:
    database = State(f"sqlite:///{home / 'state.db'}")
    yield database
    database.close()


@pytest.fixture
def router(home: Path) -> FileRouter:
    return FileRouter(home / "routing.json", lock_timeout_s=0.2)


@pytest.fixture
def shop(state: State, router: FileRouter, winter: ResolvedMix) -> State:
    """Production of ``shop`` on ``winter``, epoch 1, shown by the router."""
    adopt(state, winter, "test", "first")
    reconcile(state, router, "shop")
    return state
