"""A gate and a canary of the same product: who waits for whom, and who leaves whom alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.errors import FrozenError, RefusedError
from tasks.mix.freeze import acquire_for_run
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import keep_mix, require_production
from tasks.policy import Policy
from tasks.rollout.canary import store
from tasks.rollout.canary.look import Surroundings, look
from tasks.rollout.change import set_share
from tasks.rollout.routers.file import FileRouter
from tasks.rollout.task import promote, roll_back, start_canary
from tasks.runs import begin_run, end_run
from tasks.settings import load_settings
from tasks.state import State

NOW = datetime.now(UTC)


@pytest.fixture
def gate(shop: State, home: Path, winter: ResolvedMix, summer: ResolvedMix) -> tuple[Any, Any]:
    """Context and plan of run-1, which judges summer against winter and froze production."""
    rollout = home / "rollout.yaml"
    rollout.write_text(json.dumps({"schema_version": 1}), encoding="utf-8")
    settings = load_settings({"IMAGEGATE_ROLLOUT_FILE": str(rollout)}, home=home)
    keep_mix(shop, summer)
    begin_run(shop, "run-1", "shop", summer.digest, winter.digest)
    acquire_for_run(shop, "shop", run_id="run-1", owner="ci", reason="gate", days=14, now=NOW)
    context = SimpleNamespace(
        state=shop, settings=settings, run_id="run-1", driver=None, check_driver=lambda: None
    )
    plan = SimpleNamespace(
        product="shop", run_id="run-1", candidate=summer, baseline=winter, policy=Policy()
    )
    return context, plan


def weights(router: FileRouter) -> dict[str, float]:
    shown = router.read("shop")
    assert shown is not None
    return dict(shown.weights)


def test_a_gates_rollback_leaves_the_canary_of_another_candidate_alone(
    gate: tuple[Any, Any], shop: State, router: FileRouter, winter: ResolvedMix, autumn: ResolvedMix
) -> None:
    set_share(
        shop, router, "shop", autumn, 0.25, actor="ann", reason="step", run_id="run-1", now=NOW
    )
    done = roll_back.fn(*gate, "the candidate is bad")
    assert weights(router) == {winter.digest: 0.75, autumn.digest: 0.25}
    assert done.mix_name == "winter"
    with pytest.raises(RefusedError, match="a canary of 'autumn'"):
        promote.fn(*gate, "the figures are good")
    assert require_production(shop, "shop").mix_digest == winter.digest


def test_a_gates_rollback_takes_the_share_of_its_own_candidate_away(
    gate: tuple[Any, Any], shop: State, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    set_share(
        shop, router, "shop", summer, 0.25, actor="ann", reason="step", run_id="run-1", now=NOW
    )
    roll_back.fn(*gate, "the candidate is bad")
    assert weights(router) == {winter.digest: 1.0}


def test_a_canary_passes_the_freeze_of_its_run_and_the_next_gate_waits_for_it(
    gate: tuple[Any, Any], shop: State, router: FileRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    begun = start_canary.fn(*gate)
    # A run that comes again finds the one that it started.
    assert start_canary.fn(*gate).id == begun.id
    end_run(shop, "run-1", "finished", "PROMOTE")
    begin_run(shop, "run-2", "shop", summer.digest, winter.digest)
    with pytest.raises(FrozenError, match=r"canary of run run-1 is under way.*canary abort"):
        acquire_for_run(shop, "shop", run_id="run-2", owner="ci", reason="g", days=14, now=NOW)
    around = Surroundings(shop, router, [], store.new_driver())
    store.claim(shop, begun.id, around.driver)
    assert look(around, begun.id).status == "running"
    assert weights(router) == {winter.digest: 0.99, summer.digest: 0.01}
    store.ask(shop, begun.id, "abort", by="ann", reason="enough")
    assert look(around, begun.id).status == "aborted"
    # Over: the next gate takes the freeze.
    acquire_for_run(shop, "shop", run_id="run-2", owner="ci", reason="g", days=14, now=NOW)
