"""``imagegate plan`` and ``imagegate simulate``: what a gate will need, before the first image.

Neither spends, runs a check, reads the state database or starts Prefect.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_io import Json, emit, say
from flows.figures import parse_share
from flows.plan_flags import (
    assumed_critical,
    bar_of,
    costs_of,
    picture_kind,
    read_policy,
    read_slices,
    spinner,
)
from tasks.errors import ConfigError

if TYPE_CHECKING:
    from flows.plan_checks import Known

#: Cap of a plan for which neither a policy nor a number of cases was given.
OPEN_CAP = 5_000

PolicyFile = Annotated[
    str | None,
    typer.Option(
        help="Take limits, risks, cases and shards from this policy; flags overrule it. "
        "Default: the policy of imagegate run.",
        metavar="FILE",
    ),
]
Price = Annotated[
    float, typer.Option(metavar="USD", help="Dollars for one image of the candidate.")
]
PriceBaseline = Annotated[
    float | None,
    typer.Option(
        "--price-baseline",
        metavar="USD",
        help="Dollars for the baseline's image of the same case; default: as --price. "
        "0 when its images are in the cache from an earlier run.",
    ),
]
PerfectChecks = Annotated[
    bool,
    typer.Option(
        "--perfect-checks",
        help="Reckon as if no check missed a defect or accused a good picture; default: with the "
        "record of planted defects that a gate here would use.",
    ),
]
Plot = Annotated[
    Path | None, typer.Option(help="Also draw the picture: name.svg or name.png.", metavar="FILE")
]


def plan(
    limit: Annotated[
        str | None,
        typer.Option(help="ROLLBACK when the failure rate is above, e.g. 2%.", metavar="PERCENT"),
    ] = None,
    promote_below: Annotated[
        str | None,
        typer.Option(help="PROMOTE when it is shown to be below, e.g. 3%.", metavar="PERCENT"),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="True failure rate that you expect; said in a sentence.", metavar="PERCENT"
        ),
    ] = None,
    price: Price = 0.04,
    price_baseline: PriceBaseline = None,
    per_minute: Annotated[
        float | None,
        typer.Option(
            "--per-minute", metavar="X", help="Cases that the gate finishes a minute; default: 30."
        ),
    ] = None,
    seconds_per_image: Annotated[
        float | None,
        typer.Option("--seconds-per-image", metavar="X", help="The same as seconds a case."),
    ] = None,
    alpha: Annotated[
        str | None,
        typer.Option(
            help="Risk of rolling back a build that is within the limit; the failure rate uses "
            "half of it, slices and guards the other half.",
            metavar="PERCENT",
        ),
    ] = None,
    beta: Annotated[
        str | None,
        typer.Option(
            help="Risk of promoting a build at --promote-below or worse.", metavar="PERCENT"
        ),
    ] = None,
    cases: Annotated[
        int | None,
        typer.Option(
            "--cases",
            "--n-max",
            min=1,
            max=20_000,
            metavar="N",
            help="Most cases of a run; then it is HOLD. Default: those of --policy, else "
            f"{OPEN_CAP}.",
        ),
    ] = None,
    look_every: Annotated[
        int | None,
        typer.Option(
            "--look-every",
            min=1,
            metavar="N",
            help="Images between two looks; default: the policy's shard.",
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="anytime or calibrated; default: the policy's.", metavar="MODE"),
    ] = None,
    policy: PolicyFile = None,
    perfect_checks: PerfectChecks = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Say what a decision takes before the first image: images, money, time, odds of the verdicts.

    A table and bars over a range of true failure rates; exact, nothing is simulated and nothing
    spent. The checks miss and accuse as often as their record says. Images are the candidate's:
    each case is one image of the candidate and, unless it is cached, one of the baseline.
    """
    from flows import plan_show
    from tasks.verdict.planning import MOST_IMAGES

    kind = picture_kind(plot)
    costs = costs_of(price, price_baseline, per_minute, seconds_per_image)
    expected = None if rate is None else parse_share(rate, "--rate", zero=True, one=True)
    usual = read_policy(
        policy,
        limit=limit,
        promote_below=promote_below,
        alpha=alpha,
        beta=beta,
        mode=mode,
        cases=cases,
    )
    # A user who names no cap asks how many images it takes, and then what the usual cap does.
    is_open = policy is None and cases is None
    most = OPEN_CAP if is_open else usual.sampling.cases
    if most > MOST_IMAGES:
        raise ConfigError(
            f"{policy}: field 'sampling.cases': expected {MOST_IMAGES:,} at most for an exact "
            f"plan; found {most:,}; give --cases"
        )
    known = _known(perfect_checks)
    with spinner(f"computing the exact course of {most:,} images"):
        asked = plan_show.ask(
            usual,
            most,
            look_every,
            rate=expected,
            source=policy,
            with_usual=is_open,
            known=known,
        )
        picture = plan_show.picture(asked, costs, kind) if plot is not None else None
    _keep(plot, picture)
    if as_json:
        emit(plan_show.as_json(asked, costs) | {"plot": str(plot) if plot else None})
        return
    plan_show.show(asked, costs)
    if plot is not None:
        say(f"Picture: {plot}")


