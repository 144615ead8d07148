"""What a change of production is: the wanted routing, its epoch, its result. No I/O here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.errors import RefusedError
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import Production
from tasks.records import SCHEMA_VERSION, Record
from tasks.rollout.routers.base import Desired, RouterState, Share

ChangeKind = Literal["promote", "rollback", "reconcile", "canary"]


class RolloutResult(Record):
    """One change of production that was read back from the router."""

    schema_version: int = SCHEMA_VERSION
    product: str
    kind: ChangeKind
    from_digest: str
    #: The mix that the change is about: what serves now, or the candidate of a canary.
    to_digest: str
    mix_name: str
    epoch: int
    #: False when the routing was wanted like this already.
    changed: bool
    #: Seconds from the trigger until the router was read back to serve exactly this.
    seconds: float
    verified_at: str
    #: Share of the candidate while a canary is on, ``None`` without one.
    weight: float | None = None
    canary_id: str | None = None
    #: What did not go well although the change is verified, as sentences; else empty.
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision that the database holds: what must be true of the router when it is done."""

    kind: ChangeKind
    desired: Desired
    from_digest: str
    actor: str
    reason: str
    run_id: str | None
    canary_id: str | None
    changed: bool
    #: True when the journal got a line for this decision, so it also gets one for its end.
    told: bool

    @property
    def product(self) -> str:
        """Name of the product."""
        return self.desired.product

    @property
    def epoch(self) -> int:
        """The epoch that the routing is written under."""
        return self.desired.epoch

    @property
    def weight(self) -> float | None:
        """Share of the candidate, ``None`` without one."""
        return weight_of(self.desired)

    @property
    def about(self) -> ResolvedMix:
        """The mix that the change is about; the production mix, or the candidate of a canary."""
        return self.desired.shares[-1 if self.kind == "canary" else 0].mix


def alone(mix: ResolvedMix) -> tuple[Share, ...]:
    """Return the routing of one mix that serves everything."""
    return (Share(mix, 1.0),)


def split(mix: ResolvedMix, candidate: ResolvedMix, weight: float) -> tuple[Share, ...]:
    """Return the routing of a production mix that gives a candidate a share."""
    return (Share(mix, 1.0 - weight), Share(candidate, weight))


def weight_of(desired: Desired) -> float | None:
    """Return the share of the candidate, ``None`` when the production mix serves alone."""
    return desired.shares[1].weight if len(desired.shares) > 1 else None


def check_weight(weight: float) -> None:
    """Pass when a canary can have this share of the traffic.

    Raises:
        RefusedError: It is no number above 0 and below 1.
    """
    if not (isinstance(weight, float | int) and math.isfinite(weight) and 0 < weight < 1):
        raise RefusedError(
            f"a canary cannot have {weight!r} of the traffic: give a share above 0 and below 1; "
            "all of it is a promotion, none of it a rollback"
        )


def check_product(mix: ResolvedMix, product: str) -> None:
    """Pass when a mix is made for a product.

    Raises:
        RefusedError: It is another product's.
    """
    if mix.mix.product != product:
        raise RefusedError(
            f"mix {mix.mix.name!r} is of product {mix.mix.product!r}; it cannot serve {product!r}"
        )


def wants(current: Production, shares: Sequence[Share]) -> bool:
    """Tell whether the database wants this very routing already."""
    weights = {share.mix.digest: share.weight for share in shares}
    return current.mix_digest == shares[0].mix.digest and current.weights == weights


def free_epoch(wanted: Desired, shown: RouterState | None) -> int:
    """Return the epoch to write a routing under: its own, unless the router has used it up.

    The router is ahead of the database, or has something else under the same epoch, after the
    database was restored from a backup or somebody edited the routing by hand. One epoch never
    gets two contents, so that every reader can tell which is later.
    """
    if shown is None or shown.epoch < wanted.epoch or shown.shows(wanted):
        return wanted.epoch
    return shown.epoch + 1


def put_back_outside(current: Production, order: Sequence[str], shown: RouterState | None) -> bool:
    """Tell whether somebody rolled back at the router while the database was not to be had.

    Then the router is ahead of the database and gives all traffic to a mix that served before the
    present one, or to the production mix although a canary should be on. Undoing that would bring
    back what somebody just took away. Anything else that the router shows is not ours: the
    database wins.

    Args:
        current: What the database wants.
        order: The mixes that led to the present one, oldest first
            (:func:`tasks.mix.production.serving_order`).
        shown: What the router shows; read before ``current``.
    """
    if shown is None or shown.epoch <= current.epoch:
        return False
    if dict(shown.weights) != {shown.mix_digest: 1.0}:
        return False
    if shown.mix_digest == current.mix_digest:
        return current.candidate_digest is not None
    if current.mix_digest not in order:
        return False
    return shown.mix_digest in order[: order.index(current.mix_digest)]
