"""The whole gate as people run it: the real command, server, pictures, checks and databases."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, Command
from tests.fakes.slack_server import CHANNEL, TOKEN, SlackServer

pytestmark = pytest.mark.real

BROKEN = str(ROOT / "deployments" / "mixes" / "candidate-broken.yaml")


@pytest.fixture
def lenient(tmp_path: Path) -> str:
    """A policy that 28 cases can satisfy, so that these tests stay short."""
    policy = {
        "schema_version": 1,
        "name": "lenient",
        "failure": {"limit": 0.1, "promote_below": 0.25},
        "slices": {"limit": 0.5, "critical": []},
        "limits": [{"measure": "effective_cost_per_1k_usd", "max": 30.0, "on_breach": "hold"}],
        "sampling": {"cases": 28, "shard_size": 7, "stop_early": False},
    }
    path = tmp_path / "lenient.yaml"
    path.write_text(yaml.safe_dump(policy), encoding="utf-8")
    return str(path)


@pytest.fixture
def strict(tmp_path: Path) -> str:
    """A policy by which 36 cases of a broken build are proof enough."""
    policy = {
        "schema_version": 1,
        "name": "strict",
        "failure": {"limit": 0.005, "promote_below": 0.01, "alpha": 0.2},
        "sampling": {"cases": 36, "shard_size": 9, "stop_early": False},
    }
    path = tmp_path / "strict.yaml"
    path.write_text(yaml.safe_dump(policy), encoding="utf-8")
    return str(path)


def run_folder(home: Path) -> Path:
    (folder,) = (home / "runs").iterdir()
    return folder


def server_log(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "server-requests.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def billed(folder: Path) -> int:
    return sum(line["billed_microusd"] for line in server_log(folder))


def query(home: Path, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(home / "state.db") as database:
        return database.execute(sql).fetchall()


def routing(home: Path, product: str = "storefront") -> dict[str, Any]:
    value = json.loads((home / "routing.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = value["products"][product]
    return found


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until the condition holds; fail when the process ends before that."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the condition never held"
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue


def finished_generations(home: Path) -> int:
    if not (home / "state.db").exists():
        return 0
    try:
        return int(query(home, "SELECT count(*) FROM journal")[0][0])
    except sqlite3.OperationalError:
        return 0


def test_promote_then_a_broken_candidate_is_rolled_back(
    ephemeral_imagegate: Command, lenient: str, strict: str
) -> None:
    imagegate = ephemeral_imagegate
    first = imagegate("run", "--policy", lenient, "--json")
    assert first.code == 0, first.err
    result = first.json
    assert result["verdict"] == "PROMOTE"
    assert result["production"] == "candidate"
    assert result["images"] == 28
    assert result["effective_cost_per_1k_usd"] < result["baseline_effective_cost_per_1k_usd"]
    assert Path(result["report"]).is_file()
    assert routing(imagegate.home)["mix_name"] == "candidate"
    assert "Traceback" not in first.err

    second = imagegate("run", "--policy", strict, "--candidate", BROKEN, "--json")
    assert second.code == 1, second.err
    judged = second.json
    assert judged["verdict"] == "ROLLBACK"
    assert judged["production"] == "candidate"
    assert any(" failed " in r and "subtask=" in r for r in judged["reasons"]), judged["reasons"]
    assert routing(imagegate.home)["mix_name"] == "candidate"

    back = imagegate("rollback", "--reason", "a drill", "--json")
    assert back.code == 0, back.err
    assert back.json["mix_name"] == "production"
    assert routing(imagegate.home)["mix_name"] == "production"


def test_a_broken_candidate_is_stopped_within_a_hundred_images(imagegate: Command) -> None:
    done = imagegate("run", "--candidate", BROKEN, "--json")
    assert done.code == 1, done.err
    first = done.json
    folder = run_folder(imagegate.home)
    asked = query(
        imagegate.home, "SELECT count(DISTINCT case_id) FROM ledger WHERE arm = 'candidate'"
    )[0][0]
    assert first["images"] <= asked < 100
    assert first["savings"]["planned"] == 600
    assert first["savings"]["decided"] == first["images"]
    assert first["savings"]["usd"] > 5
    assert any("did not have to be made" in reason for reason in first["reasons"])
    assert not first["incomplete"]

    # The same build again: the ledger of retests says so, and the evidence starts lower.
    again = imagegate("run", "--candidate", BROKEN, "--seed", "8", "--json")
    assert again.code == 1, again.err
    told = [w for w in again.json["warnings"] if folder.name in w]
    assert len(told) == 1, again.json["warnings"]
    assert "tested before" in told[0]


def test_the_cap_holds_and_is_never_passed(imagegate: Command) -> None:
    done = imagegate("run", "--budget-usd", "0.5", "--cases", "60", "--json")
    assert done.code == 3, done.err
    result = done.json
    assert result["verdict"] == "HOLD"
    assert any("0.50" in reason for reason in result["reasons"])
    folder = run_folder(imagegate.home)
    assert 0 < billed(folder) <= 500_000
    (booked,) = query(
        imagegate.home, "SELECT sum(coalesce(booked_microusd, reserved_microusd)) FROM ledger"
    )[0]
    assert billed(folder) <= booked <= 500_000
    assert result["spend_usd"] == pytest.approx(booked / 1_000_000)
    assert routing(imagegate.home)["mix_name"] == "production"


def test_a_killed_run_resumes_to_the_same_verdict_and_pays_nothing_twice(
    imagegate: Command, tmp_path: Path, lenient: str
) -> None:
    calm = Command(tmp_path / "calm", imagegate.env | {"IMAGEGATE_HOME": str(tmp_path / "calm")})
    undisturbed = calm("run", "--policy", lenient, "--seed", "7", "--json")
    assert undisturbed.code in (0, 1, 3), undisturbed.err

    process = imagegate.start("run", "--policy", lenient, "--seed", "7", "--json")
    wait_for(lambda: finished_generations(imagegate.home) >= 15, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder = run_folder(imagegate.home)
    before = set(query(imagegate.home, "SELECT arm, case_id FROM journal"))
    assert 15 <= len(before) < 56

    # The server of the killed run notices and ends; only then is its log complete.
    lines = len(server_log(folder))
    resumed = imagegate("run", "--resume", folder.name, "--json")
    assert resumed.code == undisturbed.code, resumed.err
    one, other = undisturbed.json, resumed.json
    for key in ("verdict", "images", "failure_rate", "baseline_failure_rate", "accounts"):
        assert other[key] == one[key], key

    log = server_log(folder)
    assert len(log) > lines
    paid = Counter(line["idempotency_key"] for line in log if line["billed_microusd"])
    assert max(paid.values()) == 1
    keys = query(imagegate.home, "SELECT idempotency_key, arm, case_id FROM ledger")
    repeated = {key for key, arm, case in keys if (arm, case) in before}
    assert not repeated & {line["idempotency_key"] for line in log[lines:]}
    (booked,) = query(
        imagegate.home, "SELECT sum(coalesce(booked_microusd, reserved_microusd)) FROM ledger"
    )[0]
    assert billed(folder) <= booked


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_once_it_holds_and_can_go_on(
    imagegate: Command, lenient: str, number: signal.Signals
) -> None:
    process = imagegate.start("run", "--policy", lenient, "--json")
    wait_for(lambda: finished_generations(imagegate.home) >= 10, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    result = json.loads(out)
    assert result["verdict"] == "HOLD"
    assert any("interrupted" in reason for reason in result["reasons"])
    assert "Traceback" not in err
    if number == signal.SIGTERM:
        return  # It went the same way; going on is shown once.
    resumed = imagegate("run", "--resume", result["run_id"], "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["images"] == 28


@pytest.fixture
def slack(tmp_path: Path) -> Iterator[SlackServer]:
    with SlackServer(0, tmp_path / "slack.jsonl", TOKEN, (CHANNEL,)) as server:
        yield server


def test_slack_is_told_and_an_alert_survives_its_absence(
    imagegate: Command, strict: str, slack: SlackServer, tmp_path: Path
) -> None:
    env = {
        "SLACK_BOT_TOKEN": TOKEN,
        "IMAGEGATE_SLACK_CHANNEL": CHANNEL,
        "IMAGEGATE_SLACK_URL": slack.base_url,
    }
    told = imagegate("run", "--policy", strict, "--candidate", BROKEN, "--json", **env)
    assert told.code == 1, told.err
    assert any("Slack was told" in action for action in told.json["actions"])
    log = (tmp_path / "slack.jsonl").read_text(encoding="utf-8")
    assert "chat.postMessage" in log
    assert told.json["verdict"] in log
    assert TOKEN not in log

    address = slack.base_url
    slack.stop()
    down = imagegate("run", "--policy", strict, "--candidate", BROKEN, "--json", **env)
    assert down.code == 1, down.err
    assert down.json["verdict"] == "ROLLBACK"
    assert down.json["production"] == "production"
    assert routing(imagegate.home)["mix_name"] == "production"
    waiting = imagegate("alerts", "--json").json["pending"]
    assert {m["run_id"] for m in waiting} == {down.json["run_id"]}
    for text in (down.err, json.dumps(waiting)):
        assert TOKEN not in text

    port = int(address.split(":")[2].split("/")[0])
    with SlackServer(port, tmp_path / "slack-2.jsonl", TOKEN, (CHANNEL,)):
        delivered = imagegate("alerts", "deliver", "--json", **env)
        assert delivered.code == 0, delivered.err
        assert delivered.json["pending"] == []
    assert down.json["run_id"] in (tmp_path / "slack-2.jsonl").read_text(encoding="utf-8")


def test_a_persons_freeze_stops_the_gate_before_it_spends(imagegate: Command, lenient: str) -> None:
    held = imagegate("run", "--policy", lenient, "--cases", "4", "--json")
    assert held.code == 3, held.err
    assert imagegate("thaw").code == 0
    frozen = imagegate(
        "freeze", "--reason", "holiday season", "--owner", "kim", "--days", "3", "--json"
    )
    assert frozen.code == 0, frozen.err
    refused = imagegate("run", "--policy", lenient)
    flat = " ".join(refused.err.split())
    assert refused.code == 2, refused.err
    for word in ("kim", "holiday season", frozen.json["until_at"], "imagegate thaw"):
        assert word in flat
    assert len(list((imagegate.home / "runs").iterdir())) == 1
    back = imagegate("rollback", "--to", routing(imagegate.home)["mix_digest"], "--json")
    assert back.code == 0, back.err


def test_a_full_disk_promotes_nothing(imagegate: Command, lenient: str, tmp_path: Path) -> None:
    """The run's folder is a symlink into a tiny file system that is full when evidence is due."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=220k", "tmpfs", str(small)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        imagegate.home.mkdir()
        (imagegate.home / "runs").symlink_to(small)
        done = imagegate("run", "--policy", lenient)
        assert done.code == 4, done.err
        flat = " ".join(done.err.split())
        assert "disk is full" in flat or "No space left" in flat
        assert "Traceback" not in done.err
        assert routing(imagegate.home)["mix_name"] == "production"
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(shutil.which("pkill") is None, reason="needs pkill (procps) to find a server")
def test_a_provider_that_dies_is_no_verdict_and_a_resume_mends_it(
    imagegate: Command, lenient: str
) -> None:
    process = imagegate.start("run", "--policy", lenient, "--cases", "24", "--json")
    wait_for(lambda: finished_generations(imagegate.home) >= 6, process)
    # Only the server of this run has its log on the command line.
    log = str(run_folder(imagegate.home) / "server-requests.jsonl")
    subprocess.run(["pkill", "-KILL", "-f", log], check=True)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 3, err
    held = json.loads(out)
    assert held["verdict"] == "HOLD"
    assert held["accounts"]["undelivered"] == 0
    assert routing(imagegate.home)["mix_name"] == "production"
    resumed = imagegate("run", "--resume", held["run_id"], "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["images"] == 24


def test_a_refused_run_leaves_production_as_it_was(
    imagegate: Command, lenient: str, tmp_path: Path
) -> None:
    catalog = yaml.safe_load((ROOT / "deployments" / "catalog.yaml").read_text(encoding="utf-8"))
    by_name = {model["name"]: model for model in catalog["models"]}
    by_name["folio-2"]["retires"] = "2026-01-01"
    by_name["muse-2"]["version"] = "muse-2-another"
    by_name["dash-2"]["licence"]["uses"] = ["research"]
    del by_name["dash-1"]["price"]
    by_name["retouch-2"]["key_env"] = "NO_SUCH_KEY_HERE"
    file = tmp_path / "catalog.yaml"
    file.write_text(yaml.safe_dump(catalog), encoding="utf-8")
    refused = imagegate("run", "--policy", lenient, "--catalog", str(file))
    flat = " ".join(refused.err.split())
    assert refused.code == 2, refused.err
    for word in ("folio-2", "2026-01-01", "muse-2-another", "commercial", "dash-1", "price"):
        assert word in flat, flat
    assert "NO_SUCH_KEY_HERE" in flat
    assert "Traceback" not in refused.err
    status = imagegate("status", "--json").json
    assert status["production"] is None
    assert status["freezes"] == []
    assert query(imagegate.home, "SELECT count(*) FROM ledger") == [(0,)]
