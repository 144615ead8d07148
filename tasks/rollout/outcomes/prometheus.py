"""Live outcomes from Prometheus, or anything with its HTTP API (Thanos, Mimir, VictoriaMetrics).

Counts come from raw samples of counters, not from ``increase()``, which extrapolates to the edges
of a window and misses the first increment of a new series: here windows that follow each other add
up exactly, and a failure that makes its series appear is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from tasks.rollout.outcomes.api import JsonApi
from tasks.rollout.outcomes.base import (
    LONGEST,
    ArmOutcomes,
    Clock,
    OutcomeError,
    Outcomes,
    now_utc,
)
from tasks.rollout.outcomes.config import PrometheusConfig
from tasks.rollout.outcomes.rows import mix_named

#: How far back the last value before a window is looked for.
_BASE_S: Final = 86_400
#: Seconds without any sample after which nothing is being recorded.
_STALE_S: Final = 300

Labels = frozenset[tuple[str, str]]
#: Moment in seconds and value, in order of time.
Samples = Sequence[tuple[float, float]]


def increase(base: float | None, samples: Samples) -> float:
    """Return what a counter grew by over samples, from its value before them.

    A value below the one before it is a restart from 0.

    Args:
        base: The value before the window; ``None`` when the counter began in it, from 0.
        samples: Those of the window.
    """
    total, last = 0.0, base if base is not None else 0.0
    for _, value in samples:
        total += value - last if value >= last else value
        last = value
    return total


@dataclass(slots=True)
class _Grown:
    """Growth of one metric by labels, and what was odd."""

    by_labels: dict[Labels, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    newest: float = -math.inf


class PrometheusSource:
    """Counts by counters in Prometheus.

    Args:
        config: Which metrics.
        api: The server.
        clock: Gives the moment.
    """

    def __init__(self, config: PrometheusConfig, api: JsonApi, clock: Clock = now_utc) -> None:
        self._config, self._api, self._clock = config, api, clock

    @property
    def name(self) -> str:
        """What notes call the source."""
        return self._config.name or "prometheus"

    def read(
        self, product: str, digests: Sequence[str], since: datetime, until: datetime
    ) -> Outcomes:
        """Return what the counters grew by in the window, or in its first six hours.

        Raises:
            OutcomeError: Prometheus does not answer, answers in part, knows no such metric, or
                records nothing at present.
        """
        config = self._config
        latest = self._clock() - timedelta(seconds=config.lag_s)
        end = max(since, min(until, latest, since + LONGEST))
        arms = {digest: dict[str, int]() for digest in digests}
        if not config.concerns(product) or _edge(end) <= _edge(since):
            return Outcomes(since, end, {digest: ArmOutcomes() for digest in digests})
        notes: list[str] = []
        others = 0

        def add(name: str, selector: str, scale: float = 1.0) -> None:
            nonlocal others
            grown = self._grown(selector, product, since, end, rare=name == "failures")
            notes.extend(grown.notes)
            stale = grown.newest < _edge(end) - _STALE_S
            if name == "images" and stale and not self._recent(selector, product, end):
                raise OutcomeError(
                    f"no sample of {selector!r} in the {_STALE_S} s before {end:%H:%M:%S}: nothing "
                    "is being recorded, which is not silence; look at Prometheus' targets"
                )
            sums: dict[str | None, float] = dict.fromkeys(digests, 0.0)
            for labels, value in grown.by_labels.items():
                mix = mix_named(dict(labels).get(config.mix_label, ""), digests)
                sums[mix] = sums.get(mix, 0.0) + value * scale
            for digest in digests:
                arms[digest][name] = round(sums[digest])
            if name == "images":
                others = round(sums.get(None, 0.0))

        if config.images is not None and config.failures is not None:
            add("images", config.images)
            add("failures", config.failures)
        if config.latency is not None and config.slow_above_s is not None:
            add("timed", _suffixed(config.latency, "_count"))
            add("fast", self._bucket(config.latency, config.slow_above_s, product, end))
        if config.cost is not None:
            add("cost_microusd", config.cost, 1e6 if config.cost_unit == "usd" else 1.0)
        return Outcomes(
            since,
            end,
            {digest: _arm(counts) for digest, counts in arms.items()},
            tuple(dict.fromkeys(notes)),
            others=others,
        )

    def _grown(
        self, selector: str, product: str, since: datetime, end: datetime, rare: bool = False
    ) -> _Grown:
        """Return the growth of each series of a selector.

        One for what is rare may have no series yet, as long as there is such a metric: failures
        are often a label of the counter of all requests, and there may have been none.
        """
        text = _for_product(selector, product)
        start, stop = _edge(since), _edge(end)
        span = round((stop - start) * 1_000)
        now = self._series(f"{text}[{span}ms]", stop, "matrix")
        before = self._series(f"last_over_time({text}[{_BASE_S}s])", start, "vector")
        found = _Grown()
        if not now and not before and rare and self._exists(text, stop):
            found.notes.append(f"{self.name}: {text} has no series yet, so it counts as 0")
        elif not now and not before:
            raise OutcomeError(
                f"no series of {text!r}: the metric has another name or labels, or nothing exports "
                "it; mend 'outcomes' in the rollout file"
            )
        new = [labels for labels in now if labels not in before]
        recorded = not new or self._recorded_before(start)
        if not recorded:
            found.notes.append(
                f"{self.name}: Prometheus has nothing from before this window; counters count from "
                "their first sample on"
            )
        for labels, samples in now.items():
            inside = [(at, value) for at, value in samples if start < at <= stop]
            if not inside:
                continue
            found.newest = max(found.newest, inside[-1][0])
            base = before[labels][-1][1] if labels in before else None
            if base is None and not recorded:
                base = inside[0][1]
            found.by_labels[labels] = increase(base, inside)
        return found

    def _recent(self, selector: str, product: str, end: datetime) -> bool:
        """Tell whether there is a sample shortly before a moment."""
        query = f"count(last_over_time({_for_product(selector, product)}[{_STALE_S}s]))"
        return bool(self._series(query, _edge(end), "vector"))

    def _exists(self, selector: str, moment: float) -> bool:
        """Tell whether there is a metric of that name, whatever its labels."""
        name = selector.partition("{")[0]
        return bool(self._series(f"count(last_over_time({name}[{_BASE_S}s]))", moment, "vector"))

    def _recorded_before(self, moment: float) -> bool:
        """Tell whether Prometheus recorded anything before: else nobody knows what is new."""
        return bool(self._series(f"count(last_over_time(up[{_BASE_S}s]))", moment, "vector"))

    def _bucket(self, histogram: str, limit: float, product: str, end: datetime) -> str:
        """Return the selector of the histogram's bucket up to the limit of latency.

        Raises:
            OutcomeError: It has no bucket that ends there.
        """
        buckets = _suffixed(histogram, "_bucket")
        text = _for_product(buckets, product)
        query = f"group by (le) (last_over_time({text}[{_BASE_S}s]))"
        edges = [dict(labels).get("le", "") for labels in self._series(query, _edge(end), "vector")]
        # Clients write the same edge as 2, 2.0 or 2e0.
        same = sorted({edge for edge in edges if _number(edge) == limit})
        if not same:
            there = ", ".join(sorted(edges, key=_number)) or "none"
            raise OutcomeError(
                f"{histogram!r} has no bucket that ends at {limit:g} s (there are: {there}); set "
                "slow_above_s to one of them"
            )
        wanted = "|".join(edge.replace(".", "\\\\.").replace("+", "\\\\+") for edge in same)
        return _with_matcher(buckets, f'le=~"{wanted}"')

    def _series(self, query: str, moment: float, kind: str) -> dict[Labels, Samples]:
        """Return samples by labels.

        Raises:
            OutcomeError: Prometheus refuses the query, or answers with a part of the data.
        """
        status, answer = self._api.ask(
            "/api/v1/query", form={"query": query, "time": f"{moment:.3f}"}
        )
        if not isinstance(answer, dict) or status != 200 or answer.get("status") != "success":
            said = answer.get("error") if isinstance(answer, dict) else answer
            raise OutcomeError(f"{self._api!r} answered {status}: {self._api.told(said)}")
        if answer.get("warnings"):
            raise OutcomeError(
                f"{self._api!r} warns, so its answer may be a part: "
                f"{self._api.told(answer['warnings'])}"
            )
        try:
            return _parsed(answer["data"], kind)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise OutcomeError(f"{self._api!r} answered with data of no known form") from None


class PrometheusInputs(PrometheusSource):
    """The same where a counter tells inputs apart by subtask and locale."""

    def inputs_seen(
        self, product: str, since: datetime, until: datetime
    ) -> Mapping[tuple[str, str], int]:
        """Return requests by (subtask, locale) as a counter's labels name them.

        Raises:
            OutcomeError: As :meth:`read`.
        """
        config = self._config
        latest = self._clock() - timedelta(seconds=config.lag_s)
        end = max(since, min(until, latest, since + LONGEST))
        seen: dict[tuple[str, str], float] = {}
        if config.inputs is None or _edge(end) <= _edge(since) or not config.concerns(product):
            return {}
        for labels, grew in self._grown(config.inputs, product, since, end).by_labels.items():
            named = dict(labels)
            key = (named.get(config.subtask_label, ""), named.get(config.locale_label, ""))
            seen[key] = seen.get(key, 0.0) + grew
        return {key: round(count) for key, count in seen.items() if round(count)}


def _arm(counts: Mapping[str, int]) -> ArmOutcomes:
    """Return the counts of an arm; metrics of several exporters may be a scrape apart."""
    images, timed, cost = counts.get("images", 0), counts.get("timed"), counts.get("cost_microusd")
    fast = counts.get("fast")
    return ArmOutcomes(
        images=images,
        failures=min(images, counts.get("failures", 0)),
        slow=None if timed is None or fast is None else max(0, timed - fast),
        timed=None if fast is None else timed,
        cost_microusd=cost,
        costed=None if cost is None else images,
    )


def _edge(moment: datetime) -> float:
    """Return a moment as Prometheus keeps it: whole milliseconds."""
    return math.floor(moment.timestamp() * 1_000) / 1_000


def _number(edge: str) -> float:
    try:
        return float(edge)
    except ValueError:
        return math.nan


def _for_product(selector: str, product: str) -> str:
    """Return a selector with the product's name in place of ``$product``."""
    name = product.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return selector.replace("$product", name)


def _suffixed(selector: str, suffix: str) -> str:
    name, brace, rest = selector.partition("{")
    return f"{name}{suffix}{brace}{rest}"


def _with_matcher(selector: str, matcher: str) -> str:
    name, brace, rest = selector.partition("{")
    inner = rest.removesuffix("}").strip().rstrip(",") if brace else ""
    return f"{name}{{{inner + ',' if inner else ''}{matcher}}}"


def _parsed(data: Any, kind: str) -> dict[Labels, Samples]:
    if data["resultType"] != kind:
        raise ValueError(kind)
    found: dict[Labels, Samples] = {}
    read: Callable[[Any], Any] = (
        (lambda item: item["values"]) if kind == "matrix" else (lambda item: [item["value"]])
    )
    for item in data["result"]:
        metric = item["metric"]
        labels = frozenset((str(k), str(v)) for k, v in metric.items() if k != "__name__")
        samples = [(float(at), float(value)) for at, value in read(item)]
        if any(not math.isfinite(value) or value < 0 for _, value in samples):
            raise ValueError("a counter below 0, or none")
        found[labels] = sorted(samples)
    return found
