"""The records that travel between the steps; see the README for the words.

All are immutable and strict: an unknown field is an error. Money is in whole micro-dollars,
durations in seconds, timestamps are UTC ISO-8601 strings, digests read ``sha256:<hex>``.
This module imports nothing of imagegate.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

SCHEMA_VERSION = 1

Subtask = Literal["typography", "creative", "fast", "edit", "upscale"]
Origin = Literal["production", "stress", "adversarial"]
Arm = Literal["baseline", "candidate"]
Billed = Literal["yes", "no", "unknown"]
CostSource = Literal["reported", "computed", "list"]
PinStrength = Literal["immutable", "dated", "alias", "none"]
#: What the reported version says about the pin. ``held``: it is the pinned one. ``broken``: it is
#: another one, though the pin is immutable or dated. ``moved``: it is another one, as an alias may
#: be. ``unsaid``: the provider reports none. ``unpinned``: the catalog pins nothing.
PinCheck = Literal["held", "broken", "moved", "unsaid", "unpinned"]
Operation = Literal["generate", "edit", "upscale"]
CheckVerdict = Literal["pass", "fail", "skip", "fault"]
OutcomeName = Literal["ok", "defect", "refused", "undelivered", "unmeasured"]
VerdictName = Literal["PROMOTE", "ROLLBACK", "HOLD"]

SUBTASKS: tuple[Subtask, ...] = ("typography", "creative", "fast", "edit", "upscale")
ORIGINS: tuple[Origin, ...] = ("production", "stress", "adversarial")


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, no spaces and no NaN: the same value, the same text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest_bytes(data: bytes) -> str:
    """Return ``sha256:<hex>`` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """Return the digest of the canonical JSON of a value."""
    # Lone surrogates can reach a prompt through JSON escapes; they must not break the digest.
    return digest_bytes(canonical_json(value).encode("utf-8", "surrogatepass"))


