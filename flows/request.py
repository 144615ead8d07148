"""What starts a gate: one model for the command line, the Prefect form and CI."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.approval.rules import Approval
from tasks.records import Accounts, Rate, Record, Savings, Slice, VerdictName


class GateRequest(BaseModel):
    """Parameters of a release gate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidate: str = Field(
        default="deployments/mixes/candidate.yaml",
        title="Candidate mix",
        description="File of the mix that asks to replace production.",
    )
    baseline: str | None = Field(
        default=None,
        title="Baseline mix",
        description="File of the mix to compare with; by default what serves production.",
    )
    policy: str = Field(
        default="deployments/policies/default.yaml",
        title="Policy",
        description="File with the gate's limits.",
    )
    catalog: str = Field(
        default="deployments/catalog.yaml",
        title="Catalog",
        description="File with the trusted models, their versions and prices.",
    )
    inputs: str | None = Field(
        default=None,
        title="Production log",
        description="CSV, TSV, JSONL, Parquet or text file, or a database URL with a query; "
        "by default the sample log of the project.",
    )
    cases: int | None = Field(
        default=None, ge=1, le=100_000, title="Cases", description="By default the policy's."
    )
    budget_usd: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        allow_inf_nan=False,
        title="Budget",
        description="Hard cap of this run in dollars; by default the policy's.",
    )
    seed: int | None = Field(
        default=None, ge=0, title="Seed", description="By default the policy's."
    )
    owner: str = Field(
        default="imagegate", title="Owner", description="Who asks; kept with the freeze."
    )
    resume: str | None = Field(
        default=None, title="Resume", description="A run that was stopped or killed."
    )


class GateResult(Record):
    """The end of a gate; this is what ``imagegate run --json`` prints."""

    run_id: str
    verdict: VerdictName
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    product: str
    candidate: str
    baseline: str
    #: Name of the mix that serves production after the run.
    production: str
    images: int
    #: True when cases are missing: the run was stopped and can be resumed.
    incomplete: bool
    failure_rate: Rate
    baseline_failure_rate: Rate
    cost_per_1k_usd: float | None
    effective_cost_per_1k_usd: float | None
    baseline_effective_cost_per_1k_usd: float | None
    spend_usd: float
    #: What an early decision did not have to generate; ``None`` when the whole plan was run.
    savings: Savings | None = None
    #: How often the data were looked at while the run went on.
    looks: int = 0
    latency_s: dict[Literal["p50", "p95", "p99"], float | None]
    accounts: Accounts
    slices: tuple[Slice, ...]
    #: What was done about production and whom it was told to.
    actions: tuple[str, ...]
    #: What a person was asked and answered, when the policy asked one.
    approval: Approval | None = None
    evidence: str
    report: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return self.model_dump(mode="json", exclude={"schema_version"})
