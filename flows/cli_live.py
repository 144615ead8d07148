"""``imagegate watch`` and ``imagegate drill``: the watch over what serves, and its rehearsal."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_io import DEFAULT_PRODUCT, Json, Owner, Product, emit, err, say, whoami
from tasks.settings import Settings, load_settings

if TYPE_CHECKING:
    from flows.live_round import Round
    from tasks.policy import Policy as Rules

Policy = Annotated[str, typer.Option(help="File whose section `watch` has the limits.")]
Why = Annotated[str, typer.Option("--why", help="Why; kept with the incident.")]
_POLICY = "deployments/policies/default.yaml"
#: Exit codes by what was seen, the gravest first: a rollback, the watch's own fault, blindness.
_EXIT = (("alarm", 1), ("fault", 4), ("blind", 3))

watch = typer.Typer(
    help="Watch what serves: failures, defects, latency, cost, tickets and new inputs. What is "
    "proven to be above its limits is rolled back, verified and told; promotions are frozen until "
    "a person closes the incident. Traffic that stops is an alarm too.",
    epilog="Examples:  imagegate watch  ·  imagegate watch --once --json  ·  "
    "imagegate watch close --why 'provider mended'\n\n"
    "Exit codes with --once: 0 all is watched and good · 1 a mix is above its limits · "
    "3 blind, nobody knows · 4 the watch broke",
    invoke_without_command=True,
)


@watch.callback()
def _watch(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Look once, act, say so, stop.")] = False,
    every: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds between two looks.")
    ] = 15.0,
    product: Annotated[
        list[str] | None, typer.Option(help="Only this product; may be given again.")
    ] = None,
    policy: Policy = _POLICY,
    as_json: Json = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from flows.live_round import policy_of

    settings, rules = load_settings(), policy_of(policy)
    wanted = tuple(product or ())
    if once:
        _once(settings, wanted, rules, as_json)
    else:
        _forever(settings, wanted, rules, every, as_json)


def _once(settings: Settings, wanted: tuple[str, ...], rules: Rules, as_json: bool) -> None:
    from flows.live_round import lines, run_round

    done = run_round(settings, wanted, rules)
    if as_json:
        emit(done.to_dict())
    else:
        for line in lines(done):
            say(line)
    statuses = {seen.status for seen in done.seen}
    for status, code in _EXIT:
        if status in statuses:
            raise typer.Exit(code)


def _forever(
    settings: Settings, wanted: tuple[str, ...], rules: Rules, every: float, as_json: bool
) -> None:
    from flows.live_round import explain_limits, lines, run_rounds

    stop = threading.Event()
    before: dict[str, str] = {}

    def show(done: Round) -> None:
        if as_json:
            emit(done.to_dict())
        else:
            for line in lines(done, before):
                say(line)
        before.update({seen.product: f"{seen.status} {seen.mix_name}" for seen in done.seen})

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    err.print(f"Watching every {every:g} s, {explain_limits(rules)}; Ctrl-C stops.", markup=False)
    run_rounds(
        settings,
        wanted,
        rules,
        stop,
        every,
        on_round=show,
        on_error=lambda text: err.print(text, markup=False),
    )
    err.print("The watch ended.", markup=False)


@watch.command("status")
def status(product: Product = DEFAULT_PRODUCT, as_json: Json = False) -> None:
    """Show what the watch knows of a product, without looking."""
    from flows.live_deeds import render_watch, shown_watch

    shown = shown_watch(load_settings(), product)
    if as_json:
        emit(shown)
    else:
        say(render_watch(shown))


@watch.command("close")
def close(
    why: Why,
    cleared: Annotated[
        bool,
        typer.Option(
            "--cleared",
            help="The mix was not to blame: within the rollback window it may return without a "
            "full gate.",
        ),
    ] = False,
    product: Product = DEFAULT_PRODUCT,
    policy: Policy = _POLICY,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Close the incident of a product: promotions are possible again."""
    from flows.live_deeds import close_incident

    done = close_incident(load_settings(), product, policy, owner or whoami(), why, cleared=cleared)
    if as_json:
        emit(done)
    else:
        say(f"{product}: the incident is closed, promotions are possible again")


@watch.command("stop")
def stop(
    why: Why, product: Product = DEFAULT_PRODUCT, owner: Owner = None, as_json: Json = False
) -> None:
    """Stop watching a product, e.g. during maintenance; `restart` begins again."""
    from flows.live_deeds import stop_watch

    done = stop_watch(load_settings(), product, owner or whoami(), why)
    if as_json:
        emit(done)
    else:
        say(f"{product} is not watched any more; `imagegate watch restart` begins again")


@watch.command("restart")
def restart(
    product: Product = DEFAULT_PRODUCT, policy: Policy = _POLICY, as_json: Json = False
) -> None:
    """Begin the watch of a product anew from now on; an open incident stays open."""
    from flows.live_deeds import restart_watch

    done = restart_watch(load_settings(), product, policy)
    if as_json:
        emit(done)
    else:
        say(f"{product} is watched anew since {datetime.now(UTC):%H:%M} UTC")


@watch.command("restore")
def restore(
    mix: Annotated[str, typer.Argument(help="Digest (or its beginning) or name of the mix.")],
    why: Why,
    product: Product = DEFAULT_PRODUCT,
    policy: Policy = _POLICY,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Let a mix that served well within the rollback window return without a full gate."""
    from flows.live_deeds import restore_mix

    done = restore_mix(load_settings(), product, mix, policy, owner or whoami(), why)
    if as_json:
        emit(done)
    else:
        say(
            f"{product} serves {done['mix_name']} ({done['to_digest'][:19]}…), verified at the "
            f"router in {done['seconds']:.2f} s; {done['allowed']}"
        )


def drill(
    shadow: Annotated[
        str | None,
        typer.Option(
            help="Route of the router that no user is sent to: a whole canary and its rollbacks "
            "are rehearsed there. Default: that of the rollout file (`shadows`)."
        ),
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry", help="Change nothing at all, also no shadow route.")
    ] = False,
    product: Product = DEFAULT_PRODUCT,
    owner: Owner = None,
    as_json: Json = False,
) -> None:
    """Rehearse a rollback on production's router with no effect on users, and time it.

    Exits with 4 when a rollback would not have gone. Do it monthly; `imagegate status` shows the
    age of the last one.
    """
    from flows.rehearsal import render_drill, run_drill

    done = run_drill(load_settings(), product, owner or whoami(), shadow=shadow, dry=dry)
    if as_json:
        emit(done)
    else:
        say(render_drill(done))
    if not done["ok"]:
        raise typer.Exit(4)