def utc_now() -> str:
    """Return the present moment as UTC ISO-8601 with milliseconds and ``Z``."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return now.replace("+00:00", "Z")


def usd(microusd: int | float) -> float:
    """Return dollars for micro-dollars."""
    return microusd / 1_000_000


def microusd(dollars: float) -> int:
    """Return whole micro-dollars, rounded up, so that no cap is passed by rounding."""
    return math.ceil(round(dollars * 1_000_000, 3))


class FailureClass(StrEnum):
    """What went wrong with one attempt, by what the caller must do; design section 5."""

    TRANSPORT = "transport"
    THROTTLED = "throttled"
    SERVER = "server"
    AUTH = "auth"
    RETIRED = "retired"
    BAD_REQUEST = "bad_request"
    REFUSAL = "refusal"
    EMPTY = "empty"
    MALFORMED = "malformed"
    ASSET_URL = "asset_url"
    DRIFT = "drift"
    COST_UNKNOWN = "cost_unknown"


class Record(BaseModel):
    """Base of the records: frozen, strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Case(Record):
    """One input of the harness."""

    schema_version: int = SCHEMA_VERSION
    case_id: str
    prompt: str
    subtask: Subtask
    locale: str = "und"
    width: int = Field(default=512, ge=16, le=8192)
    height: int = Field(default=512, ge=16, le=8192)
    expected_text: tuple[str, ...] = ()
    brand: str | None = None
    #: Path of the picture to edit, relative to the folder ``datasets/``.
    upload: str | None = None
    #: Path of the mask of an edit, white where the upload may change; relative like ``upload``.
    mask: str | None = None
    origin: Origin = "production"
    #: ``image``: a picture is right. ``refusal``: the prompt is unsafe and a refusal is right.
    expect: Literal["image", "refusal"] = "image"
    theme: str = ""
    stratum: str = ""
    #: How many inputs of the log this case stands for.
    weight: float = Field(default=1.0, gt=0)
    #: The set of pictures, by name, that this one belongs to and must look like.
    campaign: str | None = Field(default=None, min_length=1, max_length=120)
    #: Number of this repeat, for a prompt that is asked for several times, each under another seed.
    repeat: int | None = Field(default=None, ge=0, le=9999)

    @model_serializer(mode="wrap")
    def _without_group(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the groups that a case is not in: such a case is what it was before."""
        shown: dict[str, Any] = handler(self)
        for name in ("campaign", "repeat"):
            if shown.get(name) is None:
                shown.pop(name, None)
        return shown

    @property
    def digest(self) -> str:
        """Digest over everything that can change what a right answer looks like."""
        shape = self.model_dump(
            exclude={"schema_version", "case_id", "origin", "theme", "stratum", "weight"}
        )
        if self.mask is None:
            # Cases had no mask at first, and what is cached of them must be found.
            del shape["mask"]
        return digest_json(shape)

    @property
    def repeat_of(self) -> str | None:
        """What the repeats of one prompt share; ``None`` for a case that is no repeat."""
        if self.repeat is None:
            return None
        return self.model_copy(update={"repeat": None}).digest


class Usage(Record):
    """What a provider says that one request used; ``None`` where it does not say."""

    #: Tokens by modality.
    text_in: int | None = Field(default=None, ge=0, le=10**9)
    image_in: int | None = Field(default=None, ge=0, le=10**9)
    text_out: int | None = Field(default=None, ge=0, le=10**9)
    image_out: int | None = Field(default=None, ge=0, le=10**9)
    megapixels: float | None = Field(default=None, ge=0, le=1e6, allow_inf_nan=False)
    credits: float | None = Field(default=None, ge=0, le=1e6, allow_inf_nan=False)
    gpu_seconds: float | None = Field(default=None, ge=0, le=1e6, allow_inf_nan=False)
    #: The provider's own words, bounded and without secrets.
    raw: dict[str, Any] = Field(default_factory=dict)


#: Fields that attempts of the first release did not have; left out while they are unset.
LATER_ATTEMPT_FIELDS = ("seed_used", "usage", "pin")


class Attempt(Record):
    """One request to a model, with all exchanges that it took, and what came of it."""

    schema_version: int = SCHEMA_VERSION
    #: 0-based stage of the route.
    stage: int
    #: 1-based number of the attempt within its stage.
    number: int
    model: str
    started_at: str
    #: Seconds waited for a concurrency slot and for the rate limit, before the wire.
    queued_s: float = 0.0
    #: Seconds on the wire from the first byte sent to the first body byte; ``None`` without one.
    ttfb_s: float | None = None
    #: Seconds on the wire from the first byte sent to the last byte received or the failure.
    total_s: float = 0.0
    http_status: int | None = None
    failure: FailureClass | None = None
    message: str = ""
    retry_after_s: float | None = None
    billed: Billed = "no"
    cost_microusd: int = 0
    cost_source: CostSource = "list"
    idempotency_key: str = ""
    provider_request_id: str | None = None
    model_reported: str | None = None
    declared_mime: str | None = None
    sniffed_mime: str | None = None
    finish_reason: str | None = None
    body_digest: str | None = None
    body_bytes: int = 0
    headers: dict[str, str] = Field(default_factory=dict)
    #: The seed that the provider says it used; ``None`` when it does not say.
    seed_used: int | None = None
    usage: Usage | None = None
    pin: PinCheck | None = None

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and is unset: such an attempt reads as it always did."""
        shown: dict[str, Any] = handler(self)
        for name in LATER_ATTEMPT_FIELDS:
            if shown.get(name) is None:
                shown.pop(name, None)
        return shown


class Generation(Record):
    """What one case got from one mix: the end of its route, with every attempt kept."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    arm: Arm
    mix_digest: str
    case_id: str
    seed: int
    #: Models of the stages in order, the alternative that the traffic weights gave to this case.
    models: tuple[str, ...]
    status: Literal["ok", "refused", "undelivered"]
    failure: FailureClass | None = None
    message: str = ""
    #: Digest of the image; its bytes lie in the image store. ``None`` when there is none.
    image_digest: str | None = None
    #: Digest of the picture before the last upscaling stage, when the route has one.
    source_digest: str | None = None
    declared_mime: str | None = None
    sniffed_mime: str | None = None
    image_bytes: int = 0
    attempts: tuple[Attempt, ...] = ()
    cost_microusd: int = 0
    #: Seconds on the wire over all stages and attempts, with the back-off between them.
    latency_s: float = 0.0
    ttfb_s: float | None = None
    queued_s: float = 0.0
    #: True when the picture came from the baseline cache: this run paid nothing for it, and
    #: ``cost_microusd`` is what it cost when it was made.
    cached: bool = False

    @property
    def retries(self) -> int:
        """Attempts beyond the first of each stage."""
        return len(self.attempts) - len({a.stage for a in self.attempts})


class Region(Record):
    """A rectangle in pixels of the picture as displayed, from the upper left corner."""

    x: int
    y: int
    width: int
    height: int


class Finding(Record):
    """One check's result on one image."""

    schema_version: int = SCHEMA_VERSION
    #: ``family.name``; families: decode, geometry, typography, colour, composition,
    #: consistency, upscale, safety.
    check: str
    version: str
    verdict: CheckVerdict
    score: float | None = None
    limit: float | None = None
    higher_is_better: bool = True
    message: str = ""
    region: Region | None = None
    #: Of a failure: whether a second, independent reader finds the same. ``None``: none was asked.
    confirmed: bool | None = None


class Outcome(Record):
    """One case's end on one mix."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    arm: Arm
    case_id: str
    outcome: OutcomeName
    #: The user did not get an acceptable image (unmeasured is neither failed nor good).
    failed: bool
    #: Names of the failing checks, or ``delivery.<failure class>``, ``safety.refusal``.
    reasons: tuple[str, ...] = ()
    #: Names of the checks that said pass or fail, for the failure rate of each check.
    judged: tuple[str, ...] = ()
    #: True when text was asked for in a script that no reader covers here.
    text_unjudged: bool = False
    subtask: Subtask
    locale: str
    origin: Origin
    theme: str = ""
    model: str
    weight: float = 1.0
    #: What the generation cost when it was made, also when it came from the cache now.
    cost_microusd: int = 0
    #: True when the picture came from the baseline cache: it cost nothing in this run.
    cached: bool = False
    latency_s: float = 0.0
    ttfb_s: float | None = None
    retries: int = 0


class Rate(Record):
    """A failure rate with a two-sided confidence interval.

    With no judged images the estimate is ``None`` and the interval is the whole of [0, 1].
    ``n`` counts the unmeasured images too, and ``upper`` takes them for failures.
    """

    estimate: float | None
    lower: float
    upper: float
    n: int
    failures: int
    unmeasured: int = 0


class Slice(Record):
    """One arm's failures among the cases that share one property."""

    arm: Arm
    #: ``subtask``, ``locale``, ``origin``, ``model`` or ``check``.
    dimension: str
    value: str
    rate: Rate


class CheckSlice(Slice):
    """How often one check failed among the cases of a slice that it judged."""

    check: str


class Paired(Record):
    """Both arms on the same cases; cases that either arm left unmeasured are not counted."""

    pairs: int
    #: Failed with the candidate and did not with the baseline.
    candidate_only: int
    baseline_only: int


class Accounts(Record):
    """Where the cases of an arm went that did not end well; the four accounts."""

    defect: int
    #: Benign prompts refused. Right refusals of unsafe prompts are good outcomes.
    refused: int
    undelivered: int
    unmeasured: int


class ArmMetrics(Record):
    """Figures of one arm. Latencies in seconds over delivered images."""

    arm: Arm
    mix_digest: str
    #: Finished cases of the headline sample.
    images: int
    #: Extra cases of slices that looked bad: they count in the slices and in the spend only.
    extra_images: int = 0
    failure_rate: Rate
    accounts: Accounts
    right_refusals: int
    text_unjudged: int
    text_cases: int
    #: Locales with a case whose text no reader covers.
    text_unjudged_locales: tuple[str, ...] = ()
    spend_usd: float
    #: Spend for 1,000 cases, retries included.
    cost_per_1k_usd: float | None
    #: Spend for 1,000 usable images: spend / usable · 1,000; ``None`` without a usable image.
    effective_cost_per_1k_usd: float | None
    latency_p50_s: float | None
    latency_p95_s: float | None
    latency_p99_s: float | None
    ttfb_p50_s: float | None
    ttfb_p95_s: float | None
    retries_per_image: float


class Metrics(Record):
    """Everything that the decision looks at."""

    schema_version: int = SCHEMA_VERSION
    candidate: ArmMetrics
    baseline: ArmMetrics
    slices: tuple[Slice, ...]
    #: Which check failed in which slice; only pairs with a failure.
    check_failures: tuple[CheckSlice, ...] = ()
    paired: Paired | None = None
    #: Effective cost of the candidate at the expected traffic, in dollars a month.
    forecast_usd_per_month: float | None
    baseline_forecast_usd_per_month: float | None


class ExpectationResult(Record):
    """One expectation of the policy after its validation."""

    name: str
    #: Which part of the policy asked for it, e.g. ``limits[2]``.
    source: str
    on_breach: Literal["rollback", "hold", "warn"]
    success: bool
    #: True when the data could not answer (missing, NaN, an exception): never a success.
    unmeasured: bool = False
    observed: float | str | None = None
    sentence: str


class SequentialResult(Record):
    """One sequential test at the last look; logarithms are natural ones."""

    #: ``failure_rate``, a slice as ``subtask=typography``, the place of a limit as ``limits[2]``,
    #: or ``paired``.
    name: str
    kind: Literal["headline", "slice", "guard", "paired"]
    #: Images that were looked at, and failures among them where the test counts such.
    images: int
    failures: int | None = None
    #: Evidence that the value is above ``limit``, and the evidence that proves it.
    limit: float | None = None
    log_e_fail: float | None = None
    fail_at: float | None = None
    #: Evidence that the value is below ``below``; ``None`` where no such proof is asked for.
    below: float | None = None
    log_e_pass: float | None = None
    pass_at: float | None = None
    #: Confidence sequence: holds at every look at once, each end with its own risk.
    lower: float | None = None
    upper: float | None = None
    failed: bool = False
    passed: bool = False
    #: Looks bad, and is not proven to be once all slices share the risk: drawn first from now on.
    amber: bool = False
    #: Images that, at the rate shown, would give the proof that is still asked for.
    images_needed: int | None = None


class Look(Record):
    """One look at the data: the headline after a number of shards, and what came of it."""

    shards: int
    images: int
    failures: int
    log_e_fail: float
    log_e_pass: float
    verdict: VerdictName
    #: Slices that looked bad, so that extra cases of them came next.
    amber: tuple[str, ...] = ()


class PriorRun(Record):
    """An earlier run that judged the same candidate mix and did not promote it."""

    run_id: str
    #: Headline images, and those among them that a PROMOTE took for failures.
    images: int
    failures: int
    #: Images that it was planned with; ``None`` for as many as today's run.
    planned: int | None = None


class Savings(Record):
    """What an early decision did not have to generate, both arms together."""

    #: Cases of the plan, those that the decision rests on, and those that the candidate was asked
    #: for until all work had stopped.
    planned: int
    decided: int
    used: int
    #: Images that were not paid, and what they would have cost at the prices of this run.
    images: int
    usd: float


class Verdict(Record):
    """The decision with its reasons, most important first."""

    schema_version: int = SCHEMA_VERSION
    verdict: VerdictName
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    #: The sequential tests behind it, and the looks that led to it.
    tests: tuple[SequentialResult, ...] = ()
    looks: tuple[Look, ...] = ()
    savings: Savings | None = None
    #: Earlier tests of the same mix at the time of the decision: they spent of its risk.
    prior: tuple[PriorRun, ...] = ()


def slice_name(parts: Iterable[str]) -> str:
    """Return the display name of a slice, e.g. ``locale=th``."""
    return "=".join(parts)


class ImageReport(Record):
    """What the checks found on one picture."""

    schema_version: int = SCHEMA_VERSION
    findings: tuple[Finding, ...]
    #: Lines of text that the reader saw, in reading order.
    read_text: tuple[str, ...] = ()
    #: Perceptual fingerprint in hex, for near-duplicates; ``None`` when nothing was decoded.
    fingerprint: str | None = None
    width: int | None = None
    height: int | None = None
    #: Mean lightness, a, b (CIELAB, D65) and mean chroma of the picture; empty when not decoded.
    colour: tuple[float, ...] = ()
    #: What became of each text that was asked for, in their order: ``exact``, ``minor``,
    #: ``doubled``, ``boxes``, ``partial``, ``garbled``, ``wrong text``, ``absent``, or
    #: ``not judged``. Empty when no text was read.
    text_severity: tuple[str, ...] = ()
    #: Lines that nobody asked for, and where they stand.
    extra_text: tuple[str, ...] = ()
    extra_regions: tuple[Region, ...] = ()
    #: Colours and layout in short, of a picture that belongs to a group; see
    #: :func:`tasks.checks.look.unpacked`.
    look: str = ""
    #: CPU seconds that the checks took.
    seconds: float = 0.0
