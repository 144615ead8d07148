"""Scheduled gates and gates from Prefect's UI: a real ``imagegate serve``, server and browser."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import ROOT, clean_environment
from tests.fakes.held_models import HeldModels

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

CHROMIUM = Path("/usr/bin/chromium")
GATE = "release-gate"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class World:
    """One machine with ``imagegate serve`` on it."""

    def __init__(self, folder: Path, models: HeldModels) -> None:
        self.folder = folder
        self.models = models
        self.port = free_port()
        self.ui = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        self.env = clean_environment() | {
            # Relative on purpose: the runs must find it too.
            "IMAGEGATE_HOME": "home",
            "IMAGEGATE_SCHEDULES_FILE": "schedules.yaml",
            "PYTHONPATH": str(ROOT),
            # A queued gate asks for its turn every second instead of every 30.
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(base_url=f"{self.ui}/api", timeout=30, trust_env=False)
        self._write()

    def _write(self) -> None:
        products: dict[str, Any] = {
            "storefront": {
                "owner": "team",
                "gate": {"cron": "0 2 * * *"},
                "parameters": {"policy": self._file("lenient.yaml", yaml.safe_dump(LENIENT))},
            }
        }
        for product, collision in (("held", "refuse"), ("queued", "wait")):
            files = self.models.files(product)
            products[product] = {
                "collision": collision,
                "parameters": {
                    field: self._file(f"{product}-{field}.yaml", text)
                    for field, text in files.items()
                },
            }
        products["held"]["gate"] = {"every_seconds": 15}
        quiet = {"cron": "0 3 1 1 *"}
        self._file(
            "schedules.yaml",
            yaml.safe_dump(
                {
                    "timezone": "Europe/Berlin",
                    "products": products,
                    "production_watch": quiet,
                    "budget_alarm": quiet,
                    "freeze_reminder": quiet,
                }
            ),
        )

    def _file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows", "serve", "--port", str(self.port)],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=self.env,
            )
        marker = self.said().count("Ctrl-C stops.")
        self.wait(lambda: self.said().count("Ctrl-C stops.") > marker, 240)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(120)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, condition: Callable[[], Any], seconds: float = 90) -> Any:
        """Wait until the condition holds and return it; fail when serve ends before that."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.TransportError):
                if found := condition():
                    return found
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"it never came to that\n{self.said()}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.2)

    def api(self, method: str, path: str, **json: Any) -> Any:
        answer = self._client.request(method, path, json=json or None)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/deployments/name/{name}")
        return found

    def start_run(self, name: str, **request: Any) -> httpx.Response:
        deployment = self.deployment(name)
        asked = deployment["parameters"]["request"] | {"owner": "kim"} | request
        return self._client.post(
            f"/deployments/{deployment['id']}/create_flow_run",
            json={"parameters": {"request": asked}, "state": {"type": "SCHEDULED"}},
        )

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/flow_runs/{run_id}")
        return found

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api(
            "POST",
            "/flow_runs/filter",
            deployments={"id": {"any_": [self.deployment(deployment)["id"]]}},
            sort="EXPECTED_START_TIME_ASC",
        )
        return found

    def close(self) -> None:
        self._client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


LENIENT = {
    "schema_version": 1,
    "name": "lenient",
    "failure": {"limit": 0.1, "promote_below": 0.35},
    "slices": {"limit": 0.5, "critical": []},
    "limits": [{"measure": "effective_cost_per_1k_usd", "max": 30.0, "on_breach": "hold"}],
    "sampling": {"cases": 28, "shard_size": 7},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with HeldModels() as models:
        world = World(tmp_path_factory.mktemp("machine"), models)
        try:
            world.start()
            yield world
        finally:
            models.release("held")
            models.release("queued")
            world.close()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_schedule_fires_by_itself_and_a_second_gate_is_refused_by_name(world: World) -> None:
    name = f"{GATE}/held"
    world.wait(world.models.seen("held").is_set)
    (first,) = [r for r in world.runs(name) if r["state"]["name"] == "Running"]
    assert first["auto_scheduled"] is True
    assert first["parameters"]["request"]["owner"] == "schedule (imagegate)"

    second = world.start_run(name).json()["id"]
    refused = world.wait(
        lambda: (r := world.run(second))["state"]["name"] == "Refused" and r, seconds=18
    )
    # Nothing of it was started; its state says which run is in the way.
    assert refused["run_count"] == 0
    assert refused["state"]["type"] == "CANCELLED"
    assert first["name"] in refused["state"]["message"]
    assert first["id"] in refused["state"]["message"]
    world.wait(lambda: f"refused: {refused['name']}" in world.said())
    (schedule,) = world.deployment(name)["schedules"]
    path = f"/deployments/{world.deployment(name)['id']}/schedules/{schedule['id']}"
    world.api("PATCH", path, active=False)
    world.models.release("held")


def test_a_second_gate_waits_for_the_first_when_the_file_says_so(world: World) -> None:
    name = f"{GATE}/queued"
    first = world.start_run(name).json()["id"]
    world.wait(world.models.seen("queued").is_set)
    second = world.start_run(name).json()["id"]
    world.wait(lambda: world.run(second)["state"]["name"] == "AwaitingConcurrencySlot", seconds=18)
    world.models.release("queued")
    ended = world.wait(lambda: (r := world.run(second))["state"]["name"] == "Refused" and r)
    before = world.run(first)
    assert at(ended["start_time"]) >= at(before["end_time"])
    # Its models are not served: the gate says so itself, in one state and without a traceback.
    assert before["state"]["type"] == ended["state"]["type"] == "FAILED"
    assert "preflight refuses" in ended["state"]["message"]
    assert "Traceback" not in ended["state"]["message"]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"cases": 0}, "cases"),
        ({"candidate": "nosuch.yaml"}, "candidate"),
        ({"owner": ""}, "owner"),
    ],
)
def test_the_server_refuses_a_wrong_value(world: World, wrong: dict[str, Any], word: str) -> None:
    answer = world.start_run(f"{GATE}/storefront", **wrong)
    assert answer.status_code == 409
    assert word in answer.json()["detail"]


