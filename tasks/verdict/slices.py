"""Slices: which of many are proven bad at one shared risk, which look bad, which are covered.

Twenty slices are twenty chances to be unlucky. Each gets its own betting test at its own share of
alpha, so that the risk of blaming *any* slice that is within the limit stays below alpha, however
often one looks and however the slices overlap (no independence is used, only Bonferroni's sum and
Ville's inequality: J. Ville, Etude critique de la notion de collectif, 1939).
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.errors import known
from tasks.records import SequentialResult
from tasks.verdict.sequential import (
    fail_bets,
    images_needed,
    log_e,
    lower_limit,
    pass_bets,
    upper_limit,
)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SliceCount:
    """What is known of one slice: images, failures among them, and those nobody could judge.

    Cases of a top-up count here only for the slice that they were drawn for: see
    :func:`next_top_up`.

    Raises:
        ValueError: The counts are no whole numbers or do not fit each other.
    """

    name: str
    images: int
    failures: int
    unmeasured: int = 0

    def __post_init__(self) -> None:
        for field in ("images", "failures", "unmeasured"):
            value = getattr(self, field)
            try:
                whole = operator.index(value)
            except TypeError:
                whole = -1
            if whole < 0:
                raise ValueError(
                    f"slice {self.name!r}: {field} must be a whole number of 0 or more; "
                    f"got {value!r}"
                )
        if self.failures + self.unmeasured > self.images:
            raise ValueError(
                f"slice {self.name!r}: {self.failures} failures and {self.unmeasured} unmeasured "
                f"do not fit {self.images} images"
            )


@dataclass(frozen=True)
class SliceTests:
    """The tests of the slices, fixed before the first image.

    Which slices are tested, and their weights, must come from the plan: choosing them by what
    was seen would spend the risk on the unluckiest ones.

    Args:
        names: Slices that are tested against ``limit``; the shares of alpha belong to these.
        limit: A slice is bad when its failure rate is above this.
        alpha: Risk of a ROLLBACK over any slice that is within the limit; all slices together.
        amber_alpha: The whole, unshared alpha of the policy; evidence of 1 / ``amber_alpha`` is
            amber.
        weights: Share of alpha by slice, summing to 1; ``None`` for equal shares.
        critical: Slices that need their own proof of being below ``critical_below``; they may be
            outside ``names``, e.g. for having too few cases in the plan.
        critical_below: The rate that a critical slice must be proven to stay below.
        beta: Risk of each such proof. PROMOTE asks for every proof, so none has to share.

    Raises:
        ValueError: A name twice, a rate or a risk out of range, weights that do not fit.
    """

    names: tuple[str, ...]
    limit: float
    alpha: float
    amber_alpha: float
    weights: Mapping[str, float] | None = None
    critical: tuple[str, ...] = ()
    critical_below: float = 0.10
    beta: float = 0.05

    def __post_init__(self) -> None:
        for group in (self.names, self.critical):
            twice = sorted({name for name in group if group.count(name) > 1})
            if twice:
                raise ValueError(f"slices must be named once; twice: {', '.join(twice)}")
        for field in ("limit", "alpha", "amber_alpha", "critical_below", "beta"):
            value = getattr(self, field)
            if not 0 < value < 1:
                raise ValueError(f"{field} must be between 0 and 1; got {value}")
        if self.alpha > self.amber_alpha:
            raise ValueError(
                f"alpha of the slices ({self.alpha}) must not exceed the policy's whole alpha "
                f"({self.amber_alpha}), of which it is a part"
            )
        self.shares()

    def shares(self) -> Floats:
        """Return the weights in the order of ``names``.

        Raises:
            ValueError: They are not one positive number for each name, or do not sum to 1.
        """
        if self.weights is None:
            return np.full(len(self.names), 1 / max(1, len(self.names)))
        if set(self.weights) != set(self.names):
            odd = sorted(set(self.weights) ^ set(self.names))
            raise ValueError(f"weights must name exactly the slices; differing: {', '.join(odd)}")
        found = np.array([self.weights[name] for name in self.names], dtype=np.float64)
        if found.size and not (np.all(found > 0) and abs(found.sum() - 1) <= 1e-9):
            raise ValueError(f"weights must be positive and sum to 1; got {dict(self.weights)}")
        return found


def judge(
    tests: SliceTests,
    counts: Sequence[SliceCount],
    latched: Collection[str] = (),
    *,
    bounds: bool = True,
) -> tuple[SequentialResult, ...]:
    """Return the state of every slice: first those of ``tests.names``, then further critical ones.

    A slice of the set without a count has no images and the evidence E = 1. Unmeasured images
    count as good ones in FAIL and as failures in PASS.

    ``failed`` is set by Holm's step-down with weights (S. Holm, Scandinavian Journal of
    Statistics 6, 1979): slice j fails when E_j >= W / (alpha * w_j), where W sums the weights
    of the slices that have not failed yet. At first W = 1; each failed slice hands its share on.

    Why the risk of failing *any* slice that is within the limit stays at alpha, over all looks:
    let T be the slices that are truly within it, and look at the first of them to fail, in the
    order of looks and, within a look, of steps. Until then only slices outside T had failed, so T
    was whole among the rest and W >= w(T). Hence that slice i had E_i >= w(T) / (alpha * w_i) at
    that look. By Ville, E_i ever gets there with probability alpha * w_i / w(T) at most; summed
    over T that is alpha. This needs alarms that latch (an alarm is not taken back when its E
    falls again) and evidence at the looks themselves. E-BH, the step-up cousin, must never be
    used on latched alarms: it needs E[E_j] <= 1, which the running maximum of E_j violates.

    Args:
        tests: What was fixed before.
        counts: What was seen, one entry for a slice.
        latched: Slices that failed at an earlier look; they stay ``failed``.
        bounds: Compute ``lower`` and ``upper`` for slices that failed, are amber or critical. They
            cost some milliseconds each; the decision itself does not need them.

    Raises:
        ValueError: A count or an alarm of a slice that is not in the set, or two counts of one.
    """
    extra = tuple(name for name in tests.critical if name not in tests.names)
    order = (*tests.names, *extra)
    by_name = _by_name(order, counts, latched)
    tested = len(tests.names)
    images, failures = (
        np.array([getattr(by_name[name], field) for name in tests.names], dtype=np.int64)
        for field in ("images", "failures")
    )
    log_fail = log_e(fail_bets(tests.limit), images, failures)
    failed, fail_at = _holm(tests, log_fail, latched)
    amber = ~failed & (log_fail >= -np.log(tests.amber_alpha))
    found = []
    for place, name in enumerate(order):
        count = by_name[name]
        fields: dict[str, object] = {}
        if place < tested:
            fields = {
                "limit": tests.limit,
                "log_e_fail": float(log_fail[place]),
                "fail_at": float(fail_at[place]),
                "failed": bool(failed[place]),
                "amber": bool(amber[place]),
            }
        if name in tests.critical:
            fields |= _proof(tests, count)
        if bounds and (fields.get("failed") or fields.get("amber") or name in tests.critical):
            fields |= _ends(tests, count, fields.get("fail_at"))
        found.append(
            SequentialResult.model_validate(
                {
                    "name": name,
                    "kind": "slice",
                    "images": int(count.images),
                    "failures": int(count.failures),
                    **fields,
                }
            )
        )
    return tuple(found)


def not_covered(results: Sequence[SequentialResult]) -> tuple[SequentialResult, ...]:
    """Return the critical slices whose proof is still missing; PROMOTE must wait for them."""
    return tuple(one for one in results if one.below is not None and not one.passed)


def next_top_up(
    results: Sequence[SequentialResult], reserve_counts: Mapping[str, int]
) -> str | None:
    """Return the amber slice whose reserve cases come next, or ``None``.

    That is the one nearest to its alarm: the largest log E relative to its threshold among the
    amber slices with cases left; the first of equals.

    Drawing by what was seen does no harm to the slice itself. Its E multiplies one factor for
    each of its cases, and the factor's mean is at most 1 when the case's chance to fail, given all
    that was seen, is at most the limit, whatever made us draw the case. (Think of each slice as a
    stack of cards shuffled before the run: choosing the stack does not change its next card.)
    Two conditions follow. The reserve must be a random draw from the slice, not hand-picked. And
    a reserve case counts **only for the slice it was drawn for**, never for the others it belongs
    to nor for the headline: extra Thai cases among ``subtask=typography`` would raise that
    slice's failure rate though typography as it is used is within its limit.

    Args:
        results: From :func:`judge`.
        reserve_counts: Reserve cases left, by slice; a slice that is not named has none.

    Raises:
        ValueError: A negative number of reserve cases.
    """
    below = sorted(name for name, left in reserve_counts.items() if not left >= 0)
    if below:
        raise ValueError(f"reserve cases cannot be negative: {', '.join(below)}")
    open_slices = [
        (one.log_e_fail - one.fail_at, one.name)
        for one in results
        if one.amber
        and one.log_e_fail is not None
        and one.fail_at is not None
        and reserve_counts.get(one.name, 0) > 0
    ]
    return max(open_slices, key=operator.itemgetter(0))[1] if open_slices else None


def _by_name(
    order: tuple[str, ...], counts: Sequence[SliceCount], latched: Collection[str]
) -> dict[str, SliceCount]:
    """Return one count for each slice, of no images where none was given."""
    by_name: dict[str, SliceCount] = {}
    for count in counts:
        if count.name in by_name:
            raise ValueError(f"slice {count.name!r} was counted twice")
        by_name[count.name] = count
    strangers = sorted((set(by_name) | set(latched)) - set(order))
    if strangers:
        raise ValueError(
            f"slice {strangers[0]!r} is not among the slices fixed before the run "
            f"{known(order, 20)}; tests cannot be added once images are seen"
        )
    return {name: by_name.get(name) or SliceCount(name, 0, 0) for name in order}


def _holm(
    tests: SliceTests, log_fail: Floats, latched: Collection[str]
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Return which slices have failed, and the log threshold that each met or still has to meet.

    A slice that failed at an earlier look shows its first threshold, the highest it can have had.
    """
    shares = tests.shares()
    log_shares = np.log(shares)
    failed = np.array([name in latched for name in tests.names], dtype=np.bool_)
    at = -np.log(tests.alpha) - log_shares
    # E_j >= W / (alpha w_j) asks whether E_j w_j is large: in that order one pass is enough.
    order = np.flatnonzero(~failed)
    order = order[np.argsort(-(log_fail + log_shares)[order], kind="stable")]
    rest = np.cumsum(shares[order][::-1])[::-1]
    if not failed.any():
        rest[:1] = 1.0  # Not the rounding error of a sum.
    thresholds = np.log(rest) + at[order]
    enough = log_fail[order] >= thresholds
    steps = len(order) if enough.all() else int(np.argmin(enough))
    failed[order[:steps]] = True
    at[order[:steps]] = thresholds[:steps]
    if steps < len(order):
        at[order[steps:]] += np.log(rest[steps])
    return failed, at


