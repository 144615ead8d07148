"""Failure rates of samples in which some strata are drawn more often than users ask for them.

An image of stratum s stands for W_s / q_s images of production, W_s being the stratum's share of
production and q_s its share of the sample (Horvitz and Thompson, JASA 47, 1952). Drawn at random
with the shares q, the observations Z = failed * W_s / q_s have the failure rate of production as
their mean, so the bounded betting test of :mod:`tasks.verdict.sequential` holds for them. A large
weight makes one unlucky image decide, so weights above 1.25 are refused: more cases of a slice
come on top of the headline sample, not inside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tasks.verdict.sequential import Wealth, bounded_fail_bets, bounded_pass_bets

MAX_WEIGHT = 1.25
_SUM_TOLERANCE = 1e-9
_ROUNDING = 1e-9


@dataclass(frozen=True)
class StratumWeights:
    """What one image of each stratum stands for.

    Args:
        population: Share of production of each stratum; the shares sum to 1.
        sample: Share of the sample, fixed before the draw; sums to 1 as well.

    Raises:
        ValueError: Shares that are none, a stratum of production that is never drawn, or one
            whose weight is above ``MAX_WEIGHT``; the text names the stratum.
    """

    population: Mapping[str, float]
    sample: Mapping[str, float]
    by_stratum: Mapping[str, float] = field(init=False)

    def __post_init__(self) -> None:
        for name, shares in (("population", self.population), ("sample", self.sample)):
            for stratum, share in shares.items():
                if not 0 <= share <= 1:
                    raise ValueError(
                        f"{name} share of stratum {stratum!r} must be 0 to 1; got {share!r}"
                    )
            if not math.isclose(math.fsum(shares.values()), 1, abs_tol=_SUM_TOLERANCE):
                raise ValueError(
                    f"{name} shares must sum to 1; got {math.fsum(shares.values())} from "
                    f"{len(shares)} strata"
                )
        weights = {}
        for stratum in sorted(self.population.keys() | self.sample.keys()):
            wanted, drawn = self.population.get(stratum, 0.0), self.sample.get(stratum, 0.0)
            if wanted > drawn * MAX_WEIGHT * (1 + _ROUNDING):
                shown = f"{wanted / drawn:.3g}" if drawn else "infinite"
                raise ValueError(
                    f"stratum {stratum!r} has the weight {shown}: {wanted:.3g} of production, "
                    f"{drawn:.3g} of the sample (allowed: up to {MAX_WEIGHT}); draw at least "
                    f"{wanted / MAX_WEIGHT:.3g} of the sample from it"
                )
            if drawn:
                weights[stratum] = min(wanted / drawn, MAX_WEIGHT)
        object.__setattr__(self, "by_stratum", weights)

    @property
    def hi(self) -> float:
        """The largest observation there can be: the largest weight."""
        return max(self.by_stratum.values())


def weighted_observations(
    failed: Sequence[bool | None],
    strata: Sequence[str],
    weights: StratumWeights,
    *,
    prompts: Sequence[str] | None = None,
    unmeasured: bool = True,
) -> NDArray[np.float64]:
    """Return one observation in [0, ``weights.hi``] for each prompt, in order of appearance.

    Repeats of one prompt fail together, so they are averaged first: ten images of one prompt are
    one observation, not ten. Give only prompts whose repeats have all been judged.

    Args:
        failed: By image, whether it failed; ``None`` where nobody knows.
        strata: By image, its stratum.
        weights: Of the strata.
        prompts: By image, its prompt; ``None`` when every image has its own.
        unmeasured: What an unmeasured image counts as: failed for PASS, ``False`` for FAIL.

    Raises:
        ValueError: Sequences of different lengths, an unknown stratum, a prompt in two strata, or
            an outcome that is neither a truth value nor ``None``.
    """
    keys: Sequence[str | int] = range(len(failed)) if prompts is None else prompts
    if not len(failed) == len(strata) == len(keys):
        raise ValueError(
            "failed, strata and prompts must have one entry an image; got "
            f"{len(failed)}, {len(strata)} and {len(keys)}"
        )
    of_prompt: dict[str | int, str] = {}
    outcomes: dict[str | int, list[bool]] = {}
    for outcome, stratum, prompt in zip(failed, strata, keys, strict=True):
        if stratum not in weights.by_stratum:
            raise ValueError(
                f"stratum {stratum!r} has no share of the sample "
                f"(known: {', '.join(sorted(weights.by_stratum))})"
            )
        if of_prompt.setdefault(prompt, stratum) != stratum:
            raise ValueError(
                f"prompt {prompt!r} is in two strata, {of_prompt[prompt]!r} and {stratum!r}"
            )
        if outcome is not None and not isinstance(outcome, bool | np.bool_):
            raise ValueError(f"failed must be True, False or None; got {outcome!r}")
        outcomes.setdefault(prompt, []).append(unmeasured if outcome is None else bool(outcome))
    return np.array(
        [
            weights.by_stratum[of_prompt[prompt]] * (sum(seen) / len(seen))
            for prompt, seen in outcomes.items()
        ],
        dtype=np.float64,
    )


def pass_evidence_weighted(
    failed: Sequence[bool | None],
    strata: Sequence[str],
    weights: StratumWeights,
    below: float,
    *,
    prompts: Sequence[str] | None = None,
) -> float:
    """Return the log evidence that production's failure rate is below ``below``.

    An unmeasured image counts as failed. Args and errors as :func:`weighted_observations`.
    """
    _rate(below)
    values = weighted_observations(failed, strata, weights, prompts=prompts, unmeasured=True)
    wealth = Wealth(bounded_pass_bets(below, 0.0, weights.hi))
    wealth.update(values)
    return wealth.log_e


def fail_evidence_weighted(
    failed: Sequence[bool | None],
    strata: Sequence[str],
    weights: StratumWeights,
    limit: float,
    *,
    prompts: Sequence[str] | None = None,
) -> float:
    """Return the log evidence that production's failure rate is above ``limit``.

    An unmeasured image counts as not failed. Args and errors as :func:`weighted_observations`.
    """
    _rate(limit)
    values = weighted_observations(failed, strata, weights, prompts=prompts, unmeasured=False)
    wealth = Wealth(bounded_fail_bets(limit, 0.0, weights.hi))
    wealth.update(values)
    return wealth.log_e


def _rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise ValueError(f"a failure rate to test must be between 0 and 1; got {rate}")
