"""A source of outcomes that says what a test tells it to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from tasks.rollout.outcomes.base import ArmOutcomes, OutcomeError, Outcomes


@dataclass
class Told:
    """Counts images at a steady pace; each mix fails at its own rate."""

    pace: float = 40.0  # images a minute
    rates: dict[str, float] = field(default_factory=dict)
    lag: timedelta = timedelta(0)
    error: str = ""
    inputs: Mapping[tuple[str, str], int] | None = None
    windows: list[tuple[datetime, datetime]] = field(default_factory=list)
    name: str = "told"

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        if self.error:
            raise OutcomeError(self.error)
        end = max(since, until - self.lag)
        self.windows.append((since, end))
        images = round(self.pace * (end - since).total_seconds() / 60)
        arms = {
            digest: ArmOutcomes(images, round(images * self.rates.get(digest, 0.01)))
            for digest in digests
        }
        return Outcomes(since, end, arms)

    def inputs_seen(
        self, product: str, since: datetime, until: datetime
    ) -> Mapping[tuple[str, str], int]:
        if self.inputs is None:
            raise OutcomeError("no inputs")
        return self.inputs


@pytest.fixture
def source() -> Told:
    return Told()
