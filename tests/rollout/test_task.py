"""What a gate's promotion asks before it changes production."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.errors import FrozenError
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import require_production
from tasks.rollout.task import promote
from tasks.settings import load_settings
from tasks.state import State


def asked(shop: State, home: Path, winter: ResolvedMix, summer: ResolvedMix, until: str) -> Any:
    """Promote summer by a gate, while a freeze window lasts until a day."""
    rollout = home / "rollout.yaml"
    window = {"name": "launch", "from": "2020-01-01", "until": until, "lift": ["dana"]}
    rollout.write_text(json.dumps({"calendar": [window]}), encoding="utf-8")
    settings = load_settings({"IMAGEGATE_ROLLOUT_FILE": str(rollout)}, home=home)
    context: Any = SimpleNamespace(
        state=shop, settings=settings, run_id="run-1", driver=None, folder=None
    )
    plan: Any = SimpleNamespace(product="shop", run_id="run-1", candidate=summer, baseline=winter)
    return promote.fn(context, plan, "the figures are good")


def test_in_a_freeze_window_nothing_is_promoted_and_the_end_is_told(
    shop: State, home: Path, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    with pytest.raises(FrozenError, match="'launch' until 2099-01-01 00:00 UTC, lifted by dana"):
        asked(shop, home, winter, summer, "2098-12-31")
    assert require_production(shop, "shop").mix_digest == winter.digest


def test_after_the_window_it_is(
    shop: State, home: Path, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    asked(shop, home, winter, summer, "2020-01-02")
    assert require_production(shop, "shop").mix_digest == summer.digest
