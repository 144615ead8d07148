"""``schedules.yaml``: which gates run when, read strictly; what fires when, as pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from tasks.errors import ConfigError
from tasks.policy import Strict, parse_strict, read_yaml

#: ``wait`` queues the second gate of a product, ``refuse`` cancels it and says which one runs.
Collision = Literal["wait", "refuse"]
#: Where intervals are counted from, here and by Prefect: a restart does not move them.
ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)


def _cron(text: str) -> str:
    if len(text.split()) != 5:
        raise ValueError(
            "a cron expression has five fields (minute hour day month weekday), e.g. '0 2 * * *'"
        )
    try:
        CronSim(text, datetime.now(UTC))
    except CronSimError as error:
        raise ValueError(f"not a cron expression ({error}); e.g. '0 2 * * *'") from None
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # unknown, a folder of the list, not a name at all
        raise ValueError(
            "unknown time zone; use a name of the IANA list, e.g. 'Europe/Berlin'"
        ) from None
    return name


Cron = Annotated[str, AfterValidator(_cron)]
Zone = Annotated[str, AfterValidator(_zone)]
#: A product's name is part of its deployment's name.
ProductName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
FilePath = Annotated[str, Field(min_length=1, max_length=500)]


class Timing(Strict):
    """When something runs: by cron, or every so many seconds."""

    cron: Cron | None = None
    every_seconds: int | None = Field(default=None, ge=1, le=7 * 24 * 3600)
    #: Of the cron; by default the file's.
    timezone: Zone | None = None

    @model_validator(mode="after")
    def _one(self) -> Timing:
        if (self.cron is None) == (self.every_seconds is None):
            raise ValueError("give either cron or every_seconds")
        if self.every_seconds is not None and self.timezone is not None:
            raise ValueError("every_seconds needs no timezone; remove it")
        return self

    def text(self) -> str:
        """Return the timing for people: the cron itself, or ``every 30 s``."""
        return self.cron or f"every {self.every_seconds} s"


class GateParameters(Strict):
    """What a scheduled gate judges; what is left out is decided by the gate's own defaults."""

    candidate: FilePath = "deployments/mixes/candidate.yaml"
    baseline: FilePath | None = None
    policy: FilePath = "deployments/policies/default.yaml"
    catalog: FilePath = "deployments/catalog.yaml"
    inputs: FilePath | None = None
    cases: int | None = Field(default=None, ge=1, le=100_000)
    budget_usd: float | None = Field(default=None, gt=0, le=1_000_000)
    seed: int | None = Field(default=None, ge=0)

    def given(self) -> dict[str, Any]:
        """Return the parameters that are set, as a flow takes them."""
        return self.model_dump(mode="json", exclude_none=True)


class ProductSchedule(Strict):
    """The gate of one product."""

    #: Whom the freeze of a scheduled run names.
    owner: str = Field(default="imagegate", min_length=1, max_length=200)
    collision: Collision = "wait"
    #: ``None``: the gate runs on demand only.
    gate: Timing | None = None
    #: What a scheduled gate judges, and what the form starts with.
    parameters: GateParameters = GateParameters()


class ScheduleFile(Strict):
    """All schedules of an installation."""

    schema_version: Literal[1] = 1
    timezone: Zone = "UTC"
    products: dict[ProductName, ProductSchedule] = Field(min_length=1)
    production_watch: Timing = Timing(cron="* * * * *")
    budget_alarm: Timing = Timing(cron="*/5 * * * *")
    freeze_reminder: Timing = Timing(cron="0 9 * * *")
    live_watch: Timing = Timing(cron="* * * * *")
    rollback_drill: Timing = Timing(cron="0 10 1 * *")

    @field_validator("production_watch", "budget_alarm", "freeze_reminder", "live_watch")
    @classmethod
    def _often_enough(cls, timing: Timing, info: ValidationInfo) -> Timing:
        """A watch that looks once a week is none."""
        most = 24 * 3600 if info.field_name == "freeze_reminder" else 3600
        if timing.every_seconds is not None and timing.every_seconds > most:
            raise ValueError(f"every_seconds must be at most {most} here")
        return timing

    def zone(self, timing: Timing) -> str:
        """Return the time zone that a timing is meant in."""
        return timing.timezone or self.timezone


def load_schedules(path: Path) -> ScheduleFile:
    """Read the schedules.

    Raises:
        ConfigError: With file, field, what was found and what is allowed.
    """
    value = read_yaml(path)
    if not value:
        raise ConfigError(
            f"{path}: the file is empty, so no gate would ever run; start from a copy of "
            "deployments/schedules.yaml"
        )
    return parse_strict(ScheduleFile, value, path)


def fires(timing: Timing, timezone: str, after: datetime) -> Iterator[datetime]:
    """Yield the moments after ``after`` at which the timing fires, as UTC, without end.

    For ``every_seconds`` they are multiples of the interval since :data:`ANCHOR`.
    """
    if timing.every_seconds is not None:
        step = timedelta(seconds=timing.every_seconds)
        moment = ANCHOR + ((after - ANCHOR) // step) * step
        while True:
            moment += step
            yield moment
    assert timing.cron is not None  # noqa: S101 - the model allows only one of the two
    for moment in CronSim(timing.cron, after.astimezone(ZoneInfo(timezone))):
        yield moment.astimezone(UTC)