def _proof(tests: SliceTests, count: SliceCount) -> dict[str, object]:
    """Return the fields of a critical slice's own PASS test."""
    pass_at = float(-np.log(tests.beta))
    bad = count.failures + count.unmeasured
    evidence = float(log_e(pass_bets(tests.critical_below), count.images, bad))
    passed = evidence >= pass_at
    # While nothing failed the forecast is of clean images: "9 of 29 clean images needed".
    rate = (bad + 0.5) / (count.images + 1 / tests.critical_below) if bad else 0.0
    needed = None
    if not passed and rate < tests.critical_below:
        needed = images_needed(
            bad, count.images, below=tests.critical_below, log_threshold=pass_at, rate=rate
        )
    return {
        "below": tests.critical_below,
        "log_e_pass": evidence,
        "pass_at": pass_at,
        "passed": passed,
        "images_needed": needed,
    }


def _ends(tests: SliceTests, count: SliceCount, fail_at: object) -> dict[str, object]:
    """Return the ends of the confidence sequence: the lower at the slice's share of alpha."""
    ends: dict[str, object] = {
        "upper": upper_limit(count.failures + count.unmeasured, count.images, tests.beta)
    }
    if isinstance(fail_at, float):
        ends["lower"] = lower_limit(count.failures, count.images, float(np.exp(-fail_at)))
    return ends
