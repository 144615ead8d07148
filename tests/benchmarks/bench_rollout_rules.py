"""Our rollout, Argo's and Flagger's rules on the same traffic, as tables in Markdown.

python -m tests.benchmarks.bench_rollout_rules [traces a scenario]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from tests.rollout.rivals import SCENARIOS, Row, Sum, add_up, compare

TRACES = 40


def tables(rows: Sequence[Row], sums: Sequence[Sum], traces: int) -> Iterator[str]:
    good = traces * sum(s.good for s in SCENARIOS)
    bad = traces * sum(not s.good for s in SCENARIOS)
    yield (
        f"| rule | good, of {good}: rolled back | serving | on their way | bad, of {bad}: missed "
        "| rolled back | on their way | users with a bad image, a day |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for line in sums:
        yield (
            f"| {line.rule} | **{_percent(line.good_out)}** | {_percent(line.good_serving)} "
            f"| {_percent(line.good_open)} | **{_percent(line.bad_serving)}** "
            f"| {_percent(line.bad_out)} | {_percent(line.bad_open)} | **{line.exposed:,.0f}** |"
        )
    yield ""
    yield "| candidate | rule | serving | rolled back | on its way | decided after | bad images |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        states = [r.state for r in row.results]
        shares = (states.count(s) / len(states) for s in ("serving", "out", "open"))
        exposed = "" if row.scenario.good else f"{row.exposed:,.0f}"
        after = f"{row.minutes:,.0f} min" if row.share("open") < 0.5 else "–"
        yield (
            f"| {row.scenario.name} | {row.rule} | {' | '.join(_percent(s) for s in shares)} "
            f"| {after} | {exposed} |"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def main() -> None:
    traces = int(sys.argv[1]) if len(sys.argv) > 1 else TRACES
    rows = compare(SCENARIOS, range(traces))
    for line in tables(rows, add_up(rows), traces):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
