"""A team's server with everything real, and what happens when parts of it are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, Command
from tests.fakes.postgres import Postgres
from tests.fakes.slack_server import CHANNEL, TOKEN, SlackServer
from tests.real.cluster import Cluster, missing_programs, until

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

POOL = "gates"
CASES = 16
#: Seconds within which on-call must know of a dead gate.
ALARM_S = 120.0


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A policy that two dozen cases can satisfy."""
    path = tmp_path_factory.mktemp("policy") / "lenient.yaml"
    value = {
        "schema_version": 1,
        "name": "lenient",
        "failure": {"limit": 0.1, "promote_below": 0.25},
        "slices": {"limit": 0.5, "critical": []},
        "sampling": {"cases": CASES, "shard_size": 4, "stop_early": False},
    }
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def slack() -> Iterator[SlackServer]:
    with SlackServer() as server:
        yield server


@pytest.fixture(scope="module")
def cluster(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory, slack: SlackServer, policy: str
) -> Iterator[Cluster]:
    """A running cluster with the deployments registered and two watchdogs; no worker yet."""
    if missing := missing_programs():
        pytest.skip(f"needs {', '.join(missing)} (Debian: apt-get install {' '.join(missing)})")
    folder = tmp_path_factory.mktemp("cluster")
    schedules = folder / "schedules.yaml"
    value = {
        "schema_version": 1,
        "timezone": "UTC",
        "products": {
            "storefront": {
                "owner": "release-engineering",
                "parameters": {"policy": policy, "seed": 7},
            }
        },
        # Nothing fires by itself: the tests start what they look at.
        "production_watch": {"cron": "0 0 1 1 *"},
        "budget_alarm": {"cron": "0 0 1 1 *"},
        "freeze_reminder": {"cron": "0 0 1 1 *"},
        "live_watch": {"cron": "0 0 1 1 *"},
        "rollback_drill": {"cron": "0 0 1 1 *"},
    }
    schedules.write_text(yaml.safe_dump(value), encoding="utf-8")
    made = Cluster(folder, postgres)
    made.env |= {
        "IMAGEGATE_SCHEDULES_FILE": str(schedules),
        "SLACK_BOT_TOKEN": TOKEN,
        "IMAGEGATE_SLACK_CHANNEL": CHANNEL,
        "IMAGEGATE_SLACK_URL": slack.base_url,
    }
    try:
        made.start()
        made.command("deploy", "--pool", POOL, "--json")
        for number in (1, 2):
            made.imagegate("watchdog", "--every", "2", name=f"watchdog-{number}")
        yield made
    finally:
        made.stop()


class Gate:
    """A gate that was started from its deployment."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        deployment = cluster.api("GET", "/deployments/name/release-gate/storefront")
        request = deployment["parameters"]["request"] | {"owner": "kim"}
        made = cluster.api(
            "POST",
            f"/deployments/{deployment['id']}/create_flow_run",
            parameters={"request": request},
            state={"type": "SCHEDULED"},
        )
        self.id = made["id"]

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.api("GET", f"/flow_runs/{self.id}")["state"]
        return found

    @property
    def run(self) -> tuple[Any, ...] | None:
        """The gate run: id, process, status, verdict, result."""
        rows = self.cluster.query(
            "SELECT run_id, pid, status, verdict, result FROM runs WHERE flow_run_id = %s", self.id
        )
        return rows[0] if rows else None

    @property
    def run_id(self) -> str:
        run = self.run
        assert run is not None
        return str(run[0])

    def generated(self) -> int:
        """How many pictures are journalled."""
        if self.run is None:
            return 0
        return int(
            self.cluster.query("SELECT count(*) FROM journal WHERE run_id = %s", self.run_id)[0][0]
        )

    def until_generated(self, count: int) -> int:
        def enough() -> bool:
            self.check()
            return self.generated() >= count

        until(f"{count} pictures of {self.id}", enough)
        return self.generated()

    def check(self) -> None:
        state = self.state
        assert state["type"] not in ("FAILED", "CANCELLED"), self.told(state)

    def told(self, state: dict[str, Any]) -> str:
        logs = [p.text()[-2500:] for p in self.cluster.started if p.name.startswith("worker")]
        return "\n\n".join([str(state), *logs])

    def result(self) -> dict[str, Any]:
        """Wait for the verdict and return what the run booked."""

        def ended() -> bool:
            self.check()
            return bool(self.state["type"] == "COMPLETED")

        until(f"the verdict of {self.id}", ended, 240)
        run = self.run
        assert run is not None
        assert run[2] == "finished"
        found: dict[str, Any] = json.loads(run[4])
        return found

    def kill_process(self) -> None:
        """Kill the process that drives the run, as the kernel does when memory is short."""
        run = self.run
        assert run is not None
        os.kill(int(run[1]), signal.SIGKILL)

    def bills(self) -> Counter[str]:
        """How often each request key was billed by the image server, over all its lives."""
        log = self.cluster.home / "runs" / self.run_id / "server-requests.jsonl"
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        return Counter(line["idempotency_key"] for line in lines if line["billed_microusd"])

    def resumes(self) -> int:
        rows = self.cluster.query('SELECT "count" FROM resumes WHERE key = %s', self.id)
        return int(rows[0][0]) if rows else 0


def told(slack: SlackServer, *words: str) -> list[dict[str, Any]]:
    """Return the messages that say all of these words."""
    return [m for m in slack.messages if all(word in json.dumps(m) for word in words)]


def by_automation(cluster: Cluster, flow: str) -> list[dict[str, Any]]:
    """Return the flow runs that an automation of Prefect's server started."""
    found = cluster.api("POST", "/flow_runs/filter", flows={"name": {"any_": [flow]}})
    return [r for r in found if (r.get("created_by") or {}).get("type") == "AUTOMATION"]


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for key in ("verdict", "images", "failure_rate", "baseline_failure_rate", "accounts"):
        assert other[key] == one[key], key


