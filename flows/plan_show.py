"""What ``imagegate plan`` says: a table, bars, sentences, JSON."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.figures import bar, chosen, dollars, duration, odds, parts
from flows.plan_checks import Known, checks_json, checks_told, checks_words
from tasks.policy import Policy
from tasks.verdict.boundaries import HEADLINE_SHARE, Boundaries, boundaries
from tasks.verdict.planning import (
    Plan,
    Retest,
    Row,
    curve,
    expect,
    fewest_images,
    grid,
    plan_of,
    retest,
)

if TYPE_CHECKING:
    from flows.plan_flags import Costs

#: Verdict, its colour, and its filling where there is no colour.
OUTCOMES = (("PROMOTE", "green", "█"), ("HOLD", "yellow", "░"), ("ROLLBACK", "red", "▓"))
#: Widest line that is drawn, also in a wider terminal.
WIDEST = 120


@dataclass(frozen=True, slots=True)
class Asked:
    """A plan and everything that is said about it."""

    policy: Policy
    #: The file that the user named, ``None`` for the default policy.
    source: str | None
    plan: Plan
    rows: tuple[Row, ...]
    #: The row of the rate that the user expects.
    expected: Row | None
    #: The same gate with the cap of the default policy, when no cap was given.
    usual: Plan | None
    #: A second run of a build after one that was held with as many failures as expected, and
    #: after one that looked as bad as the threshold of PROMOTE.
    retests: tuple[Retest, ...]
    #: What is known of the checks, and what the gate tests against because of it.
    known: Known
    edges: Boundaries

    @property
    def rate(self) -> float:
        """The rate that sentences are about: the expected one, else half of the limit."""
        return self.policy.failure.limit / 2 if self.expected is None else self.expected.rate


def ask(
    policy: Policy,
    images: int,
    every: int | None,
    *,
    rate: float | None,
    source: str | None,
    with_usual: bool,
    known: Known,
) -> Asked:
    """Return the plan for a policy.

    Args:
        policy: Thresholds, risks, mode, shards.
        images: Cap of the run.
        every: Images between two looks; by default the policy's shards.
        rate: The true failure rate that the user expects.
        source: The policy's file as the user named it.
        with_usual: Look also at the cap of the policy.
        known: What is known of the checks.
    """
    plan = _plan(policy, images, every, known)
    usual = _plan(policy, policy.sampling.cases, every, known) if with_usual else None
    rule = policy.failure
    rows = tuple(expect(plan, r) for r in grid(rule.limit, rule.promote_below, rate))
    return Asked(
        policy=policy,
        source=source,
        plan=plan,
        rows=rows,
        expected=next((row for row in rows if row.rate == rate), None),
        usual=usual,
        retests=_retests(
            policy, usual or plan, plan, rule.limit / 2 if rate is None else rate, known
        ),
        known=known,
        # Slices and guards change nothing of what is said.
        edges=boundaries(policy, (), 0, checks=known.checks, alarms=known.alarms),
    )


def _retests(
    policy: Policy, held: Plan, plan: Plan, rate: float, known: Known
) -> tuple[Retest, ...]:
    flagged = (held.sees.flagged(r) for r in (rate, policy.failure.promote_below))
    counts = {round(share * held.images) for share in flagged}
    found = (
        retest(policy, held, plan, count, rate, checks=known.checks, alarms=known.alarms)
        for count in sorted(counts)
    )
    return tuple(dict.fromkeys(found))


def _plan(policy: Policy, images: int, every: int | None, known: Known) -> Plan:
    step = min(every or policy.sampling.shard_size, images)
    return plan_of(policy, images, step, checks=known.checks, alarms=known.alarms)


def show(asked: Asked, costs: Costs) -> None:
    """Print the plan on stdout."""
    out = Console(highlight=False)
    width = min(out.width, WIDEST)
    for line in _head(asked):
        tell(out, line, width, mark="")
    out.print()
    out.print(_table(asked, costs, wide=width >= 100))
    out.print()
    for drawn in _chart(asked, width):
        out.print(drawn, no_wrap=True, crop=True)
    out.print()
    for sentence in sentences(asked, costs):
        tell(out, sentence, width)


def tell(out: Console, sentence: str, width: int, mark: str = "• ") -> None:
    """Print a sentence: with hanging lines on a terminal, in one line elsewhere."""
    lines = textwrap.wrap(sentence, width - len(mark)) if out.is_terminal else [sentence]
    out.print(Text(mark + ("\n" + " " * len(mark)).join(lines)), soft_wrap=True)


def look_words(every: int) -> str:
    """Return how often a gate looks, e.g. ``a look every 40 images``."""
    return "a look after every image" if every == 1 else f"a look every {every:,} images"


def _head(asked: Asked) -> list[str]:
    rule, plan = asked.policy.failure, asked.plan
    half = chosen(rule.alpha * HEADLINE_SHARE)
    name = "the default policy" if asked.source is None else asked.source
    return [
        f"ROLLBACK when shown to fail more than {chosen(rule.limit)}, PROMOTE when shown to fail "
        f"less than {chosen(rule.promote_below)}, HOLD after {plan.images:,} images.",
        f"Risk of a wrong ROLLBACK {chosen(rule.alpha)} ({half} of it for the failure rate, the "
        f"rest for slices and guards), of a wrong PROMOTE {chosen(rule.beta)}; mode {rule.mode}; "
        f"{look_words(plan.every)}. What no flag says is from {name}.",
    ]


def _table(asked: Asked, costs: Costs, *, wide: bool) -> Table:
    table = Table(box=None, padding=(0, 3 if wide else 1, 0, 0), pad_edge=False)
    both = costs.price_baseline > 0
    heads = ["true\nrate", "images\non average", "9 in 10\nend by", "cost,\ncandidate"]
    heads += ["with\nbaseline"] if both else []
    heads += ["time", "PROMOTE", "HOLD", "ROLLBACK"]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True, vertical="bottom")
    for row in asked.rows:
        cells = [
            _mark(asked, row) + chosen(row.rate),
            f"{row.images:,.0f}",
            f"{row.p90:,}",
            dollars(costs.candidate(row.images)),
            *([dollars(costs.both(row.images))] if both else []),
            duration(costs.time(row.images)),
            odds(row.promote),
            odds(row.hold),
            odds(row.rollback),
        ]
        table.add_row(*cells, style="bold" if row is asked.expected else None)
    return table


def _mark(asked: Asked, row: Row) -> str:
    return "> " if row is asked.expected else ""


def _chart(asked: Asked, width: int) -> list[Text]:
    """Return bars: the images of each rate, and how its gates end."""
    label = max(len(chosen(row.rate)) for row in asked.rows) + 2
    figure = len(f"{asked.plan.images:,}")
    room = width - label - figure - 6
    left = min(44, room // 2)
    right = min(44, room - left)
    top = max(row.images for row in asked.rows)
    legend = Text(" " * (label + 2))
    legend.append(f"{'images on average':<{left + figure + 3}}")
    for name, colour, filling in OUTCOMES:
        legend.append(filling, style=colour)
        legend.append(f" {name}  ")
    lines = [legend]
    for row in asked.rows:
        name = f"{_mark(asked, row)}{chosen(row.rate)}"
        line = Text(f"{name:>{label}}  ", style="bold" if row is asked.expected else "")
        images = f"{bar(row.images, top, left)} {row.images:,.0f}"
        line.append(f"{images:<{left + figure + 3}}")
        line.append(outcome_bar((row.promote, row.hold, row.rollback), right))
        lines.append(line)
    return lines


def outcome_bar(shares: tuple[float, float, float], width: int) -> Text:
    """Return the shares of PROMOTE, HOLD and ROLLBACK as one bar, told apart without colour too."""
    line = Text()
    for count, (_, colour, filling) in zip(parts(shares, width), OUTCOMES, strict=True):
        line.append(filling * count, style=colour)
    return line


def sentences(asked: Asked, costs: Costs) -> list[str]:
    """Return what a reader should take along."""
    found = []
    if asked.expected is not None:
        found.append(expectation(asked.expected, costs))
    limit = asked.policy.failure.limit
    at_limit = next(row.rollback for row in asked.rows if row.rate == limit)
    found += checks_told(asked.policy, asked.edges, asked.known, asked.rate, at_limit)
    if asked.usual is not None:
        found.append(_usual(asked, asked.usual, costs))
    promote, rollback = fewest_images(asked.plan)
    found.append(
        "Fewest images: "
        + (
            f"no PROMOTE within {asked.plan.images:,} images, not even without a failure"
            if promote is None
            else f"{promote:,} without a failure for PROMOTE"
        )
        + ", "
        + (
            "no ROLLBACK at all"
            if rollback is None
            else f"{rollback:,} for ROLLBACK (a gate looks when a shard ends)"
        )
        + "."
    )
    found.append(_retest(asked, costs))
    found.append(_counted(costs))
    return found


def _counted(costs: Costs) -> str:
    baseline = (
        "the baseline's images are cached and cost nothing"
        if costs.price_baseline == 0
        else f"with baseline: the same cases once more at {price_words(costs.price_baseline)}, "
        "unless its images are cached (--price-baseline 0)"
    )
    return (
        f"Counted: {price_words(costs.price)} for each image of the candidate; {baseline}; "
        f"{costs.seconds:.3g} s a case (--per-minute). Not counted: retries, extra cases of slices "
        "that look bad, shards in flight."
    )


def expectation(row: Row, costs: Costs) -> str:
    """Return the answer for one true rate as a sentence."""
    ends = [
        f"{odds(share)} {verb}"
        for share, verb in (
            (row.promote, "promoted"),
            (row.rollback, "rolled back"),
            (row.hold, "held"),
        )
        if share >= 0.0005
    ]
    both = f" ({dollars(costs.both(row.images))} with the baseline)" if costs.price_baseline else ""
    return (
        f"At a true failure rate of {chosen(row.rate)} expect {row.images:,.0f} images, "
        f"{dollars(costs.candidate(row.images))}{both} and {duration(costs.time(row.images))}; "
        f"{', '.join(ends)}. 9 in 10 such gates end by {row.p90:,} images."
    )


def _usual(asked: Asked, usual: Plan, costs: Costs) -> str:
    rate = asked.rate
    row = expect(usual, rate)
    return (
        f"imagegate run stops at the {usual.images:,} cases of the default policy: there a build "
        f"with {chosen(rate)} failures ends as PROMOTE in {odds(row.promote)}, HOLD in "
        f"{odds(row.hold)} and ROLLBACK in {odds(row.rollback)} of the gates, after "
        f"{row.images:,.0f} images ({dollars(costs.candidate(row.images))}) on average; "
        "--cases gives it more."
    )


def _retest(asked: Asked, costs: Costs) -> str:
    beta = asked.policy.failure.beta
    said = []
    for one in asked.retests:
        seen = f"{one.held_failures:,} failures among {one.held_images:,} images"
        if one.row is None:
            said.append(f"after {seen} nothing of it is left and a second run cannot promote")
        else:
            rest = "all" if one.left >= beta else f"{100 * one.left:.2g} points"
            verb = "is" if one.left >= beta else "are"
            said.append(
                f"after {seen} {rest} of it {verb} left, and a second run takes "
                f"{one.row.images:,.0f} images ({dollars(costs.candidate(one.row.images))}) at "
                f"{chosen(one.row.rate)} failures"
            )
    return (
        f"Testing a held build again shares the {chosen(beta)} risk of a wrong PROMOTE: "
        + "; ".join(said)
        + "."
    )


def price_words(value: float) -> str:
    """Return a price with as many digits as it has."""
    return f"${value:.2f}" if round(value, 2) == value else f"${value:.6g}"


def picture(asked: Asked, costs: Costs, kind: str) -> bytes:
    """Return the drawing of the plan as ``.svg`` or ``.png``."""
    from flows.plan_plot import draw_plan

    rule, plan = asked.policy.failure, asked.plan
    return draw_plan(
        [expect(plan, rate) for rate in curve(rule.limit, rule.promote_below)],
        kind=kind,
        limit=rule.limit,
        promote_below=rule.promote_below,
        expected=asked.expected,
        cap=plan.images,
        price=costs.price,
        what=f"risk of a wrong ROLLBACK {chosen(rule.alpha)}, of a wrong PROMOTE "
        f"{chosen(rule.beta)}; mode {rule.mode}; {look_words(plan.every)}; "
        f"{checks_words(asked.edges, asked.known)}",
    )


def as_json(asked: Asked, costs: Costs) -> dict[str, Any]:
    """Return the plan as one JSON object; shares from 0 to 1, dollars, seconds."""
    rule, plan = asked.policy.failure, asked.plan
    promote, rollback = fewest_images(plan)
    return {
        "policy": asked.source,
        "limit": rule.limit,
        "promote_below": rule.promote_below,
        "alpha": rule.alpha,
        "alpha_failure_rate": rule.alpha * HEADLINE_SHARE,
        "beta": rule.beta,
        "mode": rule.mode,
        "cases": plan.images,
        "look_every": plan.every,
        "log_e_fail_at": plan.log_fail,
        "log_e_pass_at": plan.log_pass if asked.edges.promotes else None,
        "price_usd": costs.price,
        "price_baseline_usd": costs.price_baseline,
        "seconds_per_image": costs.seconds,
        "fewest_images": {"PROMOTE": promote, "ROLLBACK": rollback},
        "rates": [_row_json(row, costs) for row in asked.rows],
        "expected": None if asked.expected is None else _row_json(asked.expected, costs),
        "with_default_cap": (
            None
            if asked.usual is None or asked.expected is None
            else {"cases": asked.usual.images}
            | _row_json(expect(asked.usual, asked.expected.rate), costs)
        ),
        "retests": [
            {
                "after_images": one.held_images,
                "after_failures": one.held_failures,
                "beta_left": one.left,
                "expected": None if one.row is None else _row_json(one.row, costs),
            }
            for one in asked.retests
        ],
        "checks": checks_json(asked.policy, asked.edges, asked.known),
        "sentences": sentences(asked, costs),
    }


def _row_json(row: Row, costs: Costs) -> dict[str, Any]:
    return {
        "rate": row.rate,
        "images": row.images,
        "images_p10": row.p10,
        "images_p50": row.median,
        "images_p90": row.p90,
        "cost_usd": costs.candidate(row.images),
        "cost_with_baseline_usd": costs.both(row.images),
        "seconds": costs.time(row.images),
        "PROMOTE": row.promote,
        "ROLLBACK": row.rollback,
        "HOLD": row.hold,
    }
