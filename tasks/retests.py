"""The ledger of retests: what every test of a mix showed, for the next test of the same mix.

Testing a build again until it passes would promote a bad one sooner or later. So a run that comes
to a verdict leaves its counts here, and the next run of the same candidate for the same product
has only what is left of the risk; :mod:`tasks.verdict.retest` says how much.

What counts as an earlier test: every other run in the ledger that did not end with PROMOTE,
whatever its policy, its inputs and its seed were; and one that did, when production was rolled
back from the mix after it, whoever did that. A PROMOTE that stands, or that a later mix replaced,
is none: the build passed. A resumed run is the run that it resumes and never a test before itself.

A person may excuse a run: its failures were no fault of the mix (a provider was ill, a fixed check
cried wolf). Then it counts for nothing, and who said so and why stays in the ledger.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.errors import ConfigError, known
from tasks.plan import RunPlan
from tasks.records import PriorRun, Record, VerdictName, utc_now
from tasks.state import State, within
from tasks.tables import retests, transitions


class Tested(Record):
    """One line of the ledger."""

    run_id: str
    candidate_digest: str
    ended_at: str
    verdict: str
    images: int
    failures: int
    #: Cases of the headline sample as planned.
    cases: int
    excused_at: str | None = None
    excused_by: str | None = None
    excused_why: str | None = None


def ledger_of(where: State | Connection, product: str, most: int = 50) -> tuple[Tested, ...]:
    """Return the newest tests of a product, newest first."""
    columns = [retests.c[name] for name in Tested.model_fields]
    query = (
        sa.select(*columns)
        .where(retests.c.product == product)
        .order_by(retests.c.ended_at.desc(), retests.c.run_id.desc())
        .limit(most)
    )
    with within(where) as connection:
        rows = connection.execute(query).mappings().all()
    return tuple(Tested(**row) for row in rows)


def excuse(where: State | Connection, product: str, run_id: str, *, by: str, why: str) -> None:
    """Let a run count for nothing when its mix is tested again; saying it twice changes nothing.

    Raises:
        ConfigError: There is no such test, or no reason is given.
    """
    if not why.strip():
        raise ConfigError(f"run {run_id!r} is excused only with a reason; give --why")
    with within(where) as connection:
        names = [test.run_id for test in ledger_of(connection, product, 200)]
        if run_id not in names:
            raise ConfigError(
                f"run {run_id!r} is not in the ledger of retests of {product!r} {known(names, 5)}"
            )
        connection.execute(
            sa.update(retests)
            .where(retests.c.run_id == run_id, retests.c.excused_at.is_(None))
            .values(excused_at=utc_now(), excused_by=by, excused_why=why.strip())
        )


def prior_runs(
    where: State | Connection, product: str, candidate_digest: str, *, but: str | None = None
) -> tuple[PriorRun, ...]:
    """Return the earlier tests of a mix, in the order in which they ended.

    Args:
        where: The database, or an open transaction.
        product: The product whose production is at stake.
        candidate_digest: The mix.
        but: The run that asks.
    """
    undone = (
        sa.exists()
        .where(transitions.c.product == retests.c.product)
        .where(transitions.c.kind == "rollback")
        .where(transitions.c.from_digest == retests.c.candidate_digest)
        .where(transitions.c.to_digest != retests.c.candidate_digest)
        .where(transitions.c.at >= retests.c.ended_at)
    )
    query = (
        sa.select(retests.c.run_id, retests.c.images, retests.c.failures, retests.c.cases)
        .where(retests.c.product == product, retests.c.candidate_digest == candidate_digest)
        .where(sa.or_(retests.c.verdict != "PROMOTE", undone), retests.c.excused_at.is_(None))
        .order_by(retests.c.ended_at, retests.c.run_id)
    )
    if but is not None:
        query = query.where(retests.c.run_id != but)
    with within(where) as connection:
        rows = connection.execute(query).all()
    return tuple(
        PriorRun(run_id=r.run_id, images=r.images, failures=r.failures, planned=r.cases)
        for r in rows
    )


def record(
    where: State | Connection, plan: RunPlan, verdict: VerdictName, images: int, failures: int
) -> None:
    """Write down what a run showed; a second time for the same run it is written anew.

    Args:
        where: The database, or the transaction in which the verdict is booked.
        plan: The run.
        verdict: What it came to.
        images: Headline images of the candidate.
        failures: Those among them that a PROMOTE takes for failures: failed and unmeasured.

    Raises:
        ValueError: Not 0 <= failures <= images.
    """
    if not 0 <= failures <= images:
        raise ValueError(f"failures must be 0 to images; got {failures} of {images} images")
    values = {
        "product": plan.product,
        "candidate_digest": plan.candidate.digest,
        "ended_at": utc_now(),
        "verdict": verdict,
        "images": images,
        "failures": failures,
        "cases": len(plan.cases),
        "seed": plan.seed,
        "policy_digest": plan.policy.digest,
    }
    with within(where) as connection:
        found = connection.execute(
            sa.update(retests).where(retests.c.run_id == plan.run_id).values(**values)
        )
        if found.rowcount == 0:
            connection.execute(sa.insert(retests).values(run_id=plan.run_id, **values))
