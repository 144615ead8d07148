"""kill -9 of the controller at every fault point of every change of production.

Afterwards the router serves exactly one legal routing, the journal explains it, and the next call
completes the change, once. ``rollout_victim`` finds the fault points by passing them.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.real.rollout_victim import SCENARIOS

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
#: At least so many fault points lie on the way of each change; the table is here so that a point
#: that gets lost is missed.
LEAST = {
    "promote": 20,
    "share": 19,
    "first-share": 19,
    "canary-promote": 20,
    "rollback": 19,
    "rollback-unnamed": 19,
    "rollback-canary": 19,
    "rollback-damaged": 20,
    "reconcile": 15,
    "push": 11,
    "push-canary": 11,
    "reconcile-pushed": 15,
}
MOVES = ("adopt", "promote", "rollback", "canary", "reconcile")
Seen = dict[str, Any]


def test_there_are_at_least_forty_kills() -> None:
    assert LEAST.keys() == SCENARIOS.keys()
    assert sum(LEAST.values()) >= 200
    for kind in ("promote", "rollback"):
        assert sum(n for name, n in LEAST.items() if kind in name) >= 40


def victim(folder: Path, scenario: str) -> Seen:
    done = subprocess.run(
        [sys.executable, "-m", "tests.real.rollout_victim", str(folder), scenario],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    seen: Seen = json.loads(done.stdout)
    return seen


def lines(journal: list[list[Any]]) -> list[list[Any]]:
    """Return the journal without who verified: that may be the next process."""
    return [line[:5] if line[0] == "verified" else line for line in journal]


def explained(seen: Seen) -> bool:
    """Tell whether a line of the journal says who brought about what the router shows, and why."""
    return seen["shown"] is not None and any(
        kind in MOVES
        and epoch == seen["shown_epoch"]
        and actor
        and reason
        and seen["shown"].get(digest) == (1.0 if weight is None else weight)
        for kind, epoch, digest, weight, _canary, actor, reason in seen["journal"]
    )


def check_killed(killed: Seen, before: Seen, after: Seen) -> None:
    """Production is on one routing, wanted first and told last."""
    decided = lines(killed["journal"]) != lines(before["journal"])
    assert killed["wanted"] == (after if decided else before)["wanted"]
    if killed["shown"] is None:
        # It was lost or damaged before; nobody made it worse.
        assert before["shown"] is None
    else:
        assert killed["shown"] in (before["shown"], after["shown"])
        assert abs(sum(killed["shown"].values()) - 1) < 1e-9
        # A push without the database is told by its file until the database takes it over.
        pushed = killed["journal"] == before["journal"] and not explained(before)
        assert pushed or explained(killed)
        assert pushed or killed["shown_epoch"] <= killed["epoch"], "the router never leads"
    if killed["shown"] == after["shown"] != before["shown"]:
        assert decided
    if killed["settled"] and decided:
        assert killed["shown"] == killed["wanted"]
    if killed["told"] != before["told"]:
        assert killed["shown"] == after["shown"], "people hear of it when it is true"
        assert killed["settled"]
    assert killed["kept"][0] <= after["shown_epoch"]
    if killed["kept"] != before["kept"]:
        assert killed["shown"] == after["shown"], "only what was verified is kept as good"


def check_done(again: Seen, after: Seen) -> None:
    """The change is complete, and was made once."""
    for field in ("wanted", "epoch", "settled", "shown", "shown_epoch", "told", "frozen", "kept"):
        assert again[field] == after[field], field
    assert lines(again["journal"]) == lines(after["journal"])
    assert again["left"] == []


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if not name.startswith("push")])
def test_a_change_killed_anywhere_is_explained_and_completed(tmp_path: Path, scenario: str) -> None:
    seen = victim(tmp_path / "house", scenario)
    assert len(seen["points"]) >= LEAST[scenario], seen["points"]
    before, after = seen["before"], seen["after"]
    assert after["settled"]
    assert after["shown"] == after["wanted"]
    for point, trial in zip(seen["points"], seen["trials"], strict=True):
        try:
            assert trial["died"] == -signal.SIGKILL
            check_killed(trial["killed"], before, after)
            check_done(trial["again"], after)
            if trial["mended"] is not None:
                assert trial["mended"]["settled"]
                assert trial["mended"]["shown"] == trial["mended"]["wanted"]
        except AssertionError as error:
            raise AssertionError(f"{scenario}, killed at {point!r}: {error}") from error
    told = {"rollback": 1}.get(scenario.partition("-")[0], 0)
    assert len(after["told"]) == (1 if scenario == "reconcile-pushed" else told)
    # The kills lie on both sides of the decision and of the router, so the test can fail.
    if scenario not in ("reconcile",):
        shown = [trial["killed"]["shown"] for trial in seen["trials"]]
        assert before["shown"] in shown
        assert after["shown"] in shown


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name.startswith("push")])
def test_a_rollback_without_the_database_killed_anywhere_is_completed_and_taken_over(
    tmp_path: Path, scenario: str
) -> None:
    seen = victim(tmp_path / "house", scenario)
    assert len(seen["points"]) >= LEAST[scenario], seen["points"]
    before, after = seen["before"], seen["after"]
    assert after["shown"] != before["shown"]
    for point, trial in zip(seen["points"], seen["trials"], strict=True):
        try:
            assert trial["died"] == -signal.SIGKILL
            assert trial["killed"]["shown"] in (before["shown"], after["shown"])
            again, mended = trial["again"], trial["mended"]
            for one in (trial["killed"], again):
                assert one["journal"] == before["journal"], "the database was not to be had"
            assert again["shown"] == after["shown"]
            assert again["shown_epoch"] == after["shown_epoch"], "made once"
            assert again["kept"] == after["kept"]
            assert again["left"] == []
            assert mended["settled"]
            assert mended["wanted"] == mended["shown"] == after["shown"]
            new = mended["journal"][len(before["journal"]) :]
            assert [line[:2] for line in new] == [
                ["rollback", after["shown_epoch"]],
                ["verified", after["shown_epoch"]],
            ]
            assert new[0][5] == "test"
            assert new[0][6].startswith("the reason (made at ")
            assert len(mended["told"]) == 1
        except AssertionError as error:
            raise AssertionError(f"{scenario}, killed at {point!r}: {error}") from error
    shown = [trial["killed"]["shown"] for trial in seen["trials"]]
    assert before["shown"] in shown
    assert after["shown"] in shown
