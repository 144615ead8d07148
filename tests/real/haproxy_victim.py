"""A controller of a real HAProxy that is killed at every fault point of a change.

``python -m tests.real.haproxy_victim FOLDER ROLLOUT_FILE SCENARIO`` prints as JSON what was seen.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tasks.mix.production import adopt, journal_of, keep_mix, require_production
from tasks.rollout.change import promote, reconcile, roll_back, set_share
from tasks.rollout.config import load_rollout, open_router
from tasks.rollout.routers.config import HaproxyInstance
from tasks.rollout.routers.entry import parse_entry
from tasks.rollout.routers.haproxy_runtime import Runtime, parse_map_file
from tasks.settings import Settings, load_settings
from tasks.state import State
from tests.real.rollout_victim import PRODUCT, SUMMER, WHO, WINTER, forked, must


class House:
    """One database, and the HAProxy that all of them share."""

    def __init__(self, folder: Path, rollout_file: str) -> None:
        self.settings: Settings = load_settings(
            {"IMAGEGATE_ROLLOUT_FILE": rollout_file}, home=folder
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.router = open_router(self.settings)

    def state(self) -> State:
        return State(self.settings.state_url.get_secret_value())

    def make(self, scenario: str) -> None:
        state = self.state()
        for mix in (WINTER, SUMMER):
            keep_mix(state, mix)
        adopt(state, WINTER, "test", "first")
        reconcile(state, self.router, PRODUCT)
        if scenario != "share":
            set_share(state, self.router, PRODUCT, SUMMER, 0.5, **WHO)
        state.close()

    @property
    def haproxy(self) -> HaproxyInstance:
        config = load_rollout(self.settings).router
        assert config.kind == "haproxy"
        return config.instances[0]

    @property
    def value(self) -> str:
        """What HAProxy goes by."""
        runtime, instance = Runtime(self.haproxy.socket, 20), self.haproxy
        values = runtime.show_map(instance.map_file)[PRODUCT]
        assert len(values) == 1
        return values[0]

    def put_back(self, text: str, value: str) -> None:
        """Bring HAProxy and its file to where they were."""
        self.haproxy.path.write_text(text, encoding="utf-8")
        Runtime(self.haproxy.socket, 20).set_map(self.haproxy.map_file, PRODUCT, value)

    def change(self, scenario: str) -> None:
        state = self.state()
        if scenario == "share":
            set_share(state, self.router, PRODUCT, SUMMER, 0.05, **WHO)
        elif scenario == "promote":
            promote(state, self.router, PRODUCT, SUMMER, **WHO)
        else:
            roll_back(state, self.router, PRODUCT, WINTER.digest, **WHO)
        state.close()

    def look(self) -> dict[str, Any]:
        """Return what the database wants, HAProxy serves, its file keeps, and the router shows."""
        state = self.state()
        pointer = require_production(state, PRODUCT)
        kinds = [line.kind for line in journal_of(state, PRODUCT)]
        state.close()
        kept = parse_map_file(self.haproxy.path.read_text(encoding="utf-8"))[PRODUCT]
        shown = self.router.read(PRODUCT)
        return {
            "wanted": pointer.weights,
            "settled": pointer.settled,
            "serves": _weights(self.value),
            "kept": _weights(kept),
            "shown": None if shown is None else dict(shown.weights),
            "kinds": kinds,
        }


def copied(origin: House, name: str, rollout_file: str) -> House:
    """Return a copy of the database, for the same HAProxy."""
    folder = origin.settings.home.with_name(name)
    shutil.copytree(origin.settings.home, folder)
    return House(folder, rollout_file)


def _weights(value: str) -> dict[str, float]:
    entry = parse_entry(value)
    assert entry is not None, value
    return entry.weights


def main() -> None:
    folder, rollout_file, scenario = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    origin = House(folder / "origin", rollout_file)
    must(forked(lambda: origin.make(scenario)), "the making of production")
    text, value = origin.haproxy.path.read_text(encoding="utf-8"), origin.value
    whole = copied(origin, "whole", rollout_file)
    before, trace = whole.look(), folder / "trace.txt"
    must(forked(lambda: whole.change(scenario), f"trace:{trace}"), "the change itself")
    after, points = whole.look(), trace.read_text(encoding="utf-8").splitlines()
    trials = []
    for number in range(1, len(points) + 1):
        house = copied(origin, f"trial-{number}", rollout_file)
        house.put_back(text, value)
        died = forked(lambda house=house: house.change(scenario), f"kill:{number}")
        killed = house.look()
        must(forked(lambda house=house: house.change(scenario)), "the change after the kill")
        trials.append({"died": died, "killed": killed, "again": house.look()})
    seen = {"points": points, "before": before, "after": after, "trials": trials}
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
