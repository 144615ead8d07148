"""A controller that is killed at every fault point of a change; driven by test_real_rollout_kill.

``python -m tests.real.rollout_victim FOLDER SCENARIO`` makes the scenario's production in FOLDER,
runs the change once to list the fault points that it passes, and then, for each of them, kills a
process of its own (SIGKILL) at it, looks at what is left, lets the next process come, and looks
again. It prints what it saw as JSON. Processes are forked, so that one start of Python serves
hundreds of kills.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tasks.alerts.change_words import tell_rollback
from tasks.mix.freeze import acquire_for_run, active_freeze
from tasks.mix.production import adopt, journal_of, keep_mix, require_production
from tasks.rollout.change import promote, reconcile, roll_back, set_share
from tasks.rollout.last_good import push_last_good, read_last_good
from tasks.rollout.routers.file import FileRouter
from tasks.state import State
from tasks.tables import canaries, outbox
from tests.fakes.mixes import mix

PRODUCT, RUN, CANARY, DRIVER = "shop", "run-1", "canary-1", "one"
WINTER, SUMMER, AUTUMN = (
    mix(n, f"folio-{i}") for i, n in enumerate(("winter", "summer", "autumn"))
)
WHO = {"actor": "test", "reason": "the reason"}


@dataclass
class House:
    """One production in a folder: database, router, last good mixes."""

    folder: Path

    def state(self) -> State:
        return State(f"sqlite:///{self.folder / 'state.db'}")

    @property
    def router(self) -> FileRouter:
        return FileRouter(self.folder / "routing.json")


Step = Callable[[House, State], Any]


def put(mix: Any, **more: Any) -> Step:
    return lambda house, state: promote(
        state, house.router, PRODUCT, mix, **WHO, now=datetime.now(UTC), **more
    )


def share(weight: float) -> Step:
    return lambda house, state: set_share(
        state, house.router, PRODUCT, AUTUMN, weight, **WHO, canary_id=CANARY, driver=DRIVER
    )


def back(to: str | None) -> Step:
    return lambda house, state: roll_back(
        state,
        house.router,
        PRODUCT,
        to,
        **WHO,
        once_in=timedelta(minutes=10),
        tell=tell_rollback,
    )


def mend(house: House, state: State) -> Any:
    return reconcile(state, house.router, PRODUCT, tell=tell_rollback)


def frozen_by_run(house: House, state: State) -> Any:
    now = datetime.now(UTC)
    acquire_for_run(state, PRODUCT, run_id=RUN, owner="ci", reason="gate", days=1, now=now)


def canary(house: House, state: State) -> Any:
    with state.begin() as connection:
        connection.execute(
            sa.insert(canaries).values(
                canary_id=CANARY,
                product=PRODUCT,
                candidate_digest=AUTUMN.digest,
                baseline_digest=SUMMER.digest,
                run_id=RUN,
                status="running",
                step=0,
                plan="{}",
                progress="{}",
                actor="test",
                started_at="2026-01-01T00:00:00.000Z",
                driver=DRIVER,
            )
        )


def lose_routing(house: House, state: State) -> Any:
    house.router.path.unlink()


def damage_routing(house: House, state: State) -> Any:
    house.router.path.write_text("{half")


def push(house: House, state: State | None) -> Any:
    return push_last_good(
        house.router,
        house.folder / "last-good",
        PRODUCT,
        "test",
        "the reason",
        once_in=timedelta(minutes=10),
    )


#: What was there before, and the change that is killed. Changes whose name begins with ``push`` go
#: without a database.
SCENARIOS: dict[str, tuple[tuple[Step, ...], Step]] = {
    "promote": ((frozen_by_run,), put(SUMMER, run_id=RUN)),
    "share": ((put(SUMMER), frozen_by_run, canary, share(0.05)), share(0.25)),
    "first-share": ((put(SUMMER), frozen_by_run, canary), share(0.01)),
    "canary-promote": (
        (put(SUMMER), frozen_by_run, canary, share(0.5)),
        put(AUTUMN, canary_id=CANARY, driver=DRIVER),
    ),
    "rollback": ((put(SUMMER),), back(WINTER.digest)),
    "rollback-unnamed": ((put(SUMMER), put(AUTUMN)), back(None)),
    "rollback-canary": ((put(SUMMER), frozen_by_run, canary, share(0.25)), back(None)),
    "rollback-damaged": ((put(SUMMER), damage_routing), back(None)),
    "reconcile": ((put(SUMMER), lose_routing), mend),
    "push": ((put(SUMMER), put(AUTUMN)), push),
    "push-canary": ((put(SUMMER), frozen_by_run, canary, share(0.25)), push),
    "reconcile-pushed": ((put(SUMMER), put(AUTUMN), push), mend),
}


def forked(work: Callable[[], Any], fault: str | None = None) -> int:
    """Do something in a process of its own; return 0, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        try:
            if fault is not None:
                os.environ["IMAGEGATE_TEST_FAULT"] = fault  # noqa: TID251 - what is tested
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a forked child must never return into the parent
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def change(house: House, scenario: str) -> None:
    if scenario.startswith("push"):
        push(house, None)
        return
    state = house.state()
    SCENARIOS[scenario][1](house, state)
    state.close()


