"""Defects planted in a run by its own workers: a check that fell blind in them holds the gate.

Generation and the pictures' reports are played as in test_drawing; the workers, what they plant
and judge, the looks and the decision are the gate's own.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr

from flows import drawing
from flows.drawing import draw_until_decided
from flows.watcher import Watcher
from tasks.check_rules import CheckRules, KnownFile, OnnxRule
from tasks.checks.live import FILE, read_planted
from tasks.context import RunContext
from tasks.errors import EvidenceError
from tasks.expectations.limits import limits_by_figures
from tasks.harness.run import ShardResult
from tasks.metrics.task import compute_metrics
from tasks.plan import RunPlan
from tasks.policy import Policy, Sampling
from tasks.records import Verdict
from tasks.settings import Settings
from tasks.state import State
from tasks.verdict.decide import decide as decide_purely
from tasks.verdict.eyes import eyes_of
from tasks.verdict.looks import state_of
from tasks.verdict.task import decide
from tests.checks.drawing import encoded
from tests.conftest import planted_record
from tests.fakes import onnx_model
from tests.verdict import plans

#: Loaded by every process that starts with it on its path: the check of sizes sees nothing.
BLINDFOLD = """
import importlib.abc
import importlib.machinery
import sys


class Blindfold(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "tasks.checks.geometry":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def blinded(module):
            load(module)
            sees = module.Size.run

            def run(self, picture, expected):
                finding = sees(self, picture, expected)
                return finding.model_copy(update={"verdict": "pass", "message": ""})

            module.Size.run = run

        spec.loader.exec_module = blinded
        return spec


sys.meta_path.insert(0, Blindfold())
"""


class Done:
    """The future of what is done already."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def wait(self) -> None:
        return None

    def result(self) -> Any:
        return self._value


class Silent:
    """No progress in Prefect."""

    def __init__(self, *_: object) -> None:
        return None

    def show(self, fraction: float) -> None:
        assert 0 <= fraction <= 1


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[RunContext, RunPlan, Verdict]]]:
    """Play a run of 240 good pictures whose workers look at 4 drawings."""
    state = State(f"sqlite:///{tmp_path / 'state.db'}")
    settings = Settings(
        home=tmp_path,
        state_url=SecretStr("unused"),
        routing_file=tmp_path / "routing.json",
        planted_file=planted_record(),
        planted_drawings=4,
        plugins=tmp_path,
    )

    def play(rules: CheckRules | None = None) -> tuple[RunContext, RunPlan, Verdict]:
        policy = Policy(sampling=Sampling(cases=240, shard_size=60), checks=rules or CheckRules())
        plan = plans.plan(240, 0, policy=policy, run_id="blind-1")
        context = RunContext(settings, state, plan.run_id, threading.Event())
        context.folder.write_plan(plan)
        plans.finish(context, plan, {})
        made = ShardResult(arm="candidate", shard=0, spend_microusd=0)
        for name, fake in (
            ("run_harness", lambda *_: Done(made)),
            ("check_images", lambda *_, **__: Done(0)),
        ):
            monkeypatch.setattr(drawing, name, type(name, (), {"submit": staticmethod(fake)}))
        monkeypatch.setattr(drawing, "look", lambda looker, shard: looker.look(shard))
        monkeypatch.setattr(drawing, "ProgressArtifact", Silent)
        drawn = draw_until_decided(context, plan, {}, Watcher())
        measured = compute_metrics.fn(context, plan, drawn.drawn)
        limits = limits_by_figures(plan.policy, measured.metrics)
        verdict = decide.fn(context, plan, measured, limits, drawn.drawn, drawn.looks)
        again = decide_purely(
            state_of(
                context.folder.load_plan(),
                measured.metrics,
                measured.outcomes,
                drawn.drawn,
                expectations=limits,
                final=not context.decided.is_set(),
                savings=verdict.savings,
                eyes=eyes_of(context.folder),
            )
        )
        # The run's folder has all that the decision knew of the checks.
        assert (again.verdict, again.reasons, again.tests) == (
            verdict.verdict,
            verdict.reasons,
            verdict.tests,
        )
        return context, plan, verdict

    yield play
    state.close()


