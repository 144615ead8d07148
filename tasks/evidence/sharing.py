"""Runs in the shared store: pushed when they are sealed, pulled where somebody reads them.

``runs/<run>/…`` holds the files of a run; its manifest goes up last, so that a run with a manifest
is whole. ``images/<aa>/<digest>`` holds the pictures, pushed when they were made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tasks.errors import EvidenceError
from tasks.evidence.bundle import MANIFEST, files_of, verify_seal
from tasks.evidence.remote import RemoteStore, checked_key
from tasks.images import ImageStore
from tasks.plan import RunFolder, write_atomic
from tasks.records import digest_bytes, digest_json

#: Uploads or downloads at one time.
_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Shared:
    """What a push or a pull did."""

    run_id: str
    files: int
    images: int


def run_key(run_id: str, name: str = "") -> str:
    """Return the key of a run, or of a file in it.

    Raises:
        EvidenceError: The name of the run or of the file points elsewhere.
    """
    return checked_key("/".join(filter(None, ("runs", run_id, name))))


def push_run(remote: RemoteStore, folder: RunFolder, images: ImageStore | None = None) -> Shared:
    """Push the files of a run, and the pictures that the store does not have.

    Args:
        remote: The store.
        folder: The run.
        images: When given, the pictures that the manifest names are pushed too.

    Raises:
        EvidenceError: The store cannot be reached, or a file or a picture cannot be read.
    """
    names = [path.relative_to(folder.path).as_posix() for path in files_of(folder.path)]
    keys = {name: run_key(folder.run_id, name) for name in names}
    digests = _manifest(folder).get("images", []) if images is not None else []

    def push(name: str) -> None:
        remote.push(keys[name], _read(folder, name))

    def push_image(digest: str) -> bool:
        return images is not None and images.share(str(digest))

    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="evidence") as pool:
        _all(pool, push, names)
        pushed = sum(_all(pool, push_image, digests))
    if (folder.path / MANIFEST).exists():
        # Last: whoever finds it finds all that it names.
        remote.push(run_key(folder.run_id, MANIFEST), _read(folder, MANIFEST))
    return Shared(folder.run_id, len(names), pushed)


def pull_run(remote: RemoteStore, folder: RunFolder) -> Shared:
    """Fetch a sealed run, compare every file with the manifest, and write it here.

    Raises:
        EvidenceError: The store does not have the run or cannot be reached; the manifest or a
            file was altered or is missing. Nothing of such a run is written.
    """
    raw = remote.pull(run_key(folder.run_id, MANIFEST))
    if raw is None:
        raise EvidenceError(
            f"run {folder.run_id!r} is not in {remote.url}, or was never sealed; see "
            "`imagegate evidence list`"
        )
    files = _listed(raw, folder.run_id, remote)

    def pull(name: str) -> tuple[str, bytes]:
        data = remote.pull(run_key(folder.run_id, name))
        if data is None:
            raise EvidenceError(f"{remote.url}: file {name!r} of run {folder.run_id!r} is missing")
        if digest_bytes(data) != files[name]:
            raise EvidenceError(
                f"{remote.url}: file {name!r} of run {folder.run_id!r} was altered: its bytes "
                "have another digest than the manifest says"
            )
        return name, data

    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="evidence") as pool:
        content = _all(pool, pull, files)
    for name, data in content:
        write_atomic(folder.path / name, data)
    write_atomic(folder.path / MANIFEST, raw)
    problems = verify_seal(folder)
    if problems:
        raise EvidenceError(
            f"{folder.path}: holds other files than {remote.url} sealed: {problems[0]}; move the "
            "folder away, then try again"
        )
    return Shared(folder.run_id, len(files), 0)


def remote_runs(remote: RemoteStore) -> list[str]:
    """Return the runs in the store, oldest first, those without a manifest included."""
    return remote.list("runs")


def is_sealed(remote: RemoteStore, run_id: str) -> bool:
    """Tell whether the store has a run whole."""
    return remote.exists(run_key(run_id, MANIFEST))


def is_pushed(remote: RemoteStore, folder: RunFolder) -> bool:
    """Tell whether the store has the run with the seal that it has here."""
    here = _manifest(folder).get("digest")
    raw = remote.pull(run_key(folder.run_id, MANIFEST))
    try:
        return raw is not None and here is not None and json.loads(raw).get("digest") == here
    except (ValueError, AttributeError):
        return False


def _listed(raw: bytes, run_id: str, remote: RemoteStore) -> dict[str, str]:
    """Return the digest of every file that a manifest names.

    Raises:
        EvidenceError: The manifest was altered, is of another run, or names paths elsewhere.
    """
    try:
        body = json.loads(raw)
        stated = body.pop("digest")
        files = {str(name): str(entry["sha256"]) for name, entry in body["files"].items()}
        named = body["run_id"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EvidenceError(
            f"{remote.url}: the manifest of run {run_id!r} cannot be read"
        ) from None
    if digest_json(body) != stated or named != run_id:
        raise EvidenceError(
            f"{remote.url}: the manifest of run {run_id!r} was altered; its digest does not match"
        )
    for name in files:
        run_key(run_id, name)
    return files


def _manifest(folder: RunFolder) -> dict[str, Any]:
    """Return the local manifest; empty when the run is not sealed."""
    try:
        body = json.loads((folder.path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _read(folder: RunFolder, name: str) -> bytes:
    try:
        return (folder.path / name).read_bytes()
    except OSError as error:
        raise EvidenceError(f"{folder.path / name}: cannot be read: {error}") from None


def _all(pool: ThreadPoolExecutor, call: Any, items: Iterable[Any]) -> list[Any]:
    """Call for every item; the first error stops what has not begun."""
    waiting = [pool.submit(call, item) for item in items]
    try:
        return [future.result() for future in waiting]
    except BaseException:
        for future in waiting:
            future.cancel()
        raise
