"""From a gate's PROMOTE to a canary; canaries as Prefect's UI starts, suspends, cancels them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tasks.mix.catalog import load_catalog
from tasks.mix.manifest import load_mix
from tasks.mix.production import adopt, require_production
from tasks.rollout.canary import store
from tasks.rollout.canary.store import Canary
from tasks.rollout.change import reconcile
from tasks.rollout.routers.file import FileRouter
from tasks.settings import DEPLOYMENTS
from tasks.state import State
from tests.conftest import ROOT, Command, clean_environment, free_port
from tests.real.cluster import until

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

CANDIDATE = "deployments/mixes/candidate.yaml"
STEPS = {
    "steps": [
        {"weight": 0.05, "soak_minutes": 0, "images": 50, "promote_below": 0.1},
        {"weight": 0.5, "soak_minutes": 0, "images": 100, "promote_below": 0.05},
    ],
    "every_seconds": 0.5,
}
GATE = {
    "schema_version": 1,
    "name": "gate-then-canary",
    "failure": {"limit": 0.1, "promote_below": 0.25},
    "slices": {"limit": 0.5, "critical": []},
    "limits": [{"measure": "effective_cost_per_1k_usd", "max": 30.0, "on_breach": "hold"}],
    "sampling": {"cases": 28, "shard_size": 7, "stop_early": False},
    "canary": STEPS | {"after_gate": True},
}


def rollout_file(folder: Path) -> tuple[Path, Path]:
    log = folder / "requests.jsonl"
    log.touch()
    path = folder / "rollout.yaml"
    outcomes = [{"kind": "logs", "files": str(log), "lag_s": 0}]
    path.write_text(yaml.safe_dump({"outcomes": outcomes}), encoding="utf-8")
    return path, log


def test_a_gate_that_promotes_begins_a_canary_and_the_next_gate_waits(
    imagegate: Command, tmp_path: Path
) -> None:
    rollout, _ = rollout_file(tmp_path)
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump(GATE), encoding="utf-8")
    command = Command(imagegate.home, imagegate.env | {"IMAGEGATE_ROLLOUT_FILE": str(rollout)})
    done = command("run", "--policy", str(policy), "--json")
    assert done.code == 0, done.err
    assert done.json["production"] == done.json["baseline"]
    assert "begins with 5 % of the traffic" in done.json["actions"][0]
    shown = command("canary", "status", "--json").json["canary"]
    assert (shown["status"], shown["run_id"]) == ("running", done.json["run_id"])
    # One change at a time, and the canary's own freeze lets it pass.
    second = command("run", "--policy", str(policy), "--json")
    assert second.code == 2, second.out
    assert "canary of run" in second.json["error"]
    skipped = command("canary", "skip", "--why", "first look", "--json")
    assert skipped.code == 0, skipped.err
    ended = command("canary", "abort", "--why", "the test is over", "--json")
    assert ended.json["status"] == "aborted"
    assert ended.json["verified_s"] is not None


class Served:
    """``imagegate serve`` with a canary's deployment, and traffic that a test writes."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        rollout, self.log = rollout_file(folder)
        models = load_catalog(DEPLOYMENTS / "catalog.yaml")
        self.old = load_mix(DEPLOYMENTS / "mixes" / "production.yaml", models)
        self.new = load_mix(ROOT / CANDIDATE, models)
        self.state = State(f"sqlite:///{self.home / 'state.db'}")
        self.router = FileRouter(self.home / "routing.json")
        adopt(self.state, self.old, "test", "first")
        reconcile(self.state, self.router, "storefront")
        policy = folder / "canary.yaml"
        policy.write_text(yaml.safe_dump({"name": "quick", "canary": STEPS}), encoding="utf-8")
        quiet = {"cron": "0 3 1 1 *"}
        plan = {"parameters": {"policy": str(policy)}}
        schedules = folder / "schedules.yaml"
        schedules.write_text(
            yaml.safe_dump(
                {
                    "products": {"storefront": plan},
                    "production_watch": quiet,
                    "budget_alarm": quiet,
                    "freeze_reminder": quiet,
                }
            )
        )
        self.policy = str(policy)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.env = clean_environment() | {
            "IMAGEGATE_HOME": str(self.home),
            "IMAGEGATE_ROLLOUT_FILE": str(rollout),
            "IMAGEGATE_SCHEDULES_FILE": str(schedules),
            "PYTHONPATH": str(ROOT),
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
            "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        }
        # One client: a new one reads all certificates, which the tests that poll would feel. No
        # kept connections: the server closes idle ones just when the next request is sent.
        self._client = httpx.Client(
            timeout=60, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self.served = folder / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.served.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows", "serve", "--port", str(self.port)],
                stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                cwd=self.folder, env=self.env, start_new_session=True,
            )  # fmt: skip
        self.wait("serve is ready", lambda: "Ctrl-C stops." in self.said(), 300)

    def stop(self) -> None:
        self._client.close()
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(120)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.state.close()

    def said(self) -> str:
        return self.served.read_text(errors="replace")

    def wait(self, what: str, condition: Callable[[], Any], seconds: float = 240) -> Any:
        def held() -> Any:
            assert self.process is not None
            assert self.process.poll() is None, self.said()
            with contextlib.suppress(httpx.TransportError):
                return condition()
            return None

        return until(what, held, seconds)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask until the server is not busy: 503 says that SQLite was locked for a moment."""
        for _ in range(30):
            answer = self._client.request(method, self.url + path, json=body)
            if answer.status_code != 503:
                break
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def begin(self, **request: Any) -> str:
        """Start the deployment as the form does; return the flow run's id."""
        deployment = self.api("GET", "/deployments/name/canary/storefront")
        asked = deployment["parameters"]["request"] | {"owner": "kim"} | request
        path = f"/deployments/{deployment['id']}/create_flow_run"
        body = {"parameters": {"request": asked}, "state": {"type": "SCHEDULED"}}
        run_id: str = self.api("POST", path, body)["id"]
        return run_id

    def walk(self) -> str:
        return self.begin(candidate=CANDIDATE, policy=self.policy, without_gate="a test")

    def run_state(self, run_id: str) -> tuple[str, str]:
        found = self.api("GET", f"/flow_runs/{run_id}")
        return found["state_type"], found["state_name"]

    def set_state(self, run_id: str, state: dict[str, Any]) -> None:
        """What the buttons of the UI send."""
        self.api("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def serve(self, count: int, failures: int = 0) -> None:
        with self.log.open("a") as file:
            for i in range(count):
                row = {
                    "time": datetime.now(UTC).isoformat(),
                    "product": "storefront",
                    "mix": self.new.digest,
                    "ok": i >= failures,
                }
                file.write(json.dumps(row) + "\n")

    @property
    def canary(self) -> Canary | None:
        return store.newest_of(self.state, "storefront")

    def is_now(self, status: str, *, looks: int = 0) -> bool:
        found = self.canary
        return found is not None and found.status == status and found.progress.looks >= looks

    @property
    def weights(self) -> dict[str, float]:
        shown = self.router.read("storefront")
        assert shown is not None
        return dict(shown.weights)


@pytest.fixture
def served(tmp_path: Path, migrated_prefect: Path) -> Iterator[Served]:
    world = Served(tmp_path)
    shutil.copytree(migrated_prefect, world.home / "prefect")
    try:
        world.start()
        yield world
    finally:
        world.stop()


def test_a_canary_from_prefects_ui_is_suspended_resumed_told_and_cancelled(served: Served) -> None:
    # Walk: a person starts it by the form.
    run_id = served.walk()
    served.wait("it is driven", lambda: served.is_now("running", looks=1))
    assert served.weights[served.new.digest] == 0.05

    # The button "Suspend": the process ends, the canary is paused and keeps its share.
    details = {"pause_reschedule": True, "pause_timeout": "2099-01-01T00:00:00Z"}
    served.set_state(run_id, {"type": "PAUSED", "name": "Suspended", "state_details": details})

    def let_go() -> bool:
        found = served.canary
        return found is not None and found.status == "paused" and found.driver is None

    served.wait("it is paused", let_go)
    assert served.weights[served.new.digest] == 0.05
    assert served.run_state(run_id)[0] == "PAUSED"

    # The button "Resume": the same flow run goes on with the same canary.
    served.api("POST", f"/flow_runs/{run_id}/resume")
    served.wait("it goes on", lambda: served.is_now("running"))
    served.serve(200)

    def second() -> bool:
        found = served.canary
        return found is not None and found.step == 1 and found.progress.applied

    served.wait("the second step", second)
    assert served.weights[served.new.digest] == 0.5

    # Another run tells it something.
    told = served.begin(action="pause", reason="demo")
    served.wait("told", lambda: served.run_state(told) == ("COMPLETED", "Asked"))
    assert served.is_now("paused")
    found = served.canary
    assert found is not None
    assert found.reason == "paused by kim: demo"

    # A second walk is refused while the first lives.
    twice = served.walk()
    served.wait("refused", lambda: served.run_state(twice) == ("FAILED", "Refused"))

    # Cancelling the flow run aborts the canary.
    served.set_state(run_id, {"type": "CANCELLING", "name": "Cancelling"})
    served.wait("it is aborted", lambda: served.is_now("aborted"))
    assert served.weights == {served.old.digest: 1.0}
    served.wait("cancelled", lambda: served.run_state(run_id)[0] == "CANCELLED")

    # And one that nobody disturbs arrives, by name and with its figures.
    last = served.walk()
    served.wait("it is driven", lambda: served.is_now("running", looks=1))

    def arrived() -> bool:
        served.serve(20)
        return served.run_state(last) == ("COMPLETED", "PROMOTE")

    served.wait("it arrives", arrived)
    assert require_production(served.state, "storefront").mix_digest == served.new.digest
    tasks = served.api("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [last]}}})
    assert {task["name"] for task in tasks} == {"step 5 %", "step 50 %"}
    shown = served.api("POST", "/artifacts/latest/filter", {"sort": "KEY_DESC"})
    assert any(a["type"] == "markdown" and "walks into storefront" in a["data"] for a in shown)
