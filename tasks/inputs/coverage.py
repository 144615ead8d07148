"""How well a sample stands for its log. Pure functions; the result is JSON for the report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.check_rules import LEAST_GROUP
from tasks.inputs.sample import LogSample, Stratum
from tasks.records import Case


def log_coverage(sample: LogSample) -> dict[str, Any]:
    """Return the coverage of a log by its sample.

    ``strata_seen`` and ``strata_covered`` count strata of the finest level, and
    ``rows_in_covered_strata`` is the share of the log's rows in those with a case of their own.
    The others are stood for by cases of the joined strata, see :mod:`tasks.inputs.sample`.
    """
    rows = sum(sample.rows.values())
    covered = [stratum for stratum, n in sample.drawn.items() if n]
    return {
        "rows": rows,
        "cases": len(sample.cases),
        "strata_seen": len(sample.rows),
        "strata_covered": len(covered),
        "rows_in_covered_strata": sum(sample.rows[s] for s in covered) / rows if rows else 0.0,
        "stratified_by": list(sample.level),
        "largest_weight": max((case.weight for case in sample.cases), default=0.0),
        "rows_per_case": rows / len(sample.cases) if sample.cases else 0.0,
        "dimensions": {name: _dimension(sample, name) for name in Stratum._fields},
        "notes": list(sample.notes),
    }


def _dimension(sample: LogSample, name: str) -> dict[str, Any]:
    """Return one property's shares in log and sample, largest first, and how far they are apart."""
    log, drawn, weighted = (
        _shares(counts, name) for counts in (sample.rows, sample.drawn, sample.stands_for)
    )
    order = sorted(log, key=lambda value: (-log[value], value))
    return {
        "shares": {
            value: {
                "log": log[value],
                "sample": drawn.get(value, 0.0),
                "weighted": weighted.get(value, 0.0),
            }
            for value in order
        },
        "total_variation": total_variation(log, drawn),
        "weighted_total_variation": total_variation(log, weighted),
    }


def _shares(counts: Mapping[Stratum, float], name: str) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for stratum, count in counts.items():
        sums[getattr(stratum, name)] += count
    total = sum(sums.values())
    return {value: count / total for value, count in sums.items()} if total else {}


def total_variation(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return half the sum of the differences of two sets of shares: 0 same, 1 nothing shared."""
    return sum(abs(one.get(v, 0.0) - other.get(v, 0.0)) for v in {*one, *other}) / 2


def group_notes(cases: Iterable[Case]) -> Iterator[str]:
    """Yield which groups have too few cases in the sample to be judged, in a sentence each kind.

    Cases are drawn one by one: pictures that belong together do not stand or fall independently,
    and the proofs count on cases that do.
    """
    listed = list(cases)
    for kind, counts in (
        ("campaigns", Counter(c.campaign for c in listed if c.campaign is not None)),
        ("prompts asked for repeatedly", Counter(c.repeat_of for c in listed if c.repeat_of)),
    ):
        few = sorted(name for name, count in counts.items() if count < LEAST_GROUP)
        if few:
            named = f", e.g. {few[0]!r}" if kind == "campaigns" else ""
            yield (
                f"{len(few)} of {len(counts)} {kind} have fewer than {LEAST_GROUP} cases in the "
                f"sample{named}: whether their pictures belong together is not judged"
            )
