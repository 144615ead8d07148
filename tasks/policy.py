"""The gate's limits as code: a strict YAML file, and its digest before the first image.

A policy names only what the gate measures: a limit on anything else is refused with the list of
what exists, so that no rule can be ignored in silence.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from tasks.canary_rules import CanaryRule
from tasks.check_rules import CheckRules
from tasks.errors import ConfigError, known
from tasks.records import ORIGINS, SUBTASKS, Origin, digest_json
from tasks.watch_rules import WatchRule

OnBreach = Literal["rollback", "hold", "warn"]

#: What a limit can be put on, with its unit. ``baseline`` variants and ratios are derived in
#: :func:`tasks.metrics.measures`, which must answer every name here.
MEASURES: dict[str, str] = {
    "failure_rate": "share of cases, 0 to 1",
    "defect_rate": "share of cases, 0 to 1",
    "refusal_rate": "share of cases that were benign and refused, 0 to 1",
    "undelivered_rate": "share of cases, 0 to 1",
    "unmeasured_rate": "share of cases, 0 to 1",
    "text_unjudged_rate": "share of the cases that ask for text, 0 to 1",
    "cost_per_1k_usd": "dollars per 1,000 cases",
    "effective_cost_per_1k_usd": "dollars per 1,000 usable images",
    "effective_cost_ratio": "candidate / baseline effective cost",
    "spend_usd": "dollars of this run, both arms",
    "latency_p50_s": "seconds",
    "latency_p95_s": "seconds",
    "latency_p99_s": "seconds",
    "latency_p95_ratio": "candidate / baseline p95 latency",
    "ttfb_p95_s": "seconds",
    "retries_per_image": "attempts beyond the first of each stage, per case",
    "images": "cases of the candidate",
}


class Strict(BaseModel):
    """Base of everything read from a configuration file: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Loaded = TypeVar("Loaded", bound=Strict)


#: Dimensions of slices whose values are fixed.
_ENUMERABLE: dict[str, tuple[str, ...]] = {"subtask": SUBTASKS, "origin": ORIGINS}


class FailureRule(Strict):
    """The headline rule on the failure rate, decided by sequential evidence."""

    #: ROLLBACK when the rate is above this with confidence 1 - alpha.
    limit: float = Field(default=0.02, gt=0, lt=1)
    #: PROMOTE only when the rate is below this with confidence 1 - beta.
    promote_below: float = Field(default=0.03, gt=0, lt=1)
    #: Risk of rolling back a build that is at the limit, shared by the headline and the slices.
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    #: Risk of promoting a build that is at ``promote_below``.
    beta: float = Field(default=0.05, gt=0, lt=0.5)
    #: Which cases the headline rate counts.
    origins: tuple[Origin, ...] = ORIGINS
    #: ``anytime``: the risks hold however long a run goes on. ``calibrated``: they hold exactly
    #: for the planned number of cases, which needs fewer images.
    mode: Literal["anytime", "calibrated"] = "anytime"

    @model_validator(mode="after")
    def _ordered(self) -> FailureRule:
        if self.promote_below < self.limit:
            raise ValueError(
                f"promote_below ({self.promote_below}) must not be below limit ({self.limit})"
            )
        if not self.origins:
            raise ValueError("origins must name at least one of " + ", ".join(ORIGINS))
        return self


class SliceRule(Strict):
    """Rules for the slices of the candidate."""

    #: ROLLBACK when a slice's failure rate is above this with its share of alpha.
    limit: float = Field(default=0.10, gt=0, lt=1)
    dimensions: tuple[Literal["subtask", "locale", "origin", "model"], ...] = (
        "subtask",
        "locale",
        "origin",
        "model",
    )
    #: Slices with fewer cases in the plan are shown but not judged.
    min_images: int = Field(default=12, ge=1)
    #: Extra cases that may be drawn of slices that look bad, as a share of the cases.
    top_up: float = Field(default=0.25, ge=0, le=1)
    #: ``dimension=value`` slices that need their own proof of being below ``critical_below``.
    critical: tuple[str, ...] = ()
    critical_below: float = Field(default=0.10, gt=0, lt=1)

    @model_validator(mode="after")
    def _critical_known(self) -> SliceRule:
        for name in self.critical:
            dimension, equals, value = name.partition("=")
            if not equals or not value or dimension not in self.dimensions:
                raise ValueError(
                    f"critical slice {name!r} must read dimension=value with a dimension of "
                    f"{', '.join(self.dimensions)}"
                )
            if dimension in _ENUMERABLE and value not in _ENUMERABLE[dimension]:
                raise ValueError(
                    f"critical slice {name!r}: no case can be in it {known(_ENUMERABLE[dimension])}"
                )
        return self


class PairedRule(Strict):
    """The candidate against the baseline on the same case and seed."""

    #: ROLLBACK when the candidate is proven to fail more often by more than this.
    margin: float = Field(default=0.02, gt=0, lt=1)
    #: PROMOTE only with a proof that it is not worse by the margin.
    required: bool = False


class Limit(Strict):
    """One limit on one measure of the candidate."""

    measure: str
    max: float | None = None
    min: float | None = None
    on_breach: OnBreach = "hold"

    @model_validator(mode="after")
    def _answerable(self) -> Limit:
        if self.measure not in MEASURES:
            raise ValueError(
                f"measure {self.measure!r} is not measured by the gate {known(MEASURES, 99)}"
            )
        if self.max is None and self.min is None:
            raise ValueError(f"limit on {self.measure!r} needs max, min or both")
        if self.max is not None and self.min is not None and self.min > self.max:
            raise ValueError(f"limit on {self.measure!r}: min {self.min} is above max {self.max}")
        return self


