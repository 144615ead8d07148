"""A watch that is killed at every fault point of an alarm; driven by test_real_watch_kill.

``python -m tests.real.watch_victim FOLDER`` does for a look and its rollback what
:mod:`tests.real.rollout_victim` does for a change of production.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.alerts.incidents import open_incidents
from tasks.alerts.outbox import messages
from tasks.mix.freeze import active_freezes
from tasks.mix.production import adopt, journal_of, keep_mix, require_production
from tasks.policy import Policy
from tasks.rollout.change import promote, reconcile
from tasks.rollout.outcomes.base import ArmOutcomes, Outcomes
from tasks.rollout.watch.act import act
from tasks.rollout.watch.look import look
from tasks.rollout.watch.store import read_watch
from tests.real.rollout_victim import PRODUCT, SUMMER, WINTER, House, forked, must


class Log:
    """Summer fails in one of ten requests, everything else in one of a hundred."""

    name = "log"

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        images = round((until - since).total_seconds() * 2)
        arms = {
            d: ArmOutcomes(images, images // (10 if d == SUMMER.digest else 100)) for d in digests
        }
        return Outcomes(since, until, arms)


def make(house: House) -> None:
    state = house.state()
    for candidate in (WINTER, SUMMER):
        keep_mix(state, candidate)
    adopt(state, WINTER, "test", "first")
    reconcile(state, house.router, PRODUCT)
    promote(state, house.router, PRODUCT, SUMMER, actor="test", reason="gate")
    state.close()


def watch(house: House, minutes: int) -> None:
    """Look once, so many minutes from now, and act."""
    state = house.state()
    now = datetime.now(UTC) + timedelta(minutes=minutes)
    look(state, PRODUCT, Policy(), [Log()], now)
    act(state, house.router, PRODUCT, now)
    state.close()


def seen(house: House) -> dict[str, Any]:
    state = house.state()
    shown = house.router.read(PRODUCT)
    found = read_watch(state, PRODUCT)
    result = {
        "wanted": require_production(state, PRODUCT).weights,
        "shown": None if shown is None else dict(shown.weights),
        "alarm": found is not None and found.memory.alarm is not None,
        "done": found is not None and found.memory.alarm is not None and found.memory.alarm.done,
        "images": 0 if found is None else found.memory.images,
        "rollbacks": [c.reason for c in journal_of(state, PRODUCT) if c.kind == "rollback"],
        "incidents": [one.title for one in open_incidents(state)],
        "opened": [m.dedup_key for m in messages(state) if m.kind == "open"],
        "freezes": [f.owner for f in active_freezes(state, PRODUCT, datetime.now(UTC))],
    }
    state.close()
    return result


def trial(origin: House, number: int) -> dict[str, Any]:
    """Kill at one point, let the next look come, and return what was seen."""
    house = House(origin.folder.with_name(f"{origin.folder.name}-{number}"))
    shutil.copytree(origin.folder, house.folder)
    died = forked(lambda: watch(house, 60), f"kill:{number}")
    killed = seen(house)
    must(forked(lambda: watch(house, 61)), "the look after the kill")
    again = seen(house)
    shutil.rmtree(house.folder)
    return {"died": died, "killed": killed, "again": again}


def main() -> None:
    folder = Path(sys.argv[1])
    origin = House(folder / "origin")
    origin.folder.mkdir(parents=True)
    must(forked(lambda: make(origin)), "the making of production")
    whole = House(folder / "whole")
    shutil.copytree(origin.folder, whole.folder)
    trace = folder / "trace.txt"
    must(forked(lambda: watch(whole, 60), f"trace:{trace}"), "the look itself")
    points = trace.read_text().splitlines()
    after = seen(whole)
    trials = [trial(origin, number) for number in range(1, len(points) + 1)]
    names = {"winter": WINTER.digest, "summer": SUMMER.digest}
    json.dump({"points": points, "after": after, "trials": trials, "names": names}, sys.stdout)


if __name__ == "__main__":
    main()