def look(house: House) -> dict[str, Any]:
    """Return what production is on, by the database, the router, the file and the journal."""
    state = house.state()
    pointer = require_production(state, PRODUCT)
    journal = journal_of(state, PRODUCT)
    with state.begin() as connection:
        told = connection.execute(sa.select(outbox.c.dedup_key)).scalars().all()
    frozen = active_freeze(state, PRODUCT, datetime.now(UTC)) is not None
    state.close()
    shown = None
    damaged = False
    try:
        shown = house.router.read(PRODUCT)
    except Exception:  # noqa: BLE001 - a scenario damages it
        damaged = True
    kept = read_last_good(house.folder / "last-good", PRODUCT)
    assert kept is not None
    return {
        "wanted": pointer.weights,
        "epoch": pointer.epoch,
        "settled": pointer.settled,
        "shown": None if shown is None else dict(shown.weights),
        "shown_epoch": None if shown is None else shown.epoch,
        "damaged": damaged,
        "journal": [
            [c.kind, c.epoch, c.to_digest, c.weight, c.canary_id, c.actor, c.reason]
            for c in journal
        ],
        "told": sorted(told),
        "frozen": frozen,
        "kept": [kept.epoch, kept.digests[-1]],
        "left": sorted(
            str(p.relative_to(house.folder))
            for p in house.folder.rglob("*")
            if p.name.endswith((".tmp", ".probe"))
        ),
    }


def make(house: House, scenario: str) -> None:
    state = house.state()
    for candidate in (WINTER, SUMMER, AUTUMN):
        keep_mix(state, candidate)
    adopt(state, WINTER, "test", "first")
    reconcile(state, house.router, PRODUCT)
    for step in SCENARIOS[scenario][0]:
        step(house, state)
    state.close()


def must(code: int, what: str) -> None:
    if code != 0:
        raise SystemExit(f"{what} ended with {code}")


def trial(origin: House, scenario: str, number: int) -> dict[str, Any]:
    """Kill at one point, let the next process come, and return what was seen."""
    house = House(origin.folder.with_name(f"{origin.folder.name}-{number}"))
    shutil.copytree(origin.folder, house.folder)
    died = forked(lambda: change(house, scenario), f"kill:{number}")
    killed = look(house)
    mended = None
    if number % 2 == 0 and not scenario.startswith("push") and not killed["damaged"]:
        # The watchdog is faster than the person who calls again.
        must(forked(lambda: _mend(house)), "the reconcile after the kill")
        mended = look(house)
    must(forked(lambda: change(house, scenario)), "the change after the kill")
    again = look(house)
    if scenario.startswith("push"):
        # The database is back.
        must(forked(lambda: _mend(house)), "the reconcile after the push")
        mended = look(house)
    shutil.rmtree(house.folder)
    return {"died": died, "killed": killed, "mended": mended, "again": again}


def _mend(house: House) -> None:
    state = house.state()
    mend(house, state)
    state.close()


def main() -> None:
    folder, scenario = Path(sys.argv[1]), sys.argv[2]
    origin = House(folder / "origin")
    origin.folder.mkdir(parents=True)
    must(forked(lambda: make(origin, scenario)), "the making of production")
    whole = House(folder / "whole")
    shutil.copytree(origin.folder, whole.folder)
    trace = folder / "trace.txt"
    must(forked(lambda: change(whole, scenario), f"trace:{trace}"), "the change itself")
    points = trace.read_text().splitlines()
    before, after = look(origin), look(whole)
    trials = [trial(origin, scenario, number) for number in range(1, len(points) + 1)]
    json.dump({"points": points, "before": before, "after": after, "trials": trials}, sys.stdout)


if __name__ == "__main__":
    main()
