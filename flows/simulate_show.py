"""What ``imagegate simulate`` says: shares of the verdicts, what was caught by which test, JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.figures import chosen, dollars, odds
from flows.plan_checks import Known, checks_json, checks_told, checks_words
from flows.plan_show import OUTCOMES, WIDEST, look_words, outcome_bar, price_words, tell
from tasks.verdict.planning import Row, expect, headline_plan
from tasks.verdict.simulate import HOLD, PROMOTE, ROLLBACK, Played, Rules

if TYPE_CHECKING:
    from flows.plan_flags import Costs

CODES = {"PROMOTE": PROMOTE, "HOLD": HOLD, "ROLLBACK": ROLLBACK}
#: Lines of the chart of how the runs end.
_MOST_LOOKS = 12
#: Lines of slices in the table.
_MOST_SLICES = 16


@dataclass(frozen=True)
class Said:
    """A simulation and everything that is said about it."""

    rules: Rules
    played: Played
    rate: float
    seed: int
    #: Critical slices whose share nobody gave.
    assumed: frozenset[str]
    #: The policy's file, ``None`` for the default policy.
    source: str | None
    #: What is known of the checks, as in ``rules``.
    known: Known

    def share(self, verdict: str) -> float:
        """Return the share of the runs that ended so."""
        return self.played.count(CODES[verdict]) / self.played.runs

    def interval(self, verdict: str) -> tuple[float, float]:
        """Return the exact 95 % interval of that share (Clopper and Pearson)."""
        from tasks.metrics.rates import rate

        found = rate(self.played.count(CODES[verdict]), self.played.runs)
        return found.lower, found.upper

    @cached_property
    def exact(self) -> Row | None:
        """What the failure rate alone gives, exactly; ``None`` where it has too many images."""
        from tasks.verdict.planning import MOST_IMAGES

        sampling = self.rules.policy.sampling
        if sampling.cases > MOST_IMAGES:
            return None
        every = min(sampling.shard_size, sampling.cases) if sampling.stop_early else sampling.cases
        plan = headline_plan(self.rules.edges, sampling.cases, every)
        return expect(plan, self.rules.traffic.rate)

    @property
    def mean_images(self) -> float:
        """Mean images of the candidate."""
        return float(self.played.images.mean())

    def ended(self) -> list[tuple[int, float, float]]:
        """Return, by number of images, the shares promoted and rolled back by then; rising."""
        images, verdict = self.played.images, self.played.verdict
        found = []
        for count in np.unique(images):
            by = images <= count
            found.append(
                (
                    int(count),
                    float((by & (verdict == PROMOTE)).mean()),
                    float((by & (verdict == ROLLBACK)).mean()),
                )
            )
        return found


def show(said: Said, costs: Costs) -> None:
    """Print the simulation on stdout."""
    out = Console(highlight=False)
    width = min(out.width, WIDEST)
    tell(out, _head(said), width, mark="")
    out.print()
    out.print(_verdicts(said))
    if said.rules.traffic.names:
        out.print()
        out.print(_slices(said))
    out.print()
    for drawn in _chart(said, width):
        out.print(drawn, no_wrap=True, crop=True)
    out.print()
    for sentence in sentences(said, costs):
        tell(out, sentence, width)


def _head(said: Said) -> str:
    rule, sampling = said.rules.policy.failure, said.rules.policy.sampling
    name = "the default policy" if said.source is None else said.source
    look = (
        look_words(sampling.shard_size)
        if sampling.stop_early
        else "one look at the end (stop_early is off)"
    )
    total = said.rules.traffic.rate
    whole = "" if abs(total - said.rate) < 1e-9 else f" ({chosen(total)} over all slices)"
    return (
        f"{said.played.runs:,} gates by {name} on a build that fails {chosen(said.rate)}{whole}: "
        f"ROLLBACK above {chosen(rule.limit)}, PROMOTE below {chosen(rule.promote_below)}, "
        f"HOLD after {sampling.cases:,} cases; mode {rule.mode}; {look}."
    )


def _verdicts(said: Said) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column("verdict")
    table.add_column("share of the gates", justify="right")
    table.add_column("95 % interval", justify="right")
    exact = said.exact
    if exact is not None:
        table.add_column("failure rate alone, exactly", justify="right")
    for name, colour, _ in OUTCOMES:
        low, high = said.interval(name)
        cells: list[str | Text] = [
            Text(name, style=colour),
            odds(said.share(name)),
            f"{odds(low)} to {odds(high)}",
        ]
        if exact is not None:
            cells.append(odds(getattr(exact, name.lower())))
        table.add_row(*cells)
    return table


def _slices(said: Said) -> Table:
    rules, made_of = said.rules, said.rules.traffic
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column("test", overflow="fold")
    for head in ("of the cases", "fail", "limit", "proved ROLLBACK"):
        table.add_column(head, justify="right", no_wrap=True)
    headline = float(said.played.headline_failed.mean())
    table.add_row(
        "failure rate",
        "100 %",
        chosen(made_of.rate),
        chosen(rules.policy.failure.limit),
        odds(headline),
    )
    lines = sorted(_alike(said), key=lambda line: -line[1])
    for group, proved in lines[:_MOST_SLICES]:
        number = group[0]
        name = made_of.names[number]
        if len(group) > 1:
            name = f"any of {len(group)}: {name} …"
        judged = number in rules.judged
        against = chosen(rules.policy.slices.limit) if judged else "not judged"
        table.add_row(
            Text(name),
            chosen(made_of.slice_share(number)) + ("*" if name in said.assumed else ""),
            chosen(made_of.slice_rate(number)),
            against + (", critical" if number in rules.critical else ""),
            odds(proved) if judged else "–",
        )
    if len(lines) > _MOST_SLICES:
        table.add_row(f"… and {len(lines) - _MOST_SLICES} more; --json lists all")
    return table


def _alike(said: Said) -> list[tuple[list[int], float]]:
    """Return the slices, those that only their names tell apart together, with their rollbacks."""
    made_of, critical = said.rules.traffic, said.rules.critical
    groups: dict[tuple[object, ...], list[int]] = {}
    for number in range(len(made_of.names)):
        share, rate = made_of.slice_share(number), made_of.slice_rate(number)
        own = number if number in critical else -1
        groups.setdefault((round(share, 9), round(rate, 9), own), []).append(number)
    whole = [group for group in groups.values() if len(group) > 3]
    alone = [[number] for group in groups.values() if len(group) <= 3 for number in group]
    return [
        (group, float(said.played.slice_failed[:, group].any(axis=1).mean()))
        for group in (*alone, *whole)
    ]


def _chart(said: Said, width: int) -> list[Text]:
    """Return how many gates have ended by each number of images, as bars."""
    ended = said.ended()
    step = -(-len(ended) // _MOST_LOOKS)
    chosen_looks = ended[::-1][::step][::-1]
    label = max(len(f"{chosen_looks[-1][0]:,}"), len("images"))
    room = min(60, width - label - 2)
    legend = Text(f"{'images':>{label}}  ended by then:  ")
    for (name, colour, filling), word in zip(OUTCOMES, ("", "not yet", ""), strict=True):
        legend.append(filling, style=colour)
        legend.append(f" {word or name}  ")
    lines = [legend]
    for count, promote, rollback in chosen_looks:
        line = Text(f"{count:>{label},}  ")
        line.append(outcome_bar((promote, max(0.0, 1 - promote - rollback), rollback), room))
        lines.append(line)
    return lines


def sentences(said: Said, costs: Costs) -> list[str]:
    """Return what a reader should take along."""
    low, middle, high = said.played.quantiles()
    mean = said.mean_images
    both = f" ({dollars(costs.both(mean))} with the baseline)" if costs.price_baseline else ""
    found = [
        f"Images: 1 in 10 gates ends by {low:,}, half by {middle:,}, 9 in 10 by {high:,}; "
        f"{mean:,.0f} on average, {dollars(costs.candidate(mean))}{both} at "
        f"{price_words(costs.price)} an image."
    ]
    extra = float(said.played.extra.mean())
    if extra >= 0.5:
        found.append(
            f"{extra:,.0f} of them on average are extra cases of slices that looked bad "
            f"(at most {said.rules.reserve:,} a run); they count for their slice only."
        )
    found += [*_caught(said), *_notes(said, costs)]
    rules = said.rules
    found += checks_told(rules.policy, rules.edges, said.known, rules.traffic.rate)
    found.append(
        "Assumed: every image is delivered and judged, every other limit holds; not simulated: "
        "the pairs with the baseline, cost and latency limits, shards in flight. Seed "
        f"{said.seed}."
    )
    return found


def _caught(said: Said) -> Iterable[str]:
    """Say which tests proved the rollbacks."""
    total = said.played.count(ROLLBACK)
    if not total or not said.rules.judged:
        return
    names = ("failure rate", *said.rules.traffic.names)
    proved = (said.played.headline_failed.sum(), *said.played.slice_failed.sum(axis=0))
    order = sorted(range(len(names)), key=lambda n: -int(proved[n]))
    told = ", ".join(f"{names[n]} {odds(proved[n] / total)}" for n in order[:4] if proved[n])
    yield f"Of the {total:,} rollbacks were proved by: {told} (more than one can prove it)."


def _notes(said: Said, costs: Costs) -> Iterable[str]:
    rules = said.rules
    if said.assumed:
        names = ", ".join(sorted(said.assumed))
        yield (
            f"* The policy calls {names} critical: PROMOTE needs a proof of its own that it fails "
            f"less than {chosen(rules.policy.slices.critical_below)}. Its share of the cases is a "
            f"guess; give it with --slices, e.g. --slices '{min(said.assumed)}@50%'."
        )
    if rules.uncovered:
        yield (
            f"No case is in the critical slice {', '.join(rules.uncovered)}: such a gate never "
            "promotes."
        )
    if rules.policy.paired.required:
        yield "The policy also asks for the paired proof, so fewer gates promote than shown."
    cap, dear = rules.policy.budget.run_usd, costs.both(rules.policy.sampling.cases)
    if dear > cap:
        yield (
            f"All {rules.policy.sampling.cases:,} cases cost {dollars(dear)} with the baseline, "
            f"and the policy's cap is {dollars(cap)}: a run that goes on so long is held by it."
        )


def picture(said: Said, costs: Costs, kind: str) -> bytes:
    """Return the drawing of how the gates end as ``.svg`` or ``.png``."""
    from flows.plan_plot import draw_ended

    mean = said.mean_images
    return draw_ended(
        said.ended(),
        kind=kind,
        cap=said.rules.policy.sampling.cases,
        title=f"imagegate simulate: {said.played.runs:,} gates on a build that fails "
        f"{chosen(said.rules.traffic.rate)}",
        what=f"PROMOTE {odds(said.share('PROMOTE'))}, HOLD {odds(said.share('HOLD'))}, ROLLBACK "
        f"{odds(said.share('ROLLBACK'))}; {mean:,.0f} images on average, "
        f"{dollars(costs.candidate(mean))} of the candidate; "
        f"{checks_words(said.rules.edges, said.known)}",
    )


def as_json(said: Said, costs: Costs) -> dict[str, Any]:
    """Return the simulation as one JSON object; shares from 0 to 1, dollars."""
    rules, played, made_of = said.rules, said.played, said.rules.traffic
    low, middle, high = played.quantiles()
    exact = said.exact
    return {
        "policy": said.source,
        "runs": played.runs,
        "seed": said.seed,
        "rate": said.rate,
        "rate_over_all": made_of.rate,
        "cases": rules.policy.sampling.cases,
        "look_every": rules.policy.sampling.shard_size,
        "mode": rules.policy.failure.mode,
        "verdicts": {
            name: {
                "share": said.share(name),
                "lower": said.interval(name)[0],
                "upper": said.interval(name)[1],
                "failure_rate_alone": None if exact is None else getattr(exact, name.lower()),
            }
            for name in ("PROMOTE", "ROLLBACK", "HOLD")
        },
        "images": {
            "mean": said.mean_images,
            "p10": low,
            "p50": middle,
            "p90": high,
            "extra_mean": float(played.extra.mean()),
            "failure_rate_alone_mean": None if exact is None else exact.images,
        },
        "cost_usd": costs.candidate(said.mean_images),
        "cost_with_baseline_usd": costs.both(said.mean_images),
        "rollbacks_by_failure_rate": float(played.headline_failed.mean()),
        "slices": [
            {
                "name": name,
                "share": made_of.slice_share(number),
                "share_assumed": name in said.assumed,
                "rate": made_of.slice_rate(number),
                "judged": number in rules.judged,
                "critical": number in rules.critical,
                "rollbacks": float(played.slice_failed[:, number].mean()),
            }
            for number, name in enumerate(made_of.names)
        ],
        "checks": checks_json(rules.policy, rules.edges, said.known),
        "sentences": sentences(said, costs),
    }
