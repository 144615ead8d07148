"""The test of a failure rate against two thresholds; here by exact bounds at one fixed look."""

from __future__ import annotations

from typing import Literal

from tasks.metrics.rates import lower_bound, upper_bound

Decision = Literal["PROMOTE", "ROLLBACK"]
Mode = Literal["fixed"]


class FailureTest:
    """Says whether a failure rate is above ``limit``, below ``promote_below``, or neither yet.

    Mode ``fixed`` compares exact one-sided Clopper-Pearson bounds with the thresholds. Its risks
    hold for one look at a number of images that was fixed before: looking again at the same
    images with some more would raise them without notice, so a second look is refused.

    Args:
        limit: ROLLBACK when the rate is above this; wrong with risk ``alpha`` at most.
        promote_below: PROMOTE when the rate is below this; wrong with risk ``beta`` at most.
        alpha: Risk of a ROLLBACK though the true rate is at the limit or below.
        beta: Risk of a PROMOTE though the true rate is at ``promote_below`` or above.
        n_max: Most images that the plan foresees; ``None`` for any number.
        mode: ``fixed``.

    Raises:
        ValueError: A threshold or a risk makes no sense.
    """

    def __init__(
        self,
        limit: float = 0.02,
        promote_below: float = 0.03,
        alpha: float = 0.05,
        beta: float = 0.05,
        *,
        n_max: int | None = None,
        mode: Mode = "fixed",
    ) -> None:
        if not 0 < limit <= promote_below < 1:
            raise ValueError(
                "thresholds must satisfy 0 < limit <= promote_below < 1; "
                f"got limit {limit} and promote_below {promote_below}"
            )
        if not (0 < alpha < 1 and 0 < beta < 1):
            raise ValueError(f"risks must be between 0 and 1; got alpha {alpha} and beta {beta}")
        if mode != "fixed":
            raise ValueError(f"mode {mode!r} is unknown (known: fixed)")
        if n_max is not None and n_max < 1:
            raise ValueError(f"n_max must be 1 or more; got {n_max}")
        self.limit, self.promote_below = limit, promote_below
        self.alpha, self.beta = alpha, beta
        self.n_max, self.mode = n_max, mode
        self.failures = self.images = 0

    def update(self, failures: int, images: int) -> Decision | None:
        """Look at the images, once.

        Args:
            failures: Failures among them.
            images: All of them. No images are no look.

        Returns:
            ROLLBACK, PROMOTE or ``None`` for not enough evidence. A rate shown to be above the
            limit is a ROLLBACK even where it is also below ``promote_below``.

        Raises:
            ValueError: A second look, impossible counts, or more images than ``n_max``.
        """
        if self.images:
            raise ValueError(
                "a fixed-sample test looks at its images once; make a new test over all images of "
                "a new run (repeated looks would break the promised risks)"
            )
        if not 0 <= failures <= images:
            raise ValueError(f"failures must be 0 to {images}, the images; got {failures}")
        if self.n_max is not None and images > self.n_max:
            raise ValueError(f"{images} images are more than n_max, {self.n_max}")
        self.failures, self.images = failures, images
        lower, upper = self.interval()
        if lower > self.limit:
            return "ROLLBACK"
        if upper < self.promote_below:
            return "PROMOTE"
        return None

    def interval(self) -> tuple[float, float]:
        """Return the lower bound at confidence 1 - alpha and the upper bound at 1 - beta."""
        return (
            lower_bound(self.failures, self.images, self.alpha),
            upper_bound(self.failures, self.images, self.beta),
        )