def simulate(
    rate: Annotated[
        str,
        typer.Option(
            help="True failure rate of the build, where --slices says nothing else.",
            metavar="PERCENT",
        ),
    ],
    slices: Annotated[
        list[str] | None,
        typer.Option(
            help="Slices with rates of their own, as 'locale=th@5%:15%' (5% of the cases, 15% of "
            "them fail), separated by commas. Without share: 10% of the cases; without rate: "
            "--rate. A number N: N equal slices.",
            metavar="SLICES",
        ),
    ] = None,
    runs: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="How many gates to simulate.")
    ] = 2_000,
    policy: PolicyFile = None,
    cases: Annotated[
        int | None,
        typer.Option(
            "--cases",
            min=1,
            max=100_000,
            metavar="N",
            help="Cases of a run; default: the policy's.",
        ),
    ] = None,
    price: Price = 0.04,
    price_baseline: PriceBaseline = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of the draws: same seed, same runs.")
    ] = 1,
    perfect_checks: PerfectChecks = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Play whole gates of a policy on a build of known quality: how often right, at what cost.

    Simulated are the looks at shard ends, the failure rate, slices with their shares of the risk,
    proofs of critical slices, extra cases of bad-looking slices, the end at the cap, and checks
    that miss defects and accuse good pictures as often as their record says.
    """
    from flows import simulate_show
    from tasks.verdict.simulate import prepare
    from tasks.verdict.simulate import simulate as play
    from tasks.verdict.traffic import traffic

    kind = picture_kind(plot)
    costs = costs_of(price, price_baseline)
    true_rate = parse_share(rate, "--rate", zero=True, one=True)
    rules = read_policy(policy, cases=cases)
    specs = read_slices(slices or [])
    assumed = assumed_critical(specs, rules)
    known = _known(perfect_checks)
    try:
        made_of = traffic(true_rate, [*specs, *assumed])
        ready = prepare(rules, made_of, known.checks, known.alarms)
    except ValueError as error:
        raise ConfigError(f"--slices: {error}") from None
    with bar_of("simulating", runs) as advance:
        played = play(ready, runs, seed, advance)
    said = simulate_show.Said(
        ready, played, true_rate, seed, frozenset(spec.name for spec in assumed), policy, known
    )
    _keep(plot, simulate_show.picture(said, costs, kind) if plot is not None else None)
    if as_json:
        emit(simulate_show.as_json(said, costs) | {"plot": str(plot) if plot else None})
        return
    simulate_show.show(said, costs)
    if plot is not None:
        say(f"Picture: {plot}")


def _known(perfect: bool) -> Known:
    """Return what is known of the checks: what a gate here would know, or nothing."""
    from flows.plan_checks import PERFECT, known_checks
    from tasks.settings import load_settings

    return PERFECT if perfect else known_checks(load_settings())


def _keep(plot: Path | None, picture: bytes | None) -> None:
    from tasks.plan import write_atomic

    if plot is not None and picture is not None:
        write_atomic(plot, picture)
