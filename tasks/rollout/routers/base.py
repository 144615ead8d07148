"""What a router must do: take the wanted routing, and say which one it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tasks.mix.manifest import ResolvedMix


@dataclass(frozen=True, slots=True)
class Share:
    """A mix and its share of the traffic, above 0 and up to 1."""

    mix: ResolvedMix
    weight: float


@dataclass(frozen=True, slots=True)
class Desired:
    """The routing that a product should have under an epoch; one epoch never has two contents.

    ``shares`` starts with the production mix. A promotion has that one alone; a canary step adds
    the candidate.

    Raises:
        ValueError: No share, a weight out of range, a mix twice, or weights that do not sum to 1.
    """

    product: str
    epoch: int
    shares: tuple[Share, ...]

    def __post_init__(self) -> None:
        weights = self.weights
        if not self.shares or len(weights) != len(self.shares):
            raise ValueError("a routing needs at least one mix, and each mix once")
        if any(not 0 < weight <= 1 for weight in weights.values()):
            raise ValueError(f"traffic weights must be above 0 and at most 1, got {weights}")
        if abs(math.fsum(weights.values()) - 1.0) > 1e-9:
            raise ValueError(f"traffic weights must sum to 1, got {weights}")

    @property
    def mix_digest(self) -> str:
        """Digest of the production mix."""
        return self.shares[0].mix.digest

    @property
    def weights(self) -> dict[str, float]:
        """Traffic weights by mix digest."""
        return {share.mix.digest: share.weight for share in self.shares}


@dataclass(frozen=True, slots=True)
class RouterState:
    """What a router serves for one product."""

    product: str
    mix_digest: str
    epoch: int
    weights: Mapping[str, float]

    def shows(self, desired: Desired) -> bool:
        """Tell whether this is exactly the wanted routing."""
        return (
            self.product == desired.product
            and self.epoch == desired.epoch
            and self.mix_digest == desired.mix_digest
            and dict(self.weights) == desired.weights
        )


class Router(Protocol):
    """A place where the routing takes effect. Every method may be called again at any time."""

    def read(self, product: str) -> RouterState | None:
        """Return what the router serves now, ``None`` when it does not know the product.

        Raises:
            RolloutError: The router cannot be read.
        """
        ...

    def apply(self, desired: Desired) -> None:
        """Make the router serve the wanted routing; all at once or not at all.

        Raises:
            FencedError: The router has a later epoch, or something else under this one.
            RolloutError: The router cannot be changed.
        """
        ...

    def probe(self) -> None:
        """Pass when the router could be changed now, without changing it.

        Raises:
            RolloutError: It could not.
        """
        ...