class Budget(Strict):
    """Caps on what a gate may spend."""

    run_usd: float = Field(default=25.0, gt=0)
    day_usd: float = Field(default=100.0, gt=0)


class Sampling(Strict):
    """How many cases a run judges and where they come from."""

    cases: int = Field(default=240, ge=1, le=100_000)
    #: Shares of the cases by origin; production takes the rest.
    stress: float = Field(default=0.30, ge=0, le=1)
    adversarial: float = Field(default=0.10, ge=0, le=1)
    seed: int = 20_260_914
    shard_size: int = Field(default=64, ge=1, le=1024)
    #: End as soon as the evidence decides; ``false`` generates every planned case.
    stop_early: bool = True

    @model_validator(mode="after")
    def _shares(self) -> Sampling:
        if self.stress + self.adversarial > 1:
            raise ValueError(
                f"stress ({self.stress}) + adversarial ({self.adversarial}) must not exceed 1"
            )
        return self


class Freeze(Strict):
    """The lock that a run puts on production."""

    days: float = Field(default=14.0, gt=0, le=365)


class ApprovalRule(Strict):
    """When a person has to agree before production changes, and who may."""

    #: ``always``: before every promotion; ``cost_rise``: when the candidate costs more than the
    #: baseline by ``cost_rise``; ``hold``: a person may promote what the machine holds.
    require: tuple[Literal["always", "hold", "cost_rise"], ...] = ()
    #: Rise of the effective cost of 1,000 usable images, relative to the baseline. An unknown
    #: cost counts as risen.
    cost_rise: float = Field(default=0.10, ge=0, le=100)
    #: Without a decision by then the candidate is not promoted.
    expires_hours: float = Field(default=24.0, gt=0, le=24 * 90)
    #: Whether the one who asked for the run may approve it.
    requester_may_approve: bool = False
    #: Names of those who may decide; empty for anybody.
    approvers: tuple[str, ...] = ()

    @field_validator("approvers")
    @classmethod
    def _named(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if any(not name.strip() for name in names):
            raise ValueError("an approver needs a name; remove the empty entry")
        return names


#: Fields that policies of the first release did not have.
_LATER_FIELDS = (("failure", "mode"), ("slices", "top_up"), ("sampling", "stop_early"))


class Policy(Strict):
    """Everything that turns measurements into a verdict."""

    schema_version: Literal[1] = 1
    name: str = Field(default="default", min_length=1, max_length=80)
    failure: FailureRule = FailureRule()
    slices: SliceRule = SliceRule()
    paired: PairedRule = PairedRule()
    limits: tuple[Limit, ...] = ()
    budget: Budget = Budget()
    sampling: Sampling = Sampling()
    freeze: Freeze = Freeze()
    approval: ApprovalRule = ApprovalRule()
    #: Provenance and plug-ins.
    checks: CheckRules = CheckRules()
    #: The walk of a candidate into production.
    canary: CanaryRule = CanaryRule()
    #: The watch over what serves.
    watch: WatchRule = WatchRule()
    #: For the cost forecast.
    expected_images_per_month: int = Field(default=1_000_000, ge=1)

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and asks for nothing: such a policy is what it was before."""
        shown: dict[str, Any] = handler(self)
        # The digests of policies and plans in old evidence must come out the same.
        if self.approval == ApprovalRule():
            shown.pop("approval", None)
        if self.checks == CheckRules():
            shown.pop("checks", None)
        if self.canary == CanaryRule():
            shown.pop("canary", None)
        if self.watch == WatchRule():
            shown.pop("watch", None)
        if self.paired == PairedRule():
            shown.pop("paired", None)
        for section, field in _LATER_FIELDS:
            rule = getattr(self, section)
            if getattr(rule, field) == type(rule).model_fields[field].default:
                shown.get(section, {}).pop(field, None)
        return shown

    @property
    def digest(self) -> str:
        """Digest over every rule."""
        return digest_json(self.model_dump(mode="json"))


class _StrictLoader(yaml.SafeLoader):
    """Plain values only, and every key once: a second ``run_usd`` must not win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping after looking at its keys; merged (``<<``) keys may be overruled."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"field {key.value!r} stands here twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Return the parsed YAML of a file.

    Raises:
        ConfigError: The file is missing, unreadable or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, stricter
    except RecursionError:
        raise ConfigError(f"{path}: not valid YAML: nested too deeply") from None
    except ValueError as error:  # e.g. a date with a 13th month
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from None


def parse_strict(model: type[Loaded], value: Any, source: Path | str) -> Loaded:
    """Return ``model`` built from parsed YAML or JSON.

    Raises:
        ConfigError: One line for each problem, with file and field.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: expected a mapping of fields, got {type(value).__name__}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(error, source))) from None


def _problems(error: ValidationError, source: Path | str) -> list[str]:
    """Return one sentence for each problem that pydantic found."""
    lines = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"]) or "(whole file)"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown field; check the spelling or remove it"
        got = item.get("input")
        # A key pasted where its variable's name belongs, or in an address, must not be repeated.
        secret = field.endswith("key_env") or (isinstance(got, str) and "@" in got)
        silent = secret or isinstance(got, dict | list) or item["type"] == "missing"
        shown = "" if silent else f", got {got!r}"
        lines.append(f"{source}: field {field!r}: {message}{shown[:120]}")
    return lines


def load_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        ConfigError: With file, field, what was found and what is allowed.
    """
    value = read_yaml(path)
    if not value:
        # An interrupted write leaves an empty file; it must not drop every limit in silence.
        raise ConfigError(
            f"{path}: the policy is empty, so hardly anything would be asked of a candidate; write "
            "the limits out, e.g. a copy of deployments/policies/default.yaml"
        )
    return parse_strict(Policy, value, path)
