"""What a policy asks of the watch over what serves; part of :mod:`tasks.policy`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class WatchRule(BaseModel):
    """When what serves is bad enough to roll it back, and when nobody can tell."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: Images between two false alarms, on average at least, while everything is at its limit.
    false_alarm_images: int = Field(default=50_000, ge=1_000, le=1_000_000_000)
    #: Failure rate that is still good: requests without an image, alone and together with images
    #: that have a defect; by default the limit of the gate.
    failure_limit: float | None = Field(default=None, gt=0, lt=0.95)
    #: Share of requests above the limit of latency that is still good; the source of outcomes
    #: knows that limit.
    slow_limit: float = Field(default=0.05, gt=0, lt=0.95)
    #: Mean cost of 1,000 images that is still good, and the most that one image can cost with all
    #: its attempts. Both or none.
    cost_per_1k_usd: float | None = Field(default=None, gt=0)
    worst_image_usd: float | None = Field(default=None, gt=0)
    #: Support tickets for 1,000 images that are still good.
    tickets_per_1k: float | None = Field(default=None, gt=0, lt=950)
    #: Share of requests of a subtask or locale that the gate had no case of, that is still good.
    unseen_limit: float = Field(default=0.02, gt=0, lt=0.95)
    #: Minutes without one image after which the watch says that it sees nothing.
    blind_minutes: float = Field(default=30.0, ge=1, le=7 * 24 * 60)
    #: Days within which a mix that served well may return without a full gate.
    window_days: float = Field(default=14.0, gt=0, le=365)
    #: ``false``: tell people, and leave the rollback to them.
    roll_back: bool = True

    @model_validator(mode="after")
    def _cost_has_both(self) -> WatchRule:
        if (self.cost_per_1k_usd is None) != (self.worst_image_usd is None):
            raise ValueError("cost_per_1k_usd and worst_image_usd come together; give both or none")
        if (
            self.cost_per_1k_usd is not None
            and self.worst_image_usd is not None
            and self.cost_per_1k_usd >= 950 * self.worst_image_usd
        ):
            raise ValueError(
                f"worst_image_usd ({self.worst_image_usd}) must be well above the mean that is "
                f"good ({self.cost_per_1k_usd / 1000:g}): it is the most that one image can cost"
            )
        return self
