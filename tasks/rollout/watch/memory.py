"""What the watch remembers of a product between two looks, as JSON in table ``watches``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from tasks.errors import StateError
from tasks.policy import Policy
from tasks.rollout.watch.detector import Detector
from tasks.rollout.watch.signals import Signal, fresh, fresh_unseen, fresh_whole
from tasks.rollout.watch.whole import WholeDetector

#: Hours of traffic that are remembered.
HOURS_KEPT = 8 * 24
#: Mixes that are remembered after their time.
PAST_KEPT = 30
#: Inputs that the gate had no case of, by name, that are remembered.
NAMES_KEPT = 50


@dataclass(frozen=True, slots=True)
class Sample:
    """Which inputs the gate judged, when it judged the mix that serves."""

    run_id: str
    subtasks: tuple[str, ...]
    locales: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Past:
    """A mix that was watched before."""

    mix_digest: str
    began: str
    ended: str
    images: int
    #: ``replaced`` by another one, found bad (``alarm``), or found bad through no fault of its own,
    #: as a person said (``cleared``).
    how: Literal["replaced", "alarm", "cleared"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """What the watch found, and what it did about it; kept until a person closes it."""

    mix_digest: str
    reason: str
    at: str
    #: The mix that it means to put back, ``None`` when it leaves that to people.
    target: str | None
    #: Whether the router was read back to serve the target.
    done: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """What is known of a product and of the mix that serves it.

    Attributes:
        detectors: One a signal.
        whole: Of requests without an image and images with a defect together.
        unseen: Of inputs that the gate had no case of.
        began: When the watch of this mix began.
        seen_at: The last moment up to which images were counted; ``began`` before the first.
        hours: Images by hour (UTC, ``2026-11-29T17``) of the last eight days, of all mixes.
        new_inputs: Requests by subtask or locale that the gate had no case of.
        sample: What the gate judged, ``None`` while it is not known.
        alarm: The alarm that no person has closed.
        past: Mixes before, oldest first.
    """

    detectors: Mapping[Signal, Detector]
    whole: WholeDetector
    unseen: Detector
    began: datetime
    seen_at: datetime
    hours: Mapping[str, int] = field(default_factory=dict)
    new_inputs: Mapping[str, int] = field(default_factory=dict)
    sample: Sample | None = None
    alarm: Alarm | None = None
    past: tuple[Past, ...] = ()

    @property
    def images(self) -> int:
        """Images of this mix so far."""
        return round(self.detectors["failures"].images)

    def to_json(self) -> str:
        """Return the memory as text; :func:`memory_from` reads it."""
        value = {
            "detectors": {name: found.to_dict() for name, found in self.detectors.items()},
            "whole": self.whole.to_dict(),
            "unseen": self.unseen.to_dict(),
            "began": self.began.isoformat(),
            "seen_at": self.seen_at.isoformat(),
            "hours": dict(self.hours),
            "new_inputs": dict(self.new_inputs),
            "sample": None if self.sample is None else _plain(self.sample),
            "alarm": None if self.alarm is None else _plain(self.alarm),
            "past": [_plain(past) for past in self.past],
        }
        return json.dumps(value, sort_keys=True, allow_nan=False)


def _plain(value: Sample | Alarm | Past) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def memory_from(text: str, product: str) -> Memory:
    """Return a stored memory.

    Raises:
        StateError: It cannot be read: a watch that forgets in silence would be none.
    """
    try:
        value = json.loads(text)
        sample, alarm = value["sample"], value["alarm"]
        return Memory(
            detectors={name: Detector.from_dict(v) for name, v in value["detectors"].items()},
            whole=WholeDetector.from_dict(value["whole"]),
            unseen=Detector.from_dict(value["unseen"]),
            began=datetime.fromisoformat(value["began"]),
            seen_at=datetime.fromisoformat(value["seen_at"]),
            hours=value["hours"],
            new_inputs=value["new_inputs"],
            sample=None
            if sample is None
            else Sample(sample["run_id"], tuple(sample["subtasks"]), tuple(sample["locales"])),
            alarm=None if alarm is None else Alarm(**alarm),
            past=tuple(Past(**past) for past in value["past"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(
            f"the stored watch of {product!r} cannot be read ({type(error).__name__}: {error}); "
            f"begin it anew with `imagegate watch restart --product {product}`"
        ) from None


def begin(policy: Policy, now: datetime) -> Memory:
    """Return the memory of a watch that begins."""
    return Memory(fresh(policy), fresh_whole(policy), fresh_unseen(policy), began=now, seen_at=now)


def begin_next(before: Memory, mix_digest: str, policy: Policy, now: datetime) -> Memory:
    """Return the memory for a mix that took the place of ``mix_digest``; the past is kept."""
    how: Literal["replaced", "alarm"] = (
        "alarm"
        if before.alarm is not None and before.alarm.mix_digest == mix_digest
        else "replaced"
    )
    past = Past(mix_digest, before.began.isoformat(), now.isoformat(), before.images, how)
    return replace(
        begin(policy, now),
        hours=before.hours,
        alarm=before.alarm,
        past=(*before.past, past)[-PAST_KEPT:],
    )


def with_traffic(
    hours: Mapping[str, int], since: datetime, until: datetime, images: int
) -> dict[str, int]:
    """Return the images by hour with those of a window, spread evenly over its hours."""
    counted = dict(hours)
    oldest = until - timedelta(hours=HOURS_KEPT)
    start = max(since, oldest)
    whole = (until - start).total_seconds()
    left, at = images, start
    while at < until:
        end = min(until, _next_hour(at))
        share = round(images * (end - at).total_seconds() / whole) if end < until else left
        counted[hour_name(at)] = counted.get(hour_name(at), 0) + min(left, share)
        left, at = left - min(left, share), end
    return {hour: n for hour, n in counted.items() if hour > hour_name(oldest)}


def _next_hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


def hour_name(at: datetime) -> str:
    """Return the hour of a moment as a name that sorts by time."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H")
