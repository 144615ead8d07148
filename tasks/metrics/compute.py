"""The metrics of a run: failure rates, accounts, money and latency of both arms, slice by slice.

How the money counts: ``spend_usd`` is what this run paid, so pictures from the baseline cache are
free in it. The costs per 1,000 are what the mix costs, so they take the price that a cached picture
had when it was made. The effective cost divides by usable images (outcome ``ok``): failures,
retries and right refusals of unsafe prompts are paid for and are no usable images.

Rates count every case once, whatever its weight: the bounds are exact for plain counts. Extra
cases of slices that looked bad were chosen for that and would bend every figure of an arm: they
count in the slices, and in what the run paid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from tasks.errors import GateError
from tasks.metrics.outcomes import MODEL_SEPARATOR, REFUSAL
from tasks.metrics.rates import rate
from tasks.metrics.tables import outcomes_frame
from tasks.policy import Policy
from tasks.records import (
    Accounts,
    Arm,
    ArmMetrics,
    Case,
    CheckSlice,
    Metrics,
    Outcome,
    Paired,
    Slice,
    usd,
)

ARMS: tuple[Arm, ...] = ("baseline", "candidate")
#: Dimensions of the slices; ``check`` comes on top.
DIMENSIONS = ("subtask", "locale", "origin", "model")

_NO_EXTRA: Mapping[str, str] = {}
_DELIVERED = ("ok", "defect", "unmeasured")


def compute_metrics(
    cases: Sequence[Case],
    outcomes: Sequence[Outcome],
    policy: Policy,
    *,
    baseline_digest: str,
    candidate_digest: str,
    extra: Mapping[str, str] = _NO_EXTRA,
) -> Metrics:
    """Return the metrics of both arms.

    Args:
        cases: The cases of the plan.
        outcomes: The outcomes of the finished cases of both arms.
        policy: Says which origins the headline rate counts, and the expected traffic.
        baseline_digest: Digest of the baseline mix.
        candidate_digest: Digest of the candidate mix.
        extra: Cases, by id, that were drawn on top of the headline sample, with the slice that
            they were drawn for, e.g. ``locale=th``: the only one in which they count.

    Raises:
        GateError: A case has two outcomes in one arm, or an outcome has no case in the plan:
            counting on would make evidence out of nothing.
    """
    frame = _outcomes(cases, outcomes)
    frame["for_slice"] = [extra.get(name, "") for name in frame["case_id"]]
    frame["extra"] = frame["for_slice"] != ""
    arms = {arm: frame[frame["arm"] == arm] for arm in ARMS}
    baseline = _arm("baseline", arms["baseline"], policy, baseline_digest)
    candidate = _arm("candidate", arms["candidate"], policy, candidate_digest)
    slices: list[Slice] = []
    failures: list[CheckSlice] = []
    for arm in reversed(ARMS):
        own = [outcome for outcome in outcomes if outcome.arm == arm]
        for dimension in DIMENSIONS:
            groups = _by(own, dimension, extra)
            slices += _slices(arm, dimension, groups)
            failures += _check_slices(arm, dimension, groups)
        slices += _checks(arm, [outcome for outcome in own if not extra.get(outcome.case_id)])
    return Metrics(
        candidate=candidate,
        baseline=baseline,
        slices=tuple(slices),
        check_failures=tuple(failures),
        paired=_paired(frame[~frame["extra"]]),
        forecast_usd_per_month=_forecast(candidate, policy),
        baseline_forecast_usd_per_month=_forecast(baseline, policy),
    )


def _outcomes(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return the outcomes as a frame with helper columns, refusing what would be counted wrong."""
    frame = outcomes_frame(outcomes)
    asks_text = {case.case_id: bool(case.expected_text) for case in cases}
    names = [o.case_id for o in outcomes]
    strange = sorted({name for name in names if name not in asks_text})
    if strange:
        raise GateError(
            f"{len(strange)} outcomes belong to no case of the plan, e.g. {strange[0]!r}; "
            "the journal and the plan are not of one run"
        )
    twice = frame[["arm", "case_id"]].duplicated()
    if twice.any():
        arm, name = frame.loc[twice, ["arm", "case_id"]].iloc[0]
        raise GateError(
            f"{int(twice.sum())} outcomes are there twice, e.g. case {name!r} of the {arm}; "
            "every case must be counted once"
        )
    frame["unmeasured"] = frame["outcome"] == "unmeasured"
    frame["asks_text"] = pd.Series([asks_text[name] for name in names], dtype="bool")
    return frame


