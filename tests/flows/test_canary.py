"""``imagegate canary`` as a real process, on the file router with outcomes from a request log."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.canary_deeds import look_after
from tasks.mix.catalog import load_catalog
from tasks.mix.manifest import ResolvedMix, load_mix
from tasks.mix.production import adopt, require_production
from tasks.rollout.canary import store
from tasks.rollout.canary.progress import sums
from tasks.rollout.change import reconcile
from tasks.rollout.routers.file import FileRouter
from tasks.settings import DEPLOYMENTS, load_settings
from tasks.state import State
from tests.conftest import Command

POLICY = {
    "name": "quick",
    "canary": {
        "steps": [
            {"weight": 0.05, "soak_minutes": 0, "images": 50, "promote_below": 0.1},
            {"weight": 0.5, "soak_minutes": 0, "images": 100, "promote_below": 0.05},
        ],
        "every_seconds": 0.2,
        "query_errors": 0,
    },
}


class Shop:
    """A home with a production mix, a log and a rollout file; and the command."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.folder, self.home = folder, command.home
        self.home.mkdir()
        self.log = folder / "requests.jsonl"
        self.log.touch()
        rollout = folder / "rollout.yaml"
        rollout.write_text(
            yaml.safe_dump({"outcomes": [{"kind": "logs", "files": str(self.log), "lag_s": 0}]})
        )
        (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY))
        models = load_catalog(DEPLOYMENTS / "catalog.yaml")
        self.old = load_mix(DEPLOYMENTS / "mixes" / "production.yaml", models)
        self.new = load_mix(DEPLOYMENTS / "mixes" / "candidate.yaml", models)
        self.state = State(f"sqlite:///{self.home / 'state.db'}")
        self.router = FileRouter(self.home / "routing.json")
        adopt(self.state, self.old, "test", "first")
        reconcile(self.state, self.router, "storefront")
        self.command = Command(self.home, command.env | {"IMAGEGATE_ROLLOUT_FILE": str(rollout)})
        environment = {"IMAGEGATE_ROLLOUT_FILE": str(rollout)}
        self.settings = load_settings(environment, home=self.home)

    def start(self) -> str:
        done = self.command(
            "canary", "start", "--candidate", str(DEPLOYMENTS / "mixes" / "candidate.yaml"),
            "--policy", str(self.folder / "policy.yaml"), "--without-gate", "a test", "--json",
        )  # fmt: skip
        assert done.code == 0, done.err
        canary_id: str = done.json["canary_id"]
        return canary_id

    def serve(self, mix: ResolvedMix, count: int, failures: int = 0) -> None:
        """Requests that end now, which is after what was counted and before the next look."""
        with self.log.open("a") as file:
            for i in range(count):
                row = {
                    "time": datetime.now(UTC).isoformat(),
                    "product": "storefront",
                    "mix": mix.digest,
                    "ok": i >= failures,
                }
                file.write(json.dumps(row) + "\n")

    def drive(
        self, process: subprocess.Popen[str], each: Callable[[store.Canary], None]
    ) -> tuple[int, str]:
        """Serve after each look until the command ends."""
        looks = -1
        while process.poll() is None:
            found = store.newest_of(self.state, "storefront")
            assert found is not None
            if found.progress.looks != looks or not found.progress.applied:
                looks = found.progress.looks
                each(found)
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
        out, err = process.communicate()
        assert process.returncode is not None
        return process.returncode, out + err

    @property
    def weights(self) -> dict[str, float]:
        shown = self.router.read("storefront")
        assert shown is not None
        return dict(shown.weights)


@pytest.fixture
def storefront(light_imagegate: Command, tmp_path: Path) -> Iterator[Shop]:
    made = Shop(light_imagegate, tmp_path)
    yield made
    made.state.close()


def test_a_good_candidate_walks_by_the_command_alone(storefront: Shop) -> None:
    storefront.start()
    process = storefront.command.start("canary", "run", "--product", "storefront", "--json")

    def each(_: store.Canary) -> None:
        storefront.serve(storefront.new, 60)
        storefront.serve(storefront.old, 60)

    code, said = storefront.drive(process, each)
    assert code == 0, said
    assert storefront.weights == {storefront.new.digest: 1.0}
    shown = storefront.command("canary", "status", "--json").json["canary"]
    assert (shown["status"], shown["driven"], shown["without_gate"]) == (
        "promoted",
        False,
        "a test",
    )
    assert [step["weight"] for step in shown["steps"]] == [0.05, 0.5]
    assert "serves" in storefront.command("status").out