def test_a_dead_worker_is_told_and_the_other_worker_goes_on_paying_nothing_twice(
    cluster: Cluster, slack: SlackServer, policy: str, tmp_path: Path
) -> None:
    calm_home = tmp_path / "calm"
    calm_env = cluster.env | {
        "IMAGEGATE_HOME": str(calm_home),
        "IMAGEGATE_STATE_URL": f"sqlite:///{calm_home / 'state.db'}",
    }
    calm_env.pop("SLACK_BOT_TOKEN")
    calm = Command(calm_home, calm_env)("run", "--policy", policy, "--seed", "7", "--json")
    assert calm.code == 0, calm.err

    first = cluster.worker("worker-1", POOL)
    gate = Gate(cluster)
    gate.until_generated(6)
    first.kill()
    # The flow's own process does not need its worker: it goes on.
    before = gate.until_generated(gate.generated() + 4)
    assert before < 2 * CASES, "killed too late to prove anything"
    gate.kill_process()
    paid = gate.bills()

    cluster.worker("worker-2", POOL)
    until("on-call knows", lambda: told(slack, "GATE FAILED", gate.run_id), ALARM_S)
    until("it goes on", lambda: told(slack, "RESOLVED", gate.run_id), ALARM_S)
    result = gate.result()
    same(calm.json, result)

    bills = gate.bills()
    assert max(bills.values()) == 1, "a request was paid twice"
    assert set(paid) < set(bills)
    assert gate.resumes() == 1
    # Prefect's automation had a third look taken at once: the watch as a flow.
    until("the automation started the watch", lambda: by_automation(cluster, "production-watch"))
    # Three looked, one alarm came.
    assert len(told(slack, "GATE FAILED", gate.run_id, "found dead")) == 1
    assert cluster.query("SELECT count(*) FROM incidents WHERE status = 'open'") == [(0,)]


def test_a_dead_server_and_a_dead_process_lose_nothing(
    cluster: Cluster, slack: SlackServer
) -> None:
    gate = Gate(cluster)
    gate.until_generated(4)
    cluster.servers[0].kill()
    # The worker lives and sees its process die; its hook tells, the watchdog resumes.
    gate.until_generated(gate.generated() + 4)
    gate.kill_process()
    until("on-call knows", lambda: told(slack, "GATE FAILED", gate.run_id), ALARM_S)
    result = gate.result()
    assert result["verdict"] in ("PROMOTE", "HOLD")
    assert result["images"] == CASES
    assert not result["incomplete"]
    assert max(gate.bills().values()) == 1
    assert gate.resumes() == 1
    assert not cluster.servers[0].lives
    cluster.restart_server(0)


SILENT_FLOW = """
import sys
from prefect import flow

@flow(name="freeze-reminder")
def hangs():
    print("ready", flush=True)
    sys.stdin.read()

hangs()
"""

APPLY = """
from datetime import timedelta
from prefect.client.orchestration import get_client
from deployments.automations import Times, apply
from tasks.settings import load_settings
with get_client(sync_client=True) as client:
    quick = Times(silence=timedelta(seconds=12), watch=timedelta(seconds=10))
    for _ in range(2):
        made = apply(client, load_settings(), quick).automations
        print(sorted((row.state, row.name) for row in made))
"""


def test_prefects_automations_see_what_dies_when_nobody_of_ours_is_left(
    cluster: Cluster, slack: SlackServer
) -> None:
    env = cluster.env | {"IMAGEGATE_SLACK_WEBHOOK": slack.webhook}
    made = subprocess.run(
        [sys.executable, "-c", APPLY], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, second = made.stdout.splitlines()
    assert "'updated', 'imagegate: dead flow run'" in first
    assert "'created', 'imagegate: watch stands still'" in first
    assert first.count("imagegate:") == second.count("'unchanged', 'imagegate:") == 4
    names = [a["name"] for a in cluster.api("POST", "/automations/filter")]
    assert sorted(names) == sorted(set(names))

    for process in cluster.started:
        if process.name.startswith(("watchdog", "worker")) and process.lives:
            process.stop()
    victim = subprocess.Popen(
        [sys.executable, "-c", SILENT_FLOW],
        env=cluster.env,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert victim.stdout is not None
    try:
        assert victim.stdout.readline() == "ready\n"
        (flow_run,) = cluster.api(
            "POST",
            "/flow_runs/filter",
            flows={"name": {"any_": ["freeze-reminder"]}},
            flow_runs={"state": {"type": {"any_": ["RUNNING"]}}},
        )
        resource = f"prefect.flow-run.{flow_run['id']}"
        beats = {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [resource]},
        }
        until(
            "Prefect has a sign of life",
            lambda: cluster.api("POST", "/events/filter", filter=beats)["events"],
        )
    finally:
        victim.kill()
        victim.communicate()

    def state() -> dict[str, Any]:
        found: dict[str, Any] = cluster.api("GET", f"/flow_runs/{flow_run['id']}")["state"]
        return found

    until("it is booked as crashed", lambda: state()["type"] == "CRASHED")
    assert "imagegate: dead flow run" in state()["message"]

    def hooked(words: str) -> bool:
        return any(words in json.dumps(body) for body in slack.hooked)

    until("the watch is missed", lambda: hooked("nobody watches production"))
    until("the pool is empty", lambda: hooked(f"prefect worker start --pool {POOL}"))
