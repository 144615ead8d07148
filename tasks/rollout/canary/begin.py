"""Starting a canary: what has to be true before a candidate meets its first user."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.canary_rules import CanaryRule
from tasks.errors import RefusedError
from tasks.mix.freeze import assert_may_change
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import keep_mix, kept_mix, require_production
from tasks.rollout.calendar import FreezeWindow
from tasks.rollout.calendar import assert_may_change as calendar_allows
from tasks.rollout.canary import store, tell
from tasks.rollout.canary.progress import CanaryPlan
from tasks.rollout.canary.store import Canary
from tasks.state import State
from tasks.tables import runs


def begin_canary(
    state: State,
    candidate: ResolvedMix,
    rule: CanaryRule,
    policy_digest: str,
    *,
    actor: str,
    now: datetime,
    run_id: str | None = None,
    without_gate: str | None = None,
    by_gate: bool = False,
    calendar: Sequence[FreezeWindow] = (),
) -> Canary:
    """Book a canary and tell people; the first look gives the candidate its first share.

    Args:
        state: The database.
        candidate: What walks.
        rule: The policy's section ``canary``.
        policy_digest: Digest of the policy.
        actor: Who starts it.
        now: The present moment, for the freeze.
        run_id: The gate run that promoted the candidate; the newest such run by default.
        without_gate: Why the candidate may meet users though no gate promoted it.
        by_gate: The run itself starts it, before its verdict is booked.
        calendar: When production must not change.

    Raises:
        RefusedError: There is no production, the candidate is production or another product's, no
            gate promoted it, or a canary of the product is under way.
        FrozenError: Production is frozen, by a person, a run or the calendar.
    """
    product = candidate.mix.product
    calendar_allows(calendar, product, now)
    if by_gate and run_id is None:
        raise ValueError("a gate that starts a canary names its run")
    with state.begin() as connection:
        current = require_production(connection, product, lock=True)
        if current.mix_digest == candidate.digest:
            raise RefusedError(
                f"mix {candidate.mix.name!r} is the production of {product!r} already; there is "
                "nothing to walk"
            )
        if without_gate is None and not by_gate:
            run_id = run_id or _promoting_run(connection, product, candidate.digest)
            _promoted(connection, product, candidate, run_id)
        assert_may_change(connection, product, now=now, run_id=run_id)
        keep_mix(connection, candidate)
        plan = CanaryPlan(
            canary_id=store.new_canary_id(candidate.mix.name),
            product=product,
            candidate_digest=candidate.digest,
            candidate_name=candidate.mix.name,
            baseline_digest=current.mix_digest,
            baseline_name=kept_mix(connection, current.mix_digest).mix.name,
            rule=rule,
            policy_digest=policy_digest,
            run_id=run_id,
            without_gate=without_gate,
            journal_id=store.last_line(connection, product),
        )
        store.begin(connection, plan, actor=actor, now=now)
        canary = store.read(connection, plan.canary_id)
        tell.tell_start(connection, canary)
        return canary


def _promoting_run(connection: Connection, product: str, digest: str) -> str | None:
    """Return the newest run of a product that promoted a mix."""
    query = (
        sa.select(runs.c.run_id)
        .where(
            runs.c.product == product,
            runs.c.candidate_digest == digest,
            runs.c.verdict == "PROMOTE",
        )
        .order_by(runs.c.started_at.desc())
        .limit(1)
    )
    return connection.execute(query).scalar()


def _promoted(
    connection: Connection, product: str, candidate: ResolvedMix, run_id: str | None
) -> None:
    """Pass when a gate let the candidate through.

    Raises:
        RefusedError: None did, or the run that is named did not.
    """
    query = sa.select(runs.c.product, runs.c.candidate_digest, runs.c.verdict).where(
        runs.c.run_id == run_id
    )
    row = connection.execute(query).one_or_none() if run_id is not None else None
    if row is not None and tuple(row) == (product, candidate.digest, "PROMOTE"):
        return
    found = "no gate of this product ended with PROMOTE for it"
    if run_id is not None:
        found = f"run {run_id} is not known here"
    if row is not None:
        found = f"run {run_id} is of {row.product!r}, mix {row.candidate_digest}: {row.verdict}"
    raise RefusedError(
        f"mix {candidate.mix.name!r} ({candidate.digest}) may not meet users: {found}. Judge it "
        "with `imagegate run`, or say why it may with `--without-gate REASON`"
    )