def test_a_bad_candidate_ends_with_exit_1(storefront: Shop) -> None:
    storefront.start()
    process = storefront.command.start("canary", "run")

    def each(_: store.Canary) -> None:
        storefront.serve(storefront.new, 40, failures=10)
        storefront.serve(storefront.old, 60)

    code, said = storefront.drive(process, each)
    assert code == 1, said
    assert "rolled_back: the candidate fails more often than 2 %" in said
    assert storefront.weights == {storefront.old.digest: 1.0}


def test_a_killed_driver_loses_nothing_and_the_watch_goes_on(storefront: Shop) -> None:
    canary_id = storefront.start()
    process = storefront.command.start("canary", "run")

    def each(found: store.Canary) -> None:
        if found.progress.looks >= 2:
            process.send_signal(signal.SIGKILL)
        elif found.progress.applied:
            # After the first share was verified, from which on requests are counted.
            storefront.serve(storefront.new, 10)

    code, said = storefront.drive(process, each)
    assert code == -signal.SIGKILL, said
    left = store.read(storefront.state, canary_id)
    assert (left.status, left.driven) == ("running", False)
    # Another `run` would go on; so does the watch, one look at a time.
    ends = []
    for _ in range(20):
        storefront.serve(storefront.new, 100)
        ends += look_after(storefront.state, storefront.settings)
        if not store.read(storefront.state, canary_id).live:
            break
    ended = store.read(storefront.state, canary_id)
    assert ended.status == "promoted", ends
    assert look_after(storefront.state, storefront.settings) == []
    total = sums(ended.progress.tallies)["candidate"].images
    until = datetime.fromisoformat(ended.progress.counted_until)
    assert total == len([at for at in _times(storefront) if at < until])


def _times(shop: Shop) -> list[datetime]:
    return [
        datetime.fromisoformat(json.loads(line)["time"])
        for line in shop.log.read_text().splitlines()
    ]


def test_abort_and_pause_by_command(storefront: Shop) -> None:
    storefront.start()
    paused = storefront.command("canary", "pause", "--why", "demo", "--owner", "mia", "--json")
    assert paused.code == 0, paused.err
    # Nobody drives it: the command took the look itself.
    assert (paused.json["status"], paused.json["reason"]) == ("paused", "paused by mia: demo")
    assert "nobody drives" in paused.json["how"]
    aborted = storefront.command("canary", "abort", "--why", "wrong build", "--json")
    assert (aborted.code, aborted.json["status"]) == (0, "aborted")
    assert storefront.weights == {storefront.old.digest: 1.0}
    again = storefront.command("canary", "abort", "--why", "again", "--json")
    assert again.code == 2
    assert "no canary of 'storefront' is under way" in again.json["error"]


def test_what_cannot_be_started_says_how_to_mend_it(storefront: Shop) -> None:
    mix = str(DEPLOYMENTS / "mixes" / "candidate.yaml")
    ungated = storefront.command("canary", "start", "--candidate", mix)
    assert ungated.code == 2
    assert "Judge it with `imagegate run`" in " ".join(ungated.err.split())
    nothing = storefront.command("canary", "start")
    assert nothing.code == 2
    assert "--candidate FILE, or --run RUN" in " ".join(nothing.err.split())
    unknown = storefront.command("canary", "start", "--run", "run-9")
    assert "no such run" in " ".join(unknown.err.split())
    blind = storefront.command("canary", "start", "--candidate", mix, IMAGEGATE_ROLLOUT_FILE="")
    assert blind.code == 2
    assert "no source of live outcomes" in " ".join(blind.err.split())
    nobody = storefront.command("canary", "run", "--json")
    assert nobody.code == 2
    empty = storefront.command("canary", "status", "--json")
    assert empty.json == {"product": "storefront", "canary": None}
    assert require_production(storefront.state, "storefront").epoch == 1


def test_ctrl_c_leaves_the_canary_for_another_to_drive(storefront: Shop) -> None:
    canary_id = storefront.start()
    process = storefront.command.start("canary", "run", "--json")

    def each(found: store.Canary) -> None:
        if found.progress.applied:
            process.send_signal(signal.SIGINT)

    code, said = storefront.drive(process, each)
    assert code == 3, said
    left: Any = store.read(storefront.state, canary_id)
    assert (left.live, left.driver) == (True, None)
