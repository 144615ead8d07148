"""What serves: the production pointer, the journal of its changes and the mixes kept by digest.

This is the reading side, and the first adoption of a mix. What changes production afterwards
lives in :mod:`tasks.rollout`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.engine import Connection, RowMapping

from tasks.errors import ConfigError, RefusedError, StateError, known
from tasks.mix.catalog import Catalog
from tasks.mix.manifest import ResolvedMix, resolve_mix
from tasks.records import canonical_json, utc_now
from tasks.state import State, within
from tasks.tables import mixes, production, transitions

#: Kinds of journal lines that say what production should be; ``verified`` says that it is.
CHANGES = frozenset({"adopt", "promote", "rollback", "reconcile"})
#: Kinds that change the routing: a canary's step leaves the production mix as it is and names the
#: candidate as its target.
MOVES = CHANGES | {"canary"}

#: Digits of a digest that are enough for a person to point at a mix.
_SHORT = 6


@dataclass(frozen=True, slots=True)
class Production:
    """The mix that a product should serve, and how far the router is known to have followed."""

    product: str
    mix_digest: str
    #: Grows by every change; a controller that acts on an older one is refused.
    epoch: int
    #: Epoch that the router was last read back to show.
    applied_epoch: int
    changed_at: str
    #: The candidate of a canary and its share of the traffic; both or none.
    candidate_digest: str | None = None
    candidate_weight: float | None = None

    @property
    def settled(self) -> bool:
        """True when the router was read back to show this routing."""
        return self.epoch == self.applied_epoch

    @property
    def weights(self) -> dict[str, float]:
        """Shares of the traffic by mix digest, as the router should have them."""
        if self.candidate_digest is None or self.candidate_weight is None:
            return {self.mix_digest: 1.0}
        return {
            self.mix_digest: 1.0 - self.candidate_weight,
            self.candidate_digest: self.candidate_weight,
        }

    def shown_by(self, mix_digest: str, epoch: int, weights: Mapping[str, float]) -> bool:
        """Tell whether a router that serves this under this epoch shows what it should.

        A later epoch is no harm by itself: the next change goes beyond it.
        """
        return (
            mix_digest == self.mix_digest and epoch >= self.epoch and dict(weights) == self.weights
        )


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of the journal of production."""

    id: int
    product: str
    epoch: int
    #: ``adopt``, ``promote``, ``rollback``, ``canary``, ``reconcile`` or ``verified``.
    kind: str
    from_digest: str | None
    to_digest: str
    actor: str
    reason: str
    run_id: str | None
    at: str
    #: Share of the traffic that a canary gets with this line, ``None`` when none is on.
    weight: float | None = None
    #: The canary that the line belongs to.
    canary_id: str | None = None


def served(mix_digest: str, weights: Mapping[str, float]) -> str:
    """Return what serves in words: the digest, and the shares when there are more than one."""
    if dict(weights) == {mix_digest: 1.0}:
        return mix_digest
    shares = (
        f"{100 * weight:g} % {digest}"
        for digest, weight in sorted(weights.items(), key=lambda share: -share[1])
    )
    return f"{mix_digest} with the traffic " + ", ".join(shares)


def read_production(
    where: State | Connection, product: str, *, lock: bool = False
) -> Production | None:
    """Return the production pointer of a product, ``None`` when it has none yet.

    Args:
        where: The database, or an open transaction on it.
        product: Name of the product.
        lock: Keep others from changing it until the transaction ends.
    """
    query = sa.select(production).where(production.c.product == product)
    with within(where) as connection:
        row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    return None if row is None else Production(**row)


def require_production(
    where: State | Connection, product: str, *, lock: bool = False
) -> Production:
    """Return the production pointer of a product.

    Raises:
        RefusedError: The product has no production mix yet.
    """
    found = read_production(where, product, lock=lock)
    if found is None:
        raise RefusedError(
            f"product {product!r} has no production mix {known(products(where))}; the first "
            "`imagegate run` of the product adopts its baseline"
        )
    return found


def products(where: State | Connection) -> tuple[str, ...]:
    """Return the names of all products that have a production mix, sorted."""
    with within(where) as connection:
        query = sa.select(production.c.product).order_by(production.c.product)
        return tuple(connection.execute(query).scalars())


def journal_of(where: State | Connection, product: str) -> tuple[Transition, ...]:
    """Return every change of a product's production, oldest first."""
    query = (
        sa.select(transitions).where(transitions.c.product == product).order_by(transitions.c.id)
    )
    with within(where) as connection:
        return tuple(Transition(**row) for row in connection.execute(query).mappings())


def serving_order(journal: Iterable[Transition]) -> tuple[str, ...]:
    """Return the digests that led to the present one, oldest first, rolled back ones left out.

    A promotion puts a mix on top; a rollback takes off what stands above its target. So a second
    rollback goes further back, never forward to the mix that the first one removed.
    """
    order: list[str] = []
    for change in journal:
        digest = change.to_digest
        if change.kind == "rollback" and digest in order:
            while order[-1] != digest:
                order.pop()
        elif change.kind in CHANGES and order[-1:] != [digest]:
            order.append(digest)
    return tuple(order)


def previous_digest(where: State | Connection, product: str) -> str | None:
    """Return the mix that served before the present one, ``None`` when there was none."""
    order = serving_order(journal_of(where, product))
    return order[-2] if len(order) > 1 else None


