"""How a candidate walks into production; section ``canary`` of :mod:`tasks.policy`.

Everything here can change what becomes of a candidate, so it is part of the policy's digest.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

#: What may be measured beside failures; see :class:`tasks.rollout.outcomes.base.ArmOutcomes`.
Measure = Literal["defects", "slow", "cost", "tickets"]


class _Strict(BaseModel):
    """Frozen, unknown fields refused; as ``tasks.policy.Strict``, which is built on this module."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CanaryStep(_Strict):
    """One step of the walk: the candidate's share of the traffic, and what ends the step."""

    #: Share of the traffic, above 0 and below 1; after the last step the candidate gets all of it.
    weight: float = Field(gt=0, lt=1)
    #: The step lasts so long at least, whatever the figures say.
    soak_minutes: float = Field(default=10.0, ge=0, le=7 * 24 * 60)
    #: Images of the candidate that the step counts at least.
    images: int = Field(default=50, ge=1, le=10_000_000)
    #: The step is passed with a proof, from its own images, that fewer than these fail. Early
    #: steps reach few users and may ask for less; the last one is the bar for all traffic.
    promote_below: float = Field(gt=0, lt=1)
    #: HOLD when at the traffic seen the proof would take longer than this.
    max_hours: float = Field(default=24.0, gt=0, le=24 * 30)


class CanaryRule(_Strict):
    """When a canary goes on, holds, and is rolled back, decided by sequential evidence."""

    #: What a PROMOTE of the gate does: ``False`` puts the candidate into production at once,
    #: ``True`` starts a canary at the first step.
    after_gate: bool = False
    steps: tuple[CanaryStep, ...] = Field(
        default=(
            CanaryStep(weight=0.01, images=50, promote_below=0.10),
            CanaryStep(weight=0.05, images=100, promote_below=0.06),
            CanaryStep(weight=0.25, images=200, promote_below=0.04, soak_minutes=20),
            CanaryStep(weight=0.50, images=300, promote_below=0.03, soak_minutes=30),
        ),
        min_length=1,
        max_length=20,
    )
    #: Rolled back when the failure rate is above this with confidence.
    limit: float = Field(default=0.02, gt=0, lt=1)
    #: Rolled back when, in the same windows, failures are this much more frequent than the
    #: baseline's; so are defects, by shadow judging.
    margin: float = Field(default=0.02, ge=0, lt=1)
    #: The same for the share of slow images.
    slow_margin: float = Field(default=0.05, ge=0, lt=1)
    #: The same for the cost of an image, as a multiple of the baseline's.
    cost_ratio: float = Field(default=1.25, ge=1, le=100)
    #: The most that one image can cost in dollars; what is above counts as this.
    most_usd: float = Field(default=0.50, gt=0, le=1000)
    #: The same for support tickets of an image, as a multiple of the baseline's.
    ticket_ratio: float = Field(default=2.0, ge=1, le=100)
    #: Risk that a candidate within all limits is rolled back, over the whole canary.
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    #: Risk that a step is passed by a candidate that fails as often as the step's bar.
    beta: float = Field(default=0.05, gt=0, lt=0.5)
    #: What has to be measured for a step to be passed, beside failures. What is measured is
    #: judged, listed here or not.
    required: tuple[Measure, ...] = ()
    #: Looks in a row that may fail to read the outcomes before the canary holds.
    query_errors: int = Field(default=3, ge=0, le=1000)
    #: Seconds between two looks.
    every_seconds: float = Field(default=15.0, gt=0, le=3600)

    @model_validator(mode="after")
    def _rising(self) -> CanaryRule:
        for before, after in pairwise(self.steps):
            if after.weight <= before.weight:
                raise ValueError(
                    f"weights of steps must rise; got {before.weight} then {after.weight}"
                )
            if after.promote_below > before.promote_below:
                raise ValueError(
                    "promote_below of steps must not rise, more users see the later ones; got "
                    f"{before.promote_below} then {after.promote_below}"
                )
        if self.steps[-1].promote_below < self.limit:
            raise ValueError(
                f"promote_below of the last step ({self.steps[-1].promote_below}) must not be "
                f"below limit ({self.limit})"
            )
        return self

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Give lists for tuples, so that a dump in Python and in JSON is one thing."""
        shown: dict[str, Any] = handler(self)
        return shown | {"steps": list(shown["steps"]), "required": list(shown["required"])}
