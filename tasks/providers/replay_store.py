"""Reading what a replay stands on from a folder: a manifest with pictures, or a recorded run.

Everything in the folder is untrusted. A manifest's digest pins the digests of all pictures, so it
is all there is to check; a recorded run's seal does so through its tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.errors import ConfigError
from tasks.policy import parse_strict
from tasks.providers.replay_entries import Entry, Made, Manifest, Picture, Tape, tape
from tasks.providers.sniff import parse_json
from tasks.records import FailureClass, digest_bytes

MANIFEST = "replay.json"
#: The seal of a run's folder, and what a replay reads: the plan has every case, the table of cases
#: only those that the decision rests on.
SEAL = "manifest.json"
_PLAN, _GENERATIONS = "plan.json", "tables/generations.parquet"
MOST_MANIFEST = 256 * 1024 * 1024
MOST_PICTURE = 64 * 1024 * 1024
_ARMS = ("candidate", "baseline")


def load(folder: Path, arm: str) -> Tape:
    """Return the entries of a folder.

    Args:
        folder: Holds ``replay.json``, or is the folder of a recorded run.
        arm: Whose pictures of a recorded run.

    Raises:
        ConfigError: It holds neither, or what it holds is damaged.
    """
    if (folder / MANIFEST).exists():
        return _of_manifest(folder)
    if (folder / SEAL).exists():
        if arm not in _ARMS:
            raise ConfigError(f"{folder}: options.arm must be one of {_ARMS}, got {arm!r}")
        return _of_run(folder, arm)
    raise ConfigError(
        f"{folder}: holds neither {MANIFEST} (pictures made elsewhere) nor {SEAL} (a recorded "
        "run); name the folder of one of them in the model's endpoint"
    )


def picture_bytes(folder: Path, picture: Picture) -> bytes:
    """Return the bytes of a picture.

    Raises:
        ConfigError: The file is missing, outside the folder, too large or altered.
    """
    data = read(folder, picture.file, MOST_PICTURE)
    if digest_bytes(data) != picture.sha256:
        raise ConfigError(
            f"{folder / picture.file}: its bytes have another digest than the manifest says"
        )
    return data


def read(folder: Path, name: str, most: int) -> bytes:
    """Return the bytes of a file below a folder; links that lead out of it are not followed.

    Raises:
        ConfigError: The file is missing, outside the folder, no plain file or too large.
    """
    root = folder.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise ConfigError(f"{name!r} lies outside {folder}")
    try:
        if not path.is_file():
            raise ConfigError(f"{path} is no file")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > most:
        raise ConfigError(f"{path} has more than {most:,} bytes")
    return data


def manifest_for(folder: Path, source: str, entries: list[dict[str, Any]]) -> Manifest:
    """Return the manifest of a folder's pictures, with their digests.

    Args:
        folder: Where the pictures lie.
        source: Who made them, with what and when.
        entries: As in the manifest, with ``files`` (names) in place of ``pictures``.

    Raises:
        ConfigError: A file cannot be read, or an entry is not right.
    """
    made = []
    for entry in entries:
        rest = {name: value for name, value in entry.items() if name != "files"}
        rest["pictures"] = [
            {"file": name, "sha256": digest_bytes(read(folder, name, MOST_PICTURE))}
            for name in entry.get("files", [])
        ]
        made.append(rest)
    value = {"source": source, "entries": made}
    return parse_strict(Manifest, value, folder / MANIFEST)


def _of_manifest(folder: Path) -> Tape:
    data = read(folder, MANIFEST, MOST_MANIFEST)
    value = parse_json(data, MOST_MANIFEST)
    if value is None:
        raise ConfigError(f"{folder / MANIFEST}: is no JSON")
    manifest = parse_strict(Manifest, value, folder / MANIFEST)
    return tape(digest_bytes(data), (Made(entry) for entry in manifest.entries))


def _of_run(folder: Path, arm: str) -> Tape:
    """Return the entries of a recorded run: what each case got at the end of its route."""
    seal = read(folder, SEAL, MOST_MANIFEST)
    value = parse_json(seal, MOST_MANIFEST)
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(files, dict):
        raise ConfigError(f"{folder / SEAL}: is not the seal of a run")
    plan = parse_json(_sealed(folder, _PLAN, files), MOST_MANIFEST)
    try:
        made = _entries(plan, _rows(folder, _sealed(folder, _GENERATIONS, files)), arm)
    except (LookupError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{folder}: is not the record of a run: {what}") from None
    if not made:
        raise ConfigError(f"{folder}: the recorded run has no generation of the {arm}")
    return tape(digest_bytes(seal), made)


def _sealed(folder: Path, name: str, files: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file of a recorded run.

    Raises:
        ConfigError: It is not in the seal, or was altered since.
    """
    sealed, data = files.get(name), read(folder, name, MOST_MANIFEST)
    if not isinstance(sealed, dict) or sealed.get("sha256") != digest_bytes(data):
        raise ConfigError(f"{folder / name}: was altered since the run was sealed")
    return data


def _rows(folder: Path, data: bytes) -> list[dict[str, Any]]:
    """Return the rows of a table.

    Raises:
        ConfigError: It is none.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    except pyarrow.ArrowException as error:
        raise ConfigError(f"{folder / _GENERATIONS}: cannot be read: {error}") from None
    return [dict(row) for row in rows]


def _entries(plan: Any, rows: list[dict[str, Any]], arm: str) -> list[Made]:
    """Return an entry for each generation of an arm, with what its case asked."""
    cases = {case["case_id"]: case for case in (*plan["cases"], *plan.get("reserve", []))}
    return [
        Made(_entry(cases[row["case_id"]], row), recorded_seed=int(row["seed"]))
        for row in rows
        if row["arm"] == arm
    ]


def _entry(case: Mapping[str, Any], row: Mapping[str, Any]) -> Entry:
    digest = _text(row.get("image_digest"))
    failure = _text(row.get("failure"))
    pictures: list[Picture] = []
    if digest is not None:
        hexed = digest.removeprefix("sha256:")
        pictures.append(Picture(file=f"{hexed[:2]}/{hexed}", sha256=digest))
        failure = None
    return Entry(
        prompt=str(case["prompt"]),
        operation="edit" if case["subtask"] == "edit" else "generate",
        width=int(case["width"]),
        height=int(case["height"]),
        locale=_text(case.get("locale")),
        brand=_text(case.get("brand")),
        pictures=tuple(pictures),
        failure=None if pictures else FailureClass(failure or FailureClass.EMPTY),
        message=(_text(row.get("message")) or "")[:1_000],
        latency_s=_seconds(row.get("latency_s")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(value: object) -> float | None:
    fits = isinstance(value, int | float) and math.isfinite(value) and value >= 0
    return float(str(value)) if fits else None


def write(folder: Path, manifest: Manifest) -> str:
    """Write a manifest into its folder and return its digest, the version to pin."""
    shown = manifest.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    data = json.dumps({"schema_version": 1} | shown, indent=1, ensure_ascii=False).encode()
    (folder / MANIFEST).write_bytes(data)
    return digest_bytes(data)
