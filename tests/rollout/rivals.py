"""Rules of rollout on the same traffic: ours, and those of Argo Rollouts and Flagger.

Argo's and Flagger's are written from their documentation and, where that is silent, from their
source:

- Argo Rollouts, docs/features/analysis.md (background analysis) and analysis/analysis.go: a metric
  is measured every ``interval``; measurements that do not meet ``successCondition`` are counted,
  and more than ``failureLimit`` of them abort the rollout; so do more than
  ``consecutiveErrorLimit`` (default 4) errors of the query in a row. No request in the window
  gives 0/0, which is NaN and no success; no series at all is an error. When the steps are through,
  the analysis is stopped and the rollout is a success.
- Flagger, docs/gitbook/usage/how-it-works.md and pkg/controller/scheduler.go: every ``interval``
  the metrics are checked; a value outside ``thresholdRange``, no value, and a failed query are each
  one failed check more, and the weight stays; ``threshold`` failed checks in all roll back. A
  passed check adds ``stepWeight`` until ``maxWeight``, then promotes.

Both get our limit (98 % success) in place of the 95 % and 99 % of the examples; the other figures
are those of the examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.canary_rules import CanaryRule
from tasks.rollout.canary.decide import decide
from tasks.rollout.canary.progress import CanaryPlan, Progress, failed_look, fold
from tasks.rollout.outcomes.base import ArmOutcomes, Outcomes
from tasks.rollout.watch.detector import Detector
from tasks.watch_rules import WatchRule

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
End = Literal["promoted", "rolled_back", "open"]

LIMIT = 0.02
BASELINE = 0.012
#: Minutes of a trace: one day.
DAY = 24 * 60
START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
CANDIDATE, SERVING = "sha256:" + "c" * 64, "sha256:" + "b" * 64


@dataclass(frozen=True)
class Scenario:
    """A candidate and its traffic.

    Attributes:
        name: Its name in the table.
        good: Whether it is within the limit.
        rate: Its failure rate by (share of the traffic, minute).
        per_minute: Requests a minute, averaged over the day.
        blind: Minutes in which queries for metrics fail, first and last.
    """

    name: str
    good: bool
    rate: Callable[[float, Ints], NDArray[np.float64]]
    per_minute: float
    blind: tuple[int, int] | None = None


def steady(rate: float) -> Callable[[float, Ints], NDArray[np.float64]]:
    return lambda _share, minutes: np.full(minutes.size, rate)


def under_load(rate: float, share: float) -> Callable[[float, Ints], NDArray[np.float64]]:
    """Good below a share of the traffic."""
    return lambda at, minutes: np.full(minutes.size, rate if at >= share else 0.01)


def later(rate: float, minute: int) -> Callable[[float, Ints], NDArray[np.float64]]:
    """Good until a minute of the day."""
    return lambda _share, minutes: np.where(minutes >= minute, rate, 0.01)


SCENARIOS = (
    Scenario("1.0 %, busy", True, steady(0.010), 300),
    Scenario("1.5 %, busy", True, steady(0.015), 300),
    Scenario("1.0 %, quiet", True, steady(0.010), 6),
    Scenario("1.0 %, metrics down half an hour", True, steady(0.010), 300, blind=(3, 32)),
    Scenario("3 %, busy", False, steady(0.03), 300),
    Scenario("5 %, busy", False, steady(0.05), 300),
    Scenario("5 %, quiet", False, steady(0.05), 6),
    Scenario("12 % from the 5 % step", False, under_load(0.12, 0.05), 300),
    Scenario("8 % after 12 hours", False, later(0.08, 12 * 60), 300),
)


class Trace:
    """One day's requests: where each falls by its sticky key, and whether it fails.

    Every rule sees the same requests; a request that two rules send to the candidate has the same
    fate under both.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        rng = np.random.default_rng(seed)
        minutes = np.arange(DAY)
        # Nights have a fifth of the day's traffic.
        curve = 1 + 2 / 3 * np.sin(2 * np.pi * (minutes - 60) / DAY + 0.2)
        self.requests: Ints = rng.poisson(scenario.per_minute * curve).astype(np.int64)
        self._minute: Ints = np.repeat(minutes, self.requests)
        self._key = rng.random(self._minute.size)
        self._luck = rng.random(self._minute.size)
        self._scenario = scenario
        self._counted: dict[float, tuple[Ints, Ints, Ints, Ints]] = {}
        self.blind: Bools = np.zeros(DAY, dtype=bool)
        if scenario.blind is not None:
            self.blind[scenario.blind[0] : scenario.blind[1] + 1] = True

    def counted(self, share: float) -> tuple[Ints, Ints, Ints, Ints]:
        """Return, by minute: candidate's requests and failures, and the baseline's."""
        if share not in self._counted:
            to_candidate = self._key < share
            bad = self._luck < self._scenario.rate(share, self._minute)
            bad_baseline = self._luck < BASELINE

            def by_minute(which: Bools) -> Ints:
                return np.bincount(self._minute[which], minlength=DAY).astype(np.int64)

            self._counted[share] = (
                by_minute(to_candidate),
                by_minute(to_candidate & bad),
                by_minute(~to_candidate),
                by_minute(~to_candidate & bad_baseline),
            )
        return self._counted[share]

    def window(self, shares: list[float], minutes: int) -> tuple[int, int]:
        """Return the candidate's requests and failures of the last minutes, as they were served."""
        last = len(shares)
        n = f = 0
        for minute in range(max(0, last - minutes), last):
            counts = self.counted(shares[minute])
            n, f = n + int(counts[0][minute]), f + int(counts[1][minute])
        return n, f


