"""The rehearsal of a rollback on production's router, with no effect on users.

``dry``: everything that a rollback reads, asks and writes, short of the routing itself; what is
written is undone in the same transaction. ``shadow``: a whole canary and its rollbacks, by the
code that production is changed by, on a route that no user is sent to: another product of the same
router. The mixes of the shadow are those of production under another name.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tasks.alerts.messages import Notice, notice_message
from tasks.alerts.outbox import enqueue
from tasks.errors import ImagegateError, RefusedError
from tasks.mix.freeze import stamp
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import (
    Production,
    adopt,
    journal_of,
    kept_mix,
    require_production,
    serving_order,
)
from tasks.rollout.change import promote, reconcile, roll_back, set_share
from tasks.rollout.last_good import read_last_good
from tasks.rollout.routers.base import Router
from tasks.state import State
from tasks.tables import drills, production

Kind = Literal["dry", "shadow"]
#: Shares that the rehearsed canary walks through.
SHARES = (0.01, 0.05, 0.25, 0.50)
ACTOR = "imagegate drill"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a rollback needs, tried out."""

    name: str
    ok: bool
    seconds: float
    #: What was found, or what went wrong.
    said: str = ""


@dataclass(frozen=True, slots=True)
class Drill:
    """A rehearsal, as it is kept in table ``drills``."""

    product: str
    router: str
    kind: Kind
    ok: bool
    #: ``shadow``: from the trigger until the router was read back, the longest of the rehearsed
    #: rollbacks. ``dry``: all that a rollback does but for the change itself.
    seconds: float
    steps: tuple[Step, ...]
    actor: str
    at: str


class _Undo(Exception):  # noqa: N818 - not an error: ends a transaction without its writes
    pass


@dataclass(slots=True)
class _Log:
    steps: list[Step] = field(default_factory=list)

    def step(self, name: str, do: Callable[[], str]) -> bool:
        """Do one step and note how it went; later steps are tried all the same."""
        started = time.monotonic()
        try:
            said, ok = do(), True
        except ImagegateError as error:
            said, ok = str(error), False
        self.steps.append(Step(name, ok, time.monotonic() - started, said))
        return ok


def rehearse(
    state: State,
    router: Router,
    router_name: str,
    product: str,
    kind: Kind,
    *,
    actor: str,
    shadow: str = "",
    now: datetime | None = None,
) -> Drill:
    """Rehearse a rollback, note it in the database and return it.

    Args:
        state: The database.
        router: Production's router.
        router_name: Its kind, for the record.
        product: Name of the product.
        kind: ``dry`` or ``shadow``.
        actor: Who asks.
        shadow: The product of the router that no user is sent to.
        now: The present moment.

    Raises:
        RefusedError: The product has no production mix, or the shadow route serves users.
    """
    moment = now or datetime.now(UTC)
    serving = require_production(state, product)
    log = _Log()
    if kind == "dry":
        _dry(log, state, router, serving)
        seconds = sum(step.seconds for step in log.steps)
    else:
        seconds = _shadow(log, state, router, serving, shadow)
    done = Drill(
        product=product,
        router=router_name,
        kind=kind,
        ok=all(step.ok for step in log.steps),
        seconds=seconds,
        steps=tuple(log.steps),
        actor=actor,
        at=stamp(moment),
    )
    record(state, done)
    return done


def _dry(log: _Log, state: State, router: Router, serving: Production) -> None:
    product = serving.product

    def shows() -> str:
        shown = router.read(product)
        if shown is None or dict(shown.weights) != serving.weights:
            raise RefusedError(
                "the router does not show what production should be; `imagegate rollback` or the "
                "next change applies it"
            )
        return f"epoch {shown.epoch}"

    def may_change() -> str:
        router.probe()
        return "it could be changed now"

    def has_target() -> str:
        with state.begin() as connection:
            order = serving_order(journal_of(connection, product))
            if len(order) < 2:
                raise RefusedError("no mix served before this one: there is nothing to go back to")
            mix = kept_mix(connection, order[-2])
        return f"{mix.mix.name} {mix.digest[:19]}…"

    def can_write() -> str:
        def writes(connection: Connection) -> None:
            require_production(connection, product, lock=True)
            connection.execute(
                sa.update(production)
                .where(production.c.product == product)
                .values(epoch=production.c.epoch + 1)
            )

        _undone(state, writes)
        return "written and undone"

    def can_tell() -> str:
        notice = Notice(title=f"Drill: {product}", severity="info", product=product)

        def writes(connection: Connection) -> None:
            enqueue(connection, "drill", None, notice_message(notice).payload(), product=product)

        _undone(state, writes)
        return "a message was queued and undone"

    def without_database() -> str:
        if state.last_good is None:
            return "not tried: this process keeps no last good mixes"
        found = read_last_good(state.last_good, product)
        if found is None:
            raise RefusedError(
                "this machine has no file of the last good mixes: a rollback with the state "
                "database down would not go from here. The next change made here writes it"
            )
        if found.epoch < serving.applied_epoch:
            raise RefusedError(
                f"the file of the last good mixes is of epoch {found.epoch}, production is at "
                f"{serving.applied_epoch}: another machine changed it"
            )
        return f"{len(found.line)} mixes at epoch {found.epoch}"

    log.step("the router shows production", shows)
    log.step("the router can be changed", may_change)
    log.step("there is a mix to go back to", has_target)
    log.step("the state database takes the decision", can_write)
    log.step("people can be told", can_tell)
    log.step("it would go without the state database", without_database)


