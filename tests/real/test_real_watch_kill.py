"""kill -9 of the watch at every fault point from a look to the incident: the next look ends it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]


def test_an_alarm_killed_anywhere_is_ended_by_the_next_look_and_told_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.real.watch_victim", str(tmp_path / "house")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    winter, summer = ({found["names"][name]: 1.0} for name in ("winter", "summer"))
    points, after = found["points"], found["after"]
    assert len(points) >= 20, points
    assert {"look written", "look kept", "promotions frozen", "incident written"} <= set(points)
    assert after["shown"] == winter
    for name, trial in zip(points, found["trials"], strict=True):
        assert trial["died"] == -signal.SIGKILL, name
        killed, again = trial["killed"], trial["again"]
        # One legal routing; the alarm is stored before anything is done about it.
        assert killed["shown"] in (winter, summer), name
        if killed["wanted"] == winter:
            assert killed["alarm"], name
            assert killed["freezes"], name
        # People are told when it is true, and not before.
        if killed["opened"]:
            assert killed["shown"] == winter, name
            assert killed["done"], name
        assert again["shown"] == again["wanted"] == winter, name
        assert again["done"], name
        assert len(again["rollbacks"]) == 1, name
        assert again["freezes"] == ["imagegate watch"], name
        assert [t.split(":")[0] for t in again["incidents"]] == ["ROLLED BACK"], name
        assert len(again["opened"]) == 1, name
