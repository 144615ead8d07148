"""Where live outcomes come from: the section ``outcomes`` of the rollout file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tasks.policy import Strict
from tasks.rollout.outcomes.rows import RowRules

Measure = Literal["images", "latency", "cost"]


class SourceConfig(Strict):
    """What all sources have."""

    #: What notes call it; the kind by default.
    name: str = Field(default="", max_length=60)
    #: Products that it knows; all by default.
    products: tuple[str, ...] = ()

    def concerns(self, product: str) -> bool:
        """Tell whether the source knows a product."""
        return not self.products or product in self.products


class LogsConfig(SourceConfig):
    """Request logs in files."""

    kind: Literal["logs"]
    #: Pattern of JSONL (also ``.gz``) and Parquet files, e.g. ``/var/log/images/*.jsonl*``.
    files: Path
    #: Seconds after which no row comes late any more.
    lag_s: float = Field(default=30, ge=0, le=86_400)
    #: What is counted here. ``[latency]`` alone suits timings sent by clients: no ending needed.
    measures: tuple[Measure, ...] = Field(default=("images", "latency", "cost"), min_length=1)
    rows: RowRules = RowRules()


class HaproxyConfig(SourceConfig):
    """Counters of the HAProxy that the section ``router`` names."""

    kind: Literal["haproxy"]
    #: What an answer of status 4xx is: an image that failed, one that did not, or none at all.
    #: A candidate that refuses what it should draw answers so as well.
    client_errors: Literal["failure", "ok", "left_out"] = "failure"
    #: What a request is whose client left before an answer came.
    client_aborts: Literal["failure", "ok", "left_out"] = "left_out"


SourceSection = Annotated[LogsConfig | HaproxyConfig, Field(discriminator="kind")]