class Rule(Protocol):
    """Decides after each minute which share the candidate has in the next one."""

    name: str

    def start(self) -> float: ...

    def next(self, trace: Trace, shares: list[float]) -> float | End: ...


@dataclass
class Result:
    """What a rule did on one trace."""

    end: End
    #: Minutes until it was promoted or rolled back; the whole day when neither.
    minutes: int
    #: Failed images that the candidate gave to users until the end of the day.
    exposed: int
    #: Whether it was promoted, and then taken out again by the watch.
    caught_later: bool = False

    @property
    def state(self) -> str:
        """Where the candidate is at the end of the day: ``serving``, ``out`` or ``open``."""
        if self.end == "open":
            return "open"
        return "serving" if self.end == "promoted" and not self.caught_later else "out"


def play(rule: Rule, trace: Trace) -> Result:
    """Return what a rule does with a trace."""
    shares = [rule.start()]
    while len(shares) <= DAY:
        said = rule.next(trace, shares)
        if said == "rolled_back":
            return Result("rolled_back", len(shares), _exposed(trace, shares))
        if said == "promoted":
            found = _watched(trace, len(shares)) if isinstance(rule, Ours) else DAY
            shares_then = shares + [1.0] * (found - len(shares))
            exposed = _exposed(trace, shares_then)
            return Result("promoted", len(shares), exposed, caught_later=found < DAY)
        assert isinstance(said, float)
        shares.append(said)
    return Result("open", DAY, _exposed(trace, shares[:DAY]))


def _exposed(trace: Trace, shares: list[float]) -> int:
    return sum(int(trace.counted(share)[1][minute]) for minute, share in enumerate(shares))


def _watched(trace: Trace, since: int) -> int:
    """Return the minute in which our watch takes the promoted candidate out; the day's end else."""
    images, failures, _, _ = trace.counted(1.0)
    # The share of the promise that failures have, as the watch has it.
    detector = Detector(LIMIT, WatchRule().false_alarm_images / 0.5)
    for minute in range(since, DAY):
        detector = detector.seen(int(images[minute]), int(failures[minute]))
        if detector.alarm:
            return minute + 1
    return DAY


@dataclass
class Argo:
    """Background analysis beside timed steps."""

    name: str = "Argo Rollouts"
    steps: tuple[float, ...] = (0.01, 0.05, 0.25, 0.50)
    pause: int = 10
    interval: int = 5
    failure_limit: int = 3
    consecutive_error_limit: int = 4
    failed: int = 0
    errors: int = 0
    seen_any: bool = False

    def start(self) -> float:
        return self.steps[0]

    def next(self, trace: Trace, shares: list[float]) -> float | End:
        minute = len(shares)
        if minute % self.interval == 0:
            self._measure(trace, shares)
            if self.failed > self.failure_limit or self.errors > self.consecutive_error_limit:
                return "rolled_back"
        step = minute // self.pause
        return "promoted" if step >= len(self.steps) else self.steps[step]

    def _measure(self, trace: Trace, shares: list[float]) -> None:
        n, f = trace.window(shares, self.interval)
        self.seen_any |= n > 0
        if trace.blind[len(shares) - 1] or not self.seen_any:
            self.errors += 1
            return
        self.errors = 0
        success = 1 - f / n if n else math.nan
        if not success >= 1 - LIMIT:
            self.failed += 1


@dataclass
class Flagger:
    """A check each minute; a passed one adds weight."""

    name: str = "Flagger"
    step_weight: float = 0.05
    max_weight: float = 0.50
    threshold: int = 10
    interval: int = 1
    failed: int = 0
    weight: float = 0.05

    def start(self) -> float:
        return self.weight

    def next(self, trace: Trace, shares: list[float]) -> float | End:
        if len(shares) % self.interval:
            return self.weight
        # The scheduler looks at the count before it runs the checks again.
        if self.failed >= self.threshold:
            return "rolled_back"
        n, f = trace.window(shares, self.interval)
        if trace.blind[len(shares) - 1] or n == 0 or 1 - f / n < 1 - LIMIT:
            self.failed += 1
        elif self.weight >= self.max_weight:
            return "promoted"
        else:
            self.weight = round(self.weight + self.step_weight, 6)
        return self.weight


