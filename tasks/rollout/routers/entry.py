"""The whole routing of one product in one line, as HAProxy's map and nginx's include file hold it.

HAProxy takes backend, share and mix of a request from this one value (`deployments/
haproxy-canary.cfg` shows how), so that one ``set map`` changes all of them at once, and what is
read back is what requests go by.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.errors import FencedError
from tasks.rollout.routers.base import Desired, RouterState

#: A request's key becomes a point from 0 up to this; points below the cut go to the candidate.
POINTS = 1_000_000
_VERSION = "v1"
_NONE = "-"
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_BACKEND = re.compile(r"^[A-Za-z0-9_.:-]{1,80}$")
_FIELDS = 9


@dataclass(frozen=True, slots=True)
class Arm:
    """A mix, the backend that serves it and its share of the traffic as it was asked for."""

    digest: str
    backend: str
    weight: float


@dataclass(frozen=True, slots=True)
class Entry:
    """The routing of one product.

    ``cut`` is the number of points of :data:`POINTS` that go to the candidate: what counts.
    """

    epoch: int
    cut: int
    production: Arm
    candidate: Arm | None = None

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Production, then the candidate if there is one."""
        return (self.production,) if self.candidate is None else (self.production, self.candidate)

    @property
    def value(self) -> str:
        """The value in the map."""
        one, two = self.production, self.candidate
        return "|".join(
            (
                _VERSION,
                str(self.cut),
                one.backend,
                two.backend if two else _NONE,
                one.digest,
                two.digest if two else _NONE,
                str(self.epoch),
                repr(one.weight),
                repr(two.weight) if two else "0",
            )
        )

    @property
    def weights(self) -> dict[str, float]:
        """Share of the traffic by digest: as asked for while the cut says so, else by the cut."""
        asked = 0.0 if self.candidate is None else self.candidate.weight
        if self.cut == cut_of(asked) and math.isclose(self.production.weight + asked, 1.0):
            return {arm.digest: arm.weight for arm in self.arms}
        shares = {self.production.digest: 1 - self.cut / POINTS}
        if self.candidate is not None:
            shares[self.candidate.digest] = self.cut / POINTS
        return shares

    def state(self, product: str) -> RouterState:
        """Return the routing in the words of every router."""
        return RouterState(product, self.production.digest, self.epoch, self.weights)

    def digest_at(self, point: int) -> str:
        """Return the digest of the mix that a request at a point gets."""
        if self.candidate is not None and point < self.cut:
            return self.candidate.digest
        return self.production.digest


def assert_not_late(router: str, desired: Desired, entries: Iterable[Entry]) -> None:
    """Pass when a router has no later routing, and nothing else under this epoch.

    Args:
        router: What it is called, for people.
        desired: What is wanted.
        entries: What each of its parts has.

    Raises:
        FencedError: One has.
    """
    for entry in entries:
        same = entry.state(desired.product).shows(desired)
        if entry.epoch > desired.epoch or (entry.epoch == desired.epoch and not same):
            raise FencedError(
                f"{router} routes {desired.product!r} at epoch {entry.epoch} to mix "
                f"{entry.production.digest} with weights {entry.weights}; epoch {desired.epoch} "
                f"with mix {desired.mix_digest} comes too late: somebody moved production "
                "meanwhile. Look at `imagegate status`"
            )


def cut_of(weight: float) -> int:
    """Return how many points a share of the traffic is."""
    return round(weight * POINTS)


def parse_entry(value: str) -> Entry | None:
    """Return the routing in a value of the map, ``None`` when it is none of ours."""
    parts = value.split("|")
    if len(parts) != _FIELDS or parts[0] != _VERSION:
        return None
    _, cut, backend, other_backend, digest, other_digest, epoch, weight, other_weight = parts
    numbers = all(text.isascii() and text.isdigit() and len(text) < 19 for text in (cut, epoch))
    production = _arm(digest, backend, weight)
    if not numbers or production is None or int(cut) > POINTS:
        return None
    if other_backend == other_digest == _NONE:
        # Without a candidate a cut above 0 sends requests to a backend that does not exist.
        return Entry(int(epoch), 0, production) if cut == "0" else None
    candidate = _arm(other_digest, other_backend, other_weight)
    return Entry(int(epoch), int(cut), production, candidate) if candidate is not None else None


def _arm(digest: str, backend: str, weight: str) -> Arm | None:
    if not (_BACKEND.match(backend) and _DIGEST.match(digest)):
        return None
    try:
        share = float(weight)
    except ValueError:
        return None
    return Arm(digest, backend, share) if 0 <= share <= 1 else None


def entry_for(desired: Desired, backends: Mapping[str, str]) -> Entry:
    """Return the routing that HAProxy should have.

    Args:
        desired: The wanted routing, of one or two mixes.
        backends: Backend by mix digest.

    Raises:
        ValueError: More than two mixes, or a share too small to be told from none.
    """
    if len(desired.shares) > 2:
        raise ValueError(f"at most two mixes can share the traffic, got {len(desired.shares)}")
    arms = [
        Arm(share.mix.digest, backends[share.mix.digest], share.weight) for share in desired.shares
    ]
    if len(arms) == 1:
        return Entry(desired.epoch, 0, arms[0])
    cut = cut_of(arms[1].weight)
    if not 0 < cut < POINTS:
        raise ValueError(f"a share of {arms[1].weight:g} is less than 1 in {POINTS:,} requests")
    return Entry(desired.epoch, cut, arms[0], arms[1])


def assign(
    digests: Sequence[str],
    before: Entry | None,
    backends: Sequence[str],
    serves: Mapping[str, str] | None,
) -> dict[str, str | None]:
    """Return the backend of each mix, ``None`` where there is none.

    A mix that has one keeps it, or its requests would move to another server for no reason.

    Args:
        digests: The mixes that shall have traffic.
        before: The present routing.
        backends: All backends of the product.
        serves: Digest by backend, as the backends said when they were asked; ``None`` when a
            backend serves whichever mix the request's header names.
    """
    held = {arm.digest: arm.backend for arm in before.arms} if before is not None else {}
    found: dict[str, str | None] = {
        digest: held[digest] for digest in digests if held.get(digest) in backends
    }
    for digest in digests:
        if digest in found:
            continue
        if serves is None:
            taken = set(found.values())
            free = [name for name in backends if name not in taken]
            # Of a change of both mixes, one that nobody uses at present is the best choice.
            free.sort(key=lambda name: name in held.values())
        else:
            free = [name for name in backends if serves.get(name) == digest]
        found[digest] = free[0] if free else None
    return found


def point_of(key: str) -> int:
    """Return the point of a request's key, as ``sha2(256),bytes(0,4),hex,hex2i,mod(…)`` does."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) % POINTS


def trial_keys(
    cuts: Sequence[int], point_of: Callable[[str], int] = point_of, most: int = 20_000
) -> Iterator[str]:
    """Yield one key below each cut and one not below any, as far as ``most`` tries find them.

    Args:
        cuts: In points of :data:`POINTS`.
        point_of: The point of a key, as the router computes it.
        most: How many keys to try.
    """
    wanted = [range(cut) for cut in sorted({cut for cut in cuts if cut > 0})]
    wanted.append(range(max(cuts, default=0), POINTS))
    for number in range(most):
        key = f"imagegate-probe-{number}"
        point = point_of(key)
        hit = next((span for span in wanted if point in span), None)
        if hit is not None:
            wanted.remove(hit)
            yield key
        if not wanted:
            return
