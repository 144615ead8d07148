"""The file router: applications read from one JSON file which mix serves which product.

The file is replaced all at once, so a reader sees the old routing or the new one, never a half.
An application that routes by it needs four lines::

    routing = read_routing(Path("routing.json"))
    entry = routing.products["shop"]
    mix = entry.mix_for(request_id)                # by the traffic weights
    route = mix.alternative("typography", request_id)  # stages: model, params, prompt template

or reads the JSON with anything else: ``products.<product>.mix_digest``, ``.epoch``, ``.weights``
(share of the traffic by digest) and ``.mixes.<digest>`` (the manifest: ``mix.routes`` by subtask
and the catalog entries in ``models``).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError, model_validator

from tasks.errors import EvidenceError, FencedError, RolloutError
from tasks.mix.manifest import ResolvedMix
from tasks.plan import write_atomic
from tasks.policy import Strict
from tasks.records import canonical_json, digest_bytes, utc_now
from tasks.rollout.faults import fault
from tasks.rollout.routers.base import Desired, RouterState

SCHEMA_VERSION = 1


class ProductRouting(Strict):
    """The routing of one product."""

    #: The production mix; ``weights`` may give a part of the traffic to another.
    mix_digest: str
    mix_name: str
    #: Grows by every change.
    epoch: int = Field(ge=1)
    #: Share of the traffic by mix digest; sums to 1.
    weights: dict[str, float]
    changed_at: str
    #: Manifests by digest.
    mixes: dict[str, ResolvedMix]

    @model_validator(mode="after")
    def _whole(self) -> ProductRouting:
        if self.weights.keys() != self.mixes.keys() or self.mix_digest not in self.mixes:
            raise ValueError("weights, mixes and mix_digest do not name the same mixes")
        for digest, mix in self.mixes.items():
            if mix.digest != digest:
                raise ValueError(f"the manifest of {digest} was altered: it has {mix.digest}")
        return self

    def mix_for(self, key: str) -> ResolvedMix:
        """Return the mix that serves a request: by the weights, the same for the same key."""
        point = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
        reached = 0.0
        for digest, weight in sorted(self.weights.items()):
            reached += weight
            if point < reached:
                return self.mixes[digest]
        return self.mixes[self.mix_digest]


class Routing(Strict):
    """The whole routing file."""

    schema_version: Literal[1] = 1
    products: dict[str, ProductRouting] = Field(default_factory=dict)


class _DamagedError(RolloutError):
    """The file is there and is no routing file at all."""


def read_routing(path: Path) -> Routing:
    """Read a routing file.

    Raises:
        RolloutError: The file is missing, cannot be read, is damaged or is of a later imagegate.
    """
    found = _read(path)
    if found is None:
        raise RolloutError(f"{path}: no such routing file; the first promotion writes it")
    return found


def _read(path: Path) -> Routing | None:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RolloutError(f"{path}: the routing file cannot be read: {error.strerror}") from None
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise _DamagedError(f"{path}: the routing file is damaged, not JSON: {error}") from None
    version = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RolloutError(
            f"{path}: the routing file has schema version {version}, this imagegate knows "
            f"{SCHEMA_VERSION}; use the imagegate that wrote it"
        )
    try:
        return Routing.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        raise _DamagedError(
            f"{path}: the routing file is damaged: field {where!r}: {first['msg']}"
        ) from None


class FileRouter:
    """A router that is a file.

    Args:
        path: The routing file; made by the first change.
        lock_timeout_s: Seconds to wait for another process that is changing the file.
    """

    def __init__(self, path: Path, lock_timeout_s: float = 10.0) -> None:
        self.path = path
        self.lock_timeout_s = lock_timeout_s

    def read(self, product: str) -> RouterState | None:
        """Return what the file says of a product.

        Raises:
            RolloutError: The file cannot be read or is damaged.
        """
        routing = _read(self.path)
        entry = routing.products.get(product) if routing else None
        if entry is None:
            return None
        return RouterState(product, entry.mix_digest, entry.epoch, entry.weights)

    def apply(self, desired: Desired) -> None:
        """Write the wanted routing of one product; the other products stay.

        A damaged file is kept beside the new one: nobody could route by it, and a rollback must
        not wait for its repair.

        Raises:
            FencedError: The file has a later epoch, or something else under this one.
            RolloutError: The file cannot be written.
        """
        with self._locked():
            fault("routing file locked")
            try:
                routing = _read(self.path) or Routing()
            except _DamagedError:
                self._set_aside()
                fault("damaged routing file set aside")
                routing = Routing()
            before = routing.products.get(desired.product)
            if before is not None and _settled(before, desired):
                return
            entry = ProductRouting(
                mix_digest=desired.mix_digest,
                mix_name=desired.shares[0].mix.mix.name,
                epoch=desired.epoch,
                weights=desired.weights,
                changed_at=utc_now(),
                mixes={share.mix.digest: share.mix for share in desired.shares},
            )
            self._write(Routing(products=routing.products | {desired.product: entry}))

    def probe(self) -> None:
        """Pass when the file can be replaced: the folder is writable, the lock is free.

        Raises:
            RolloutError: It cannot.
        """
        with self._locked():
            trial = self.path.with_name(f".{self.path.name}.probe")
            try:
                trial.write_bytes(b"")
                trial.unlink()
            except OSError as error:
                raise RolloutError(
                    f"{self.path}: the folder of the routing file cannot be written: "
                    f"{error.strerror}; mend it or set IMAGEGATE_ROUTING_FILE elsewhere"
                ) from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock file; the system frees it when the process dies."""
        lock = FileLock(self.path.with_name(f"{self.path.name}.lock"), timeout=self.lock_timeout_s)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise RolloutError(
                f"{self.path}: another process has been changing the routing file for "
                f"{self.lock_timeout_s:g} s; find who holds {lock.lock_file}, then try again"
            ) from None
        except OSError as error:
            raise RolloutError(
                f"{self.path}: the routing file cannot be locked: {error.strerror}; mend the "
                "folder or set IMAGEGATE_ROUTING_FILE elsewhere"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _set_aside(self) -> None:
        """Keep a damaged file under a name by its content, so that doing it twice is no loss."""
        try:
            name = digest_bytes(self.path.read_bytes()).removeprefix("sha256:")[:12]
            self.path.replace(self.path.with_name(f"{self.path.name}.damaged-{name}"))
        except OSError as error:
            raise RolloutError(
                f"{self.path}: the damaged routing file cannot be set aside: {error.strerror}"
            ) from None

    def _write(self, routing: Routing) -> None:
        text = canonical_json(routing.model_dump(mode="json")) + "\n"
        try:
            # A process that was killed while writing left its temporary file; nobody else
            # writes here while the lock is held.
            for left in self.path.parent.glob(f".{self.path.name}.*.tmp"):
                left.unlink(missing_ok=True)
            fault("routing file about to be replaced")
            write_atomic(self.path, text)
            fault("routing file replaced")
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # The new name itself must outlive a power cut.
            finally:
                os.close(folder)
        except (OSError, EvidenceError) as error:
            raise RolloutError(
                f"{self.path}: the routing file cannot be written, it is as before: {error}"
            ) from error


def _settled(before: ProductRouting, desired: Desired) -> bool:
    """Tell whether the file has the wanted routing already; refuse what is older.

    Raises:
        FencedError: The file has a later epoch, or something else under this one.
    """
    if before.epoch < desired.epoch:
        return False
    shown = RouterState(desired.product, before.mix_digest, before.epoch, before.weights)
    if shown.shows(desired):
        return True
    raise FencedError(
        f"the routing of {desired.product!r} is at epoch {before.epoch} with mix "
        f"{before.mix_digest}; epoch {desired.epoch} with mix {desired.mix_digest} comes too late: "
        "somebody moved production meanwhile. Look at `imagegate status`"
    )