@dataclass
class Ours:
    """The canary's own decision on the outcomes of the last minutes, then the watch."""

    name: str = "imagegate"
    rule: CanaryRule = field(default_factory=CanaryRule)
    every: int = 1
    step: int = 0
    step_started_at: datetime = START
    progress: Progress = field(default_factory=lambda: Progress(counted_until=START.isoformat()))

    def __post_init__(self) -> None:
        self.plan = CanaryPlan(
            canary_id="c",
            product="shop",
            candidate_digest=CANDIDATE,
            candidate_name="candidate",
            baseline_digest=SERVING,
            baseline_name="baseline",
            rule=self.rule,
            policy_digest="p",
            without_gate="comparison",
            journal_id=0,
        )

    def start(self) -> float:
        return self.rule.steps[0].weight

    def next(self, trace: Trace, shares: list[float]) -> float | End:
        now = START + timedelta(minutes=len(shares))
        if len(shares) % self.every == 0:
            self._look(trace, shares, now)
            said = decide(self.plan, self.progress, self.step, self.step_started_at)
            if said.act == "roll_back":
                return "rolled_back"
            if said.act == "advance":
                self.step, self.step_started_at = self.step + 1, now
                if self.step == len(self.rule.steps):
                    return "promoted"
        return self.rule.steps[self.step].weight

    def _look(self, trace: Trace, shares: list[float], now: datetime) -> None:
        if trace.blind[len(shares) - 1]:
            self.progress = failed_look(self.progress, "connection refused")
            return
        since = datetime.fromisoformat(self.progress.counted_until)
        arms = {CANDIDATE: ArmOutcomes(), SERVING: ArmOutcomes()}
        for minute in range(round((since - START).total_seconds() / 60), len(shares)):
            n, f, n_b, f_b = (int(x[minute]) for x in trace.counted(shares[minute]))
            arms[CANDIDATE] += ArmOutcomes(n, f)
            arms[SERVING] += ArmOutcomes(n_b, f_b)
        self.progress = fold(self.plan, self.progress, self.step, Outcomes(since, now, arms))


#: Each rule as a fresh one for each trace: as in the examples, and slower.
RULES: tuple[Callable[[Scenario], Rule], ...] = (
    # By default it looks every 15 s; where little comes, fewer looks give the same.
    lambda scenario: Ours(every=1 if scenario.per_minute >= 60 else 5),
    lambda _: Argo(),
    lambda _: Argo("Argo, pauses of 1 h", pause=60),
    lambda _: Flagger(),
    lambda _: Flagger("Flagger, every 10 min", interval=10),
)


@dataclass
class Row:
    """What a rule did on all traces of a scenario."""

    rule: str
    scenario: Scenario
    results: list[Result]

    def share(self, end: End) -> float:
        return sum(r.end == end for r in self.results) / len(self.results)

    @property
    def exposed(self) -> float:
        return float(np.mean([r.exposed for r in self.results]))

    @property
    def minutes(self) -> float:
        return float(np.median([r.minutes for r in self.results]))


def compare(scenarios: Sequence[Scenario], seeds: range) -> list[Row]:
    """Return one row a scenario and rule; every rule sees the same traces."""
    rows: dict[tuple[str, str], Row] = {}
    for scenario in scenarios:
        for seed in seeds:
            trace = Trace(scenario, seed)
            for make in RULES:
                rule = make(scenario)
                row = rows.setdefault((scenario.name, rule.name), Row(rule.name, scenario, []))
                row.results.append(play(rule, trace))
    return list(rows.values())


@dataclass(frozen=True)
class Sum:
    """A rule over all scenarios, each trace weighing the same."""

    rule: str
    #: Of good candidates: serving at the end of the day, taken out (false), and still on their way.
    good_serving: float
    good_out: float
    good_open: float
    #: Of bad ones: still serving everybody at the end of the day (missed), out, on their way.
    bad_serving: float
    bad_out: float
    bad_open: float
    #: Users who got a failed image from a bad candidate, a day.
    exposed: float


def add_up(rows: Sequence[Row]) -> list[Sum]:
    """Return one line a rule."""
    found = []
    for rule in dict.fromkeys(row.rule for row in rows):
        mine = [row for row in rows if row.rule == rule]
        good = [r for row in mine if row.scenario.good for r in row.results]
        bad = [r for row in mine if not row.scenario.good for r in row.results]
        found.append(
            Sum(
                rule,
                *(_share(good, state) for state in ("serving", "out", "open")),
                *(_share(bad, state) for state in ("serving", "out", "open")),
                float(np.mean([r.exposed for r in bad])) if bad else 0.0,
            )
        )
    return found


def _share(results: Sequence[Result], state: str) -> float:
    return sum(r.state == state for r in results) / len(results) if results else 0.0
