"""Which backend serves which mix, where a router has backends of its own."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.errors import RolloutError
from tasks.rollout.routers.base import Desired
from tasks.rollout.routers.config import Product
from tasks.rollout.routers.entry import Entry, assign
from tasks.rollout.routers.probing import Prober


def place(
    desired: Desired, product: Product, before: Entry | None, prober: Prober
) -> Mapping[str, str]:
    """Return the backend of each mix of a routing.

    Who has a backend keeps it and is not asked, whoever is down: a rollback must not wait for an
    answer.

    Args:
        desired: The wanted routing.
        product: Its backends.
        before: The present routing.
        prober: Asks a backend which mix it serves.

    Raises:
        RolloutError: No backend serves a mix.
    """
    digests = [share.mix.digest for share in desired.shares]
    names = [backend.name for backend in product.backends]
    held = {arm.digest: arm.backend for arm in before.arms} if before else {}
    serves: dict[str, str] | None = None
    if product.backends[0].identity_url is not None:
        asked = () if all(held.get(d) in names for d in digests) else product.backends
        serves = {b.name: prober.mix_at(b.identity_url or "") or "" for b in asked}
    found = {d: b for d, b in assign(digests, before, names, serves).items() if b is not None}
    for digest in digests:
        if digest not in found:
            said = [
                f"{name} serves {mix or 'nothing known'}" for name, mix in (serves or {}).items()
            ]
            raise RolloutError(
                f"no backend serves mix {digest} of {desired.product!r}: "
                f"{', '.join(said) or f'there are only {len(names)}'}; deploy it, then try again"
            )
    return found