def test_the_flow_refuses_what_only_it_can_see(world: World) -> None:
    answer = world.start_run(f"{GATE}/storefront", inputs="no/such/log.csv")
    run = world.wait(lambda: (r := world.run(answer.json()["id"]))["end_time"] and r)
    assert (run["state"]["name"], run["state"]["type"]) == ("Refused", "FAILED")
    assert "no/such/log.csv" in run["state"]["message"]


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium (Debian: chromium)")
def test_a_gate_is_started_watched_and_read_in_the_ui(world: World, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    shots = Path(os.environ.get("IMAGEGATE_TEST_SHOTS", tmp_path))  # noqa: TID251
    deployment = world.deployment(f"{GATE}/storefront")["id"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1500})
        page.set_default_timeout(30_000)
        page.goto(f"{world.ui}/deployments/deployment/{deployment}")
        page.get_by_role("tab", name="Description").click()
        page.get_by_text("Two gates of storefront never run at once").wait_for()
        page.screenshot(path=shots / "deployment.png")
        page.goto(f"{world.ui}/deployments/deployment/{deployment}/run")

        page.get_by_label("Cases (Optional)").fill("0")
        page.get_by_label("Who asks").fill("kim@example.com")
        page.get_by_role("button", name="Submit").click()
        page.get_by_text("0 is less than the minimum of 1").first.wait_for()
        page.screenshot(path=shots / "form-refused.png", full_page=True)

        page.get_by_label("Candidate mix (Optional)").click()
        page.get_by_role("option", name="deployments/mixes/candidate.yaml").click()
        page.get_by_label("Cases (Optional)").fill("12")
        page.get_by_label("Budget in dollars (Optional)").fill("2")
        page.screenshot(path=shots / "form.png", full_page=True)
        before = {run["id"] for run in world.runs(f"{GATE}/storefront")}
        page.get_by_role("button", name="Submit").click()
        run = world.wait(
            lambda: next(
                (r for r in world.runs(f"{GATE}/storefront") if r["id"] not in before), None
            )
        )
        page.goto(f"{world.ui}/runs/flow-run/{run['id']}")
        page.get_by_text("PROMOTE", exact=True).first.wait_for(timeout=120_000)
        page.screenshot(path=shots / "run.png", full_page=True)
        page.get_by_role("tab", name="Artifacts").click()
        page.screenshot(path=shots / "artifacts.png", full_page=True)
        artifacts = world.api("POST", "/artifacts/filter", flow_runs={"id": {"any_": [run["id"]]}})
        (summary,) = [a for a in artifacts if a["key"] and a["key"].startswith("summary-")]
        page.goto(f"{world.ui}/artifacts/artifact/{summary['id']}")
        page.get_by_text("Before → after").first.wait_for()
        page.screenshot(path=shots / "artifact.png", full_page=True)
        browser.close()
    ended = world.run(run["id"])
    assert ended["parameters"]["request"]["cases"] == 12
    assert ended["parameters"]["request"]["owner"] == "kim@example.com"
    assert ended["state"]["name"] == "PROMOTE"
    assert (world.folder / "home" / "runs").is_dir(), "the run has to use the same home as serve"
    world.wait(lambda: f"{run['name']}: PROMOTE" in world.said())


def test_a_restart_goes_on_with_the_same_schedules(world: World) -> None:
    names = [f"{GATE}/{product}" for product in ("storefront", "held", "queued")]
    before = {name: world.deployment(name) for name in names}
    # A person's pause was kept by the server, and has to be by the restart.
    assert before[f"{GATE}/held"]["schedules"][0]["active"] is False
    assert world.stop() == 0
    assert "Traceback" not in world.said()
    world.start()
    for name in names:
        after = world.deployment(name)
        assert after["id"] == before[name]["id"]
        for field in ("schedules", "concurrency_options", "paused", "parameter_openapi_schema"):
            kept = [_without_times(value) for value in (after[field], before[name][field])]
            assert kept[0] == kept[1], (name, field)
    assert "[unchanged]" in world.said()
    held = before[f"{GATE}/held"]
    known = {run["id"] for run in world.runs(f"{GATE}/held") if run["start_time"]}
    path = f"/deployments/{held['id']}/schedules/{held['schedules'][0]['id']}"
    world.api("PATCH", path, active=True)
    world.wait(
        lambda: any(
            run["start_time"] and run["id"] not in known for run in world.runs(f"{GATE}/held")
        )
    )


def _without_times(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_times(item) for item in value]
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in ("created", "updated")}
    return value


def test_a_killed_serve_leaves_no_server_behind(world: World) -> None:
    assert world.process is not None
    world.process.kill()
    world.process.wait()
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{world.ui}/api/health", timeout=2, trust_env=False)
        except httpx.TransportError:
            return
        assert time.monotonic() < deadline, "Prefect's server outlived imagegate serve"
