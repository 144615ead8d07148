"""The evidence of a run: tables, verdict, policy, mixes and versions, sealed by digest.

Everything is written atomically, and writing it twice gives the same files, so a resumed run
simply writes again. The seal lists every file with its sha256; nothing is added afterwards.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from tasks.approval.rules import Approval
from tasks.errors import EvidenceError
from tasks.evidence.provenance import provenance
from tasks.evidence.text import well_formed
from tasks.images import ImageStore
from tasks.plan import RunFolder, RunPlan
from tasks.records import (
    ExpectationResult,
    Metrics,
    Verdict,
    canonical_json,
    digest_json,
)
from tasks.settings import Settings, prefect_api_url

if TYPE_CHECKING:
    import pandas as pd

#: The tables of a run, in the order of the data.
TABLES = ("cases", "generations", "attempts", "findings", "reports", "outcomes", "metrics")
MANIFEST = "manifest.json"

#: Half-written files of :func:`tasks.plan.write_atomic`: a killed writer leaves them, a re-run
#: never reads them.
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp\Z")
#: Shorter values (``1``, ``on``) are no secrets, and removing them would tear up the evidence.
_SHORTEST_SECRET = 8
_REMOVED = "[secret removed]"
#: Variables that others read for us and that hold a secret.
_SECRET_VARIABLES = {"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PREFECT_API_AUTH_STRING"}


def known_secrets(settings: Settings, plan: RunPlan) -> tuple[str, ...]:
    """Return the secrets of this installation: keys of models and stores, Slack, mail, database."""
    names = {m.key_env for mix in (plan.baseline, plan.candidate) for m in mix.models if m.key_env}
    names |= _SECRET_VARIABLES
    values = [key.get_secret_value() for name in sorted(names) if (key := settings.key(name))]
    tokens = (settings.slack_token, settings.slack_app_token, settings.slack_webhook)
    values += [token.get_secret_value() for token in tokens if token is not None]
    for address in (settings.state_url, settings.smtp_url):
        values += [] if address is None else _passwords(address.get_secret_value())
    values += _passwords(prefect_api_url() or "")
    return tuple(sorted({v for v in values if len(v) >= _SHORTEST_SECRET}, key=len, reverse=True))


def _passwords(address: str) -> list[str]:
    """Return the password of an address, which may also stand behind its question mark."""
    try:
        url = sa.make_url(address)
    except (sa.exc.ArgumentError, ValueError):
        return []
    named = url.query.get("password", ())
    return [str(p) for p in (url.password, *([named] if isinstance(named, str) else named)) if p]


def write_bundle(
    folder: RunFolder,
    *,
    plan: RunPlan,
    tables: Mapping[str, pd.DataFrame],
    metrics: Metrics,
    expectations: Sequence[ExpectationResult],
    verdict: Verdict,
    actions: Sequence[str] = (),
    finished_at: str = "",
    secrets: Iterable[str] = (),
    approval: Approval | None = None,
) -> None:
    """Write the evidence of a run into its folder; writing it again gives the same files.

    Args:
        folder: The run's folder.
        plan: The plan that was fixed before the first image.
        tables: The tables named in :data:`TABLES`, all of them.
        metrics: The figures that were judged.
        expectations: The policy's expectations after validation.
        verdict: The decision.
        actions: What was done with production, one sentence each.
        finished_at: When the verdict fell.
        secrets: Values that must not be written, see :func:`known_secrets`; each is replaced.
        approval: What a person was asked, with the machine's own verdict, and the answer.

    Raises:
        EvidenceError: A table is missing or cannot be stored, or the disk is full.
    """
    missing = [name for name in TABLES if name not in tables]
    unknown = sorted(set(tables) - set(TABLES))
    if missing or unknown:
        raise EvidenceError(
            f"{folder.path}: the evidence needs the tables {', '.join(TABLES)}; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
        )
    hidden = tuple(secrets)
    for name in TABLES:
        folder.write(f"tables/{name}.parquet", _parquet(name, tables[name], hidden))
    documents: dict[str, Any] = {
        "verdict.json": verdict.model_dump(mode="json")
        | {"run_id": plan.run_id, "finished_at": finished_at, "actions": list(actions)},
        "metrics.json": metrics.model_dump(mode="json"),
        "expectations.json": [e.model_dump(mode="json") for e in expectations],
        # Exactly what `--policy` reads, so that the same rules can be used again.
        "policy.json": plan.policy.model_dump(mode="json"),
        "digests.json": digests(plan),
        "code.json": provenance(),
    }
    if approval is not None:
        documents["approval.json"] = approval.model_dump(mode="json")
    models = {model.name: model for mix in (plan.baseline, plan.candidate) for model in mix.models}
    documents["catalog.json"] = {
        "schema_version": 1,
        "models": [models[name].model_dump(mode="json") for name in sorted(models)],
    }
    for arm, mix in (("baseline", plan.baseline), ("candidate", plan.candidate)):
        documents[f"mixes/{arm}.json"] = mix.model_dump(mode="json")
        # Exactly what `--candidate` and `--baseline` read.
        documents[f"mixes/{arm}.manifest.json"] = mix.mix.model_dump(mode="json")
    for path, value in documents.items():
        folder.write(path, _json(value, hidden))


def digests(plan: RunPlan) -> dict[str, Any]:
    """Return the digests that were fixed before the first image."""
    return {
        "plan": digest_json(plan.model_dump(mode="json")),
        "policy": plan.policy.digest,
        "baseline": plan.baseline.digest,
        "candidate": plan.candidate.digest,
        "cases": digest_json([[case.case_id, case.digest] for case in plan.cases]),
    }


def read_table(folder: RunFolder, name: str) -> pd.DataFrame:
    """Return a table of the evidence.

    Raises:
        EvidenceError: There is no such table or it cannot be read.
    """
    import pandas as pd

    path = folder.path / "tables" / f"{name}.parquet"
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise EvidenceError(f"{path}: cannot be read: {error}") from None


def seal(folder: RunFolder, secrets: Iterable[str] = ()) -> Path:
    """Write the manifest: every file with sha256 and size, and the digests of all pictures.

    Args:
        folder: The run's folder, complete.
        secrets: Values that no file may contain.

    Raises:
        EvidenceError: A file cannot be read, is a link, or holds a secret; the disk is full.
    """
    hidden = [value.encode() for value in secrets]
    files: dict[str, dict[str, Any]] = {}
    for path in files_of(folder.path):
        name = path.relative_to(folder.path).as_posix()
        sha256, size = _hash(path, hidden, name)
        files[name] = {"sha256": sha256, "bytes": size}
    body: dict[str, Any] = {
        "schema_version": 1,
        "run_id": folder.run_id,
        "files": files,
        "images": _images(folder),
    }
    body["digest"] = digest_json(body)
    return folder.write(MANIFEST, json.dumps(body, indent=1, ensure_ascii=False) + "\n")


def verify_seal(folder: RunFolder, images: ImageStore | None = None) -> list[str]:
    """Return what is wrong with sealed evidence, one sentence each; empty when it is whole.

    Args:
        folder: The run's folder.
        images: When given, every picture of the run is read and compared with its digest.
    """
    path = folder.path / MANIFEST
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        files, listed = dict(body["files"]), list(body["images"])
        stated = body.pop("digest")
        expected = {str(k): (str(v["sha256"]), int(v["bytes"])) for k, v in files.items()}
    except FileNotFoundError:
        return [f"{MANIFEST}: missing; the evidence was never sealed"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{MANIFEST}: cannot be read: {error}"]
    problems = []
    if digest_json(body) != stated:
        problems.append(f"{MANIFEST}: altered; its own digest does not match")
    if body.get("run_id") != folder.run_id:
        problems.append(
            f"{MANIFEST}: seals run {body.get('run_id')!r}, but the folder is {folder.run_id!r}"
        )
    present: set[str] = set()
    try:
        for file in files_of(folder.path):
            name = file.relative_to(folder.path).as_posix()
            present.add(name)
            if name not in expected:
                problems.append(f"{name}: extra; it was not there when the evidence was sealed")
            elif _hash(file, (), name) != expected[name]:
                problems.append(f"{name}: altered since the evidence was sealed")
    except EvidenceError as error:
        problems.append(str(error))
    problems += [f"{name}: missing" for name in sorted(set(expected) - present)]
    if images is not None:
        problems += _lost_images(images, listed)
    return problems


def _lost_images(images: ImageStore, digests_: Iterable[Any]) -> list[str]:
    problems = []
    for digest in digests_:
        try:
            images.get(str(digest))
        except EvidenceError as error:
            problems.append(str(error))
    return problems


def files_of(root: Path) -> list[Path]:
    """Return the files of a run in order, without the manifest and half-written files.

    Raises:
        EvidenceError: One is a link.
    """
    found = []
    for path in sorted(
        root.rglob("*"), key=lambda p: PurePosixPath(p.relative_to(root)).as_posix()
    ):
        if path.is_symlink():
            raise EvidenceError(f"{path}: is a link; evidence holds plain files only, remove it")
        if path.is_dir() or _TEMPORARY.match(path.name) or path == root / MANIFEST:
            continue
        found.append(path)
    return found


def _hash(path: Path, hidden: Sequence[bytes], name: str) -> tuple[str, int]:
    """Return digest and size of a file, read in pieces, looking for secrets on the way."""
    sha256, size, tail = hashlib.sha256(), 0, b""
    overlap = max((len(h) for h in hidden), default=1) - 1
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                sha256.update(chunk)
                size += len(chunk)
                window = tail + chunk
                if any(h in window for h in hidden):
                    raise EvidenceError(
                        f"{path}: holds a secret of this installation; the evidence is not sealed. "
                        f"Delete {name} and change the key"
                    )
                tail = window[-overlap:] if overlap else b""
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read: {error}") from None
    return f"sha256:{sha256.hexdigest()}", size


def _images(folder: RunFolder) -> list[str]:
    """Return the digests of all pictures of the run, each once, sorted."""
    table = read_table(folder, "generations")
    found: set[str] = set()
    for column in ("image_digest", "source_digest"):
        if column in table:
            found.update(str(value) for value in table[column].dropna().unique())
    return sorted(found)


def _clean(value: Any, hidden: Sequence[str]) -> Any:
    """Return the value without secrets and without text that UTF-8 cannot hold."""
    if isinstance(value, str):
        for secret in hidden:
            value = value.replace(secret, _REMOVED)
        return well_formed(value)
    if isinstance(value, Mapping):
        return {_clean(str(k), hidden): _clean(v, hidden) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, hidden) for item in value]
    return value


def _json(value: Any, hidden: Sequence[str]) -> str:
    return json.dumps(_clean(value, hidden), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _column(column: pd.Series[Any], hidden: Sequence[str]) -> pd.Series[Any]:
    """Return a column of texts, lists or mappings as Parquet can hold it, its type kept."""
    import pandas as pd

    values = [_clean(value, hidden) for value in column]
    nested = any(
        isinstance(value, dict)
        or (isinstance(value, list) and any(isinstance(item, dict) for item in value))
        for value in values
    )
    if nested:  # Parquet has no type for mappings that differ from row to row
        values = [canonical_json(v) if isinstance(v, dict | list) else v for v in values]
    return pd.Series(values, index=column.index, dtype=column.dtype)


def _parquet(name: str, table: pd.DataFrame, hidden: Sequence[str]) -> bytes:
    """Return the table as Parquet bytes; the same table gives the same bytes."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    cleaned = table.reset_index(drop=True).copy()
    for column in cleaned.columns:
        kind = cleaned[column].dtype
        if not (pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_datetime64_any_dtype(kind)):
            cleaned[column] = _column(cleaned[column], hidden)
    buffer = io.BytesIO()
    try:
        # Without pandas' own notes: pandas writes some (lists) that it cannot read again.
        arrow = pa.Table.from_pandas(cleaned, preserve_index=False).replace_schema_metadata(None)
        pq.write_table(arrow, buffer, compression="zstd")
    except (ValueError, TypeError) as error:  # pyarrow's errors are ValueErrors and TypeErrors
        raise EvidenceError(f"table {name!r} cannot be stored as Parquet: {error}") from error
    return buffer.getvalue()
