"""The image store: content-addressed, verified on reading, closed to names that are no digests."""

import errno
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import EvidenceError
from tasks.images import ImageStore
from tasks.records import digest_bytes


def test_the_same_bytes_are_stored_once_under_their_digest(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    digest = store.put(b"picture")
    before = store.path(digest).stat().st_mtime_ns
    assert store.put(b"picture") == digest == digest_bytes(b"picture")
    assert store.path(digest).stat().st_mtime_ns == before
    assert [p for p in store.root.rglob("*") if p.is_file()] == [store.path(digest)]
    assert store.get(digest) == b"picture"


@settings(deadline=None)
@given(data=st.binary(max_size=200))
def test_what_goes_in_comes_out(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = ImageStore(tmp_path_factory.getbasetemp() / "shared-store")
    assert store.get(store.put(data)) == data


def test_a_missing_picture_is_an_error_that_names_it(tmp_path: Path) -> None:
    digest = digest_bytes(b"never stored")
    with pytest.raises(EvidenceError, match=digest):
        ImageStore(tmp_path).get(digest)


def test_altered_bytes_are_never_returned(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    digest = store.put(b"picture")
    store.path(digest).write_bytes(b"Picture")
    with pytest.raises(EvidenceError, match="altered"):
        store.get(digest)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "sha256:",
        "sha256:../../../../etc/passwd",
        "sha256:" + "g" * 64,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 64 + "\n",
        "md5:" + "a" * 64,
        "/etc/passwd",
    ],
)
def test_only_a_digest_becomes_a_path(name: str, tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    with pytest.raises(EvidenceError, match="not an image digest"):
        store.path(name)
    with pytest.raises(EvidenceError):
        store.get(name)


def test_a_full_disk_leaves_no_half_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = ImageStore(tmp_path / "images")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(EvidenceError, match="the disk is full"):
        store.put(b"picture")
    assert [p for p in store.root.rglob("*") if p.is_file()] == []
