"""The plan of a run and the folder it lives in: fixed before the first image, read by every step.

Tasks get a folder and a shard number instead of big objects, so a run can be resumed by another
process and every step sees the same inputs.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from tasks.errors import EvidenceError
from tasks.mix.manifest import ResolvedMix
from tasks.policy import Policy, Strict
from tasks.records import SCHEMA_VERSION, Arm, Case, PriorRun


class Shard(Strict):
    """Cases that are generated, checked and counted together."""

    #: Place in the order of the run, from 0.
    number: int
    case_ids: tuple[str, ...]
    #: The slice that these extra cases are drawn for, e.g. ``locale=th``; they count in slices
    #: and not in the headline. ``None`` for a shard of the headline sample.
    top_up: str | None = None


#: Cases that count, by id: ``None`` for one of the headline sample, or the slice that an extra
#: case was drawn for.
Drawn = Mapping[str, str | None]


class RunPlan(Strict):
    """Everything that decides what a run does, fixed before it spends."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    product: str
    created_at: str
    baseline: ResolvedMix
    candidate: ResolvedMix
    policy: Policy
    seed: int
    budget_microusd: int
    day_budget_microusd: int
    #: Where the inputs came from, with secrets removed.
    inputs: str
    cases: tuple[Case, ...]
    #: Sampling and coverage notes for the report.
    coverage: dict[str, Any]
    #: Extra cases in the order in which they are drawn when their slice looks bad.
    reserve: tuple[Case, ...] = ()
    #: Earlier tests of the same mix: they have spent of the risk of a wrong PROMOTE.
    prior: tuple[PriorRun, ...] = ()

    @property
    def by_id(self) -> dict[str, Case]:
        """The cases and the reserve, by id."""
        return {case.case_id: case for case in (*self.cases, *self.reserve)}

    def mix(self, arm: Arm) -> ResolvedMix:
        """Return the mix of an arm."""
        return self.baseline if arm == "baseline" else self.candidate

    def shards(self) -> list[Shard]:
        """Return the headline sample in shards of the policy's size, in order."""
        return [
            Shard(number=number, case_ids=ids)
            for number, ids in enumerate(self._chunks([case.case_id for case in self.cases]))
        ]

    def _chunks(self, ids: list[str]) -> list[tuple[str, ...]]:
        size = self.policy.sampling.shard_size
        return [tuple(ids[i : i + size]) for i in range(0, len(ids), size)]

    def case_seed(self, case: Case) -> int:
        """Return the seed of a case, the same in both arms: pictures are compared in pairs."""
        text = f"{self.seed}|{case.digest}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:4]) & 0x7FFF_FFFF


class Remote(Protocol):
    """What all workers share; see :class:`tasks.evidence.remote.RemoteStore`."""

    def push(self, key: str, data: bytes) -> None:
        """Store the bytes under the key."""

    def pull(self, key: str) -> bytes | None:
        """Return the bytes under the key, ``None`` when there are none."""

    def exists(self, key: str) -> bool:
        """Tell whether there is something under the key."""


class RunFolder:
    """Paths and atomic writes of one run's folder.

    Args:
        path: The folder, named after the run.
        remote: Where other workers find the plan, and this one finds theirs.
    """

    def __init__(self, path: Path, remote: Remote | None = None) -> None:
        self.path, self.remote = path, remote

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.path.name

    @property
    def plan_file(self) -> Path:
        """The plan as JSON."""
        return self.path / "plan.json"

    @property
    def server_log(self) -> Path:
        """Request log of the embedded image server, one JSON object a line."""
        return self.path / "server-requests.jsonl"

    def has_plan(self) -> bool:
        """Tell whether the run came as far as its plan, here or on another machine.

        Raises:
            EvidenceError: The shared store cannot be reached.
        """
        if self.plan_file.exists():
            return True
        return self.remote is not None and self.remote.exists(self._plan_key)

    def write_plan(self, plan: RunPlan) -> None:
        """Write the plan here and into the shared store, before anything is spent.

        Raises:
            EvidenceError: The disk is full, or the shared store did not take it.
        """
        text = plan.model_dump_json()
        self.write(self.plan_file.name, text)
        if self.remote is not None:
            self.remote.push(self._plan_key, text.encode("utf-8", "surrogatepass"))

    @property
    def _plan_key(self) -> str:
        return f"runs/{self.run_id}/{self.plan_file.name}"

    def _fetch_plan(self) -> None:
        """Get the plan of a run that another machine began."""
        data = None if self.remote is None else self.remote.pull(self._plan_key)
        if data is None:
            return
        named = RunPlan.model_validate_json(data).run_id
        if named != self.run_id:
            raise EvidenceError(
                f"{self._plan_key}: the shared store has the plan of run {named!r} there; this run "
                "cannot be resumed, start a new one"
            )
        self.write(self.plan_file.name, data)

    def load_plan(self) -> RunPlan:
        """Return the plan.

        Raises:
            EvidenceError: The run does not exist or its plan cannot be read.
        """
        try:
            if not self.plan_file.exists():
                self._fetch_plan()
            return RunPlan.model_validate_json(self.plan_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise EvidenceError(
                f"run {self.run_id!r} has no plan in {self.path}; see `imagegate history`"
            ) from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise EvidenceError(
                f"{self.plan_file}: the plan is damaged ({where}: {first['msg']}); this run cannot "
                "be resumed, start a new one"
            ) from None
        except (OSError, ValueError) as error:
            raise EvidenceError(f"{self.plan_file}: cannot be read: {error}") from None

    def write(self, name: str, data: bytes | str) -> Path:
        """Write a file of the run all at once: readers see the old content or the new.

        Raises:
            EvidenceError: The disk is full or the folder cannot be written.
        """
        return write_atomic(self.path / name, data)


def write_atomic(target: Path, data: bytes | str) -> Path:
    """Write ``data`` to ``target`` through a temporary file, fsync and rename.

    Raises:
        EvidenceError: The disk is full or the folder cannot be written; the target is as before.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    # Two threads may store the same picture at once: each writes a file of its own.
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        with suppress(OSError):  # What went wrong is told, not that the rest cannot be removed.
            temporary.unlink(missing_ok=True)
        what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise EvidenceError(
            f"{target}: cannot be written: {what}; free space or set IMAGEGATE_HOME elsewhere, "
            "then resume the run"
        ) from error
    return target
