"""The candidate against the baseline on the same cases and seeds, looked at as often as one likes.

A pair is Z = failed(candidate) - failed(baseline), one of -1, 0 and 1. Pairs in which both arms do
the same cancel, so the test needs fewer images the more the two arms agree. The evidence is the
bounded betting mixture of :mod:`tasks.verdict.sequential` (Waudby-Smith and Ramdas, JRSS B 86,
2024) and depends on three counts only, not on the order of the pairs.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.verdict.betting import log_factors, log_mixture
from tasks.verdict.sequential import Bets, Decision, bounded_fail_bets, bounded_pass_bets

Side = Literal["pass", "fail"]
_HALVINGS = 42


@dataclass(frozen=True)
class PairedCounts:
    """How two arms differ on the same cases.

    Args:
        pairs: Cases that both arms have an outcome for.
        worse: Of these, failed with the candidate only.
        better: Failed with the baseline only.

    Raises:
        ValueError: Counts that cannot be.
    """

    pairs: int
    worse: int
    better: int

    def __post_init__(self) -> None:
        counts = (self.pairs, self.worse, self.better)
        if not all(isinstance(count, int | np.integer) for count in counts) or (
            min(counts) < 0 or self.worse + self.better > self.pairs
        ):
            raise ValueError(
                "worse and better are pairs, 0 or more, and pairs are all of them; got "
                f"{self.worse!r} worse and {self.better!r} better in {self.pairs!r} pairs"
            )

    @property
    def difference(self) -> float | None:
        """Mean difference of the failure rates, candidate minus baseline; ``None`` of no pairs."""
        return (self.worse - self.better) / self.pairs if self.pairs else None


def count_pairs(
    candidate: Mapping[str, bool | None], baseline: Mapping[str, bool | None]
) -> tuple[PairedCounts, PairedCounts]:
    """Count the pairs, once as a proof for the candidate reads them and once against it.

    Nobody knows whether an unmeasured image failed, and dropping it would let an arm improve by
    losing its bad images. So each proof takes it for the outcome that makes the proof harder.

    Args:
        candidate: By case, whether it failed; ``None`` where nobody knows.
        baseline: The same for the baseline; it may hold more cases than the candidate.

    Returns:
        The counts for PASS (unknown of the candidate failed, unknown of the baseline did not) and
        the counts for FAIL (the other way round).

    Raises:
        ValueError: A case of the candidate that the baseline does not have.
    """
    alone = sorted(candidate.keys() - baseline.keys())
    if alone:
        raise ValueError(
            f"{len(alone)} cases have no outcome of the baseline, the first {alone[0]!r}; run the "
            "baseline on them or give None"
        )
    worse_pass = better_pass = worse_fail = better_fail = 0
    for case, failed in candidate.items():
        before = baseline[case]
        worse_pass += failed is not False and before is not True
        better_pass += failed is False and before is True
        worse_fail += failed is True and before is False
        better_fail += failed is not True and before is not False
    pairs = len(candidate)
    return (
        PairedCounts(pairs, worse_pass, better_pass),
        PairedCounts(pairs, worse_fail, better_fail),
    )


@lru_cache(maxsize=256)
def _bets(margin: float, side: Side) -> Bets:
    """Return the bets against one margin."""
    if not -1 < margin < 1:
        raise ValueError(f"the margin must be between -1 and 1; got {margin}")
    make = bounded_pass_bets if side == "pass" else bounded_fail_bets
    return make(margin, -1.0, 1.0)


def paired_log_e(
    worse: int, better: int, pairs: int, margin: float, *, side: Side = "pass"
) -> float:
    """Return the logarithm of the evidence that three counts give.

    Args:
        worse: Pairs in which the candidate alone failed.
        better: Pairs in which the baseline alone failed.
        pairs: All pairs.
        margin: Difference of the failure rates that is tested, between -1 and 1.
        side: ``pass``: evidence that the difference is below the margin (null: at it or above);
            ``fail``: that it is above (null: at it or below).

    Raises:
        ValueError: Impossible counts, margin or side.
    """
    counts = PairedCounts(pairs, worse, better)
    if side not in ("pass", "fail"):
        raise ValueError(f"side {side!r} is unknown (known: pass, fail)")
    bets, logs = _factors(margin, side)
    same = counts.pairs - counts.worse - counts.better
    # The three factors are all finite: no bet of the grid ever stakes everything.
    return float(log_mixture(bets, np.array([counts.better, same, counts.worse]) @ logs))


@lru_cache(maxsize=256)
def _factors(margin: float, side: Side) -> tuple[Bets, NDArray[np.float64]]:
    """Return the bets and the logarithms of what -1, 0 and 1 do to each, shape (3, K)."""
    bets = _bets(margin, side)
    return bets, log_factors(bets, np.array([-1.0, 0.0, 1.0]))


@dataclass(frozen=True)
class PairedEvidence:
    """Natural logarithms of the three kinds of evidence of a comparison with the baseline."""

    #: That the candidate is not worse by the margin, that it is, and that it is worse at all.
    log_e_pass: float
    log_e_fail: float
    log_e_zero: float


def paired_evidence(
    for_pass: PairedCounts, for_fail: PairedCounts | None = None, margin: float = 0.02
) -> PairedEvidence:
    """Return all evidence of one look; what the gate's decision calls.

    Args:
        for_pass: Counts as a proof for the candidate reads them, see :func:`count_pairs`.
        for_fail: Counts against it; ``None`` for the same.
        margin: Difference that is tolerated.

    Raises:
        ValueError: The margin is not between 0 and 1.
    """
    _tolerable(margin)
    against = for_fail or for_pass
    fail = (against.worse, against.better, against.pairs)
    return PairedEvidence(
        paired_log_e(for_pass.worse, for_pass.better, for_pass.pairs, margin),
        paired_log_e(*fail, margin, side="fail"),
        paired_log_e(*fail, 0.0, side="fail"),
    )


def paired_interval(
    counts: PairedCounts, alpha: float = 0.05, beta: float = 0.05
) -> tuple[float, float]:
    """Return a confidence sequence of the difference of the failure rates.

    Both ends hold at every look at once: the lower is too high with risk ``alpha`` at most, the
    upper too low with risk ``beta``. They are the ends of the margins that neither proof rejects;
    the evidence is monotone in the margin, so halving finds them to 1e-12.

    Raises:
        ValueError: A risk that is none.
    """
    _risks(alpha, beta)
    key = (counts.worse, counts.better, counts.pairs)
    upper = _edge(lambda m: paired_log_e(*key, m) >= -math.log(beta), upward=True)
    lower = _edge(lambda m: paired_log_e(*key, m, side="fail") >= -math.log(alpha), upward=False)
    return lower, upper


def _edge(rejected: Callable[[float], bool], *, upward: bool) -> float:
    """Return the margin in [-1, 1] nearest to the other end from which on all are rejected."""
    kept, gone = (-1.0, 1.0) if upward else (1.0, -1.0)
    for _ in range(_HALVINGS):
        middle = (kept + gone) / 2
        if middle in (kept, gone):
            break
        kept, gone = (kept, middle) if rejected(middle) else (middle, gone)
    return gone


class PairedTest:
    """Says whether the candidate fails more often than the baseline by more than a margin.

    Args:
        margin: Difference of the failure rates that is tolerated, from 0 to below 1.
        alpha: Risk of a ROLLBACK, at any look, though the difference is the margin or less; also
            the risk of a false ``warning``.
        beta: Risk of a PROMOTE, at any look, though the difference is the margin or more.

    Raises:
        ValueError: A margin or a risk that makes no sense.
    """

    def __init__(self, margin: float = 0.02, alpha: float = 0.05, beta: float = 0.05) -> None:
        _tolerable(margin)
        _risks(alpha, beta)
        self.margin, self.alpha, self.beta = margin, alpha, beta
        #: What the evidence (natural logarithm) must reach.
        self.fail_at, self.pass_at = -math.log(alpha), -math.log(beta)
        self.counts = PairedCounts(0, 0, 0)
        self.decision: Decision | None = None
        #: Proven to be worse than the baseline, be it by less than the margin. Once proven it
        #: stays: the risk is that of the highest evidence of all looks.
        self.warning = False

    def update(self, differences: Sequence[int] | NDArray[np.integer]) -> Decision | None:
        """Take new pairs and look.

        Args:
            differences: One number a pair that is new: 1 where the candidate alone failed, -1
                where the baseline alone did, 0 where both did the same. None are no look.

        Returns:
            PROMOTE, ROLLBACK, or ``None`` while nothing is proven. The first decision stays.

        Raises:
            ValueError: Anything but a sequence of the whole numbers -1, 0 and 1.
        """
        new = np.asarray(differences)
        if new.ndim == 1 and new.size == 0:
            return self.decision
        if new.ndim != 1 or new.dtype.kind not in "iu" or not ((new >= -1) & (new <= 1)).all():
            raise ValueError(
                "differences must be a sequence of whole numbers -1, 0 or 1; got "
                f"{reprlib.repr(differences)}"
            )
        old = self.counts
        self.counts = PairedCounts(
            old.pairs + new.size,
            old.worse + int((new == 1).sum()),
            old.better + int((new == -1).sum()),
        )
        evidence = paired_evidence(self.counts, margin=self.margin)
        self.warning = self.warning or evidence.log_e_zero >= self.fail_at
        if self.decision is None:
            if evidence.log_e_fail >= self.fail_at:
                self.decision = "ROLLBACK"
            elif evidence.log_e_pass >= self.pass_at:
                self.decision = "PROMOTE"
        return self.decision

    @property
    def log_e_pass(self) -> float:
        """Evidence that the candidate is not worse by the margin."""
        return paired_evidence(self.counts, margin=self.margin).log_e_pass

    @property
    def log_e_fail(self) -> float:
        """Evidence that the candidate is worse by more than the margin."""
        return paired_evidence(self.counts, margin=self.margin).log_e_fail

    @property
    def log_e_zero(self) -> float:
        """Evidence that the candidate is worse at all."""
        return paired_evidence(self.counts, margin=self.margin).log_e_zero

    def interval(self) -> tuple[float, float]:
        """Return the confidence sequence of the difference, see :func:`paired_interval`."""
        return paired_interval(self.counts, self.alpha, self.beta)


def _tolerable(margin: float) -> None:
    if not 0 <= margin < 1:
        raise ValueError(f"the margin must be from 0 to below 1; got {margin}")


def _risks(alpha: float, beta: float) -> None:
    if not (0 < alpha < 1 and 0 < beta < 1):
        raise ValueError(f"risks must be between 0 and 1; got alpha {alpha} and beta {beta}")
