"""What must hold for a change of production, asked in the transaction that decides it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from tasks.errors import FencedError, RefusedError, TakenOverError, known
from tasks.mix.production import (
    CHANGES,
    MOVES,
    Production,
    journal_of,
    kept_mix,
    previous_digest,
)
from tasks.tables import canaries, runs

#: States of a canary in which it may change its share.
_LIVE = ("running", "paused", "holding")


def expect(
    connection: Connection,
    current: Production,
    epoch: int | None,
    mixes: Collection[str] = (),
) -> None:
    """Pass when production is at the epoch, and on one of the mixes, that the caller knows.

    Raises:
        FencedError: It is not; says who moved it.
    """
    if (epoch is None or current.epoch == epoch) and (not mixes or current.mix_digest in mixes):
        return
    changes = [c for c in journal_of(connection, current.product) if c.kind in MOVES]
    last = changes[-1] if changes else None
    by = f" by {last.kind} of {last.actor} at {last.at} ({last.reason})" if last else ""
    wanted = f"epoch {epoch}" if epoch is not None else " or ".join(sorted(mixes))
    raise FencedError(
        f"production of {current.product!r} is at epoch {current.epoch} on mix "
        f"{current.mix_digest}, this change was decided for {wanted}: somebody moved production "
        f"meanwhile{by}. Nothing was changed; judge again against what serves now"
    )


def not_rolled_back_since(connection: Connection, run_id: str, product: str) -> None:
    """Pass when nobody put production back since the run began: a resumed run must not undo that.

    Raises:
        FencedError: Somebody did; says who, when and why.
    """
    query = sa.select(runs.c.started_at, runs.c.journal_id).where(runs.c.run_id == run_id)
    began = connection.execute(query).one_or_none()
    if began is None:
        return
    for change in reversed(journal_of(connection, product)):
        # By the order of the journal: a clock that jumped must not hide a rollback.
        before = began.journal_id is not None and change.id <= began.journal_id
        if before or (began.journal_id is None and change.at < began.started_at):
            return
        if change.kind == "rollback" and change.run_id != run_id:
            raise FencedError(
                f"production of {product!r} was rolled back by {change.actor} at {change.at} "
                f"({change.reason}), after run {run_id} began at {began.started_at}. Nothing was "
                "changed; judge again with a new run"
            )


def not_ended(connection: Connection, product: str, canary_id: str | None) -> None:
    """Pass when a canary's share was not taken away since it had one.

    Raises:
        FencedError: It was; says who, when and why.
    """
    if canary_id is None:
        return
    ended = None
    for change in reversed(journal_of(connection, product)):
        if change.kind == "canary" and change.canary_id == canary_id:
            break
        if change.kind in ("rollback", "promote", "adopt"):
            ended = change
    else:
        return  # It had no share yet.
    if ended is not None:
        raise FencedError(
            f"the share of canary {canary_id} in {product!r} was ended by {ended.kind} of "
            f"{ended.actor} at {ended.at} ({ended.reason}). Nothing was changed; start a new "
            "canary if it should walk again"
        )


def canary_on(connection: Connection, current: Production) -> str | None:
    """Return the canary that the present share belongs to, ``None`` when none is known."""
    if current.candidate_digest is None:
        return None
    lines = [c for c in journal_of(connection, current.product) if c.kind == "canary"]
    return lines[-1].canary_id if lines else None


def no_other_canary(
    connection: Connection, current: Production, digest: str, canary_id: str | None
) -> None:
    """Pass when no share is on, or it is this candidate's, in this canary.

    Raises:
        RefusedError: Another candidate has a share, or the same one in another canary.
    """
    if current.candidate_digest is None:
        return
    on = canary_on(connection, current)
    if current.candidate_digest == digest and (canary_id is None or on in (None, canary_id)):
        return
    name = kept_mix(connection, current.candidate_digest).mix.name
    raise RefusedError(
        f"a canary of {name!r} ({on or 'without a name'}) has "
        f"{100 * (current.candidate_weight or 0):g} % of the traffic of {current.product!r}; let "
        f"it come to its end, or end it with `imagegate canary abort --product {current.product}`"
    )


def assert_walks(connection: Connection, canary_id: str, driver: str | None) -> None:
    """Pass when a canary is under way and this process drives it.

    Raises:
        RefusedError: There is no such canary, or it has ended.
        TakenOverError: Another process drives it.
    """
    row = _canary(connection, canary_id)
    if row.status not in _LIVE:
        raise RefusedError(
            f"canary {canary_id} has ended ({row.status}); nothing was changed. Start a new one "
            "with `imagegate canary start`"
        )
    if driver is not None and row.driver != driver:
        raise TakenOverError(
            f"canary {canary_id} is driven by another process since this one was silent for too "
            "long; nothing was changed. See `imagegate canary status`"
        )


def run_of_canary(connection: Connection, canary_id: str) -> str | None:
    """Return the gate run that allowed a canary, ``None`` when a person started it.

    Raises:
        RefusedError: There is no such canary.
    """
    run_id = _canary(connection, canary_id).run_id
    return None if run_id is None else str(run_id)


def _canary(connection: Connection, canary_id: str) -> Row[Any]:
    found = connection.execute(
        sa.select(canaries).where(canaries.c.canary_id == canary_id)
    ).one_or_none()
    if found is None:
        names = connection.execute(sa.select(canaries.c.canary_id)).scalars()
        raise RefusedError(f"there is no canary {canary_id!r} {known(list(names))}")
    return found


def rollback_target(
    connection: Connection, current: Production, now: datetime, once_in: timedelta | None
) -> str:
    """Return the mix that a rollback without a name means.

    While a candidate has a share, that is the production mix alone. Where production was rolled
    back just now, it is what serves.

    Args:
        connection: The transaction of the decision.
        current: What production should be.
        now: The present moment.
        once_in: How long a rollback without a name is not repeated; ``None``: at once.

    Raises:
        RefusedError: Nothing served before; says what else served.
    """
    if current.candidate_digest is not None:
        return current.mix_digest
    journal = journal_of(connection, current.product)
    last = next((c for c in reversed(journal) if c.kind in MOVES), None)
    if last is not None and last.kind == "rollback":
        # A gate that found production on its baseline tells of a rollback that moved nothing.
        moved = last.from_digest != last.to_digest
        age = abs(now - datetime.fromisoformat(last.at))
        just_now = moved and once_in is not None and age < once_in
        if just_now or not current.settled:
            return current.mix_digest
    before = previous_digest(connection, current.product)
    if before is not None:
        return before
    served = {c.to_digest for c in journal if c.kind in CHANGES}
    others = sorted(served - {current.mix_digest})
    raise RefusedError(
        f"production of {current.product!r} is on the first mix of its line already "
        f"({current.mix_digest[:19]}…); "
        + (
            "name the one you mean with `imagegate rollback --to DIGEST` "
            + known(
                f"{kept_mix(connection, d).mix.name} {d.removeprefix('sha256:')[:12]}"
                for d in others
            )
            if others
            else "it never served another mix"
        )
    )


def told_before(
    connection: Connection, product: str, epoch: int, digest: str, run_id: str | None
) -> bool:
    """Tell whether the journal has this rollback: a resumed run must not tell it twice."""
    return any(
        change.kind == "rollback" and change.to_digest == digest and change.run_id == run_id
        for change in journal_of(connection, product)
        if change.epoch == epoch
    )
