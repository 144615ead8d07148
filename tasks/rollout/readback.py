"""Asking the router: what it shows, and whether that is what was wanted."""

from __future__ import annotations

from tasks.errors import FencedError, RolloutError
from tasks.rollout.routers.base import Desired, Router, RouterState


def shown_by(router: Router, product: str) -> RouterState | None:
    """Read the router for a change that must go through even when the router is damaged."""
    try:
        return router.read(product)
    except RolloutError:
        return None


def confirm(router: Router, desired: Desired) -> None:
    """Pass when the router shows exactly this routing.

    Raises:
        FencedError: It is ahead: another controller was faster.
        RolloutError: It shows something else, or cannot be read.
    """
    shown = router.read(desired.product)
    if shown is not None and shown.shows(desired):
        return
    has = "nothing" if shown is None else f"mix {shown.mix_digest} at epoch {shown.epoch}"
    error = FencedError if shown and shown.epoch > desired.epoch else RolloutError
    raise error(
        f"the router was told to serve {desired.product!r} by mix {desired.mix_digest} at "
        f"epoch {desired.epoch} with weights {desired.weights}, read back it shows {has} with "
        f"weights {dict(shown.weights) if shown else {}}; run `imagegate status`, then try again"
    )
