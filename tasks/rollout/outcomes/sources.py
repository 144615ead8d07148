"""Opening the sources that the rollout file names."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.rollout.outcomes.base import Clock, OutcomeSource, now_utc
from tasks.rollout.outcomes.config import LogsConfig, SourceSection
from tasks.settings import Settings


def open_sources(
    config: Sequence[SourceSection], settings: Settings, clock: Clock = now_utc
) -> list[OutcomeSource]:
    """Return the sources of live outcomes, in the order of the file.

    Args:
        config: The section ``outcomes``.
        settings: Where things lie, and the secrets that the section names.
        clock: Gives the moment.
    """
    return [_open(section, settings, clock) for section in config]


def _open(section: SourceSection, settings: Settings, clock: Clock) -> OutcomeSource:
    if isinstance(section, LogsConfig):
        from tasks.rollout.outcomes.logs import LogSource

        return LogSource(section, clock)
    raise NotImplementedError(section)
