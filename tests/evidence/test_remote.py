"""The shared store and the runs in it, on a shared folder and in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tasks.errors import ConfigError, EvidenceError
from tasks.evidence.remote import RemoteStore, checked_key, open_remote
from tasks.evidence.sharing import is_pushed, is_sealed, pull_run, push_run, remote_runs
from tasks.images import ImageStore
from tasks.plan import RunFolder
from tasks.records import digest_bytes, digest_json
from tasks.settings import load_settings


@pytest.fixture(params=["file", "memory"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RemoteStore]:
    if request.param == "file":
        yield RemoteStore(f"file://{tmp_path / 'shared'}")
        return
    yield RemoteStore("memory://evidence/gate")
    fsspec.filesystem("memory").store.clear()


def sealed(folder: RunFolder, images: list[str] | None = None) -> None:
    """Write a run with three files and its seal."""
    for name, data in (
        ("plan.json", b"{}"),
        ("report.html", b"<html>"),
        ("tables/a.parquet", b"P"),
    ):
        folder.write(name, data)
    files = {
        name: {"sha256": digest_bytes((folder.path / name).read_bytes()), "bytes": 0}
        for name in ("plan.json", "report.html", "tables/a.parquet")
    }
    for name, entry in files.items():
        entry["bytes"] = (folder.path / name).stat().st_size
    body = {"schema_version": 1, "run_id": folder.run_id, "files": files, "images": images or []}
    folder.write("manifest.json", json.dumps(body | {"digest": digest_json(body)}))


def test_what_was_pushed_is_there_for_others(remote: RemoteStore) -> None:
    other = RemoteStore(remote.url + "/")
    assert (remote.pull("runs/r1/plan.json"), remote.exists("runs/r1/plan.json")) == (None, False)
    assert remote.list("runs") == []
    remote.push("runs/r1/plan.json", b"one")
    remote.push("runs/r1/plan.json", b"two")
    remote.push("runs/r2/tables/cases.parquet", b"")
    assert other.pull("runs/r1/plan.json") == b"two"
    assert other.pull("runs/r2/tables/cases.parquet") == b""
    assert other.exists("runs/r1/plan.json")
    assert not other.exists("runs/r1"), "a folder is no object"
    assert other.list("runs") == ["r1", "r2"]


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "/etc/passwd", "a/../b", "..", "a//b", "a/", "a/.", "a\\..\\b", "a b", "a?b"),
        *(
            "a#b",
            "a\nb",
            "é",
            "a%2e",
            "s3://other/key",
            "x" * 201,
            "/".join("a" * 9),
            "~root",
            "a*",
        ),
    ],
)
def test_keys_that_could_point_elsewhere_are_refused(remote: RemoteStore, key: str) -> None:
    for call in (remote.pull, remote.exists, remote.list, checked_key):
        with pytest.raises(EvidenceError, match="not a key"):
            call(key)
    with pytest.raises(EvidenceError, match="not a key"):
        remote.push(key, b"x")


@pytest.mark.parametrize(
    "url",
    [
        "bucket/prefix",
        "s3:/bucket",
        "s3://",
        "s3://KEY:hunter2@bucket/prefix",
        "s3://bucket/prefix?secret=hunter2",
        "simplecache::s3://bucket/prefix",
        "file:///tmp/a/../../etc",
        "s3://[bucket",
    ],
)
def test_addresses_with_credentials_or_tricks_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="IMAGEGATE_EVIDENCE_URL") as caught:
        RemoteStore(url)
    assert "hunter2" not in str(caught.value)


def test_an_unknown_kind_of_store_is_an_error_at_first_use() -> None:
    with pytest.raises(EvidenceError, match=r"nosuch://store/runs.*cannot be listed"):
        RemoteStore("nosuch://store").list("runs")


def test_a_store_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("a file in the place of the folder")
    with pytest.raises(EvidenceError, match="cannot be written"):
        RemoteStore(f"file://{tmp_path / 'shared'}").push("runs/r1/plan.json", b"x")


def test_the_settings_name_the_store(tmp_path: Path) -> None:
    env = {"IMAGEGATE_EVIDENCE_URL": "s3://b/p", "AWS_ENDPOINT_URL": "http://s3:9000"}
    opened = open_remote(load_settings(env, tmp_path))
    assert opened is not None
    assert (opened.url, opened.endpoint) == ("s3://b/p", "http://s3:9000")
    named = load_settings(env | {"IMAGEGATE_S3_ENDPOINT": "http://minio:9000"}, tmp_path)
    assert named.s3_endpoint == "http://minio:9000"
    assert open_remote(load_settings({}, tmp_path)) is None


def test_a_picture_of_another_machine_is_fetched_and_compared(
    remote: RemoteStore, tmp_path: Path
) -> None:
    here, there = ImageStore(tmp_path / "a", remote), ImageStore(tmp_path / "b", remote)
    digest = here.put(b"picture")
    assert not (there.root / "x").exists()
    assert there.get(digest) == b"picture"
    assert there.path(digest).read_bytes() == b"picture", "and kept on this disk"
    assert there.has(digest)
    lost = digest_bytes(b"never made")
    assert not there.has(lost)
    assert not there.path(lost).exists()
    with pytest.raises(EvidenceError, match="cannot be read"):
        there.get(lost)


def test_an_altered_picture_in_the_store_is_noticed_and_not_kept(
    remote: RemoteStore, tmp_path: Path
) -> None:
    digest = ImageStore(tmp_path / "a", remote).put(b"picture")
    name = digest.removeprefix("sha256:")
    remote.push(f"images/{name[:2]}/{name}", b"another")
    store = ImageStore(tmp_path / "b", remote)
    with pytest.raises(EvidenceError, match="altered in the shared store"):
        store.get(digest)
    assert not any(p.is_file() for p in tmp_path.joinpath("b").rglob("*"))


def test_pictures_from_before_the_store_are_shared_when_they_are_used(
    remote: RemoteStore, tmp_path: Path
) -> None:
    digest = ImageStore(tmp_path / "a").put(b"picture")
    store = ImageStore(tmp_path / "a", remote)
    assert store.has(digest)
    assert ImageStore(tmp_path / "b", remote).get(digest) == b"picture"
    assert not store.share(digest), "once is enough"


def test_a_picture_is_not_named_before_the_store_has_it(tmp_path: Path) -> None:
    class Down:
        def push(self, key: str, data: bytes) -> None:
            raise EvidenceError("down")

        def pull(self, key: str) -> bytes | None:
            raise EvidenceError("down")

        def exists(self, key: str) -> bool:
            raise EvidenceError("down")

    store = ImageStore(tmp_path, Down())
    with pytest.raises(EvidenceError, match="down"):
        store.put(b"picture")
    # The bytes are on this disk, but the next try goes to the store again.
    with pytest.raises(EvidenceError, match="down"):
        store.put(b"picture")
    with pytest.raises(EvidenceError, match="down"):
        store.has(digest_bytes(b"picture"))


def test_a_sealed_run_goes_up_and_comes_down_whole(remote: RemoteStore, tmp_path: Path) -> None:
    here, there = RunFolder(tmp_path / "a" / "r1"), RunFolder(tmp_path / "b" / "r1")
    images = ImageStore(tmp_path / "images")
    digest = images.put(b"picture")
    sealed(here, [digest])
    assert not is_pushed(remote, here)
    shared = push_run(remote, here, ImageStore(tmp_path / "images", remote))
    assert (shared.files, shared.images) == (3, 1)
    assert is_sealed(remote, "r1")
    assert is_pushed(remote, here)
    assert remote_runs(remote) == ["r1"]
    pull_run(remote, there)
    assert {p.relative_to(there.path).as_posix(): p.read_bytes() for p in files(there)} == {
        p.relative_to(here.path).as_posix(): p.read_bytes() for p in files(here)
    }


def files(folder: RunFolder) -> list[Path]:
    return [path for path in sorted(folder.path.rglob("*")) if path.is_file()]


def test_a_run_that_is_not_sealed_is_not_taken_for_whole(
    remote: RemoteStore, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "a" / "r1")
    folder.write("plan.json", "{}")
    push_run(remote, folder)
    assert remote_runs(remote) == ["r1"]
    assert not is_sealed(remote, "r1")
    with pytest.raises(EvidenceError, match="never sealed"):
        pull_run(remote, RunFolder(tmp_path / "b" / "r1"))


@pytest.mark.parametrize("trick", ["altered", "lost", "manifest", "path", "other run", "no json"])
def test_a_run_that_was_tampered_with_is_not_written_here(
    remote: RemoteStore, tmp_path: Path, trick: str
) -> None:
    sealed(RunFolder(tmp_path / "a" / "r1"))
    push_run(remote, RunFolder(tmp_path / "a" / "r1"))
    raw = remote.pull("runs/r1/manifest.json")
    assert raw is not None
    body = json.loads(raw)
    if trick == "altered":
        remote.push("runs/r1/report.html", b"<script>")
    elif trick == "lost":
        body["files"]["gone.json"] = {"sha256": digest_bytes(b""), "bytes": 0}
    elif trick == "manifest":
        body["files"]["report.html"]["sha256"] = digest_bytes(b"<script>")
    elif trick == "path":
        body["files"]["../../../evil"] = {"sha256": digest_bytes(b""), "bytes": 0}
    elif trick == "other run":
        body["run_id"] = "r2"
    stated = body.pop("digest")
    # All but one know how to make the seal fit.
    digest = stated if trick == "manifest" else digest_json(body)
    if trick == "no json":
        remote.push("runs/r1/manifest.json", b"[1]")
    elif trick != "altered":
        remote.push("runs/r1/manifest.json", json.dumps(body | {"digest": digest}).encode())
    there = RunFolder(tmp_path / "b" / "r1")
    with pytest.raises(EvidenceError, match=r"altered|missing|not a key|cannot be read"):
        pull_run(remote, there)
    assert not there.path.exists()
    assert not (tmp_path / "evil").exists()


def test_what_lies_here_already_is_not_mixed_with_what_comes(
    remote: RemoteStore, tmp_path: Path
) -> None:
    sealed(RunFolder(tmp_path / "a" / "r1"))
    push_run(remote, RunFolder(tmp_path / "a" / "r1"))
    there = RunFolder(tmp_path / "b" / "r1")
    there.write("verdict.json", "{}")
    with pytest.raises(EvidenceError, match="holds other files"):
        pull_run(remote, there)


def test_a_run_cannot_be_named_into_another_folder(remote: RemoteStore, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="not a key"):
        is_sealed(remote, "../r1")
    with pytest.raises(EvidenceError, match="not a key"):
        pull_run(remote, RunFolder(tmp_path / "r 1"))
