"""The candidate's own failure rate, with the luck of the drawn cases taken out.

Where the baseline was run on every case of a frozen set, its failure rate there is known. Drawn
cases that the baseline fails more often than that are hard ones, and the candidate is excused:

    Z = failed(candidate) - gamma * (failed(baseline) - baseline_rate)

The bracket has mean 0, so the mean of Z is the candidate's failure rate on the set, whatever
``gamma`` is (control variates: Owen, Monte Carlo theory, methods and examples, ch. 8). A gamma
must be fixed before the images are seen: fitted to the images it is used on, it biases the mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.verdict.betting import (
    Bets,
    fail_bets,
    log_e_counts,
    log_mixture,
    pass_bets,
)
from tasks.verdict.paired import PairedCounts, Side

#: Nearer than this to the end of the range a conditional mean is the end, up to rounding.
_ROUNDING = 1e-9
#: Share of the largest safe bet that evidence against the candidate stakes at most.
_BOLDEST = 0.98


@dataclass(frozen=True)
class ControlVariate:
    """How the baseline's outcome corrects the candidate's.

    Args:
        baseline_rate: Failure rate of the baseline over the whole set that cases are drawn from.
        gamma: From 0 (ignores the baseline) to 1 (the difference of the arms).

    Raises:
        ValueError: A rate or a gamma outside of [0, 1].
    """

    baseline_rate: float
    gamma: float

    def __post_init__(self) -> None:
        for name in ("baseline_rate", "gamma"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1; got {getattr(self, name)!r}")

    @property
    def lo(self) -> float:
        """The smallest Z there is: the baseline alone failed."""
        return -self.gamma * (1 - self.baseline_rate)

    @property
    def hi(self) -> float:
        """The largest Z there is: the candidate alone failed."""
        return 1 + self.gamma * self.baseline_rate

    def values(
        self, candidate_failed: ArrayLike, baseline_failed: ArrayLike
    ) -> NDArray[np.float64]:
        """Return Z by case; both arguments are truth values of one shape.

        Raises:
            ValueError: Other shapes or types.
        """
        ours, theirs = np.asarray(candidate_failed), np.asarray(baseline_failed)
        if ours.shape != theirs.shape or not ours.dtype == theirs.dtype == np.bool_:
            raise ValueError(
                "candidate_failed and baseline_failed must be truth values of one shape; got "
                f"{ours.dtype} {ours.shape} and {theirs.dtype} {theirs.shape}"
            )
        known = self.gamma * self.baseline_rate
        # The four values as log_e has them, to the last bit, so that none is out of range.
        table = np.array([[known, self.lo], [1 + known, 1 + self.lo]])
        chosen: NDArray[np.float64] = table[ours.astype(np.intp), theirs.astype(np.intp)]
        return chosen

    def log_e(
        self, counts: PairedCounts, both: int, threshold: float, *, side: Side = "pass"
    ) -> float:
        """Return the log evidence on the candidate's failure rate, cases drawn with replacement.

        Also right for a set so large that hardly a case would be drawn twice. It depends on the
        counts only, not on the order.

        Args:
            counts: The pairs.
            both: Pairs in which both arms failed.
            threshold: Failure rate that is tested.
            side: ``pass``: evidence that the rate is below it; ``fail``: that it is above.

        Raises:
            ValueError: Counts that cannot be, or a threshold outside of (0, 1).
        """
        neither = counts.pairs - counts.worse - counts.better - both
        if both < 0 or neither < 0:
            raise ValueError(
                f"both must be from 0 to {neither + both}, the pairs that agree; got {both}"
            )
        known = self.gamma * self.baseline_rate
        return log_e_counts(
            self.bets(threshold, side=side),
            (known, 1 + known, self.lo, 1 + self.lo),
            (neither, counts.worse, counts.better, both),
        )

    def log_e_drawn(
        self,
        candidate_failed: ArrayLike,
        baseline_failed: ArrayLike,
        threshold: float,
        *,
        population: int,
        side: Side = "pass",
    ) -> NDArray[np.float64]:
        """Return the log evidence after each case, drawn without replacement in random order.

        What is left of the set changes with each draw: if its mean is the threshold m, the t-th
        draw has the mean m_t = (N m - sum of the earlier Z) / (N - t + 1), and the bets are
        placed against that (Waudby-Smith and Ramdas, NeurIPS 2020). Infinite when the threshold
        has become impossible: the rest of the set cannot move the mean there any more.

        Args:
            candidate_failed: Truth values in the order drawn, shape (..., n).
            baseline_failed: The same of the baseline.
            threshold: Failure rate over the whole set that is tested.
            population: Size N of the set.
            side: As :meth:`log_e`.

        Returns:
            Array of the shape of the arguments.

        Raises:
            ValueError: More cases than the set has; arguments as elsewhere here.
        """
        z = self.values(candidate_failed, baseline_failed)
        drawn = z.shape[-1] if z.ndim else 0
        if not 1 <= drawn <= population:
            raise ValueError(f"cases drawn must be 1 to {population}, the set; got {drawn}")
        bets = self.bets(threshold, side=side)
        # Measured from the end that a bet must not be ruined at, PASS and FAIL are one formula:
        # 1 - theta + theta * room / expected room.
        room = self.hi - z if side == "pass" else z - self.lo
        start = self.hi - threshold if side == "pass" else threshold - self.lo
        spent = np.cumsum(room, axis=-1) - room
        left = (population * start - spent) / (population - np.arange(drawn))
        bet = left > _ROUNDING
        ratio = np.where(bet, room / np.where(bet, left, 1.0), 1.0)
        # The boldest bet may lose all, and is then out.
        gains = np.multiply.outer(ratio - 1, np.minimum(np.abs(bets.lambdas) * start, 1.0))
        with np.errstate(divide="ignore"):
            log_wealth = np.cumsum(np.log1p(gains), axis=-2)
        # Less room was expected in the whole set than its part has: the threshold is refuted.
        refuted = population * start - spent - room < -_ROUNDING * population
        return np.where(
            np.logical_or.accumulate(refuted, axis=-1), math.inf, log_mixture(bets, log_wealth)
        )

    def bets(self, threshold: float, *, side: Side = "pass") -> Bets:
        """Return the bets on Z: those on plain failures, as far as they are safe here.

        Z is nearly a failure indicator, so the grid made for those finds the right bet sooner than
        that for any bounded Z (8 to 15 % fewer images); with ``gamma`` 0 it is that test. Against
        the candidate the safe bets are small, because Z can be well below 0: a gross failure is
        the plain test's to find.

        Raises:
            ValueError: A threshold outside of (0, 1), or an unknown side.
        """
        if side == "pass":
            plain = pass_bets(threshold)
            lambdas = plain.lambdas * ((1 - threshold) / (self.hi - threshold))
        elif side == "fail":
            plain = fail_bets(threshold)
            lambdas = np.minimum(plain.lambdas, _BOLDEST / (threshold - self.lo))
        else:
            raise ValueError(f"side {side!r} is unknown (known: pass, fail)")
        return Bets(lambdas, plain.log_weights, plain.mean, self.lo, self.hi)


def planned_gamma(counts: PairedCounts, both: int) -> float:
    """Return the gamma that an earlier run suggests: cov(candidate, baseline) / var(baseline).

    For a later run only, never for the pairs it was computed from; clipped to [0, 1], and 0 where
    the baseline never failed or always did.

    Args:
        counts: The pairs of the earlier run.
        both: Pairs in which both arms failed.
    """
    n = counts.pairs
    ours, theirs = counts.worse + both, counts.better + both
    spread = theirs * (n - theirs)
    return min(1.0, max(0.0, (n * both - ours * theirs) / spread)) if spread else 0.0