def append_transition(
    connection: Connection,
    *,
    product: str,
    epoch: int,
    kind: str,
    from_digest: str | None,
    to_digest: str,
    actor: str,
    reason: str,
    run_id: str | None,
    weight: float | None = None,
    canary_id: str | None = None,
) -> None:
    """Append one line to the journal, in the transaction of the change that it tells."""
    connection.execute(
        sa.insert(transitions).values(
            product=product,
            epoch=epoch,
            kind=kind,
            from_digest=from_digest,
            to_digest=to_digest,
            actor=actor[:200],
            reason=reason,
            run_id=run_id,
            at=utc_now(),
            weight=weight,
            canary_id=canary_id,
        )
    )


def keep_mix(where: State | Connection, mix: ResolvedMix) -> str:
    """Keep the manifest of a mix, so that a rollback can restore it, and return its digest.

    A manifest of the same digest is replaced: it makes the same images, and the later one has the
    present prices and limits.
    """
    digest = mix.digest
    values = {
        "name": mix.mix.name,
        "manifest": canonical_json(mix.model_dump(mode="json")),
        "added_at": utc_now(),
    }
    with within(where) as connection:
        update = sa.update(mixes).where(mixes.c.digest == digest).values(**values)
        if connection.execute(update).rowcount == 0:
            connection.execute(sa.insert(mixes).values(digest=digest, **values))
    return digest


def kept_mix(where: State | Connection, digest: str) -> ResolvedMix:
    """Return a mix that was kept.

    Raises:
        RefusedError: No mix of this digest was ever kept.
        StateError: Its manifest cannot be read or is not the one that the digest names.
    """
    with within(where) as connection:
        row = connection.execute(sa.select(mixes).where(mixes.c.digest == digest)).mappings()
        found: RowMapping | None = row.first()
        if found is None:
            names = connection.execute(sa.select(mixes.c.digest, mixes.c.name)).all()
            raise RefusedError(
                f"no mix with digest {digest!r} was ever judged or served here "
                f"{known(f'{name} {known_digest}' for known_digest, name in names)}"
            )
    try:
        mix = ResolvedMix.model_validate_json(found["manifest"])
    except ValidationError as error:
        raise StateError(
            f"the kept manifest of mix {digest} cannot be read ({error.error_count()} problems); "
            "restore the state database from a backup"
        ) from None
    if mix.digest != digest:
        raise StateError(
            f"the kept manifest of mix {digest} was altered: it has digest {mix.digest}; restore "
            "the state database from a backup"
        )
    return mix


def find_mix(where: State | Connection, reference: str) -> ResolvedMix:
    """Return the kept mix that a person means by a digest, the start of one, or a mix name.

    Raises:
        RefusedError: Nothing fits.
        ConfigError: More than one mix fits.
    """
    start = reference.removeprefix("sha256:").lower()
    with within(where) as connection:
        rows = connection.execute(sa.select(mixes.c.digest, mixes.c.name)).all()
        fits = sorted(digest for digest, name in rows if name == reference)
        if not fits and len(start) >= _SHORT:
            fits = sorted(d for d, _ in rows if d.removeprefix("sha256:").startswith(start))
        if len(fits) > 1:
            raise ConfigError(
                f"{reference!r} fits {len(fits)} mixes {known(fits)}; give more of the digest"
            )
        return kept_mix(connection, fits[0] if fits else reference)


def production_mix(
    where: State | Connection, product: str, catalog: Catalog | None = None
) -> ResolvedMix:
    """Return the mix that a product serves.

    Args:
        where: The database, or an open transaction on it.
        product: Name of the product.
        catalog: When given, prices, licences and limits come from it, as long as the mix still
            makes the same images by it; otherwise the entries kept with the mix stand.

    Raises:
        RefusedError: The product has no production mix yet.
        StateError: Its manifest is damaged.
    """
    with within(where) as connection:
        kept = kept_mix(connection, require_production(connection, product).mix_digest)
    if catalog is None:
        return kept
    try:
        fresh = resolve_mix(kept.mix, catalog, f"production of {product!r}")
    except ConfigError:
        return kept
    return fresh if fresh.digest == kept.digest else kept


def adopt(state: State, mix: ResolvedMix, actor: str, reason: str) -> Production:
    """Make a mix the production of a product that has none, and return the pointer.

    A product that has a production mix keeps it: the pointer comes back as it is. The router is
    told by the next :func:`tasks.rollout.change.reconcile`.
    """
    product = mix.mix.product
    with state.begin() as connection:
        found = read_production(connection, product, lock=True)
        if found is not None:
            return found
        digest = keep_mix(connection, mix)
        first = Production(product, digest, epoch=1, applied_epoch=0, changed_at=utc_now())
        connection.execute(
            sa.insert(production).values(
                product=product,
                mix_digest=digest,
                epoch=first.epoch,
                applied_epoch=first.applied_epoch,
                changed_at=first.changed_at,
            )
        )
        append_transition(
            connection,
            product=product,
            epoch=first.epoch,
            kind="adopt",
            from_digest=None,
            to_digest=digest,
            actor=actor,
            reason=reason,
            run_id=None,
        )
        return first


def forget_adoption(connection: Connection, product: str) -> None:
    """Undo an adoption that no router was told of: the run that made it was refused.

    Whatever a router was read back to show, or was ever changed, stays.
    """
    found = read_production(connection, product, lock=True)
    if found is None or found.epoch != 1 or found.applied_epoch != 0:
        return
    if [change.kind for change in journal_of(connection, product)] != ["adopt"]:
        return
    connection.execute(sa.delete(production).where(production.c.product == product))
    connection.execute(sa.delete(transitions).where(transitions.c.product == product))
