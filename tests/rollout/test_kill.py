"""kill -9 at any instruction of a change leaves production on one mix; a re-run finishes it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.mix.freeze import acquire_for_run
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import journal_of, keep_mix, require_production
from tasks.rollout.change import promote, reconcile, roll_back
from tasks.rollout.routers.file import FileRouter
from tasks.state import State

VICTIM = Path(__file__).with_name("victim.py")
ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 9, 14, tzinfo=UTC)
#: Every third line of the change; victim.py takes any stride for a slower look.
STRIDE = 3
POINTS = ("before-decision", "before-apply", "after-apply", "after-read-back")


def freeze_by_run(state: State) -> None:
    acquire_for_run(state, "shop", run_id="run-1", owner="ci", reason="gate", days=14, now=NOW)


def victim(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(VICTIM), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )


@pytest.mark.parametrize("point", POINTS)
def test_a_promotion_killed_around_the_router_is_finished_by_the_next_call(
    shop: State, router: FileRouter, home: Path, summer: ResolvedMix, point: str
) -> None:
    freeze_by_run(shop)
    manifest = home.parent / "summer.json"
    manifest.write_text(summer.model_dump_json())
    done = victim(shop.engine.url, home / "routing.json", manifest, "promote", point)
    assert done.returncode == -signal.SIGKILL, done.stderr

    decided = point != "before-decision"
    pointer = require_production(shop, "shop")
    assert (pointer.mix_digest == summer.digest) is decided
    assert pointer.settled is not decided

    if decided:
        # Another process finishes it without knowing of the run.
        finished = reconcile(shop, router, "shop", now=NOW)
        assert (finished.epoch, finished.to_digest) == (2, summer.digest)
    again = promote(
        shop,
        router,
        "shop",
        summer,
        expected_epoch=1,
        actor="test",
        reason="better",
        run_id="run-1",
        now=NOW,
    )
    assert (again.epoch, again.to_digest) == (2, summer.digest)
    shown = router.read("shop")
    assert shown is not None
    assert (shown.epoch, shown.weights) == (2, {summer.digest: 1.0})
    kinds = [(t.kind, t.epoch) for t in journal_of(shop, "shop")]
    assert kinds == [("adopt", 1), ("verified", 1), ("promote", 2), ("verified", 2)]


def test_an_unnamed_rollback_that_was_killed_goes_one_step_back_not_two(
    shop: State,
    router: FileRouter,
    home: Path,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    for mix in (summer, autumn):
        promote(shop, router, "shop", mix, actor="test", reason="better", now=NOW)
    manifest = home.parent / "summer.json"
    manifest.write_text(summer.model_dump_json())
    done = victim(shop.engine.url, home / "routing.json", manifest, "rollback", "before-apply")
    assert done.returncode == -signal.SIGKILL, done.stderr

    again = roll_back(shop, router, "shop", None, actor="on-call", reason="again", now=NOW)
    assert again.to_digest == summer.digest
    further = roll_back(shop, router, "shop", None, actor="on-call", reason="more", now=NOW)
    assert further.to_digest == winter.digest


def swept(home: Path, mix: ResolvedMix, kind: str) -> list[dict[str, Any]]:
    manifest = home.parent / "wanted.json"
    manifest.write_text(mix.model_dump_json())
    done = victim("sweep", home, manifest, kind, STRIDE)
    assert done.returncode == 0, done.stderr
    seen: list[dict[str, Any]] = json.loads(done.stdout)
    return seen


def check_sweep(
    seen: list[dict[str, Any]], before: ResolvedMix, after: ResolvedMix, epoch: int
) -> None:
    """Before the decision all is old; from it on the router follows, and never leads."""
    for step in seen:
        killed, again = step["killed"], step["again"]
        assert killed["wanted"] in (before.digest, after.digest), step
        # The router has one whole mix at every moment, and only what was decided.
        assert killed["weights"] == {killed["shown"]: 1.0}, step
        assert killed["shown"] in (before.digest, killed["wanted"]), step
        assert killed["shown_epoch"] <= killed["epoch"], step
        if killed["settled"]:
            assert killed["shown"] == killed["wanted"], step
        assert again["wanted"] == again["shown"] == after.digest, step
        assert again["epoch"] == again["shown_epoch"] == epoch, step
        assert again["settled"], step
        assert again["left"] == [], step
    # The sweep saw the moments that matter, so it can have failed.
    states = {(s["killed"]["wanted"], s["killed"]["shown"]) for s in seen}
    assert states == {
        (before.digest, before.digest),
        (after.digest, before.digest),
        (after.digest, after.digest),
    }


def test_a_promotion_survives_kill_anywhere(
    shop: State, home: Path, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    freeze_by_run(shop)
    shop.close()
    seen = swept(home, summer, "promote")
    check_sweep(seen, winter, summer, epoch=2)
    journal = ["adopt@1", "verified@1", "promote@2", "verified@2"]
    assert all(step["again"]["journal"] == journal for step in seen)
    # The run's freeze ends with the verified promotion and never before.
    assert not any(step["again"]["frozen"] for step in seen)
    assert all(s["killed"]["frozen"] for s in seen if s["killed"]["epoch"] == 1)
    assert all(s["killed"]["frozen"] for s in seen if not s["killed"]["settled"])


def test_a_rollback_survives_kill_anywhere(
    shop: State,
    router: FileRouter,
    home: Path,
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    keep_mix(shop, summer)
    promote(shop, router, "shop", summer, actor="test", reason="better", now=NOW)
    freeze_by_run(shop)
    shop.close()
    seen = swept(home, winter, "rollback")
    check_sweep(seen, summer, winter, epoch=3)
    tail = ["rollback@3", "verified@3"]
    assert all(step["again"]["journal"][-2:] == tail for step in seen)
    assert all(step["again"]["journal"].count("rollback@3") == 1 for step in seen)
    assert all(step["again"]["frozen"] for step in seen), "a rollback does not lift a freeze"
