"""What is watched of live outcomes, and how each becomes counts for its detector. Pure.

The promise of false alarms is shared: a signal's threshold is the promise over its share, so that
all of them together keep it (the weighted sum of e-detectors is one).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tasks.policy import Policy
from tasks.rollout.outcomes.base import ArmOutcomes
from tasks.rollout.watch.detector import Detector
from tasks.rollout.watch.whole import WholeDetector

Signal = Literal["failures", "slow", "cost", "tickets"]

#: Shares of the promise: half on failures, as in the gate.
SHARES: dict[Signal, float] = {
    "failures": 0.5,
    "slow": 0.1,
    "cost": 0.1,
    "tickets": 0.1,
}
#: Share of requests without an image and images with a defect together.
WHOLE_SHARE = 0.2


def limits(policy: Policy) -> dict[Signal, float]:
    """Return the rate that is still good, by signal; what the policy does not limit is left out."""
    rule = policy.watch
    failures = policy.failure.limit if rule.failure_limit is None else rule.failure_limit
    found: dict[Signal, float] = {
        "failures": failures,
        "slow": rule.slow_limit,
    }
    if rule.cost_per_1k_usd is not None and rule.worst_image_usd is not None:
        found["cost"] = rule.cost_per_1k_usd / 1000 / rule.worst_image_usd
    if rule.tickets_per_1k is not None:
        found["tickets"] = rule.tickets_per_1k / 1000
    return found


def fresh(policy: Policy) -> dict[Signal, Detector]:
    """Return the detectors of a watch that has seen nothing yet."""
    promised = policy.watch.false_alarm_images
    return {
        name: Detector(limit, promised / SHARES[name]) for name, limit in limits(policy).items()
    }


def fresh_whole(policy: Policy) -> WholeDetector:
    """Return the detector of the whole failure rate, which has the limit of failures."""
    promised = policy.watch.false_alarm_images
    return WholeDetector(limits(policy)["failures"], promised / WHOLE_SHARE)


def fresh_unseen(policy: Policy) -> Detector:
    """Return the detector of inputs that the gate had no case of; it only warns."""
    return Detector(policy.watch.unseen_limit, policy.watch.false_alarm_images)


def counts(signal: Signal, arm: ArmOutcomes, policy: Policy) -> tuple[float, float] | None:
    """Return (of how many, how many bad) for a signal, ``None`` when nobody measured it.

    Money is counted in worst images: a window of n images that cost S counts as S/worst bad ones
    of n. With the sum given, the product of bets is smallest when each image cost nothing or the
    worst (log is concave), so this is never more evidence than the single prices would be.
    Tickets count at most one an image.
    """
    match signal:
        case "failures":
            return (arm.images, arm.failures)
        case "slow":
            return None if arm.timed is None or arm.slow is None else (arm.timed, arm.slow)
        case "cost":
            worst = policy.watch.worst_image_usd
            if arm.costed is None or arm.cost_microusd is None or worst is None:
                return None
            return (arm.costed, min(arm.costed, arm.cost_microusd / 1e6 / worst))
        case "tickets":
            return None if arm.tickets is None else (arm.images, min(arm.images, arm.tickets))


def sentence(signal: Signal, detector: Detector, policy: Policy) -> str:
    """Return what a detector has found, for people: the rate since it is high, and since when."""
    rise = detector.rise if detector.rise.images else detector
    rate = rise.failures / rise.images if rise.images else 0.0
    bad, seen = f"{rise.failures:,.0f}", f"the last {rise.images:,.0f}"
    since = f" since {detector.rise.since}" if detector.rise.since else ""
    share = f"({100 * rate:.1f} %, limit {100 * detector.limit:g} %){since}"
    match signal:
        case "failures":
            return f"{bad} of {seen} requests got no image {share}"
        case "slow":
            return f"{bad} of {seen} requests were too slow {share}"
        case "cost":
            worst = policy.watch.worst_image_usd or 0.0
            return (
                f"1,000 images cost ${1000 * worst * rate:,.2f} over {seen} images, above "
                f"${1000 * worst * detector.limit:,.2f}{since}"
            )
        case "tickets":
            return (
                f"{1000 * rate:.1f} tickets for 1,000 images over {seen} images, above "
                f"{1000 * detector.limit:g}{since}"
            )


def whole_sentence(found: WholeDetector) -> str:
    """Return what the detector of the whole failure rate has found, for people."""
    rise = found.rise if found.since else found.seen
    since = f" since {found.since}" if found.since else ""
    return (
        f"{rise.failures:,.0f} of the last {rise.requests:,.0f} requests got no image and "
        f"{rise.defects:,.0f} of {rise.judged:,.0f} judged images have a defect, together "
        f"{100 * (rise.rate or 0):.1f} % (limit {100 * found.limit:g} %){since}"
    )


def alarms(
    detectors: Mapping[Signal, Detector], whole: WholeDetector, policy: Policy
) -> tuple[str, ...]:
    """Return a sentence for each signal that is above its limit, the strongest evidence first."""
    over = [
        (found.evidence, sentence(name, found, policy))
        for name, found in detectors.items()
        if found.alarm
    ]
    if whole.alarm:
        over.append((whole.evidence, whole_sentence(whole)))
    return tuple(text for _, text in sorted(over, key=lambda pair: -pair[0]))