def _arm(arm: Arm, every: pd.DataFrame, policy: Policy, mix_digest: str) -> ArmMetrics:
    """Return the figures of one arm."""
    rows = every[~every["extra"]]
    images = len(rows)
    outcome = rows["outcome"]
    headline = rows[rows["origin"].isin(policy.failure.origins)]
    delivered = rows[outcome.isin(_DELIVERED)]
    # Micro-dollars a case are thousandths of a dollar for 1,000: one division, so no rounding of
    # sums can push a cost that is at its limit over it.
    cost = int(rows["cost_microusd"].sum())
    usable = int((outcome == "ok").sum())
    unjudged = rows[rows["text_unjudged"]]
    return ArmMetrics(
        arm=arm,
        mix_digest=mix_digest,
        images=images,
        extra_images=len(every) - images,
        failure_rate=rate(
            int(headline["failed"].sum()),
            len(headline),
            unmeasured=int(headline["unmeasured"].sum()),
        ),
        accounts=Accounts(
            defect=int((outcome == "defect").sum()),
            refused=int(((outcome == "refused") & rows["failed"]).sum()),
            undelivered=int((outcome == "undelivered").sum()),
            unmeasured=int(rows["unmeasured"].sum()),
        ),
        right_refusals=int(((outcome == "refused") & ~rows["failed"]).sum()),
        text_unjudged=len(unjudged),
        text_cases=int(rows["asks_text"].sum()),
        text_unjudged_locales=tuple(sorted(set(unjudged["locale"]))),
        spend_usd=usd(int(every.loc[~every["cached"], "cost_microusd"].sum())),
        cost_per_1k_usd=cost / (1000 * images) if images else None,
        effective_cost_per_1k_usd=cost / (1000 * usable) if usable else None,
        latency_p50_s=_percentile(delivered["latency_s"], 50),
        latency_p95_s=_percentile(delivered["latency_s"], 95),
        latency_p99_s=_percentile(delivered["latency_s"], 99),
        ttfb_p50_s=_percentile(delivered["ttfb_s"], 50),
        ttfb_p95_s=_percentile(delivered["ttfb_s"], 95),
        retries_per_image=float(rows["retries"].mean()) if images else 0.0,
    )


def _percentile(values: pd.Series[float], percent: float) -> float | None:
    """Return a percentile, linear between neighbours; ``None`` when any value is missing.

    A percentile over the values that happen to be known would hide the slow ones.
    """
    known = values.to_numpy(dtype=np.float64)
    if known.size == 0 or not np.isfinite(known).all():
        return None
    return float(np.percentile(known, percent))


def _by(
    outcomes: Sequence[Outcome], dimension: str, extra: Mapping[str, str]
) -> dict[str, list[Outcome]]:
    """Return the outcomes by value, sorted; a route of two models counts for both.

    By plain counting: there is a look at the figures after every shard, and a data frame takes
    longer over some hundred rows than all the rest of a look.
    """
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        values = [str(getattr(outcome, dimension))]
        if dimension == "model":
            values = list(dict.fromkeys(outcome.model.split(MODEL_SEPARATOR)))
        drawn_for = extra.get(outcome.case_id)
        for value in values:
            # An extra case was drawn because its slice looked bad; the others it is in must not
            # pay for that.
            if not drawn_for or drawn_for == f"{dimension}={value}":
                groups.setdefault(value, []).append(outcome)
    return dict(sorted(groups.items()))


def _slices(arm: Arm, dimension: str, groups: Mapping[str, Sequence[Outcome]]) -> Iterable[Slice]:
    """Return the failure rate of every value of a dimension."""
    for value, rows in groups.items():
        unmeasured = sum(1 for o in rows if o.outcome == "unmeasured")
        counted = rate(sum(1 for o in rows if o.failed), len(rows), unmeasured=unmeasured)
        yield Slice(arm=arm, dimension=dimension, value=value, rate=counted)


def _checks(arm: Arm, rows: Sequence[Outcome]) -> Iterable[Slice]:
    """Return the failure rate of every check among the images it judged."""
    for check, (n, failures) in _check_counts(rows).items():
        yield Slice(arm=arm, dimension="check", value=check, rate=rate(failures, n))


def _check_slices(
    arm: Arm, dimension: str, groups: Mapping[str, Sequence[Outcome]]
) -> Iterable[CheckSlice]:
    """Return the checks that failed, by value of the dimension."""
    for value, rows in groups.items():
        for check, (n, failures) in _check_counts(rows).items():
            if failures:
                yield CheckSlice(
                    arm=arm,
                    dimension=dimension,
                    value=value,
                    check=check,
                    rate=rate(failures, n),
                )


def _check_counts(rows: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    """Return images judged and failures, by check, sorted.

    Delivery and refusal are judged on every case, so a reason that no check gave counts over all.
    """
    judged = Counter(name for outcome in rows for name in outcome.judged)
    failed = Counter(name for outcome in rows for name in outcome.reasons)
    return {
        check: (
            len(rows) if check == REFUSAL or check not in judged else judged[check],
            failed[check],
        )
        for check in sorted(judged.keys() | failed.keys())
    }


def _paired(frame: pd.DataFrame) -> Paired:
    """Return how the arms differ on the cases that both have and that both measured."""
    known = frame[~frame["unmeasured"]]
    both = known[known["arm"] == "candidate"].merge(
        known[known["arm"] == "baseline"], on="case_id", suffixes=("", "_baseline")
    )
    candidate, baseline = both["failed"], both["failed_baseline"]
    return Paired(
        pairs=len(both),
        candidate_only=int((candidate & ~baseline).sum()),
        baseline_only=int((baseline & ~candidate).sum()),
    )


def _forecast(arm: ArmMetrics, policy: Policy) -> float | None:
    """Return dollars a month at the expected traffic, for images that users can use."""
    per_thousand = arm.effective_cost_per_1k_usd
    return None if per_thousand is None else per_thousand * policy.expected_images_per_month / 1000