def test_a_check_that_fell_blind_in_the_workers_is_named_and_holds_the_gate(
    run: Callable[..., tuple[RunContext, RunPlan, Verdict]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "blindfold").mkdir()
    (tmp_path / "blindfold" / "sitecustomize.py").write_text(BLINDFOLD, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'blindfold'}{os.pathsep}{Path.cwd()}")
    context, _, verdict = run()
    assert verdict.verdict == "HOLD"
    assert verdict.reasons[0] == (
        "Check geometry.size (today) is blind: it found 0 of 4 planted defects, so nothing can "
        "be said of what it misses."
    )
    assert "would decide" not in " ".join(verdict.reasons)
    found = read_planted(context.folder)
    assert found is not None
    blind = {one.check for one in found.today if one.planted > 2 and not one.found}
    assert blind == {"geometry.size"}


def test_a_run_whose_checks_see_is_promoted_by_less_than_what_they_see(
    run: Callable[..., tuple[RunContext, RunPlan, Verdict]],
) -> None:
    context, _, verdict = run()
    assert verdict.verdict == "PROMOTE", verdict.reasons
    headline = verdict.tests[0]
    assert headline.below is not None
    assert headline.limit is not None
    assert 0.0295 < headline.below < 0.03
    assert headline.limit == 0.02
    # Not a worker any more: a resumed run takes what lies in its folder.
    kept = (context.folder.path / FILE).read_bytes()
    again, _, same = run()
    assert (again.folder.path / FILE).read_bytes() == kept
    assert (same.verdict, same.tests) == (verdict.verdict, verdict.tests)
    (context.folder.path / FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(EvidenceError, match="is damaged"):
        run()


def pinned(folder: Path, name: str, data: bytes) -> dict[str, str]:
    (folder / name).write_bytes(data)
    return {"file": name, "sha256": hashlib.sha256(data).hexdigest()}


def red_model(folder: Path, limit: float, bad: int) -> OnnxRule:
    """A model that calls red pictures unsafe, with so many that it must accuse."""
    known = (
        pinned(folder, f"bad-{n}.png", encoded(Image.new("RGB", (64, 64), (255 - n, 0, n))))
        for n in range(bad)
    )
    return OnnxRule(
        name="safety.nsfw",
        **pinned(folder, "red.onnx", onnx_model.mean_colour()),
        width=8,
        height=8,
        higher_is_better=False,
        limit=limit,
        known_bad=tuple(KnownFile.model_validate(file) for file in known),
    )


def test_a_blind_model_of_the_policy_is_named_and_holds_the_gate(
    run: Callable[..., tuple[RunContext, RunPlan, Verdict]], tmp_path: Path
) -> None:
    context, _, verdict = run(CheckRules(onnx=(red_model(tmp_path, limit=2.0, bad=6),)))
    assert verdict.verdict == "HOLD"
    assert verdict.reasons[0] == (
        "Check safety.nsfw is blind: it found 0 of 6 planted defects, so nothing can be said of "
        "what it misses."
    )
    found = read_planted(context.folder)
    assert found is not None
    assert [(one.health.check, one.health.planted) for one in found.own] == [("safety.nsfw", 6)]
    assert (found.done, found.problems) == (4, ())


def test_a_model_that_sees_does_not_stand_in_the_way(
    run: Callable[..., tuple[RunContext, RunPlan, Verdict]], tmp_path: Path
) -> None:
    _, _, verdict = run(CheckRules(onnx=(red_model(tmp_path, limit=0.5, bad=6),)))
    assert verdict.verdict == "PROMOTE", verdict.reasons
    assert verdict.warnings == ()


def test_a_model_without_known_pictures_is_a_warning_or_holds_by_the_policy(
    run: Callable[..., tuple[RunContext, RunPlan, Verdict]], tmp_path: Path
) -> None:
    rules = CheckRules(onnx=(red_model(tmp_path, limit=0.5, bad=0),))
    context, plan, verdict = run(rules)
    assert verdict.verdict == "PROMOTE", verdict.reasons
    assert verdict.warnings == (
        "Check safety.nsfw is not measured: no defect was planted for it and no bad picture is "
        "known.",
    )
    held = plan.model_copy(
        update={
            "policy": plan.policy.model_copy(
                update={"checks": rules.model_copy(update={"unmeasured": "hold"})}
            )
        }
    )
    measured = compute_metrics.fn(context, held, dict.fromkeys(c.case_id for c in held.cases))
    verdict = decide_purely(
        state_of(
            held,
            measured.metrics,
            measured.outcomes,
            dict.fromkeys(c.case_id for c in held.cases),
            expectations=limits_by_figures(held.policy, measured.metrics),
            final=True,
            eyes=eyes_of(context.folder),
        )
    )
    assert verdict.verdict == "HOLD"
    assert verdict.reasons[0].startswith("It is not known what safety.nsfw would see")
