"""The last good mixes of a product on this machine: a rollback that needs no state database.

After each change that the router was read back to show, ``<home>/last-good/<product>.json`` says
what serves and what served before, with the manifests. :func:`push_last_good` puts production back
by it alone. It works as every change does: the decision is written first (here into the file),
then applied, read back and recorded; so a push that was killed is finished by the next one. The
state database hears of it by the next change or reconcile, which finds the router ahead.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError, model_validator
from sqlalchemy.engine import Connection

from tasks.errors import EvidenceError, RefusedError, RolloutError, StateError, known
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import journal_of, kept_mix, require_production, serving_order
from tasks.plan import write_atomic
from tasks.policy import Strict
from tasks.records import canonical_json, utc_now
from tasks.rollout.decision import RolloutResult, alone
from tasks.rollout.faults import fault
from tasks.rollout.readback import confirm, shown_by
from tasks.rollout.routers.base import Desired, Router, RouterState

#: How many mixes of the line are kept: what serves, and those before it.
KEPT = 5
#: Seconds to wait for another process that writes the file.
_LOCK_S = 10.0
#: Figures of a digest that are enough to point at a mix.
_SHORT = 6
_PRODUCT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


class PutBack(Strict):
    """A rollback that was made by the file alone."""

    mix_digest: str
    epoch: int = Field(ge=1)
    actor: str
    reason: str
    at: str
    #: False from the decision until the router was read back to show it.
    verified: bool = False


class LastGood(Strict):
    """What served a product last, as far as this machine verified it."""

    schema_version: Literal[1] = 1
    product: str
    #: Epoch that the router was read back to show.
    epoch: int = Field(ge=0)
    #: The mixes that led to the present one, oldest first; the last one serves.
    line: tuple[ResolvedMix, ...] = Field(min_length=1)
    #: Digests of ``line``: an altered manifest is not served.
    digests: tuple[str, ...]
    #: A candidate's share while a canary is on.
    candidate_digest: str | None = None
    candidate_weight: float | None = None
    written_at: str
    #: The last rollback that was made without the state database, which has not heard of it.
    put_back: PutBack | None = None

    @model_validator(mode="after")
    def _whole(self) -> LastGood:
        if tuple(mix.digest for mix in self.line) != self.digests:
            raise ValueError("a manifest was altered: it has another digest than it was kept by")
        return self

    def mix(self, reference: str) -> ResolvedMix | None:
        """Return a kept mix by its digest, the beginning of one, or its name.

        ``None`` when none fits, or more than one.
        """
        start = reference.removeprefix("sha256:").lower()
        fits = {m.digest: m for m in self.line if m.mix.name == reference}
        if not fits and len(start) >= _SHORT:
            fits = {
                m.digest: m for m in self.line if m.digest.removeprefix("sha256:").startswith(start)
            }
        return next(iter(fits.values())) if len(fits) == 1 else None


def rollback_target(found: LastGood, shown: RouterState | None) -> ResolvedMix:
    """Return the mix that a rollback without a name means, by the file and the router.

    A router that shows one mix of the line goes to the one before it; one that shows a canary, or
    a mix that is not in the line, goes to the mix that was verified last. A router that cannot be
    read is taken to show what the file says.

    Raises:
        RefusedError: The router is on the first mix of the line already.
    """
    digests = [mix.digest for mix in found.line]
    on, split = digests[-1], found.candidate_digest is not None
    if shown is not None:
        on, split = shown.mix_digest, dict(shown.weights) != {shown.mix_digest: 1.0}
    if on not in digests:
        return found.line[-1]
    place = digests.index(on)
    if split:
        return found.line[place]
    if place == 0:
        raise RefusedError(
            f"production of {found.product!r} is on {found.line[0].mix.name!r}, the first mix that "
            "this machine knows of; nothing was changed. When the state database is back, "
            "`imagegate rollback --to DIGEST` reaches every mix"
        )
    return found.line[place - 1]


def file_of(folder: Path, product: str) -> Path:
    """Return the file of a product.

    Raises:
        RefusedError: The name is none of a product.
    """
    if not _PRODUCT.fullmatch(product):
        raise RefusedError(
            f"{product!r} is no name of a product: letters, digits, '.', '_' and '-', at most 80"
        )
    return folder / f"{product}.json"


def read_last_good(folder: Path, product: str) -> LastGood | None:
    """Return what this machine verified last, ``None`` when it never changed the product.

    Raises:
        RolloutError: The file cannot be read, is damaged or was altered.
    """
    path = file_of(folder, product)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RolloutError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        found = LastGood.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        raise RolloutError(
            f"{path}: the file of the last good mix is damaged: field {where!r}: {first['msg']}; "
            "the next verified change of production writes it anew"
        ) from None
    if found.product != product:
        raise RolloutError(f"{path}: the file is of product {found.product!r}, not {product!r}")
    return found


def put_back_by(folder: Path | None, product: str, shown: RouterState) -> PutBack | None:
    """Return who put production back to what the router shows, ``None`` when it is not known."""
    if folder is None:
        return None
    found = _readable(folder, product)
    cut = found.put_back if found is not None else None
    if cut is None or (cut.mix_digest, cut.epoch) != (shown.mix_digest, shown.epoch):
        return None
    return cut


def keep_last_good(connection: Connection, folder: Path, product: str) -> str:
    """Write what serves now into the file, in the transaction that records it as verified.

    Inside of it, because then no other controller records at the same time: the file never goes
    back. A file that cannot be written stops no change.

    Returns:
        What went wrong, as a sentence; empty when the file is written.
    """
    current = require_production(connection, product)
    line: list[ResolvedMix] = []
    for digest in reversed(serving_order(journal_of(connection, product))[-KEPT:]):
        try:
            line.insert(0, kept_mix(connection, digest))
        except (StateError, RefusedError):
            break  # What lies behind a damaged manifest could only be reached over it.
    if not line or line[-1].digest != current.mix_digest:
        line = [kept_mix(connection, current.mix_digest)]
    wanted = LastGood(
        product=product,
        epoch=current.epoch,
        line=tuple(line),
        digests=tuple(mix.digest for mix in line),
        candidate_digest=current.candidate_digest,
        candidate_weight=current.candidate_weight,
        written_at=utc_now(),
    )
    try:
        with _locked(folder, product):
            if not _same(_readable(folder, product), wanted):
                _write(folder, wanted)
    except (RolloutError, RefusedError) as error:
        return f"the file for a rollback without the state database was not written: {error}"
    return ""


def push_last_good(
    router: Router,
    folder: Path,
    product: str,
    actor: str,
    reason: str,
    *,
    to: str | None = None,
    once_in: timedelta | None = None,
    now: datetime | None = None,
    trigger: float | None = None,
) -> RolloutResult:
    """Put production back without the state database, by the file of this machine alone.

    Nothing but the router and the file is needed. A push that was killed is finished first.

    Args:
        router: Where the change takes effect.
        folder: Folder of the files.
        product: Name of the product.
        actor: Who does it.
        reason: Why.
        to: Digest (or its first six figures) or name of a mix in the file; by default the one that
            served before the present one, or the production mix alone while a canary is on.
        once_in: How long a push without a name is not repeated: the second one verifies the first.
        now: The present moment; the system's clock by default.
        trigger: ``time.monotonic()`` of the decision; the start of this call by default.

    Returns:
        The verified change; ``warning`` says that the database has not heard of it.

    Raises:
        RefusedError: The file knows no earlier mix, or not the one asked for.
        RolloutError: There is no file, it is damaged, or the router did not take the change.
    """
    started = time.monotonic() if trigger is None else trigger
    with _locked(folder, product):
        found = read_last_good(folder, product)
        if found is None:
            raise RolloutError(
                f"{file_of(folder, product)}: no such file: this machine never verified a change "
                f"of {product!r}, so it knows no good mix. Roll back where production was changed "
                "before, or mend the state database"
            )
        shown = shown_by(router, product)
        fault("last good read")
        open_push = _open_push(found, shown, now or datetime.now(UTC), once_in)
        mix = _chosen(found, shown, open_push, to)
        if open_push is not None and open_push.mix_digest == mix.digest:
            epoch = open_push.epoch
        else:
            epoch = max(found.epoch, shown.epoch if shown is not None else 0) + 1
        put_back = PutBack(
            mix_digest=mix.digest, epoch=epoch, actor=actor, reason=reason, at=utc_now()
        )
        _write(folder, found.model_copy(update={"put_back": put_back}))
        fault("push decided")
        desired = Desired(product, epoch, alone(mix))
        router.apply(desired)
        fault("push applied")
        confirm(router, desired)
        seconds = time.monotonic() - started
        fault("push read back")
        warning = _settle(folder, found, mix, put_back)
    return RolloutResult(
        product=product,
        kind="rollback",
        from_digest=shown.mix_digest if shown is not None else found.line[-1].digest,
        to_digest=mix.digest,
        mix_name=mix.mix.name,
        epoch=epoch,
        changed=shown is None or not shown.shows(desired),
        seconds=seconds,
        verified_at=utc_now(),
        warning=warning,
    )


def _chosen(
    found: LastGood, shown: RouterState | None, open_push: Desired | None, to: str | None
) -> ResolvedMix:
    """Return the mix to put back: the asked one, that of an open push, or the one before."""
    if to is not None:
        mix = found.mix(to)
        if mix is None:
            names = (f"{m.mix.name} {m.digest.removeprefix('sha256:')[:12]}" for m in found.line)
            raise RefusedError(
                f"the file of the last good mixes of {found.product!r} has no mix {to!r} "
                f"{known(names)}"
            )
        return mix
    return open_push.shares[0].mix if open_push else rollback_target(found, shown)


def _open_push(
    found: LastGood, shown: RouterState | None, now: datetime, once_in: timedelta | None
) -> Desired | None:
    """Return a push that was cut short or made just now, ``None`` when there is none to finish."""
    cut = found.put_back
    mix = None if cut is None else found.mix(cut.mix_digest)
    if cut is None or mix is None:
        return None
    just_now = once_in is not None and abs(now - datetime.fromisoformat(cut.at)) < once_in
    if cut.verified and not just_now:
        return None
    wanted = Desired(found.product, cut.epoch, alone(mix))
    # A router that is at its epoch, or ahead of it, was changed by somebody else since.
    overtaken = shown is not None and shown.epoch >= cut.epoch and not shown.shows(wanted)
    return None if overtaken else wanted


def _settle(folder: Path, found: LastGood, mix: ResolvedMix, put_back: PutBack) -> str:
    """Record that the router showed the push, and return what people have to know."""
    digests = [m.digest for m in found.line]
    line = found.line[: digests.index(mix.digest) + 1]
    warning = (
        "the state database was not to be had: it, the journal and people in Slack have not heard "
        "of this rollback. Tell on-call; when the database is back, the next change, the watchdog "
        "or `imagegate rollback` takes it over"
    )
    try:
        _write(
            folder,
            LastGood(
                product=found.product,
                epoch=put_back.epoch,
                line=line,
                digests=tuple(m.digest for m in line),
                written_at=utc_now(),
                put_back=put_back.model_copy(update={"verified": True}),
            ),
        )
    except RolloutError as error:
        return f"{warning}. Besides: {error}"
    return warning


def _same(found: LastGood | None, wanted: LastGood) -> bool:
    return (
        found is not None and found.model_copy(update={"written_at": wanted.written_at}) == wanted
    )


def _readable(folder: Path, product: str) -> LastGood | None:
    """Return the file, ``None`` when it is to be written anew because nobody can use it."""
    try:
        return read_last_good(folder, product)
    except RolloutError:
        return None


def _write(folder: Path, wanted: LastGood) -> None:
    path = file_of(folder, wanted.product)
    fault("last good about to be written")
    try:
        # Whoever was killed while writing left a temporary file; the lock is held.
        for left in folder.glob(f".{path.name}.*.tmp"):
            left.unlink(missing_ok=True)
        write_atomic(path, canonical_json(wanted.model_dump(mode="json")) + "\n")
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # The new name itself must outlive a power cut.
        finally:
            os.close(descriptor)
    except (OSError, EvidenceError) as error:
        raise RolloutError(f"{path}: cannot be written, it is as before: {error}") from error
    fault("last good written")


@contextmanager
def _locked(folder: Path, product: str) -> Iterator[None]:
    """Hold the lock file of a product; the system frees it when the process dies."""
    path = file_of(folder, product)
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=_LOCK_S)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RolloutError(
            f"{path}: another process has been writing it for {_LOCK_S:g} s; find who holds "
            f"{lock.lock_file}, then try again"
        ) from None
    except OSError as error:
        raise RolloutError(f"{path}: cannot be locked: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