def _undone(state: State, writes: Callable[[Connection], None]) -> None:
    """Make writes in a transaction that is rolled back."""
    try:
        with state.begin() as connection:
            writes(connection)
            raise _Undo
    except _Undo:
        return


def _shadow(log: _Log, state: State, router: Router, serving: Production, shadow: str) -> float:
    """Walk a canary on the shadow route and roll it back; return the longest rollback's seconds."""
    if not shadow or shadow == serving.product:
        raise RefusedError("a drill on a shadow route needs the name of one that serves no user")
    with state.begin() as connection:
        taken = connection.execute(
            sa.select(production.c.product).where(production.c.product == shadow)
        ).first()
    if taken is not None:
        raise RefusedError(
            f"{shadow!r} is a product that serves users: a drill must not touch it; give the name "
            "of a route that nobody is sent to"
        )
    mix = _renamed(kept_mix(state, serving.mix_digest), shadow)
    candidate = _changed(mix)
    took: list[float] = []
    # The shadow has a journal of its own, so that the product's holds what happened to users only.
    with tempfile.TemporaryDirectory(prefix="imagegate-drill-") as folder:
        own = State(f"sqlite:///{Path(folder) / 'state.db'}", home=Path(folder))
        try:
            adopt(own, mix, ACTOR, "drill")
            if not log.step("the shadow route is set up", lambda: _setup(own, router, shadow)):
                return 0.0
            for share in SHARES:
                log.step(
                    f"the candidate gets {100 * share:g} %",
                    partial(_share, own, router, shadow, candidate, share),
                )
            log.step("rollback from the canary", lambda: _back(own, router, shadow, None, took))
            log.step("promotion", lambda: _promote(own, router, shadow, candidate))
            log.step(
                "rollback from all traffic",
                lambda: _back(own, router, shadow, mix.digest, took),
            )
        finally:
            own.close()
    return max(took, default=0.0)


def _setup(own: State, router: Router, shadow: str) -> str:
    done = reconcile(own, router, shadow, actor=ACTOR, reason="drill")
    return f"epoch {done.epoch}"


def _share(own: State, router: Router, shadow: str, candidate: ResolvedMix, share: float) -> str:
    done = set_share(own, router, shadow, candidate, share, actor=ACTOR, reason="drill")
    return f"read back at epoch {done.epoch} after {done.seconds:.3f} s"


def _promote(own: State, router: Router, shadow: str, candidate: ResolvedMix) -> str:
    done = promote(own, router, shadow, candidate, actor=ACTOR, reason="drill")
    return f"read back at epoch {done.epoch} after {done.seconds:.3f} s"


def _back(own: State, router: Router, shadow: str, to: str | None, took: list[float]) -> str:
    done = roll_back(own, router, shadow, to, actor=ACTOR, reason="drill", trigger=time.monotonic())
    took.append(done.seconds)
    return f"no traffic on the candidate, read back {done.seconds:.3f} s after the trigger"


def _renamed(mix: ResolvedMix, product: str) -> ResolvedMix:
    return mix.model_copy(update={"mix": mix.mix.model_copy(update={"product": product})})


def _changed(mix: ResolvedMix) -> ResolvedMix:
    """Return a mix that differs from this one: of versions that nobody is ever asked for."""
    models = tuple(
        model.model_copy(update={"version": f"{model.version}-drill"}) for model in mix.models
    )
    named = mix.mix.model_copy(update={"name": f"{mix.mix.name}-drill"})
    return mix.model_copy(update={"mix": named, "models": models})


def record(state: State, done: Drill) -> None:
    """Note a rehearsal in the database."""
    with state.begin() as connection:
        connection.execute(
            sa.insert(drills).values(
                product=done.product,
                router=done.router[:40],
                kind=done.kind,
                ok=done.ok,
                seconds=done.seconds,
                steps=json.dumps([asdict(step) for step in done.steps]),
                actor=done.actor[:200],
                at=done.at,
            )
        )


def newest_drill(state: State | Connection, product: str) -> Drill | None:
    """Return the newest rehearsal of a product, ``None`` when there was none."""
    from tasks.state import within

    query = (
        sa.select(drills).where(drills.c.product == product).order_by(drills.c.id.desc()).limit(1)
    )
    with within(state) as connection:
        row = connection.execute(query).mappings().first()
    if row is None:
        return None
    return Drill(
        product=row["product"],
        router=row["router"],
        kind=row["kind"],
        ok=row["ok"],
        seconds=row["seconds"],
        steps=tuple(Step(**step) for step in json.loads(row["steps"])),
        actor=row["actor"],
        at=row["at"],
    )
