"""Evidence in a real S3 server (moto), read and written by several machines."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.health import bucket
from tasks.errors import EvidenceError
from tasks.evidence.remote import RemoteStore
from tasks.images import ImageStore
from tasks.records import digest_bytes
from tasks.settings import load_settings
from tests.conftest import ROOT, Command
from tests.fakes.s3_server import KEYS, S3

pytestmark = pytest.mark.real

BUCKET = "evidence"


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    s3 = S3()
    s3.start()
    s3.client.create_bucket(Bucket=BUCKET)
    yield s3
    s3.stop()


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The server, running and empty; credentials in the environment as AWS's tools want them."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    yield server
    server.start() if server._server is None else None
    for key in server.keys(BUCKET):
        server.client.delete_object(Bucket=BUCKET, Key=key)


@pytest.fixture
def remote(s3: S3) -> RemoteStore:
    return RemoteStore(f"s3://{BUCKET}/team", s3.endpoint)


def test_amazons_own_client_finds_what_was_pushed(s3: S3, remote: RemoteStore) -> None:
    remote.push("runs/r1/plan.json", b"plan")
    big = bytes(range(256)) * 40_000
    remote.push("runs/r1/tables/cases.parquet", big)
    assert s3.keys(BUCKET) == ["team/runs/r1/plan.json", "team/runs/r1/tables/cases.parquet"]
    body = s3.client.get_object(Bucket=BUCKET, Key="team/runs/r1/plan.json")["Body"].read()
    assert body == b"plan"
    assert remote.pull("runs/r1/tables/cases.parquet") == big
    s3.client.put_object(Bucket=BUCKET, Key="team/runs/r2/plan.json", Body=b"by others")
    assert remote.list("runs") == ["r1", "r2"]
    assert remote.pull("runs/r2/plan.json") == b"by others", "listings are not cached"
    assert remote.pull("runs/r3/plan.json") is None
    assert not remote.exists("runs/r3/plan.json")


def test_pictures_travel_and_lost_or_altered_ones_are_noticed(
    s3: S3, remote: RemoteStore, tmp_path: Path
) -> None:
    here = ImageStore(tmp_path / "a", remote)
    kept, lost, altered = (here.put(text.encode()) for text in ("kept", "lost", "altered"))

    def key(digest: str) -> str:
        name = digest.removeprefix("sha256:")
        return f"team/images/{name[:2]}/{name}"

    s3.client.delete_object(Bucket=BUCKET, Key=key(lost))
    s3.client.put_object(Bucket=BUCKET, Key=key(altered), Body=b"something else")
    there = ImageStore(tmp_path / "b", RemoteStore(remote.url, s3.endpoint))
    assert there.get(kept) == b"kept"
    assert not there.has(lost)
    with pytest.raises(EvidenceError, match="cannot be read"):
        there.get(lost)
    with pytest.raises(EvidenceError, match="altered in the shared store"):
        there.path(altered)


def test_a_server_that_is_away_is_a_sentence_without_secrets(
    s3: S3, remote: RemoteStore, tmp_path: Path
) -> None:
    s3.stop()
    for call in (remote.pull, remote.exists, remote.list):
        with pytest.raises(EvidenceError, match=r"s3://evidence/team/runs.*IMAGEGATE_S3_ENDPOINT"):
            call("runs/r1")
    with pytest.raises(EvidenceError, match="cannot be written") as caught:
        ImageStore(tmp_path, remote).put(b"picture")
    assert not any(secret in str(caught.value) for secret in KEYS.values() if len(secret) > 12)
    s3.start()
    # The same open store goes on when the server is back.
    assert ImageStore(tmp_path, remote).put(b"picture") == digest_bytes(b"picture")


def test_a_bucket_that_is_not_there_and_wrong_keys_are_said(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = RemoteStore("s3://nowhere/team", s3.endpoint)
    with pytest.raises(EvidenceError, match="cannot be written"):
        nowhere.push("runs/r1/plan.json", b"x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(EvidenceError, match="credentials"):
        RemoteStore(f"s3://{BUCKET}/team", s3.endpoint).push("runs/r1/plan.json", b"x")


def test_the_bucket_is_made_when_it_is_missing(s3: S3, tmp_path: Path) -> None:
    env = {"IMAGEGATE_EVIDENCE_URL": "s3://made/prefix", "IMAGEGATE_S3_ENDPOINT": s3.endpoint}
    settings = load_settings(env, tmp_path)
    assert bucket(settings) is None
    assert bucket(settings) is None, "once more is no error"
    RemoteStore("s3://made/prefix", s3.endpoint).push("runs/r1/plan.json", b"x")
    s3.client.delete_object(Bucket="made", Key="prefix/runs/r1/plan.json")
    s3.client.delete_bucket(Bucket="made")
    s3.stop()
    assert "bucket made" in str(bucket(settings))


# --- the whole gate ------------------------------------------------------------------------


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


class Machine:
    """A machine of the team: a home of its own, the database and the bucket of all."""

    def __init__(self, base: Command, name: str, shared: Path, s3: S3) -> None:
        self.home = shared.parent / name
        self.database = shared / "state.db"
        self.routing = shared / "routing.json"
        more = {
            "IMAGEGATE_HOME": str(self.home),
            "IMAGEGATE_STATE_URL": f"sqlite:///{self.database}",
            "IMAGEGATE_ROUTING_FILE": str(self.routing),
            "IMAGEGATE_EVIDENCE_URL": f"s3://{BUCKET}/gate",
            "IMAGEGATE_S3_ENDPOINT": s3.endpoint,
        }
        self.run = Command(self.home, base.env | KEYS | more)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        if not self.database.exists():
            return []
        connection = sqlite3.connect(self.database)
        try:
            return connection.execute(sql).fetchall()
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()

    def count(self, sql: str) -> int:
        rows = self.query(sql)
        return int(rows[0][0]) if rows else 0

    def requests(self) -> list[dict[str, Any]]:
        (log,) = self.home.glob("runs/*/server-requests.jsonl")
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def machine(imagegate: Command, tmp_path: Path, s3: S3) -> Callable[[str], Machine]:
    shared = tmp_path / "shared"
    shared.mkdir()
    return lambda name: Machine(imagegate, name, shared, s3)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the condition never held"
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue


def test_a_gate_killed_here_goes_on_elsewhere_and_pays_nothing_twice(
    machine: Callable[[str], Machine], lenient: str, s3: S3
) -> None:
    first, second, third = machine("one"), machine("two"), machine("three")
    process = first.run.start("run", "--policy", lenient, "--json")
    wait_for(lambda: first.count("SELECT count(*) FROM journal") >= 12, process)
    process.kill()
    process.communicate()
    ((run_id,),) = first.query("SELECT run_id FROM runs")
    finished = first.query("SELECT arm, case_id, generation FROM journal")
    pictures = {json.loads(text)["image_digest"] for _, _, text in finished} - {None}
    names = {f"gate/images/{d[7:9]}/{d[7:]}" for d in pictures}
    stored = set(s3.keys(BUCKET))
    assert names <= stored, "what the journal names is in the bucket"
    assert f"gate/runs/{run_id}/plan.json" in stored

    done = second.run("run", "--resume", run_id, "--json")
    assert done.code == 0, done.err
    assert done.json["verdict"] == "PROMOTE"
    paid = {(arm, case_id) for arm, case_id, _ in finished}
    keys = [line["idempotency_key"] for line in second.requests() if line.get("idempotency_key")]
    assert keys
    again = [key for key in keys for arm, case_id in paid if f"{arm}" in key and case_id in key]
    assert again == []
    assert second.count("SELECT count(*) FROM journal") == 2 * 28

    shown = third.run("report", run_id, "--json")
    assert shown.code == 0, shown.err
    report = Path(shown.json["report"])
    assert report.is_relative_to(third.home)
    assert report.read_bytes() == Path(done.json["report"]).read_bytes()
    listed = third.run("evidence", "list", "--json").json
    assert listed["runs"] == [{"run_id": run_id, "shared": True, "here": True}]
    unknown = third.run("report", "../../etc", "--json")
    assert unknown.code == 2, unknown.err


@pytest.mark.parametrize(
    ("candidate", "code", "verdict"),
    [("candidate.yaml", 3, "HOLD"), ("candidate-broken.yaml", 1, "ROLLBACK")],
)
def test_without_the_store_nothing_is_promoted_but_a_rollback_waits_for_nothing(
    machine: Callable[[str], Machine],
    lenient: str,
    s3: S3,
    tmp_path: Path,
    candidate: str,
    code: int,
    verdict: str,
) -> None:
    if verdict == "ROLLBACK":
        policy = yaml.safe_load(Path(lenient).read_text())
        policy["failure"] = {"limit": 0.005, "promote_below": 0.01, "alpha": 0.2}
        policy["sampling"] = {"cases": 36, "shard_size": 9, "stop_early": False}
        Path(lenient).write_text(yaml.safe_dump(policy))
    box = machine("one")
    path = str(ROOT / "deployments" / "mixes" / candidate)
    process = box.run.start("run", "--policy", lenient, "--candidate", path, "--json")
    total = 2 * (36 if verdict == "ROLLBACK" else 28)
    made = "SELECT count(*) FROM journal"
    wait_for(lambda: box.count(made) == total, process)
    s3.stop()  # All pictures are made and stored; the verdict is still to come.
    out, err = process.communicate(timeout=200)
    assert process.returncode == code, err
    result = json.loads(out)
    assert (result["verdict"], result["production"]) == (verdict, "production")
    if verdict == "HOLD":
        assert "The figures allow a promotion, but s3://" in result["reasons"][0]
    run_id = result["run_id"]
    # Without white space: the terminal wraps.
    assert f"imagegateevidencepush{run_id}" in "".join(err.split())
    shown = json.loads(box.routing.read_text())["products"]["storefront"]
    assert shown["mix_name"] == "production"
    failed = box.run("evidence", "push", "--json")
    assert failed.code == 4
    s3.start()
    pushed = box.run("evidence", "push", "--json")
    assert (pushed.code, pushed.json["pushed"]) == (0, [run_id]), pushed.err
    assert box.run("evidence", "push", "--json").json["pushed"] == []
    other = machine("two")
    pulled = other.run("evidence", "pull", run_id, "--pictures", "--json")
    assert pulled.code == 0, pulled.err
    assert pulled.json["images"] > 0
    assert (
        json.loads((other.home / "runs" / run_id / "verdict.json").read_text())["verdict"]
        == verdict
    )
